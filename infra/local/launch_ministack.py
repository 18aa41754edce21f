"""Starts MiniStack (a local AWS) with what its CloudFormation and Step Functions leave out and our template relies on.

MiniStack accepts these properties and then forgets them, so a stack would look deployed without having them:
bucket encryption, lifecycle rules and Object Lock, point-in-time recovery of tables, and the time limit of a state
machine. It also lacks replicas of keys, the moment a schedule was due, and layers of functions with a bootstrap; and
its lifecycle rules never move anything to cold storage.
The names patched here are private to MiniStack: its version is pinned in requirements.txt.
"""

import contextvars
import hashlib
import io
import json
import os
import threading
import time
import zipfile
from xml.sax.saxutils import escape

from ministack.core.responses import get_account_id, get_region, now_iso, request_scope
from ministack.services import dynamodb, eventbridge, kms, lambda_svc, s3
from ministack.services import stepfunctions as sfn
from ministack.services.cloudformation import provisioners


def element(tag, *children):
    """An XML element; text and booleans become text, None becomes nothing."""
    inside = ""
    for child in children:
        if isinstance(child, bool):
            child = str(child).lower()
        inside += child if isinstance(child, str) else "" if child is None else str(child)
    return f"<{tag}>{inside}</{tag}>"


def text(tag, value):
    return "" if value is None else element(tag, escape(str(value)))


def encryption(properties):
    rules = ""
    for rule in properties["ServerSideEncryptionConfiguration"]:
        default = rule["ServerSideEncryptionByDefault"]
        rules += element(
            "Rule",
            element(
                "ApplyServerSideEncryptionByDefault",
                text("SSEAlgorithm", default["SSEAlgorithm"]),
                text("KMSMasterKeyID", default.get("KMSMasterKeyID")),
            ),
        )
    return element("ServerSideEncryptionConfiguration", rules).encode()


def lifecycle(properties):
    rules = ""
    for rule in properties["Rules"]:
        tags = rule.get("TagFilters", [])
        tag = "".join(element("Tag", text("Key", tag["Key"]), text("Value", tag["Value"])) for tag in tags)
        abort = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
        noncurrent = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
        moves = ""
        for move in rule.get("Transitions", []):
            days, to = move["TransitionInDays"], move["StorageClass"]
            moves += element("Transition", text("Days", days), text("StorageClass", to))
        rules += element(
            "Rule",
            text("ID", rule["Id"]),
            text("Status", rule["Status"]),
            element("Filter", tag or element("Prefix", "")),
            moves,
            noncurrent and element("NoncurrentVersionExpiration", text("NoncurrentDays", noncurrent)),
            abort and element("AbortIncompleteMultipartUpload", text("DaysAfterInitiation", abort)),
        )
    return element("LifecycleConfiguration", rules).encode()


def object_lock(enabled):
    return element("ObjectLockConfiguration", text("ObjectLockEnabled", "Enabled" if enabled else None)).encode()


def checked(put):
    """A bucket setting that is refused fails the stack."""

    def put_or_raise(bucket, body):
        answer = put(bucket, body)
        if answer[0] >= 300:
            raise ValueError(f"{put.__name__} of {bucket}: {answer[2]!r}")

    return put_or_raise


def keep_bucket_settings():
    provisioners._S3_BUCKET_CONFIGURATIONS += (
        ("BucketEncryption", encryption, checked(s3._put_bucket_encryption), lambda bucket: None),
        ("LifecycleConfiguration", lifecycle, checked(keep_transitions), lambda bucket: None),
        ("ObjectLockEnabled", object_lock, checked(s3._put_object_lock_configuration), lambda bucket: None),
    )


# For each bucket, the storage class that objects with a tag are moved to.
transitions = {}


def keep_transitions(bucket, body):
    for rule in s3.fromstring(body):
        tag, to = rule.find("Filter/Tag"), rule.findtext("Transition/StorageClass")
        if tag is not None and to:
            transitions[(bucket, tag.findtext("Key"), tag.findtext("Value"))] = to
    return s3._put_bucket_lifecycle(bucket, body)


