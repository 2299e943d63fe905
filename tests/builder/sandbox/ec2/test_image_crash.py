"""kill -9 while images are copied, made and deregistered and instances come and go: all or nothing of each."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from botocore import exceptions  # noqa: TID251 - the client that users bring

from builder import pool
from builder.digest import BLOCK

ROOT, DATA = "/dev/xvda", "/dev/sdf"
WAIT = {"Delay": 0.05, "MaxAttempts": 400}
KILLS = 4
LOST = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)


class Work:
    """What one worker did, and what was acknowledged to it."""

    def __init__(self, running, image_id):
        self.ec2 = running.client("ec2")
        self.source = image_id
        self.copies, self.created, self.gone = {}, set(), {}
        self.launched, self.terminated = {}, set()

    def until_killed(self):
        with contextlib.suppress(*LOST):
            while True:
                self.copy()
                self.launch()

    def copy(self):
        name = f"copy {time.time_ns()}"
        copied = self.ec2.copy_image(SourceImageId=self.source, SourceRegion="us-east-1", Name=name, ClientToken=name)
        self.copies[copied["ImageId"]] = name
        snapshots = snapshots_of(self.ec2, copied["ImageId"])
        if random.random() < 0.5:
            self.gone[copied["ImageId"]] = snapshots  # from here it may be gone
            self.ec2.deregister_image(ImageId=copied["ImageId"], DeleteAssociatedSnapshots=True)

    def launch(self):
        wish = {"ImageId": self.source, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
        (made,) = self.ec2.run_instances(**wish)["Instances"]
        name = made["InstanceId"]
        self.launched[name] = {one["Ebs"]["VolumeId"] for one in made["BlockDeviceMappings"]}
        self.ec2.get_waiter("instance_running").wait(InstanceIds=[name], WaiterConfig=WAIT)
        with contextlib.suppress(exceptions.ClientError):  # its volume may be in another state for a moment
            self.created.add(self.ec2.create_image(InstanceId=name, Name=f"of {name}")["ImageId"])
        self.terminated.add(name)  # from here it may be gone
        self.ec2.terminate_instances(InstanceIds=[name])


def snapshots_of(ec2, image_id):
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    return [one["Ebs"]["SnapshotId"] for one in image["BlockDeviceMappings"]]


@pytest.mark.behaviour("EC2 images", "CopyImage, CreateImage, DeregisterImage", "after kill -9 every acknowledged "
                       "image is there with its snapshots' bytes, and no snapshot without its image")  # fmt: skip
@pytest.mark.behaviour("EC2 instances (records only)", "RunInstances, TerminateInstances", "after kill -9 every "
                       "acknowledged instance is there with its volumes, no volume without its instance")  # fmt: skip
def test_kills_leave_images_and_instances_whole(make_sandbox, blocks):
    running = make_sandbox()
    ec2, snapshot_id = running.client("ec2"), running.raw().snapshot({0: blocks("root"), 40: blocks("end")})
    devices = [{"DeviceName": name, "Ebs": {"SnapshotId": snapshot_id}} for name in (ROOT, DATA)]
    wish = {"Name": "source", "RootDeviceName": ROOT, "BlockDeviceMappings": devices}
    source = ec2.register_image(Architecture="x86_64", VirtualizationType="hvm", **wish)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[source], WaiterConfig=WAIT)
    works = []
    for _ in range(KILLS):
        these = [Work(running, source) for _ in range(3)]
        works += these
        workers = [pool.Background(work.until_killed) for work in these]
        time.sleep(0.5 + random.random())
        os.kill(running.endpoint.pid, signal.SIGKILL)
        for worker in workers:
            worker.result(60)
        running.restart()
    assert sum(len(work.copies) for work in works) > KILLS
    assert sum(len(work.terminated) for work in works) > KILLS
    check_images(running, works, source, blocks)
    check_instances(running, works, blocks)


def check_images(running, works, source, blocks):
    ec2, raw = running.client("ec2"), running.raw()
    images = {one["ImageId"]: one for one in ec2.describe_images(Owners=["self"])["Images"]}
    snapshots = {one["SnapshotId"]: one for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    for work in works:
        kept = {name for name in work.copies if name not in work.gone} | work.created
        assert kept <= set(images)
        for image_id, token in work.copies.items():  # a token still answers, also when the image is gone
            again = {"SourceImageId": source, "SourceRegion": "us-east-1", "Name": token, "ClientToken": token}
            assert running.client("ec2").copy_image(**again)["ImageId"] == image_id
        for image_id, its in work.gone.items():
            assert {one in snapshots for one in its} == {image_id in images}  # all there, or none
    used = {one["Ebs"]["SnapshotId"] for image in images.values() for one in image["BlockDeviceMappings"]}
    assert used == set(snapshots)  # no image without its snapshots, no snapshot of nobody
    assert {entry.name for entry in (running.directory / "disks").iterdir()} == set(snapshots)
    for image_id in images:
        ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig=WAIT)
    for snapshot_id in sorted(used)[:12]:
        assert raw.read(snapshot_id) == {0: blocks("root"), 40: blocks("end")}


def check_instances(running, works, blocks):
    ec2 = running.client("ec2")
    found = {one["InstanceId"]: one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]}
    volumes = {one["VolumeId"]: one for one in ec2.describe_volumes()["Volumes"]}
    for work in works:
        assert set(work.launched) <= set(found)
        for name in set(work.launched) - work.terminated:
            assert {one["Ebs"]["VolumeId"] for one in found[name]["BlockDeviceMappings"]} == work.launched[name]
    for name, instance in found.items():
        state = instance["State"]["Name"]
        assert (len(instance["BlockDeviceMappings"]), state in ("pending", "running")) in ((2, True), (0, False)), name
    held = {one["Ebs"]["VolumeId"] for instance in found.values() for one in instance["BlockDeviceMappings"]}
    assert {name for name, one in volumes.items() if one["State"] not in ("deleting", "deleted")} == held
    assert {entry.name for entry in (running.directory / "volumes").iterdir()} == held
    for volume_id in held:
        ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume_id], WaiterConfig=WAIT)
        with open(running.directory / "volumes" / volume_id / "data", "rb") as file:
            assert file.read(BLOCK) == blocks("root")
            file.seek(40 * BLOCK)
            assert file.read(BLOCK) == blocks("end")
