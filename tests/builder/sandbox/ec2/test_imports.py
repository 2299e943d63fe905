"""ImportSnapshot of images in S3: bytes, formats, roles, states, and what hostile files come to."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from builder import proc
from builder.digest import BLOCK

BUCKET = "images"
WAIT = {"Delay": 0.05, "MaxAttempts": 600}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
            "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
        }
    ],
}
MISSING = [
    ("EC2 import", "ImportImage, ExportImage, ImportInstance, ImportVolume", "UnsupportedOperation"),
    ("EC2 import", "ImportSnapshot", "the role's EC2 permissions and those for a KMS key are not asked"),
    ("EC2 import", "CancelImportTask", "qemu-img at work ends by itself, its result unseen"),
]


def prepare(running, trust, *, role="vmimport", policy=POLICY):
    """Make a role as VM Import wants it."""
    iam = running.client("iam")
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=role, PolicyName="read", PolicyDocument=json.dumps(policy))


@pytest.fixture(scope="module")
def s3(sandbox, vmimport_trust):
    """A client, with a bucket and the role there."""
    client = sandbox.client("s3")
    client.create_bucket(Bucket=BUCKET)
    prepare(sandbox, vmimport_trust)
    return client


@pytest.fixture(scope="module")
def disk(sandbox, blocks):
    """The bytes of a disk of 3 MiB and a bit: some blocks, some zeros, an end within a block."""
    return blocks("a") + bytes(2 * BLOCK) + blocks("b") + bytes(BLOCK) + blocks("c") + b"tail" * 128


def wanted(data):
    """Return the blocks that a snapshot of these bytes lists."""
    pieces = [data[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(data), BLOCK)]
    return {index: piece for index, piece in enumerate(pieces) if any(piece)}


def qemu_img(*words):
    proc.run(["qemu-img", *words])


@pytest.fixture
def converted(tmp_path, disk):
    """Return the disk as an image of a format, as bytes."""

    def make(image_format, *options):
        (tmp_path / "raw").write_bytes(disk)
        target = tmp_path / f"image.{image_format}"
        qemu_img("convert", "-f", "raw", "-O", image_format, *options, tmp_path / "raw", target)
        return target.read_bytes()

    return make


@pytest.fixture
def imported(sandbox, ec2, s3):
    """Put bytes into S3, import them as a format, and return the task when it is over."""

    def run(data, image_format, key="image", **values):
        s3.put_object(Bucket=BUCKET, Key=key, Body=data)
        container = {"Format": image_format, "UserBucket": {"S3Bucket": BUCKET, "S3Key": key}}
        task = ec2.import_snapshot(**{"DiskContainer": container, **values})
        return over(ec2, task["ImportTaskId"])

    return run


def over(ec2, task_id):
    while True:
        (task,) = ec2.describe_import_snapshot_tasks(ImportTaskIds=[task_id])["ImportSnapshotTasks"]
        if task["SnapshotTaskDetail"]["Status"] in ("completed", "deleted"):
            return task["SnapshotTaskDetail"]
        time.sleep(0.02)


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, RAW", "the snapshot's blocks are the object's bytes, rounded up "
                       "to a GiB; blocks of zeros are not listed; also of an object uploaded in parts")  # fmt: skip
@pytest.mark.parametrize("parts", [False, True])
def test_a_raw_image(raw, ec2, s3, disk, imported, parts):
    data = disk
    if parts:
        data = disk * 3
        made = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
        etags = []
        for number, at in enumerate(range(0, len(data), 5 << 20), 1):
            named = {"Bucket": BUCKET, "Key": "parts", "UploadId": made, "PartNumber": number}
            etags.append(
                {"PartNumber": number, "ETag": s3.upload_part(**named, Body=data[at : at + (5 << 20)])["ETag"]}
            )
        s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=made, MultipartUpload={"Parts": etags})
        container = {"Format": "raw", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "parts"}}
        detail = over(ec2, ec2.import_snapshot(DiskContainer=container)["ImportTaskId"])
    else:
        detail = imported(data, "RAW")
    assert (detail["Status"], detail["DiskImageSize"], detail["Format"]) == ("completed", len(data), "RAW")
    (snapshot,) = ec2.describe_snapshots(SnapshotIds=[detail["SnapshotId"]])["Snapshots"]
    assert (snapshot["State"], snapshot["VolumeSize"], snapshot["VolumeId"]) == ("completed", 1, "vol-ffffffff")
    assert raw.read(detail["SnapshotId"]) == wanted(data)


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, VMDK and VHD", "stream-optimized VMDK, fixed and dynamic VHD, "
                       "VHDX: the disk inside becomes the snapshot, byte for byte")  # fmt: skip
@pytest.mark.parametrize(
    ("word", "image_format", "options"),
    [
        ("VMDK", "vmdk", ["-o", "subformat=streamOptimized"]),
        ("vmdk", "vmdk", ["-o", "subformat=streamOptimized"]),
        ("VHD", "vpc", ["-o", "subformat=dynamic,force_size=on"]),
        ("VHD", "vpc", ["-o", "subformat=fixed,force_size=on"]),
        ("VHD", "vhdx", []),
        ("VHDX", "vhdx", []),
    ],
)
def test_images_of_other_formats(raw, disk, converted, imported, word, image_format, options):
    data = converted(image_format, *options)
    detail = imported(data, word)
    assert (detail["Status"], detail.get("StatusMessage"), detail["DiskImageSize"]) == ("completed", None, len(data))
    assert raw.read(detail["SnapshotId"]) == wanted(disk)


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, wrong format", "the task ends `deleted` with the true reason in "
                       "StatusMessage, and no snapshot is made")  # fmt: skip
@pytest.mark.parametrize(
    ("word", "image_format", "options", "reason"),
    [
        ("VMDK", "vmdk", ["-o", "subformat=monolithicSparse"], "only stream-optimized VMDKs"),
        ("VMDK", "vpc", [], "is a VHD image"),
        ("VHD", "qcow2", [], "is a qcow2 image"),
        ("VHDX", "vpc", [], "is a VHD image"),
        ("VMDK", "raw", [], "is not a disk image"),
    ],
)
def test_a_format_that_is_not_the_stated_one(sandbox, converted, imported, word, image_format, options, reason):
    before = sorted(sandbox.directory.glob("disks/*"))
    detail = imported(converted(image_format, *options), word)
    assert (detail["Status"], "SnapshotId" in detail) == ("deleted", False)
    assert detail["StatusMessage"].startswith("ClientError: Disk validation failed [")
    assert reason in detail["StatusMessage"]
    assert sorted(sandbox.directory.glob("disks/*")) == before


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, hostile files", "a qcow2 or a VMDK descriptor sent as RAW is "
                       "taken literally; an image that names another file or is cut off is refused")  # fmt: skip
def test_hostile_files(tmp_path, raw, converted, imported):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    (tmp_path / "secret.raw").write_bytes(b"secret" * 100_000)
    qemu_img("create", "-f", "qcow2", "-b", tmp_path / "secret.raw", "-F", "raw", tmp_path / "overlay.qcow2")
    overlay = (tmp_path / "overlay.qcow2").read_bytes()
    detail = imported(overlay, "RAW")
    assert raw.read(detail["SnapshotId"]) == wanted(overlay)
    descriptor = f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 12 FLAT "{secret}" 0\n'.encode()
    assert raw.read(imported(descriptor, "RAW")["SnapshotId"]) == wanted(descriptor)
    detail = imported(descriptor, "VMDK")
    assert (detail["Status"], "names" in detail["StatusMessage"]) == ("deleted", True)
    cut = converted("vmdk", "-o", "subformat=streamOptimized")[: 3 * BLOCK // 2]
    assert imported(cut, "VMDK")["Status"] == "deleted"
    assert imported(b"", "RAW")["StatusMessage"] == "ClientError: Disk validation failed [The file is empty]"


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, missing object", "`deleted`, Reason 404")
def test_an_object_that_is_not_there(ec2, s3):
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "none"}}
    detail = over(ec2, ec2.import_snapshot(DiskContainer=container)["ImportTaskId"])
    assert detail["Status"] == "deleted"
    assert "Reason 404" in detail["StatusMessage"]


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, service role", "no role, a role that VM Import may not take on, "
                       "or that may not read the bucket: InvalidParameter in AWS's words")  # fmt: skip
@pytest.mark.parametrize(
    ("trust", "policy"),
    [
        (None, None),
        ({"Principal": {"Service": "ec2.amazonaws.com"}}, {}),
        ({"Condition": {"StringEquals": {"sts:ExternalId": "x"}}}, {}),
        ({}, {"Resource": ["arn:aws:s3:::other/*"]}),
        ({}, {"Action": ["s3:GetObject"]}),
    ],
)
def test_a_role_that_will_not_do(request, sandbox, ec2, s3, vmimport_trust, trust, policy):
    """Without a role, or with one whose two statements are changed so."""

    def changed(document, change):
        return {**document, "Statement": [{**document["Statement"][0], **change}]}

    role = f"role{abs(hash(request.node.name))}"
    if trust is not None:
        prepare(sandbox, changed(vmimport_trust, trust), role=role, policy=changed(POLICY, policy))
    s3.put_object(Bucket=BUCKET, Key="there", Body=b"x")
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "there"}}
    with pytest.raises(ec2.exceptions.ClientError) as caught:
        ec2.import_snapshot(DiskContainer=container, RoleName=role)
    error = caught.value.response["Error"]
    words = f"The service role {role} provided does not exist or does not have sufficient permissions"
    assert (error["Code"], error["Message"]) == ("InvalidParameter", words)
    assert (
        ec2.describe_import_snapshot_tasks(Filters=[{"Name": "tag-key", "Values": [role]}])["ImportSnapshotTasks"] == []
    )


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, Url", "s3:// and the https addresses of S3 name the object too")
@pytest.mark.parametrize(
    "url",
    [
        f"s3://{BUCKET}/dir/an image",
        f"https://{BUCKET}.s3.amazonaws.com/dir/an%20image",
        f"https://s3.us-east-1.amazonaws.com/{BUCKET}/dir/an%20image",
    ],
)
def test_an_object_by_its_address(raw, s3, ec2, disk, url):
    s3.put_object(Bucket=BUCKET, Key="dir/an image", Body=disk)
    made = ec2.import_snapshot(DiskContainer={"Format": "RAW", "Url": url})
    assert made["SnapshotTaskDetail"]["Url"] == url
    assert raw.read(over(ec2, made["ImportTaskId"])["SnapshotId"]) == wanted(disk)


@pytest.mark.behaviour("EC2 import", "ImportSnapshot", "requests without container, format, place, or with a format or "
                       "address that is none are refused")  # fmt: skip
@pytest.mark.parametrize(
    ("container", "code"),
    [
        (None, "MissingParameter"),
        ({"UserBucket": {"S3Bucket": BUCKET, "S3Key": "x"}}, "MissingParameter"),
        ({"Format": "QCOW2", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "x"}}, "InvalidParameter"),
        ({"Format": "RAW"}, "MissingParameter"),
        ({"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET}}, "InvalidParameter"),
        ({"Format": "RAW", "Url": "file:///etc/passwd"}, "InvalidParameter"),
        ({"Format": "RAW", "Url": "https://example.com/x"}, "InvalidParameter"),
        ({"Format": "RAW", "Url": "s3://x/y", "UserBucket": {"S3Bucket": "x", "S3Key": "y"}},
         "InvalidParameterCombination"),
    ],
)  # fmt: skip
def test_an_import_that_is_refused(ec2, s3, code_of, container, code):
    assert code_of(ec2.import_snapshot, **({} if container is None else {"DiskContainer": container})) == code


@pytest.mark.behaviour("EC2 import", "ImportSnapshot", "`active` with progress is seen before `completed`; description "
                       "and both kinds of tags are kept; the waiter snapshot_imported ends")  # fmt: skip
def test_states_and_tags_are_really_seen(make_sandbox, blocks, vmimport_trust):
    running = make_sandbox(settle=0.5)
    ec2, s3 = running.client("ec2"), running.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    prepare(running, vmimport_trust)
    s3.put_object(Bucket=BUCKET, Key="image", Body=blocks("a"))
    tags = [
        {"ResourceType": "import-snapshot-task", "Tags": [{"Key": "Name", "Value": "task"}]},
        {"ResourceType": "snapshot", "Tags": [{"Key": "Name", "Value": "snapshot"}]},
    ]
    container = {"Description": "disk", "Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "image"}}
    made = ec2.import_snapshot(Description="task", DiskContainer=container, TagSpecifications=tags)
    assert (made["Description"], made["Tags"]) == ("task", tags[0]["Tags"])
    first = made["SnapshotTaskDetail"]
    assert (first["Status"], first["Progress"], first["StatusMessage"]) == ("active", "0", "pending")
    seen = []
    while True:
        (task,) = ec2.describe_import_snapshot_tasks(ImportTaskIds=[made["ImportTaskId"]])["ImportSnapshotTasks"]
        seen.append(task["SnapshotTaskDetail"])
        if seen[-1]["Status"] != "active":
            break
    assert "downloading/converting" in {detail.get("StatusMessage") for detail in seen}
    ec2.get_waiter("snapshot_imported").wait(ImportTaskIds=[made["ImportTaskId"]], WaiterConfig=WAIT)
    (snapshot,) = ec2.describe_snapshots(SnapshotIds=[seen[-1]["SnapshotId"]])["Snapshots"]
    assert (snapshot["State"], snapshot["Tags"]) == ("completed", tags[1]["Tags"])
    assert made["ImportTaskId"] in snapshot["Description"]
    (tag,) = ec2.describe_tags(Filters=[{"Name": "resource-type", "Values": ["import-snapshot-task"]}])["Tags"]
    assert (tag["ResourceId"], tag["Value"]) == (made["ImportTaskId"], "task")


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, ClientToken", "the same request at once makes one task and one "
                       "snapshot; other parameters: IdempotentParameterMismatch")  # fmt: skip
def test_the_same_client_token_makes_one_task(sandbox, ec2, s3, disk, together, code_of):
    s3.put_object(Bucket=BUCKET, Key="token", Body=disk)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "token"}}
    wish = {"DiskContainer": container, "ClientToken": "import one", "Description": "d"}
    clients = [sandbox.client("ec2") for _ in range(6)]
    answers = together(*(lambda client=client: client.import_snapshot(**wish) for client in clients))
    (task_id,) = {answer["ImportTaskId"] for answer in answers}
    assert code_of(ec2.import_snapshot, **{**wish, "Description": "e"}) == "IdempotentParameterMismatch"
    snapshot_id = over(ec2, task_id)["SnapshotId"]
    filters = [{"Name": "description", "Values": [f"*{task_id}"]}]
    assert [one["SnapshotId"] for one in ec2.describe_snapshots(Filters=filters)["Snapshots"]] == [snapshot_id]
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    assert ec2.import_snapshot(**wish)["ImportTaskId"] == task_id


@pytest.mark.behaviour("EC2 import", "CancelImportTask", "an active task goes by `deleting` to `deleted`, makes no "
                       "snapshot; a finished or unknown one is refused")  # fmt: skip
def test_a_task_is_cancelled(make_sandbox, blocks, code_of, vmimport_trust):
    running = make_sandbox(settle=0.5)
    ec2, s3 = running.client("ec2"), running.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    prepare(running, vmimport_trust)
    s3.put_object(Bucket=BUCKET, Key="image", Body=blocks("a") * 400)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "image"}}
    tasks = [ec2.import_snapshot(DiskContainer=container)["ImportTaskId"] for _ in range(6)]
    answer = ec2.cancel_import_task(ImportTaskId=tasks[-1], CancelReason="enough")  # it waits for the others
    assert (answer["PreviousState"], answer["State"]) == ("active", "deleting")
    detail = over(ec2, tasks[-1])
    assert (detail["Status"], detail["StatusMessage"]) == ("deleted", "enough")
    made = {over(ec2, task)["SnapshotId"] for task in tasks[:-1]}
    assert {one["SnapshotId"] for one in ec2.describe_snapshots()["Snapshots"]} == made
    assert {entry.name for entry in running.directory.glob("disks/*")} == made
    assert code_of(ec2.cancel_import_task, ImportTaskId=tasks[0]) == "IncorrectState"
    assert code_of(ec2.cancel_import_task, ImportTaskId=tasks[-1]) == "IncorrectState"
    assert code_of(ec2.cancel_import_task, ImportTaskId="import-snap-0123456789abcdef0") == "InvalidConversionTaskId"
    unknown = {"ImportTaskIds": ["import-ami-0123456789abcdef0"]}
    assert code_of(ec2.describe_import_snapshot_tasks, **unknown) == "InvalidConversionTaskId.Malformed"


@pytest.mark.behaviour("EC2 import", "ImportSnapshot, kill -9", "a task that was acknowledged is completed by the next "
                       "server, with one snapshot and nothing left over")  # fmt: skip
def test_an_import_goes_on_after_a_kill(make_sandbox, blocks, converted, disk, vmimport_trust):
    running = make_sandbox()
    s3 = running.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    prepare(running, vmimport_trust)
    s3.put_object(Bucket=BUCKET, Key="raw", Body=blocks("a") * 200)
    s3.put_object(Bucket=BUCKET, Key="vmdk", Body=converted("vmdk", "-o", "subformat=streamOptimized"))
    for pause in (0, 0.02, 0.1):
        ec2 = running.client("ec2")
        tasks = []
        for image_format, key in (("RAW", "raw"), ("VMDK", "vmdk")):
            container = {"Format": image_format, "UserBucket": {"S3Bucket": BUCKET, "S3Key": key}}
            tasks.append(ec2.import_snapshot(DiskContainer=container)["ImportTaskId"])
        time.sleep(pause)
        os.kill(running.endpoint.pid, signal.SIGKILL)
        running.restart()
        ec2 = running.client("ec2")
        made = [over(ec2, task)["SnapshotId"] for task in tasks]
        assert running.raw().read(made[0]) == dict.fromkeys(range(200), blocks("a"))
        assert running.raw().read(made[1]) == wanted(disk)
        known = {one["SnapshotId"] for one in ec2.describe_snapshots()["Snapshots"]}
        assert {entry.name for entry in running.directory.glob("disks/*")} == known
        assert list(running.directory.glob("imports/*")) == []
    assert len(known) == 6
