"""A light machine is a real sshd with devices of its own; our SSH finds its volumes as in a guest and writes them."""

from __future__ import annotations

import os
import signal
import subprocess  # noqa: TID251 - a sandbox's process, to be killed
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from guests import INSTANCE, eventually, facts, processes, volume

from builder import pool
from builder.errors import HostError, HostKeyWrong, RemoteError, RemoteFailed
from builder.remote import abilities, devices, listing
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair
from builder.sandbox.machines.light import Light
from builder.sandbox.machines.shelter import cloud_config, host_key

KEY, HOST_KEY = KeyPair.generate(), KeyPair.generate()


def user_data(key: KeyPair) -> bytes:
    lines = "".join(f"    {line}\n" for line in key.private.decode().splitlines())
    return f"#cloud-config\nssh_keys:\n  ed25519_private: |\n{lines}".encode()


def ours(**changes: object) -> object:
    return facts(public_keys=(("my-key", KEY.public),), user_data=user_data(HOST_KEY), **changes)


@contextmanager
def shell(machine, key: KeyPair = KEY, pinned: KeyPair = HOST_KEY) -> Iterator[Shell]:
    remote = Remote(Login(host=machine.address, user="root", key=key, pinned=(pinned.public,)), patience=30)
    yield Shell(remote)
    remote.close()


def backing_files() -> set[str]:
    """Return the files that this host's loop devices stand for."""
    return {path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")}


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Light]:
    driver = Light(tmp_path / "machines")
    driver.sweep()
    yield driver
    driver.close()


@pytest.fixture
def machine(light, make_spec: Callable):
    return light.start(make_spec(metadata=ours))


@pytest.mark.parametrize("bus", ["virtio", "nvme"])
def test_volumes_are_found_by_their_serial_and_keep_what_is_written(light, make_spec, tmp_path, bus):
    machine = pool.Background(lambda: light.start(make_spec(metadata=ours, bus=bus))).result()
    volumes = [volume(tmp_path, number, size) for number, size in ((1, 4 << 20), (2, 4 << 20), (3, 8 << 20))]
    for one in volumes:
        machine.attach(*one)
    machine.attach(*volumes[0])
    assert machine.attached() == {"vol-0fedcba9876543210", *(one[0] for one in volumes)}
    with shell(machine) as there:
        can = abilities.ask(there)
        seen = listing.read(there)
        assert len(seen.devices) == 4  # none of this host's
        assert seen.boot_id not in ("", Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        for volume_id, path, _, serial in volumes:
            found = devices.find(there, can, devices.Wanted(volume_id=volume_id, size=path.stat().st_size))
            assert found.serial == serial
            assert found.name[:2] == bus[0:1].replace("v", "vd") if bus == "virtio" else found.name[:4] == "nvme"
            there.script(f"printf %s {volume_id} | dd of={found.path} conv=fsync 2>/dev/null", root=True, timeout=60)
            assert path.read_bytes()[: len(volume_id)] == volume_id.encode()
        machine.detach(volumes[1][0])
        eventually(lambda: machine.attached() == {"vol-0fedcba9876543210", volumes[0][0], volumes[2][0]})
        assert len(listing.read(there).devices) == 3
        machine.attach(*volumes[1])
        wanted = devices.Wanted(volume_id=volumes[1][0], size=4 << 20)
        assert devices.find(there, can, wanted).serial == volumes[1][3]
    machine.flush()
    machine.stop()
    eventually(lambda: not backing_files() & {str(one[1]) for one in volumes})


def test_who_has_a_volume_open_keeps_it_until_it_is_taken_away(machine, tmp_path):
    one = volume(tmp_path)
    machine.attach(*one)
    with shell(machine) as there:
        holding = pool.Background(lambda: there.script("exec 9</dev/vdb; touch /tmp/opened; sleep 600", timeout=600))
        eventually((machine.spec.directory / "tmp" / "opened").exists)
        machine.detach(one[0])
        machine.detach(one[0])
        assert one[0] in machine.attached()
        assert len(listing.read(there).devices) == 1
        machine.detach(one[0], force=True)
        eventually(lambda: one[0] not in machine.attached())
        with pytest.raises(RemoteFailed):
            holding.result(300)
        machine.attach(*one)
        there.script("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && test -d /mnt/lost+found", root=True, timeout=120)
        machine.detach(one[0])
        assert one[0] in machine.attached()
        machine.detach(one[0], force=True)
        eventually(lambda: one[0] not in machine.attached())
    assert not (Path("/mnt") / "lost+found").exists()


def test_a_machine_started_anew_has_its_volumes_and_no_processes(machine, tmp_path):
    one, other = volume(tmp_path, 1), volume(tmp_path, 2)
    machine.attach(*one)
    machine.attach(*other)
    with shell(machine) as there:
        before = listing.read(there)
        there.script("touch /tmp/mine", timeout=60)
        holding = pool.Background(lambda: there.script("exec 9</dev/vdb; touch /tmp/opened; sleep 600", timeout=600))
        eventually((machine.spec.directory / "tmp" / "opened").exists)
    machine.detach(one[0])
    machine.reset()
    assert machine.attached() == {"vol-0fedcba9876543210", other[0]}
    with shell(machine) as there:
        after = listing.read(there)
        assert after.boot_id != before.boot_id
        assert len(after.devices) == 2
        assert (
            there.script("ls /tmp; cat /proc/[0-9]*/comm | grep -c sleep || true", timeout=60).stdout
            == b"mine\nopened\n0\n"
        )
    with pytest.raises(RemoteError):
        holding.result(300)
    assert not Path("/tmp/mine").exists()


@pytest.mark.parametrize(
    "command", ["poweroff", "shutdown -h now", "kill -TERM 1", "shutdown -P +600; shutdown -c; halt"]
)
def test_it_can_end_itself(machine, command):
    with shell(machine) as there, pytest.raises(RemoteError):
        there.script(f"{command}; sleep 600", timeout=600)
    eventually(lambda: not machine.alive())
    assert (machine.state(), machine.attached()) == ("off", frozenset())
    machine.detach("vol-0fedcba9876543210")
    machine.reset()
    assert not machine.alive()


def test_what_has_the_number_of_a_machine_that_ended_is_left_alone(light, machine):
    machine.power_down()
    eventually(lambda: machine.state() == "off")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        machine._process.pid = stranger.pid
        light.close()
        assert stranger.poll() is None
        stranger.kill()


def test_power_down_and_being_killed_are_told_apart(light, make_spec):
    machine = light.start(make_spec(metadata=ours))
    assert machine.state() == "running"
    machine.power_down()
    eventually(lambda: machine.state() == "off")
    machine.destroy()
    machine = light.start(make_spec(metadata=ours))
    for number in processes(machine.spec.directory):
        os.kill(number, signal.SIGKILL)
    eventually(lambda: machine.state() == "lost")


def test_only_its_keys_are_let_in_and_its_host_key_is_the_given_one(light, make_spec):
    extra = KeyPair.generate()
    config = user_data(HOST_KEY) + f"ssh_authorized_keys: ['{extra.public}']\n".encode()
    machine = light.start(make_spec(metadata=lambda: facts(user_data=config)))
    with shell(machine, key=extra) as there:
        assert there.script("id -u", timeout=60).stdout == b"0\n"
    with shell(machine, key=KEY) as there, pytest.raises(RemoteError):
        there.script("id -u", timeout=60)
    with shell(machine, pinned=KEY) as there, pytest.raises(HostKeyWrong):
        there.script("id -u", timeout=60)
    lines = machine.console().decode().split("\n")
    told = lines[lines.index("-----BEGIN SSH HOST KEY KEYS-----") + 1]
    assert told.split()[:2] == HOST_KEY.public.split()[:2]


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"#!/bin/sh\n",
        b"#cloud-config\n- a list\n",
        b"#cloud-config\n: [",
        b"\xff",
        b"#cloud-config\nssh_keys: x\n",
    ],
)
def test_user_data_of_another_kind_gives_no_host_key(data):
    assert host_key(cloud_config(data)) is None


