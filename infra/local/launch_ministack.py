"""Starts MiniStack (a local AWS) with what its CloudFormation and Step Functions leave out and our template relies on.

MiniStack accepts these properties and then forgets them, so a stack would look deployed without having them:
bucket encryption and lifecycle rules, point-in-time recovery of tables, and the time limit of a state machine.
The names patched here are private to MiniStack: its version is pinned in requirements.txt.
"""

import contextvars
import json
import threading
from xml.sax.saxutils import escape

from ministack.core.responses import now_iso
from ministack.services import dynamodb, s3
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
        abort = rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        rules += element(
            "Rule",
            text("ID", rule["Id"]),
            text("Status", rule["Status"]),
            element("Filter", element("Prefix", "")),
            element("AbortIncompleteMultipartUpload", text("DaysAfterInitiation", abort)),
        )
    return element("LifecycleConfiguration", rules).encode()


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
        ("LifecycleConfiguration", lifecycle, checked(s3._put_bucket_lifecycle), lambda bucket: None),
    )


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
    main()