def move_what_is_tagged():
    put = s3._put_object_tagging

    def put_and_move(bucket, key, body, query_params=None):
        answer = put(bucket, key, body, query_params)
        if answer[0] < 300:
            for name, value in s3._parse_tags_xml(body).items():
                to = transitions.get((bucket, name, value))
                if to:
                    s3._buckets[bucket]["objects"][key]["storage_class"] = to
        return answer

    s3._put_object_tagging = put_and_move


def make_replicas_of_keys():
    def create(logical_id, properties, stack):
        primary, here = properties["PrimaryKeyArn"], get_region()
        wanted = {"KeyId": primary, "ReplicaRegion": here, "Policy": json.dumps(properties["KeyPolicy"])}
        with request_scope(get_account_id(), primary.split(":")[3]):
            answer = kms._replicate_key(wanted)
        if answer[0] >= 300:
            raise ValueError(f"replicate {primary}: {answer[2]!r}")
        key = primary.split("/")[1]
        return key, {"Arn": f"arn:aws:kms:{here}:{get_account_id()}:key/{key}", "KeyId": key}

    handlers = provisioners._RESOURCE_HANDLERS
    handlers["AWS::KMS::ReplicaKey"] = {"create": create, "delete": lambda physical_id, properties: None}


def tell_schedules_their_time():
    invoke = eventbridge._invoke_target

    def invoke_in_time(target, event, rule, view=None):
        if event.get("Source") == "aws.scheduler" and "Input" in target:
            due = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(event["Time"]))
            target = dict(target, Input=target["Input"].replace("<aws.scheduler.scheduled-time>", due))
        return invoke(target, event, rule, view)

    eventbridge._invoke_target = invoke_in_time


def put_layers_on_the_path():
    environment, unpacking = lambda_svc._provided_worker_env, threading.Lock()

    def unpacked(layer):
        content = lambda_svc._resolve_layer_zip(layer)
        folder = os.path.join(os.environ["STATE_DIR"], "layers", hashlib.sha256(content).hexdigest())
        with unpacking:
            if not os.path.exists(folder):
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    lambda_svc._extract_zip_preserving_mode(archive, folder)
        return os.path.join(folder, "bin")

    def with_layers(config, code_dir, port):
        variables = environment(config, code_dir, port)
        folders = [unpacked(layer) for layer in config.get("Layers") or []]
        variables["PATH"] = os.pathsep.join([*folders, variables.get("PATH", "")])
        return variables

    lambda_svc._provided_worker_env = with_layers


def keep_point_in_time_recovery():
    handler = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]
    create = handler["create"]

    def create_with_recovery(logical_id, properties, stack):
        created = create(logical_id, properties, stack)
        recovery = properties.get("PointInTimeRecoverySpecification")
        if recovery:
            dynamodb._update_continuous_backups(
                {"TableName": created[0], "PointInTimeRecoverySpecification": recovery}
            )
        return created

    handler["create"] = create_with_recovery


def keep_machine_time_limits():
    run = sfn._run_execution

    def run_with_limit(arn):
        execution = sfn._executions.get(arn)
        machine = execution and sfn._state_machines.get(execution["stateMachineArn"])
        seconds = json.loads(machine["definition"]).get("TimeoutSeconds") if machine else None
        if seconds:
            context = contextvars.copy_context()

            def end():
                if execution["status"] == "RUNNING":
                    execution.update(status="TIMED_OUT", stopDate=now_iso())
                    sfn._add_event(execution, "ExecutionTimedOut", {})
                    sfn._emit_execution_status_event(execution)

            timer = threading.Timer(seconds, lambda: context.run(end))
            timer.daemon = True
            timer.start()
        return run(arn)

    sfn._run_execution = run_with_limit


if __name__ == "__main__":
    from ministack.app import main

    keep_bucket_settings()
    keep_point_in_time_recovery()
    keep_machine_time_limits()
    move_what_is_tagged()
    make_replicas_of_keys()
    tell_schedules_their_time()
    put_layers_on_the_path()
    main()