def test_without_a_given_host_key_it_makes_one(light, make_spec):
    machine = light.start(make_spec())
    assert b"\nssh-ed25519 " in machine.console()


def test_a_host_key_that_is_none_is_refused(light, make_spec, tmp_path):
    data = b"#cloud-config\nssh_keys: {ed25519_private: nonsense}\n"
    with pytest.raises(HostError, match="ssh-keygen"):
        light.start(make_spec(metadata=lambda: facts(user_data=data)))
    assert list((tmp_path / "machines").iterdir()) == []


def test_without_loop_devices_volumes_are_files(tmp_path, make_spec):
    driver = Light(tmp_path / "machines", loops=False)
    machine = driver.start(make_spec(metadata=ours))
    one = volume(tmp_path)
    machine.attach(*one)
    with shell(machine) as there:
        wanted = devices.Wanted(volume_id=one[0], size=1 << 20)
        found = devices.find(there, abilities.ask(there), wanted)
        there.script(f"printf bytes | dd of={found.path} conv=notrunc,fsync 2>/dev/null", timeout=60)
    assert one[1].read_bytes()[:5] == b"bytes"
    machine.detach(one[0])
    assert one[0] not in machine.attached()
    driver.close()


def test_a_volume_without_a_file_is_refused_and_leaves_no_machine(light, make_spec, tmp_path):
    spec = make_spec(metadata=ours)
    spec.disks[0].path.unlink()
    with pytest.raises(HostError, match=r"no loop device for .*/root: No such file"):
        light.start(spec)
    assert list((tmp_path / "machines").iterdir()) == []
    assert processes(tmp_path / "machines") == []


CHILD = """\
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from guests import INSTANCE, facts, volume
from builder.sandbox.machines.light import Light
from builder.sandbox.machines.shelter import cloud_config, host_key
from builder.sandbox.machines.machine import Disk, MachineSpec
directory = Path({directory!r})
names = volume(directory.parent, 9)
disk = Disk(volume_id=names[0], path=names[1], serial=names[3])
made = Light(directory).start(MachineSpec(
    instance_id=INSTANCE, directory=directory / INSTANCE, disks=(disk,),
    metadata=lambda: facts(public_keys=(("k", {key!r}),), user_data={data!r})))
print(made.address, flush=True)
time.sleep(600)
"""


class Told:
    """A machine of another process."""

    def __init__(self, address: str) -> None:
        self.address = address


def test_kill_9_leaves_no_process_and_no_loop_device(light, tmp_path):
    directory = tmp_path / "machines"
    text = CHILD.format(
        tests=str(Path(__file__).parent), directory=str(directory), key=KEY.public, data=user_data(HOST_KEY)
    )
    mark = f"sleep 6{os.getpid()}"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as child:
        address = child.stdout.readline().strip()
        with shell(Told(address)) as there:
            there.script(f"setsid {mark} </dev/vda >/dev/null 2>&1 & sleep 0", timeout=60)
            files = {str(path) for path in tmp_path.glob("vol-*")}
            assert files
            assert files <= backing_files()
            child.kill()
            child.wait()
    eventually(lambda: not files & backing_files())
    eventually(lambda: processes(directory) == [] and processes(Path(mark.replace(" ", "\0"))) == [])
    assert [entry.name for entry in directory.iterdir()] == [INSTANCE]
    light.sweep()
    assert list(directory.iterdir()) == []
