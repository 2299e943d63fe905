"""What is cut, killed or powered off in mid-write is not sent again; measured on the wire, behind a real sshd."""

import hashlib
import os
import random
import tempfile
import time
from pathlib import Path

import pytest
from machine import Proxy, machine

from builder import pool, proc
from builder.errors import DeviceDoubtful, DeviceMoved
from builder.image.reader import open_image
from builder.remote.write import write

MIB = 1 << 20
SIZE = 60 * MIB
CUT = 48 * MIB  # bytes on the wire: a connection has at most 2 MiB under way, and a piece of 1 MiB begun


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A disk full of what no compression makes smaller."""
    path = tmp_path_factory.mktemp("noise") / "disk.raw"
    path.write_bytes(random.Random(6).randbytes(SIZE))
    return path


@pytest.fixture
def there():
    """A machine of this test's own, which may be powered off."""
    with tempfile.TemporaryDirectory(prefix="emi-sshd-") as directory, machine(Path(directory)) as made:
        yield made


def wait_for_bytes(proxy, count, writing):
    while proxy.sent < count:
        assert not writing.done(), writing.result()
        time.sleep(0.005)


def writers(machine_there):
    """Return the processes there that write to a device."""
    return [pid for pid in machine_there.below() if b"write\0/" in _read(f"/proc/{pid}/cmdline")]


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def cut(machine_there, proxy):
    proxy.cut()


def kill(machine_there, proxy):
    found = writers(machine_there)
    assert found
    for pid in found:
        os.kill(pid, 9)


def power_off(machine_there, proxy):
    machine_there.power_off()
    machine_there.start()


@pytest.mark.parametrize(
    "how", [cut, pytest.param(kill, marks=pytest.mark.sweep), pytest.param(power_off, marks=pytest.mark.sweep)]
)
def test_less_than_a_tenth_of_what_was_written_is_sent_again(there, noise, loops, notes, how):
    device = loops.attach(SIZE + MIB)
    proxy = Proxy(there.port)
    shell = there.shell(port=proxy.port, patience=60)
    with open_image(noise, "raw") as reader:
        writing = pool.Background(
            lambda: write(reader, shell, lambda: device, blank=True, connections=1, progress=notes)
        )
        wait_for_bytes(proxy, CUT, writing)
        how(there, proxy)
        done = writing.result(300)
    assert any(note.startswith("going on after") for note in notes.notes)
    with open(device, "rb") as disk:
        assert hashlib.sha256(disk.read(SIZE)).digest() == hashlib.sha256(noise.read_bytes()).digest()
    assert done.sent <= proxy.sent
    assert SIZE < proxy.sent < SIZE + CUT // 10  # SSH's own bytes too
    proxy.close()


@pytest.mark.sweep
def test_after_a_new_start_a_name_that_means_another_disk_is_not_written_to(there, noise, loops, tmp_path, notes):
    """The name is another disk's after the start: what was under way must find ours again, or end."""
    name = there.directory / "vdb"
    ours, precious = loops.attach(SIZE + MIB), loops.attach(SIZE + MIB, data=b"precious", at=5 * MIB)
    before = Path(precious).read_bytes()
    for found in (ours, None):
        name.unlink(missing_ok=True)
        name.symlink_to(ours)
        proxy = Proxy(there.port)
        shell = there.shell(port=proxy.port, patience=60)
        asked = []

        def find(asked=asked, found=found):
            asked.append(1)
            if len(asked) > 1 and not found:
                raise DeviceDoubtful("nothing tells which it is")
            return found if len(asked) > 1 else str(name)

        with open_image(noise, "raw") as reader:
            writing = pool.Background(
                lambda find=find, shell=shell, reader=reader: write(reader, shell, find, connections=2, progress=notes)
            )
            wait_for_bytes(proxy, 10 * MIB if found is None else 30 * MIB, writing)
            there.power_off()
            name.unlink()
            name.symlink_to(precious)
            there.start()
            if found:
                assert writing.result(300).digest
                assert Path(ours).read_bytes()[:SIZE] == noise.read_bytes()
                proc.run(["dd", "if=/dev/zero", f"of={ours}", f"bs={MIB}", f"count={SIZE // MIB}", "status=none"])
            else:
                with pytest.raises(DeviceDoubtful, match="nothing tells"):
                    writing.result(300)
        proxy.close()
        assert len(asked) == 2
    assert Path(precious).read_bytes() == before


def test_a_name_that_was_given_is_not_believed_after_a_new_start(there, noise, loops):
    device = loops.attach(SIZE)
    proxy = Proxy(there.port)
    shell = there.shell(port=proxy.port, patience=60)
    with open_image(noise, "raw") as reader:
        writing = pool.Background(lambda: write(reader, shell, device, blank=True, connections=2))
        wait_for_bytes(proxy, 10 * MIB, writing)
        there.power_off()
        there.start()
        with pytest.raises(DeviceMoved, match="may mean another disk now"):
            writing.result(300)
    proxy.close()
