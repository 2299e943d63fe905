"""Instances that are real guests of one sector: their life as EC2 tells it, and what a guest must do for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from fleets import ROOT, until

from builder.sandbox import lifecycle

pytestmark = pytest.mark.sweep
AREA = "EC2 instances (machines)"
MISSING = [
    (AREA, "security groups", "kept and described, not enforced: an instance is reached at its own 127.x.y.z alone"),
    (AREA, "instance types", "512 MiB of memory (nano, micro, small) or 1 GiB, one processor; x86_64 only"),
    (AREA, "TerminateInstances", "the power is cut; EC2 lets the guest shut down first"),
    (AREA, "RebootInstances", "the reset button; EC2 asks the guest first"),
    (AREA, "PublicIpAddress, PrivateIpAddress", "one and the same 127.x.y.z, port 22 only; another after a start"),
]


@pytest.fixture
def driver():
    return "qemu"


@pytest.mark.behaviour(AREA, "RunInstances, DescribeInstances", "the image's bytes boot in qemu; pending until it "
                       "runs, then an address in 127/8")  # fmt: skip
@pytest.mark.behaviour(AREA, "GetConsoleOutput", "what the guest says on its serial port, also after its end")
@pytest.mark.behaviour(AREA, "StopInstances, StartInstances", "Force cuts the power; the same volumes, new boot")
def test_an_instance_lives(account):
    instance = account.run(account.image())
    assert account.described(instance)["State"]["Name"] == "pending"
    running = account.reaches(instance, "running")
    assert running["PublicIpAddress"] == running["PrivateIpAddress"]
    assert running["PublicIpAddress"].startswith("127.")
    assert "StateReason" not in running
    account.says(instance, "hello")
    account.ec2.reboot_instances(InstanceIds=[instance])
    account.says(instance, "hello", times=2)
    (held,) = running["BlockDeviceMappings"]
    assert (held["DeviceName"], held["Ebs"]["Status"]) == (ROOT, "attached")
    account.ec2.stop_instances(InstanceIds=[instance])  # this guest does not hear the button
    assert account.described(instance)["State"]["Name"] == "stopping"
    account.ec2.stop_instances(InstanceIds=[instance], Force=True)
    stopped = account.reaches(instance, "stopped")
    assert "PublicIpAddress" not in stopped
    assert stopped["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] == held["Ebs"]["VolumeId"]
    account.says(instance, "hello", times=2)
    account.ec2.start_instances(InstanceIds=[instance])
    account.reaches(instance, "running")
    account.says(instance, "hello")
    account.ec2.terminate_instances(InstanceIds=[instance])
    assert account.reaches(instance, "terminated")["BlockDeviceMappings"] == []
    until(lambda: account.ec2.describe_volumes()["Volumes"] == [])


@pytest.mark.behaviour(AREA, "InstanceInitiatedShutdownBehavior", "a guest that shuts down is stopped, or terminated")
@pytest.mark.parametrize("behavior", ["stop", "terminate"])
def test_a_guest_that_shuts_down(account, behavior):
    wish = {"InstanceInitiatedShutdownBehavior": behavior}
    instance = account.run(account.image(b"bye\n", "power off"), **wish)
    over = account.reaches(instance, {"stop": "stopped", "terminate": "terminated"}[behavior])
    assert over["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert len(account.ec2.describe_volumes()["Volumes"]) == (behavior == "stop")
    account.says(instance, "bye")


@pytest.mark.behaviour(AREA, "DescribeInstanceStatus", "a guest whose kernel panics is `impaired`")
def test_a_guest_that_panics(account):
    instance = account.run(account.image(b"oops\n", "panic"))

    def impaired():
        (status,) = account.ec2.describe_instance_status(InstanceIds=[instance], IncludeAllInstances=True)[
            "InstanceStatuses"
        ]
        return (status["InstanceStatus"]["Status"], status["SystemStatus"]["Status"]) == ("impaired", "ok")

    until(impaired)
    assert account.described(instance)["State"]["Name"] == "running"


@pytest.mark.behaviour(AREA, "AttachVolume, DetachVolume", "plugged into the running guest; `busy` when the guest "
                       "does not let go; Force takes it away")  # fmt: skip
def test_a_guest_that_does_not_let_go(account):
    instance, volume = account.run(account.image()), account.volume()
    account.reaches(instance, "running")
    account.says(instance, "hello")
    account.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    until(lambda: account.attachment(volume) == "attached")
    account.ec2.detach_volume(VolumeId=volume)
    assert account.attachment(volume) == "detaching"
    until(lambda: account.attachment(volume) == "busy")
    account.ec2.detach_volume(VolumeId=volume, Force=True)
    until(lambda: account.volume_of(volume)["State"] == "available")


@pytest.mark.behaviour(AREA, "all", "machines end with the sandbox, also on kill -9; then instances are stopped with "
                       "Server.ScheduledStop, and can be started")  # fmt: skip
def test_machines_end_with_the_sandbox(account):
    image = account.image()
    instance, other = account.run(image), account.run(image)
    account.reaches(instance, "running")
    account.reaches(other, "running")
    account.ec2.terminate_instances(InstanceIds=[other])
    os.kill(account.running.endpoint.pid, signal.SIGKILL)
    place = str(account.running.directory).encode()
    until(lambda: not _naming(place, b"qemu"))
    account.again()
    stopped = account.reaches(instance, "stopped")
    assert stopped["StateReason"]["Code"] == "Server.ScheduledStop"
    account.reaches(other, "terminated")
    account.ec2.start_instances(InstanceIds=[instance])
    account.reaches(instance, "running")
    account.says(instance, "hello")
    lifecycle.stop(account.running.directory)
    until(lambda: not _naming(place, b"qemu"))


def _naming(*words):
    """Return the processes whose command line names all these words."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            said = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:  # it has ended
            continue
        if said and all(word in said for word in words):
            found.append(entry.name)
    return found


@pytest.mark.behaviour(
    AREA, "an instance whose machine is killed", "stopped with Server.InternalError; its volumes stay"
)
def test_a_machine_that_is_lost(account):
    instance = account.run(account.image(), InstanceInitiatedShutdownBehavior="terminate")
    account.reaches(instance, "running")
    (process,) = until(lambda: _naming(str(account.running.directory).encode(), b"qemu-system", instance.encode()))
    os.kill(int(process), signal.SIGKILL)
    stopped = account.reaches(instance, "stopped")
    assert stopped["StateReason"]["Code"] == "Server.InternalError"
    assert len(stopped["BlockDeviceMappings"]) == 1


@pytest.mark.behaviour(AREA, "CreateImage with NoReboot", "the guest goes on; the image boots as it was written")
def test_an_image_of_a_running_instance(account):
    instance = account.run(account.image(b"hello\n"))
    before = account.reaches(instance, "running")
    account.says(instance, "hello")
    made = account.ec2.create_image(InstanceId=instance, Name="as it runs", NoReboot=True)["ImageId"]
    assert account.described(instance)["State"]["Name"] == "running"
    account.ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 0.05})
    copy = account.run(made)
    account.says(copy, "hello")
    assert account.described(instance)["PublicIpAddress"] == before["PublicIpAddress"]
