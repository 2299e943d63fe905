"""AWS's own command line, Debian's package of it, against the sandbox: upload, import, register, describe, wait."""

from __future__ import annotations

import json
import random

import pytest

from builder import proc

AWS = "/usr/bin/aws"  # Debian's, whatever else is installed
MIB = 1 << 20
RIGHTS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
            "Resource": ["arn:aws:s3:::imports", "arn:aws:s3:::imports/*"],
        },
        {
            "Effect": "Allow",
            "Action": ["ec2:ModifySnapshotAttribute", "ec2:CopySnapshot", "ec2:RegisterImage", "ec2:Describe*"],
            "Resource": "*",
        },
    ],
}


class Cli:
    """`aws` with the sandbox's keys and no configuration of the user's."""

    def __init__(self, running, home):
        end = running.endpoint
        self.environment = {
            "HOME": str(home),
            "AWS_CONFIG_FILE": str(home / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(home / "credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
            "AWS_ACCESS_KEY_ID": end.access_key,
            "AWS_SECRET_ACCESS_KEY": end.secret_key,
            "AWS_DEFAULT_REGION": end.region,
        }
        if end.ca_file:
            self.environment["AWS_CA_BUNDLE"] = str(end.ca_file)
        self.url = end.url

    def run(self, *words, allowed=(0,)):
        command = [AWS, "--endpoint-url", self.url, "--output", "json", *words]
        return proc.run(command, environment=self.environment, allowed=allowed, timeout=120)

    def __call__(self, *words):
        """Return the JSON that a command prints, or its text."""
        said = self.run(*words).stdout.decode()
        try:
            return json.loads(said)
        except ValueError:
            return said.strip()

    def error(self, *words):
        """Return what a command that must fail complains of."""
        done = self.run(*words, allowed=(1, 254, 255))
        return done.stderr.decode().strip()


@pytest.fixture(scope="module")
def aws(sandbox, tmp_path_factory):
    return Cli(sandbox, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A disk image of 20 MiB, which `s3 cp` sends in three parts."""
    file = tmp_path_factory.mktemp("disk") / "disk.raw"
    file.write_bytes(random.Random(3).randbytes(20 * MIB))
    return file


def test_it_is_debians_own():
    assert proc.run([AWS, "--version"]).stdout.startswith(b"aws-cli/2.9")


@pytest.mark.behaviour("Other clients", "awscli: s3 mb, cp, ls, rm, rb", "20 MiB go up in three parts and come back")
def test_upload_and_download(aws, disk, tmp_path):
    assert aws("s3", "mb", "s3://uploads") == "make_bucket: uploads"
    aws("s3", "cp", str(disk), "s3://uploads/disk.raw", "--no-progress")
    head = aws("s3api", "head-object", "--bucket", "uploads", "--key", "disk.raw")
    assert (head["ContentLength"], head["ETag"][-3:]) == (20 * MIB, '-3"')
    assert "20971520 disk.raw" in aws("s3", "ls", "s3://uploads")
    aws("s3", "cp", "s3://uploads/disk.raw", str(tmp_path / "back"), "--no-progress")
    assert (tmp_path / "back").read_bytes() == disk.read_bytes()
    assert "BucketNotEmpty" in aws.error("s3", "rb", "s3://uploads")
    aws("s3", "rm", "s3://uploads/disk.raw")
    aws("s3", "rb", "s3://uploads")
    assert "NoSuchBucket" in aws.error("s3", "ls", "s3://uploads")


@pytest.mark.behaviour(
    "Other clients",
    "awscli: ec2 import-snapshot, register-image, wait, describe-images, deregister-image",
    "an uploaded disk becomes a snapshot with its bytes, and an image that a query finds until it is gone",
)
def test_from_an_upload_to_an_image(aws, sandbox, disk, vmimport_trust):
    aws("iam", "create-role", "--role-name", "vmimport", "--assume-role-policy-document", json.dumps(vmimport_trust))
    rights = ["--policy-name", "vmimport", "--policy-document", json.dumps(RIGHTS)]
    aws("iam", "put-role-policy", "--role-name", "vmimport", *rights)
    aws("s3", "mb", "s3://imports")
    aws("s3", "cp", str(disk), "s3://imports/disk.raw", "--no-progress")
    where = "Format=RAW,UserBucket={S3Bucket=imports,S3Key=disk.raw}"
    task = aws("ec2", "import-snapshot", "--disk-container", where)["ImportTaskId"]
    query = ["--query", "ImportSnapshotTasks[0].SnapshotTaskDetail.[Status,SnapshotId]"]
    status = snapshot_id = None
    while status != "completed":
        status, snapshot_id = aws("ec2", "describe-import-snapshot-tasks", "--import-task-ids", task, *query)
        assert status in ("active", "completed")
    aws("ec2", "wait", "snapshot-completed", "--snapshot-ids", snapshot_id)
    blocks = sandbox.raw().read(snapshot_id)
    assert b"".join(blocks[index] for index in range(40)) == disk.read_bytes()
    device = json.dumps([{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id, "VolumeType": "gp3"}}])
    words = ["--name", "by awscli", "--root-device-name", "/dev/xvda", "--virtualization-type", "hvm", "--ena-support"]
    words += ["--architecture", "x86_64", "--boot-mode", "uefi", "--block-device-mappings", device]
    image_id = aws("ec2", "register-image", *words)["ImageId"]
    aws("ec2", "wait", "image-available", "--image-ids", image_id)
    aws("ec2", "create-tags", "--resources", image_id, "--tags", "Key=made by,Value=awscli")
    find = ["ec2", "describe-images", "--owners", "self", "--filters", "Name=tag:made by,Values=aws*"]
    found = aws(*find, "--query", "Images[].[ImageId,State,BlockDeviceMappings[0].Ebs.SnapshotId,BootMode]")
    assert found == [[image_id, "available", snapshot_id, "uefi"]]
    aws("ec2", "deregister-image", "--image-id", image_id)
    assert aws(*find)["Images"] == []


def test_volumes_and_snapshots(aws):
    tags = "ResourceType=volume,Tags=[{Key=Name,Value=by awscli}]"
    words = ["--availability-zone", "us-east-1a", "--size", "1", "--tag-specifications", tags]
    volume = aws("ec2", "create-volume", *words)["VolumeId"]
    aws("ec2", "wait", "volume-available", "--volume-ids", volume)
    made = aws("ec2", "create-snapshot", "--volume-id", volume, "--description", "it")
    assert (made["State"], made["VolumeSize"]) == ("pending", 1)
    aws("ec2", "wait", "snapshot-completed", "--snapshot-ids", made["SnapshotId"])
    (found,) = aws("ec2", "describe-snapshots", "--filters", "Name=description,Values=it")["Snapshots"]
    assert (found["SnapshotId"], found["Progress"], found["VolumeId"]) == (made["SnapshotId"], "100%", volume)


def test_identity_and_errors(aws):
    who = aws("sts", "get-caller-identity")
    assert who["Arn"].startswith(f"arn:aws:iam::{who['Account']}:")
    assert "us-east-1" in aws("ec2", "describe-regions", "--query", "Regions[].RegionName")
    assert "(InvalidAMIID.NotFound)" in aws.error("ec2", "describe-images", "--image-ids", "ami-0123456789abcdef0")
    assert "(UnsupportedOperation)" in aws.error("ec2", "create-vpc", "--cidr-block", "10.0.0.0/16")
    assert "(DryRunOperation)" in aws.error("ec2", "describe-images", "--dry-run")


@pytest.mark.behaviour("Other clients", "awscli over TLS", "trusts it by AWS_CA_BUNDLE; an upload comes back equal")
def test_over_tls(make_sandbox, disk, tmp_path):
    running = make_sandbox("tls", tls=True)
    aws = Cli(running, tmp_path)
    assert aws.url.startswith("https://")
    aws("s3", "mb", "s3://uploads")
    aws("s3", "cp", str(disk), "s3://uploads/disk.raw", "--no-progress")
    aws("s3", "cp", "s3://uploads/disk.raw", str(tmp_path / "back"), "--no-progress")
    assert (tmp_path / "back").read_bytes() == disk.read_bytes()
    started = aws("ebs", "start-snapshot", "--volume-size", "1")
    assert (started["Status"], started["VolumeSize"]) == ("pending", 1)
    del aws.environment["AWS_CA_BUNDLE"]
    assert "certificate verify failed" in aws.error("sts", "get-caller-identity").lower()
