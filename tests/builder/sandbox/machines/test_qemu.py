"""Real qemu, guests of one sector: what a machine says, how it ends, how volumes come and go without a system."""

from __future__ import annotations

import os
import signal
import socket
import subprocess  # noqa: TID251 - a sandbox's process, to be killed
import sys
from pathlib import Path

import pytest
from guests import INSTANCE, boot_sector, eventually, processes, volume

from builder import pool
from builder.errors import HostError
from builder.sandbox.machines.addresses import Address
from builder.sandbox.machines.machine import CONSOLE, SSH, Disk


def is_free(address: str) -> bool:
    try:
        Address(address).release()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("bus", ["virtio", "nvme"])
def test_a_guest_says_and_volumes_come_and_go(qemu, make_spec, tmp_path, bus):
    # Started by a thread that ends: the machine must not end with it.
    machine = pool.Background(lambda: qemu.start(make_spec(boot_sector(b"hello from the guest"), bus=bus))).result()
    eventually(lambda: b"hello from the guest" in machine.console())
    assert machine.state() == "running"
    assert machine.address.startswith("127.")
    assert not is_free(machine.address)
    with socket.create_connection((machine.address, SSH), timeout=30):
        pass  # qemu takes connections for the guest
    root = machine.spec.disks[0].volume_id
    volumes = [volume(tmp_path, number) for number in range(20)]
    for one in volumes:
        machine.attach(*one)
    ids = {one[0] for one in volumes}
    assert machine.attached() == {root, *ids}
    machine.attach(*volumes[0])  # again is nothing
    kept, forced, *_ = volumes
    machine.detach(kept[0])  # nobody there to let go of it
    machine.detach(kept[0])
    machine.detach(forced[0])
    machine.detach(forced[0], force=True)
    machine.detach("vol-00000000000000000")
    assert machine.attached() == {root, *ids} - {forced[0]}
    forced[1].rename(forced[1].with_suffix(".away"))  # nobody holds it
    machine.reset()  # firmware that starts anew takes no notice of what is on its way out
    eventually(lambda: machine.attached() == {root, *ids} - {forced[0], kept[0]})
    machine.attach(*kept)
    assert kept[0] in machine.attached()
    machine.power_down()
    assert machine.alive()  # it took no notice
    machine.flush()
    machine.stop()
    assert (machine.state(), machine.attached()) == ("off", frozenset())
    assert b"hello from the guest" in machine.console()
    assert is_free(machine.address)
    machine.attach(*forced[:2], *forced[2:])
    machine.reset()
    machine.destroy()
    machine.destroy()
    assert list((tmp_path / "machines").iterdir()) == []
    assert processes(tmp_path / "machines") == []


def test_a_file_is_let_go_of_when_its_device_is(qemu, make_spec, tmp_path):
    machine = qemu.start(make_spec())
    volume_id, path, device, serial = volume(tmp_path)
    holders = f"/proc/{processes(tmp_path / 'machines')[0]}/fd"

    def held() -> bool:
        return str(path) in {str(entry.readlink()) for entry in Path(holders).iterdir() if entry.is_symlink()}

    machine.attach(volume_id, path, device, serial)
    assert held()
    machine.detach(volume_id, force=True)
    assert not held()
    machine.attach(volume_id, path, device, serial)  # beside the dead device that the guest still has
    assert held()
    machine.detach(volume_id)
    machine.reset()
    eventually(lambda: volume_id not in machine.attached())
    assert not held()


@pytest.mark.parametrize(
    ("then", "state"), [("power off", "off"), ("panic", "panicked")]
)  # fmt: skip
def test_the_end_of_a_guest_is_noticed(qemu, make_spec, then, state):
    machine = qemu.start(make_spec(boot_sector(b"so", then)))
    eventually(lambda: machine.state() != "running")
    assert machine.state() == state
    assert machine.alive() == (state == "panicked")
    assert b"so" in machine.console()
    machine.stop()
    assert machine.state() == "off"


