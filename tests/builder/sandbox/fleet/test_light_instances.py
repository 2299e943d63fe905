"""Instances on light machines: logged into over SSH, with volumes that come and go as EC2 says."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleets import Account, until

from builder.digest import BLOCK
from builder.remote import abilities, devices
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair
from builder.sandbox import lifecycle
from builder.sandbox.faults import client

AREA = "EC2 instances (machines)"
KEY, HOST_KEY = KeyPair.generate(), KeyPair.generate()
GIB = 1 << 30


@pytest.fixture(scope="session")
def sandbox_options():
    return {"machines": "light"}


@pytest.fixture(scope="module")
def account(sandbox):
    account = Account(sandbox)
    account.ec2.import_key_pair(KeyName="ours", PublicKeyMaterial=KEY.public.encode())
    account.launched = account.image()
    return account


@pytest.fixture
def instance(account):
    """A running instance that our key opens, and that has the host key we expect."""
    lines = "".join(f"    {line}\n" for line in HOST_KEY.private.decode().splitlines())
    user_data = f"#cloud-config\nssh_keys:\n  ed25519_private: |\n{lines}"
    instance = account.run(account.launched, KeyName="ours", UserData=user_data)
    account.reaches(instance, "running")
    yield instance
    account.ec2.terminate_instances(InstanceIds=[instance])


@contextmanager
def shell(account, instance):
    address = account.described(instance)["PublicIpAddress"]
    remote = Remote(Login(host=address, user="root", key=KEY, pinned=(HOST_KEY.public,)), patience=60)
    yield Shell(remote)
    remote.close()


@pytest.mark.behaviour(AREA, "AttachVolume, DetachVolume", "found in the machine by the volume's serial; detached when "
                       "it has let go, `detaching` while somebody has it open")  # fmt: skip
@pytest.mark.behaviour(AREA, "CreateSnapshot", "of a volume in use: what the machine has synced is in it")
def test_a_volume_is_written_on_a_machine_and_snapshotted(account, instance):
    volume = account.volume()
    account.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    until(lambda: account.attachment(volume) == "attached")
    with shell(account, instance) as there:
        found = devices.find(there, abilities.ask(there), devices.Wanted(volume_id=volume, size=GIB))
        assert found.serial == volume.replace("-", "")
        there.script(f"printf synced | dd of={found.path} seek=5 bs={BLOCK} conv=fsync 2>/dev/null", timeout=600)
        # Its own session, and begun: else it ends with the script.
        holding = f"setsid sleep 600 <{found.path} >/dev/null 2>&1 & until pgrep -x sleep; do :; done"
        there.script(holding, timeout=600)
        snapshot = account.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        account.ec2.detach_volume(VolumeId=volume)
        assert account.attachment(volume) == "detaching"
        account.ec2.detach_volume(VolumeId=volume, Force=True)
        until(lambda: account.volume_of(volume)["State"] == "available")
    account.ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 0.05})
    assert account.running.raw().read(snapshot) == {5: b"synced".ljust(BLOCK, b"\0")}


@pytest.mark.behaviour(AREA, "StopInstances, StartInstances", "volumes stay attached and keep what was written")
@pytest.mark.behaviour(AREA, "TerminateInstances", "volumes with DeleteOnTermination go, others become available")
def test_volumes_outlive_a_stop(account, instance):
    volume = account.volume()
    account.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    until(lambda: account.attachment(volume) == "attached")
    with shell(account, instance) as there:
        before = devices.find(there, abilities.ask(there), devices.Wanted(volume_id=volume, size=GIB))
        there.script(f"printf kept | dd of={before.path} conv=fsync 2>/dev/null", timeout=600)
    account.ec2.stop_instances(InstanceIds=[instance])
    account.reaches(instance, "stopped")
    assert account.attachment(volume) == "attached"
    account.ec2.start_instances(InstanceIds=[instance])
    account.reaches(instance, "running")
    with shell(account, instance) as there:
        after = devices.find(there, abilities.ask(there), devices.Wanted(volume_id=volume, size=GIB))
        said = there.script(f"dd if={after.path} bs=4 count=1 2>/dev/null", timeout=600).stdout
    assert said == b"kept"
    root = account.described(instance)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    account.ec2.terminate_instances(InstanceIds=[instance])
    account.reaches(instance, "terminated")
    until(lambda: root not in [one["VolumeId"] for one in account.ec2.describe_volumes()["Volumes"]])
    until(lambda: account.volume_of(volume)["State"] == "available")


@pytest.mark.behaviour(
    AREA, "CreateImage", "without NoReboot the instance is shut down for it, and running again after"
)
def test_an_image_of_an_instance(account, instance):
    address = account.described(instance)["PublicIpAddress"]
    with shell(account, instance) as there:
        before = there.script("cat /proc/sys/kernel/random/boot_id", timeout=600).stdout
    made = account.ec2.create_image(InstanceId=instance, Name="rebooted")["ImageId"]
    account.ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 0.05})
    found = account.reaches(instance, "running")
    assert found["PublicIpAddress"] == address
    with shell(account, instance) as there:
        assert there.script("cat /proc/sys/kernel/random/boot_id", timeout=600).stdout != before


@pytest.mark.behaviour("Faults", "dies", "the machine of an instance that a call names is lost: stopped, with "
                       "Server.InternalError")  # fmt: skip
def test_a_machine_dies_by_a_fault(account, instance):
    volume = account.volume()
    client.put(account.running.endpoint, [{"effect": "dies", "call": "AttachVolume", "seconds": 0.1}])
    try:
        account.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
        stopped = account.reaches(instance, "stopped")
    finally:
        client.clear(account.running.endpoint)
    assert stopped["StateReason"]["Code"] == "Server.InternalError"
    assert account.attachment(volume) == "attached"


@pytest.mark.behaviour(AREA, "emi sandbox status", "shows each machine's address")
def test_machines_end_with_the_sandbox(account, instance):
    address = account.described(instance)["PublicIpAddress"]
    contents = lifecycle.ask(account.running.endpoint, "/_sandbox/contents")["tables"]
    (table,) = (one for one in contents if one["name"] == "instances")
    assert any({"light", address, instance} < set(map(str, row)) for row in table["rows"])
    os.kill(account.running.endpoint.pid, signal.SIGKILL)
    account.again()
    stopped = account.described(instance)
    assert (stopped["State"]["Name"], "PublicIpAddress" in stopped) == ("stopped", False)
    assert stopped["StateReason"]["Code"] == "Server.ScheduledStop"
    assert not list(Path(account.running.directory, "machines").iterdir())


def test_an_instance_ends_also_where_machines_are_given_up_or_taken_up_again(make_sandbox):
    account = Account(make_sandbox(machines="light"))
    machines = account.run(account.image())
    account.reaches(machines, "running")
    account.ec2.stop_instances(InstanceIds=[machines])
    account.reaches(machines, "stopped")
    root = account.described(machines)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]

    def start_with(driver):
        lifecycle.stop(account.running.directory)
        account.running.options["machines"] = driver
        account.again()

    start_with("none")
    account.ec2.terminate_instances(InstanceIds=[machines])
    until(lambda: account.described(machines)["State"]["Name"] == "terminated", patience=10)
    until(lambda: root not in [one["VolumeId"] for one in account.ec2.describe_volumes()["Volumes"]], patience=10)
    record = account.run(account.image())
    account.reaches(record, "running")
    start_with("light")
    account.ec2.stop_instances(InstanceIds=[record])
    account.reaches(record, "stopped")
    account.ec2.terminate_instances(InstanceIds=[record])
    account.reaches(record, "terminated")
