"""ImportSnapshot, DescribeImportSnapshotTasks and CancelImportTask."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from builder.sandbox import importing
from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2 import encryption, idempotency
from builder.sandbox.ec2.action import Handler, Values, check_filters, matches, paged, tag_list
from builder.sandbox.ec2.tags import specified
from builder.sandbox.objects import Objects
from builder.sandbox.records import ImportTask
from builder.sandbox.wire import Caller, Refusal

_ACTION = "ImportSnapshot"
_TASK, _SNAPSHOT = "import-snapshot-task", "snapshot"  # what tags can be for
# Virtual-hosted and path-style addresses of S3: "Methods for accessing a bucket" in its guide.
_HOST = re.compile(r"(?:(?P<bucket>[a-z0-9.-]+)\.)?s3[.-](?:[a-z0-9-]+\.)?amazonaws\.com")


def require(cloud: Cloud, caller: Caller, task_id: str) -> ImportTask:
    """Return the caller's import task. Raises Refusal."""
    if not re.fullmatch(r"import-snap-[0-9a-f]{8,17}", task_id):
        raise Refusal("InvalidConversionTaskId.Malformed", f"The task ID '{task_id}' is malformed")
    task = cloud.state.all(ImportTask).get(task_id)
    if task is None or (task.account, task.region) != (caller.account, caller.region):
        raise Refusal("InvalidConversionTaskId", f"The import task ID '{task_id}' does not exist")
    return task


def _import_snapshot(cloud: Cloud, caller: Caller, values: Values) -> Values:
    objects = cloud.objects
    if objects is None:
        raise Refusal("UnsupportedOperation", "This sandbox has no S3.")
    task = _task(cloud, caller, values)
    shape = _shape(cloud, task)
    with cloud.state.lock:
        if (answer := idempotency.before(cloud, caller, _ACTION, values)) is not None:
            first: Values = answer
            return first
        _check_role(objects, task)
        cloud.state.put(task, *idempotency.used(caller, _ACTION, values, shape))
    importing.begin(cloud, objects, task)
    return shape


def _task(cloud: Cloud, caller: Caller, values: Values) -> ImportTask:
    container = values.get("DiskContainer")
    if not container:
        raise Refusal("MissingParameter", "The request must contain the parameter DiskContainer")
    image_format = container.get("Format", "").upper()
    if not image_format:
        raise Refusal("MissingParameter", "The request must contain the parameter Format")
    if image_format not in {importing.RAW, *importing.FORMATS}:
        raise Refusal("InvalidParameter", f"The disk image format '{image_format}' is not supported: VHD, VMDK or RAW")
    bucket, key = _place(container)
    encrypted, kms_key_id = encryption.decide(cloud, caller, values)
    specifications = values.get("TagSpecifications", ())
    for_snapshot = [one for one in specifications if one.get("ResourceType") == _SNAPSHOT]
    for_task = [one for one in specifications if one.get("ResourceType") != _SNAPSHOT]
    return ImportTask(
        import_task_id=new_id("import-snap"),
        account=caller.account,
        region=caller.region,
        start_time=time.time(),
        image_format=image_format,
        bucket=bucket,
        object_key=key,
        url=container.get("Url"),
        role_name=values.get("RoleName") or "vmimport",
        description=values.get("Description", ""),
        disk_description=container.get("Description", ""),
        encrypted=encrypted,
        kms_key_id=kms_key_id,
        tags=specified(for_task, _TASK),
        snapshot_tags=specified(for_snapshot, _SNAPSHOT),
    )


def _place(container: Values) -> tuple[str, str]:
    """Return the bucket and the key that a container names, in either way. Raises Refusal."""
    place, url = container.get("UserBucket"), container.get("Url")
    if place and url:
        raise Refusal("InvalidParameterCombination", "Only one of Url and UserBucket can be given")
    if not place and not url:
        raise Refusal("MissingParameter", "The request must contain the parameter UserBucket or Url")
    bucket, key = (place.get("S3Bucket"), place.get("S3Key")) if place else _parsed(url or "")
    if not bucket or not key:
        raise Refusal("InvalidParameter", "The S3 bucket and key of the disk image must be given")
    return bucket, key


def _parsed(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme.lower() == "s3":
        return parts.netloc, path
    host = _HOST.fullmatch(parts.hostname or "")
    if parts.scheme not in ("http", "https") or (host is None and not (parts.hostname or "").startswith("127.")):
        raise Refusal("InvalidParameter", f"The URL '{url}' is no address of an object in S3")
    if host is not None and host["bucket"]:
        return host["bucket"], path
    bucket, _, key = path.partition("/")
    return bucket, key


def _check_role(objects: Objects, task: ImportTask) -> None:
    if not objects.role_may_read(task):
        message = f"The service role {task.role_name} provided does not exist or does not have sufficient permissions"
        raise Refusal("InvalidParameter", message)


def _describe(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, ("task-state",))
    if ids := values.get("ImportTaskIds"):
        found = [require(cloud, caller, task_id) for task_id in dict.fromkeys(ids)]
    else:
        mine = (caller.account, caller.region)
        found = [one for one in list(cloud.state.all(ImportTask).values()) if (one.account, one.region) == mine]
    found = [one for one in found if matches({"task-state": [cloud.import_status(one)]}, one.tags, filters)]
    page, token = paged(found, lambda one: f"{one.start_time:020.6f}{one.import_task_id}", values, least=1)
    return {"ImportSnapshotTasks": [_shape(cloud, one) for one in page], "NextToken": token}


def _shape(cloud: Cloud, task: ImportTask) -> Values:
    status = cloud.import_status(task)
    detail: dict[str, object] = {
        "Description": task.disk_description or task.description,
        "DiskImageSize": float(task.image_size or 0),
        "Encrypted": task.encrypted,
        "Format": task.image_format,
        "KmsKeyId": task.kms_key_id,
        "Status": status,
    }
    if task.url is not None:
        detail["Url"] = task.url
    else:
        detail["UserBucket"] = {"S3Bucket": task.bucket, "S3Key": task.object_key}
    if task.failure is not None:
        detail["StatusMessage"] = task.failure
    elif status == "completed":
        detail["SnapshotId"] = task.snapshot_id
    else:
        percent = cloud.jobs.percent(task.import_task_id) if task.end_time is None else 99
        detail["Progress"] = str(min(percent or 0, 99))
        detail["StatusMessage"] = "downloading/converting" if percent else "pending"
    return {
        "Description": task.description,
        "ImportTaskId": task.import_task_id,
        "SnapshotTaskDetail": detail,
        "Tags": tag_list(task.tags),
    }


def _cancel(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if not (task_id := values.get("ImportTaskId")):
        raise Refusal("MissingParameter", "The request must contain the parameter ImportTaskId")
    with cloud.state.lock:
        task = require(cloud, caller, task_id)
        status = cloud.import_status(task)
        if task.end_time is not None:
            raise Refusal("IncorrectState", f"The import task {task_id} cannot be cancelled: it is {status}")
        reason = values.get("CancelReason") or "User cancelled the task"
        cancelled = replace(task, end_time=time.time(), failure=reason, cancelled=True)
        cloud.state.put(cancelled)
    cloud.jobs.stop(task_id)
    return {"ImportTaskId": task_id, "PreviousState": status, "State": cloud.import_status(cancelled)}


ACTIONS: dict[str, Handler] = {
    "CancelImportTask": _cancel,
    "DescribeImportSnapshotTasks": _describe,
    "ImportSnapshot": _import_snapshot,
}