def test_a_kernel_that_got_no_time_begins_again(qemu, make_spec):
    words = b"\r\n---[ end Kernel panic - not syncing: IO-APIC + timer doesn't work! ]---\r\n"
    machine = qemu.start(make_spec(boot_sector(words)))
    told = words[:-6]  # it may be begun anew before its last words
    eventually(lambda: machine.state() == "running" and machine.console().count(told) >= 3)


def test_a_killed_machine_is_lost(qemu, make_spec, tmp_path):
    machine = qemu.start(make_spec())
    os.kill(processes(tmp_path / "machines")[0], signal.SIGKILL)
    eventually(lambda: not machine.alive())
    assert machine.state() == "lost"
    assert machine.attached() == frozenset()
    machine.detach(machine.spec.disks[0].volume_id, force=True)
    machine.stop()
    assert machine.state() == "lost"


@pytest.mark.sweep
def test_a_guest_that_prints_for_ever_fills_no_disk(qemu, make_spec):
    machine = qemu.start(make_spec(boot_sector(b"all work and no play " * 15, "say it again")))
    file = machine.spec.directory / "console"
    inode = file.stat().st_ino
    eventually(lambda: file.stat().st_ino != inode)  # it was cut once
    for _ in range(50):
        assert file.stat().st_size <= 4 * CONSOLE
    said = machine.console()
    assert len(said) == CONSOLE
    assert said.count(b"all work and no play") > 2900


def test_a_machine_that_cannot_start_leaves_nothing(qemu, make_spec, tmp_path):
    absent = Disk(volume_id="vol-0123456789abcdef0", path=tmp_path / "absent", serial="vol0")
    with pytest.raises(HostError, match=f"the machine of {INSTANCE} did not start: .*absent"):
        qemu.start(make_spec(disks=(absent,)))
    assert list((tmp_path / "machines").iterdir()) == []
    assert processes(tmp_path / "machines") == []


CHILD = """\
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from guests import boot_sector, facts, INSTANCE
from builder.sandbox.machines.machine import Disk, MachineSpec
from builder.sandbox.machines.qemu import Qemu
directory = Path({directory!r})
root = directory.parent / "root"
root.write_bytes(boot_sector(b"alive").ljust(1 << 20, b"\\0"))
driver = Qemu(directory)
disk = Disk(volume_id="vol-1", path=root, serial="vol1")
made = driver.start(MachineSpec(instance_id=INSTANCE, directory=directory / INSTANCE, disks=(disk,), metadata=facts,
                                memory=32))
print(made.address, flush=True)
time.sleep(600)
"""


def test_kill_9_leaves_files_alone_and_the_next_start_removes_these(qemu, tmp_path):
    directory = tmp_path / "machines"
    text = CHILD.format(tests=str(Path(__file__).parent), directory=str(directory))
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as child:
        address = child.stdout.readline().strip()
        running = processes(directory)
        assert running
        assert not is_free(address)
        child.kill()
    eventually(lambda: processes(directory) == [])
    eventually(lambda: is_free(address))
    assert [entry.name for entry in directory.iterdir()] == [INSTANCE]
    qemu.sweep()
    assert list(directory.iterdir()) == []


def test_a_sweep_ends_what_was_just_being_started_and_nobody_else_s(qemu, tmp_path):
    directory = tmp_path / "machines" / INSTANCE
    directory.mkdir()
    (directory / "console").touch()
    code = "import time; print(flush=True); time.sleep(600)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen(["sh", "-c", "echo; read -r _", directory / "pid"], **pipes) as left,
        subprocess.Popen([sys.executable, "-c", code, directory / "console"], **pipes) as reader,
    ):
        for each in (left, reader):  # a process has no command line in the midst of its exec
            assert each.stdout.readline() == b"\n"
        qemu.sweep()
        assert left.wait(60) == -signal.SIGKILL
        assert reader.poll() is None
        reader.kill()
    assert not directory.exists()
