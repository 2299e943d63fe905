import os
import re
import time
from pathlib import Path

import pytest
from machine import Proxy

from builder import pool, proc
from builder.errors import ChecksumMismatch, DeviceDoubtful, RemoteAway, RemoteError, RemoteFailed, WriteLost
from builder.image.reader import open_image
from builder.image.write import content_digest
from builder.remote.lanes import read_back
from builder.remote.write import write

MIB = 1 << 20


def digest_of(path):
    with open_image(Path(path), "raw") as reader:
        return content_digest(reader)


@pytest.fixture
def reader(image):
    with open_image(image, "raw") as opened:
        yield opened


@pytest.fixture(params=["server", "bare"])
def either(request):
    """The machine with Python and zstd, and the one without."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("machine", "user"),
    [
        ("server", "bob"),
        ("bare", "root"),
        pytest.param("server", "root", marks=pytest.mark.sweep),
        pytest.param("bare", "bob", marks=pytest.mark.sweep),
    ],
)
def test_an_image_becomes_the_device_and_a_second_write_sends_nothing(request, reader, loops, image, machine, user):
    either = request.getfixturevalue(machine)
    device = loops.attach(32 * MIB)  # larger than the image
    proxy = Proxy(either.port)
    shell = either.shell(user, port=proxy.port)
    done = write(reader, shell, device, blank=True)
    assert done.digest == digest_of(image) == read_back(shell, device, reader.virtual_size)
    with open(device, "rb") as disk, open(image, "rb") as file:
        assert disk.read(reader.virtual_size) == file.read()
        assert disk.read() == bytes(32 * MIB - reader.virtual_size)
    before = proxy.sent
    again = write(reader, shell, device)
    assert (again.sent, again.written, again.digest) == (0, 0, done.digest)
    assert proxy.sent - before < done.written // 100
    proxy.close()


def test_what_differs_is_mended_and_what_lies_in_holes_is_zeroed(either, reader, loops, image):
    device = loops.attach(25 * MIB, data=os.urandom(20 * MIB), at=3 * MIB)
    shell = either.shell()
    assert write(reader, shell, device).digest == digest_of(image)
    with open(device, "r+b") as disk:
        disk.seek(12 * MIB + 77)
        disk.write(b"stray")
    done = write(reader, shell, device, expected=digest_of(image))
    assert done.digest == digest_of(image)
    assert done.written <= 4 * MIB


def test_a_new_file_is_sparse_and_gets_the_image_s_size(either, reader, image):
    target = either.directory / "home/root/disk.raw"
    done = write(reader, either.shell(), str(target))
    assert (target.read_bytes(), done.digest) == (image.read_bytes(), digest_of(image))
    assert target.stat().st_blocks * 512 < 20 * MIB
    target.unlink()


def test_an_image_that_is_not_the_expected_one_is_told(server, reader, loops):
    with pytest.raises(ChecksumMismatch):
        write(reader, server.shell(), loops.attach(32 * MIB), blank=True, expected="blocks:0")


def test_a_device_that_is_too_small_is_refused_before_anything_is_written(either, reader, loops):
    device = loops.attach(16 * MIB)
    with pytest.raises(RemoteError, match="has 16777216 bytes, but the image has"):
        write(reader, either.shell(), device)
    assert Path(device).read_bytes() == bytes(16 * MIB)


def test_a_device_in_use_is_never_written(server, reader, loops, tmp_path):
    device = loops.attach(32 * MIB)
    proc.run(["mkfs.ext4", "-q", device])
    before = Path(device).read_bytes()
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    shell = server.shell()
    shell.run(["mount", "-o", "ro,noload", device, str(mounted)])  # else it begins to write by itself
    try:
        with pytest.raises(DeviceDoubtful, match=f"in use: mounted at {mounted}"):
            write(reader, shell, device, blank=True)
    finally:
        shell.run(["umount", str(mounted)])
    assert Path(device).read_bytes() == before


def test_a_device_of_a_mounted_btrfs_is_never_written(server, reader, loops, tmp_path):
    device, other = loops.attach(128 * MIB), loops.attach(128 * MIB)
    proc.run(["mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", device, other])
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    shell = server.shell()
    shell.run(["mount", "-o", f"device={other}", device, str(mounted)])
    try:
        for each in (device, other):  # the mount names one of them only
            with pytest.raises(DeviceDoubtful, match="in use: part of a btrfs that is mounted"):
                write(reader, shell, each, blank=True)
    finally:
        shell.run(["umount", str(mounted)])


def test_a_write_goes_on_after_cuts_and_sends_little_again(server, proxy, reader, loops, image, notes):
    device = loops.attach(32 * MIB)
    shell = server.shell(port=proxy.port, patience=30)
    proxy.cut_after = 1_500_000
    done = write(reader, shell, device, blank=True, connections=2, progress=notes)
    assert proxy.cuts == 1
    assert done.digest == digest_of(image)
    assert any("was cut during" in note for note in notes.notes)
    assert proxy.sent < 3_600_000 + 2 * 4 * MIB  # all the data, and at most what was under way in each connection


def test_a_write_whose_machine_stays_away_ends(server, proxy, reader, loops):
    shell = server.shell(port=proxy.port, patience=1)
    writing = pool.Background(lambda: write(reader, shell, loops.attach(32 * MIB), blank=True))
    while proxy.sent < 1_000_000 and not writing.done():
        time.sleep(0.01)
    proxy.close()
    with pytest.raises(RemoteAway):
        writing.result(60)


def test_a_killed_writer_is_begun_again_and_one_killed_always_is_told(server, reader, loops, image, notes, tmp_path):
    programs = tmp_path / "programs"  # a Python that dies, as one does for want of memory: first once, then always
    programs.mkdir()
    tmp_path.chmod(0o755)
    device = loops.attach(32 * MIB)
    for always, count in (("", 1), ("yes", 9)):
        marks = tmp_path / f"marks{count}"
        marks.mkdir()
        shell = _with_killed_python(server, programs, marks, always)
        if not always:
            assert write(reader, shell, device, blank=True, connections=1, progress=notes).digest == digest_of(image)
            assert any("killed" in note for note in notes.notes)
        else:
            with pytest.raises(RemoteFailed, match="killed"):
                write(reader, shell, loops.attach(32 * MIB), blank=True, connections=1)


def _with_killed_python(server, programs, marks, always):
    """Return a shell whose python3 kills itself when it is to write."""
    fake = programs / "python3"
    fake.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *" write "*) if [ "{always}" ] || mkdir {marks}/once 2>/dev/null; then kill -9 $$; fi ;; esac\n'
        'exec /usr/bin/python3 "$@"\n'
    )
    fake.chmod(0o755)
    shell = server.shell()
    started = shell.start
    shell.start = lambda text, **words: started(f"PATH={programs}:$PATH; {text}", **words)
    return shell


def test_a_full_disk_there_is_the_cause_that_is_told(either, reader):
    place = either.directory / "small"
    place.mkdir()
    proc.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place])
    try:
        with pytest.raises(RemoteFailed, match="No space left on device"):
            # The server has its own mounts; it sees what is mounted now through our process.
            write(reader, either.shell(), f"/proc/{os.getpid()}/root{place}/disk.raw")
    finally:
        proc.run(["umount", place])


@pytest.fixture
def liar(tmp_path):
    """A file whose writes and fsyncs succeed and are lost: qemu's null device, exported through FUSE."""
    file = tmp_path / "liar"
    file.write_bytes(b"")
    node = f"driver=null-co,node-name=nothing,size={32 * MIB},read-zeroes=on"
    export = f"type=fuse,id=export,node-name=nothing,mountpoint={file},writable=on"
    process = proc.start(["qemu-storage-daemon", "--blockdev", node, "--export", export])
    for _ in range(200):
        if file.stat().st_size:
            break
        time.sleep(0.05)
    assert file.stat().st_size == 32 * MIB
    yield file
    proc.end(process)
    if os.path.ismount(file):
        proc.run(["umount", file])


def test_a_device_that_loses_writes_is_found_out(either, reader, loops, liar):
    device = loops.attach(0, lossy=liar)
    try:
        with pytest.raises(WriteLost, match="does not hold what was written") as raised:
            write(reader, either.shell(), device, blank=True)
        assert re.search(r"the first at byte 0; (\d+) of them read as zeros", raised.value.message)
    finally:
        loops.detach(device)


def test_a_write_is_proven_by_the_device_and_not_by_the_kernel_s_copy(server, reader, loops, liar):
    """Writes that sit in the page cache look right until it is dropped: the twin of the test above, by hand."""
    device = loops.attach(0, lossy=liar)
    try:
        with open(device, "r+b", buffering=0) as disk:
            disk.write(b"x" * MIB)
            disk.seek(0)
            assert disk.read(4) == b"xxxx"
            assert read_back(server.shell(), device, MIB) == read_back(server.shell(), loops.attach(MIB), MIB)
    finally:
        loops.detach(device)
