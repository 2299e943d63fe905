"""Instance-store images that boot: a whole disk, and a root with a kernel and a ramdisk, as on Eucalyptus."""

from __future__ import annotations

import random

import pytest
from botocore.config import Config  # noqa: TID251 - the client that users bring
from fleets import Account, until
from guests import boot_sector
from kernels import kernel

from builder.sandbox import lifecycle

pytestmark = pytest.mark.sweep
AREA = "Eucalyptus: instances (machines)"
STYLE = Config(signature_version="s3v4", s3={"addressing_style": "path"}, parameter_validation=False,
               request_checksum_calculation="when_required")  # fmt: skip
HVM = {"VirtualizationType": "hvm"}


@pytest.fixture
def cloud(make_sandbox):
    account = Account(make_sandbox(machines="qemu", personality="eucalyptus"))
    account.s3 = account.running.client("s3", config=STYLE)
    account.s3.create_bucket(Bucket="images")
    return account


@pytest.fixture
def register(cloud, bundled):
    """Register an image of a bundle and return its id once it can be launched."""

    def make(name, image, *, kind="machine", **wish):
        identity = lifecycle.identity(cloud.running.directory)
        made = bundled(identity, name, image=image, change=lambda text: text.replace("<type>machine", f"<type>{kind}"))
        for file, data in made.items():
            cloud.s3.put_object(Bucket="images", Key=file, Body=data, ACL="aws-exec-read")
        image_id = cloud.ec2.register_image(Name=name, ImageLocation=f"images/{file}", **wish)["ImageId"]
        until(lambda: cloud.ec2.describe_images(ImageIds=[image_id])["Images"][0]["State"] == "available")
        return image_id

    return make


def launch(cloud, image_id):
    return cloud.run(image_id, InstanceType="m1.small")


@pytest.mark.behaviour(AREA, "RunInstances", "the disk in an image's bundle boots; it goes with the instance")
def test_a_bundled_disk_boots(cloud, register):
    disk = boot_sector(b"from a bundle\n").ljust(1 << 20, b"\0")
    devices = [{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}]
    instance = launch(cloud, register("disk", disk, **HVM, BlockDeviceMappings=devices))
    running = cloud.reaches(instance, "running")
    assert (running["RootDeviceType"], running["BlockDeviceMappings"]) == ("instance-store", [])
    assert running["SecurityGroups"][0]["GroupName"] == "default"
    cloud.says(instance, "from a bundle")
    place = cloud.running.directory / "instance-store" / instance
    assert sorted(one.name for one in place.iterdir()) == ["ephemeral0", "root"]
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.reaches(instance, "terminated")
    until(lambda: not place.exists())


@pytest.mark.behaviour(AREA, "RunInstances", "kernel and ramdisk of an image boot from outside, the root is the first "
                       "partition: root=/dev/vda1 console=ttyS0")  # fmt: skip
def test_a_kernel_boots_with_its_ramdisk(cloud, register):
    image = random.Random(1).randbytes(1 << 20)
    eki = register("kernel", kernel(), kind="kernel")
    eri = register("ramdisk", b"a ramdisk" * 999, kind="ramdisk")
    instance = launch(cloud, register("root", image, KernelId=eki, RamdiskId=eri))
    cloud.reaches(instance, "running")
    cloud.says(instance, "root=/dev/vda1 console=ttyS0")
    cloud.says(instance, " +ramdisk")
    disk = (cloud.running.directory / "instance-store" / instance / "root").read_bytes()
    assert disk[1 << 20 :] == image
    assert disk[510:512] == b"\x55\xaa"
    assert int.from_bytes(disk[454:458], "little") == 2048
    assert int.from_bytes(disk[458:462], "little") == len(image) // 512


@pytest.mark.behaviour(AREA, "an instance of the instance store after a restart", "terminated, Server.InternalError")
@pytest.mark.behaviour(AREA, "RunInstances", "an image whose kernel is gone: terminated, and its StateReason says so")
def test_what_ends_an_instance_of_the_instance_store(cloud, register):
    eki = register("kernel", kernel(), kind="kernel")
    eri = register("ramdisk", b"a ramdisk", kind="ramdisk")
    image = register("root", bytes(1 << 20), KernelId=eki, RamdiskId=eri)
    disk = register("disk", boot_sector(b"hello\n").ljust(1 << 20, b"\0"), **HVM)
    instance = launch(cloud, disk)
    cloud.reaches(instance, "running")
    cloud.ec2.deregister_image(ImageId=eki)
    without = cloud.reaches(launch(cloud, image), "terminated")
    assert without["StateReason"]["Code"] == "Client.InternalError"
    assert f"there is no kernel {eki}" in without["StateReason"]["Message"]
    lifecycle.stop(cloud.running.directory)
    cloud.again()
    assert cloud.described(instance)["State"]["Name"] == "terminated"
    assert cloud.described(instance)["StateReason"]["Code"] == "Server.InternalError"
    assert not (cloud.running.directory / "instance-store").exists()
