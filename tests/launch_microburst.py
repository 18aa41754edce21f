"""Starts microburst in front of the AWS endpoint it is given; prints its port, and ends when its input does.

Its names that are patched here are private to it: its version is pinned in infra/local/requirements.txt. They make it

* tell the operations of S3 apart as S3 does, and match a rule's `resource` with the whole path of an object;
* lose an answer *after* the service has done the work: a rule with `response: {set_headers: {lost: CODE}}` answers
  with the error CODE and status 500 instead, and with CODE `reset` it resets the connection;
* damage the last byte, every time, where it would draw the bytes to damage;
* keep the length of answers, which is all that HeadObject is asked for;
* refuse with a wish for another try soon, which the SDK grants: a sixth try comes at once, not after half a minute;
* start at once: to know hosts of AWS by their names it would read the models of all services.
"""

import asyncio
import sys
from types import SimpleNamespace

from aiohttp import web
from microburst import forward
from microburst.app import make_app
from microburst.core import pipeline
from microburst.detection import host
from microburst.effects import error
from microburst.protocols import render_error

RETRY_AFTER_MILLIS = "20"

detect = pipeline.detect
stream_to_client = forward._stream_to_client


def operation_of_s3(method, query):
    if method == "POST":
        return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
    return query.get("x-id", f"{method.title()}Object")


def detect_object(headers, method, path, query, body):
    found = detect(headers, method, path, query, body)
    if found.service == "s3":
        found.operation, found.resource = operation_of_s3(method, query), path
    return found


def refusal(*arguments, **named):
    status, headers, body = render_error(*arguments, **named)
    return status, {**headers, "x-amz-retry-after": RETRY_AFTER_MILLIS}, body


def lose(request, code):
    if code == "reset":
        request.transport.abort()
        return web.Response()  # never written: the connection is gone
    found = detect(request.headers, request.method, request.rel_url.raw_path, request.rel_url.query, None)
    status, headers, body = refusal(found.service, code, status=500, protocol=found.protocol)
    return web.Response(status=status, headers=headers, body=body)


async def answer(request, status, headers, fault, chunks):
    fault = fault or forward.ResponseFault()
    lost = fault.set_headers.pop("lost", None)
    if lost:
        async for _ in chunks:
            pass  # the service has answered: what was asked for is done
        return lose(request, lost)
    if "content-length" in headers and fault.truncate_bytes is None:
        fault.set_headers["Content-Length"] = headers["content-length"]
    return await stream_to_client(request, status, headers, fault, chunks)


async def serve(upstream):
    app = make_app(pipeline.Microburst(upstream))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    pipeline.detect = detect_object
    forward._stream_to_client = answer
    forward.secrets = SimpleNamespace(randbelow=lambda count: count - 1)
    error.render_error = refusal
    host._endpoint_prefix_map = dict
    asyncio.run(serve(sys.argv[1]))
