import functools
import hashlib
import http.server
import lzma
import os

import pytest

from builder import pool, proc
from builder.errors import ChecksumMismatch, FormatRefused, RemoteError, RemoteFailed
from builder.image.reader import open_image
from builder.image.write import content_digest
from builder.remote.fetch import Source, fetch_and_write
from builder.verify import Checksum

MIB = 1 << 20
NOTHING = Checksum(algorithm="sha256", value="0" * 64)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        self.server.asked += 1


@pytest.fixture
def mirror(tmp_path):
    """An HTTP server of a directory: (directory, address)."""
    directory = tmp_path / "mirror"
    directory.mkdir()
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.77.1", 0), handler) as server:
        server.asked = 0
        serving = pool.Background(server.serve_forever)
        yield directory, f"http://127.0.77.1:{server.server_port}", server
        server.shutdown()
        serving.result(10)


def source(mirror, name, kind, compression="", algorithm="sha256"):
    directory, address, _ = mirror
    value = hashlib.new(algorithm, (directory / name).read_bytes()).hexdigest()
    checksum = Checksum(algorithm=algorithm, value=value)
    return Source(url=f"{address}/{name}", checksum=checksum, format=kind, compression=compression)


@pytest.mark.parametrize("user", ["bob", pytest.param("root", marks=pytest.mark.sweep)])
def test_a_qcow2_is_downloaded_converted_and_written_there(server, mirror, loops, image, proxy, user, notes):
    proc.run(["qemu-img", "convert", "-O", "qcow2", "-c", image, mirror[0] / "disk.qcow2"])
    scratch = server.directory / f"home/{user}"
    device = loops.attach(32 * MIB)
    wanted = source(mirror, "disk.qcow2", "qcow2")
    shell = server.shell(user, port=proxy.port)
    done = fetch_and_write(wanted, shell, device, blank=True, scratch=str(scratch), progress=notes)
    with open_image(mirror[0] / "disk.qcow2") as reader:
        assert done.digest == content_digest(reader)
        size = reader.virtual_size
    with open(device, "rb") as disk:
        assert disk.read(image.stat().st_size) == image.read_bytes()
        disk.seek(size)
        assert not any(disk.read())
    assert proxy.sent + proxy.received < 200_000
    assert not list(scratch.glob("emi-fetch-*"))
    again = fetch_and_write(wanted, shell, device, scratch=str(scratch))
    assert (again.written, again.digest) == (0, done.digest)


def test_a_compressed_raw_image_too(server, mirror, loops, image):
    (mirror[0] / "disk.raw.xz").write_bytes(lzma.compress(image.read_bytes(), preset=0))
    wanted = source(mirror, "disk.raw.xz", "raw", "xz", "sha512")
    device = loops.attach(32 * MIB, data=b"old" * 1000, at=2 * MIB)
    done = fetch_and_write(wanted, server.shell(), device, scratch=str(server.directory))
    with open_image(image, "raw") as reader:
        assert done.digest == content_digest(reader)


def test_a_download_with_another_checksum_is_not_written(server, mirror, loops):
    (mirror[0] / "disk.raw").write_bytes(b"y" * MIB)
    wanted = Source(url=f"{mirror[1]}/disk.raw", checksum=NOTHING, format="raw")
    device = loops.attach(MIB)
    with pytest.raises(ChecksumMismatch, match=r"has sha256:.*, not sha256:00"):
        fetch_and_write(wanted, server.shell(), device, scratch=str(server.directory))
    with open(device, "rb") as disk:
        assert not any(disk.read())
    assert not list(server.directory.glob("emi-fetch-*"))


def test_an_image_that_names_other_files_is_refused(server, mirror, loops, image):
    overlay = mirror[0] / "disk.qcow2"
    proc.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", overlay, "1M"])
    with pytest.raises(FormatRefused, match="names another file, /etc/shadow"):
        fetch_and_write(source(mirror, "disk.qcow2", "qcow2"), server.shell(), loops.attach(MIB), scratch="/var/tmp")


def test_a_vmdk_whose_pieces_are_other_files_is_refused_and_others_are_taken(server, mirror, loops, image):
    words = 'version=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/passwd" 0\n'
    (mirror[0] / "disk.vmdk").write_text(f"# Disk DescriptorFile\n{words}")
    scratch = server.directory
    with pytest.raises(FormatRefused, match="names another file, /etc/passwd"):
        fetch_and_write(source(mirror, "disk.vmdk", "vmdk"), server.shell(), loops.attach(MIB), scratch=str(scratch))
    assert not list(scratch.glob("emi-fetch-*"))
    for shape in ("monolithicSparse", "streamOptimized"):
        options = ["-O", "vmdk", "-o", f"subformat={shape}"]
        proc.run(["qemu-img", "convert", *options, image, mirror[0] / "disk.vmdk"])
        wanted = source(mirror, "disk.vmdk", "vmdk")
        done = fetch_and_write(wanted, server.shell(), loops.attach(32 * MIB), scratch=str(scratch))
        proc.run(["qemu-img", "convert", "-O", "raw", mirror[0] / "disk.vmdk", mirror[0] / "disk.raw"])
        with open_image(mirror[0] / "disk.raw", "raw") as reader:
            assert done.digest == content_digest(reader)


def test_a_file_that_is_not_there_and_a_machine_without_the_tools_are_told(server, bare, mirror, loops):
    wanted = Source(url=f"{mirror[1]}/none", checksum=NOTHING, format="raw")
    with pytest.raises(RemoteFailed, match=r"download of .*none"):
        fetch_and_write(wanted, server.shell(), loops.attach(MIB), scratch=str(server.directory))
    with pytest.raises(RemoteError, match="neither curl nor wget nor Python"):
        fetch_and_write(wanted, bare.shell(), loops.attach(MIB))
    with pytest.raises(RemoteError, match="lacks qemu-img"):
        fetch_and_write(Source(url="x", checksum=NOTHING, format="qcow2"), bare.shell(), loops.attach(MIB))


def test_wget_s_reason_is_told(bare, mirror, loops):
    wget = bare.directory / "programs/wget"
    wget.symlink_to("/usr/bin/wget")
    try:
        wanted = Source(url=f"{mirror[1]}/none", checksum=NOTHING, format="raw")
        with pytest.raises(RemoteFailed, match=r"(?s)download of .*none.*404"):
            fetch_and_write(wanted, bare.shell(), loops.attach(MIB), scratch=str(bare.directory))
        (mirror[0] / "disk.raw").write_bytes(b"y" * MIB)
        device = loops.attach(MIB)
        fetch_and_write(source(mirror, "disk.raw", "raw"), bare.shell(), device, scratch=str(bare.directory))
        with open(device, "rb") as disk:
            assert disk.read() == b"y" * MIB
    finally:
        wget.unlink()


def test_a_dd_that_is_killed_is_gone_on_after(bare, mirror, loops, notes):
    programs, once = bare.directory / "programs", bare.directory / "killed"
    (mirror[0] / "disk.raw").write_bytes(b"z" * MIB)
    real = (programs / "dd").readlink()
    (programs / "wget").symlink_to("/usr/bin/wget")
    (programs / "dd").unlink()
    killed = f'case "$*" in *skip=*conv=notrunc) [ -e {once} ] || {{ : >{once}; kill -9 $$; }} ;; esac'
    (programs / "dd").write_text(f'#!/bin/sh\n{killed}\nexec {real} "$@"\n')
    (programs / "dd").chmod(0o755)
    device = loops.attach(MIB)
    try:
        wanted = source(mirror, "disk.raw", "raw")
        fetch_and_write(wanted, bare.shell(), device, scratch=str(bare.directory), progress=notes)
    finally:
        (programs / "wget").unlink()
        (programs / "dd").unlink()
        (programs / "dd").symlink_to(real)
    assert once.exists()
    assert any(note.startswith("going on after: ") for note in notes.notes)
    with open(device, "rb") as disk:
        assert disk.read() == b"z" * MIB


def test_a_place_that_somebody_else_has_made_is_not_used(server, mirror, loops):
    (mirror[0] / "disk.raw").write_bytes(b"y" * MIB)
    wanted = source(mirror, "disk.raw", "raw")
    trap = server.directory / "home/bob" / f"emi-fetch-{wanted.checksum.value}"
    trap.symlink_to("/etc")
    with pytest.raises(RemoteFailed, match="somebody else's"):
        fetch_and_write(wanted, server.shell(), loops.attach(MIB), scratch=str(trap.parent))
    trap.unlink()


def test_a_full_disk_there_is_the_cause_that_is_told(server, mirror, loops):
    (mirror[0] / "disk.raw").write_bytes(b"y" * 3 * MIB)
    place = server.directory / "fetched-small"
    place.mkdir()
    proc.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place])
    try:
        # The server has its own mounts; it sees what is mounted now through our process.
        scratch = f"/proc/{os.getpid()}/root{place}"
        wanted = source(mirror, "disk.raw", "raw")
        with pytest.raises(RemoteFailed, match=r"No space left on device: .*fetched-small/emi-fetch-.* is full"):
            fetch_and_write(wanted, server.shell(), loops.attach(4 * MIB), scratch=scratch)
    finally:
        proc.run(["umount", place])


def test_a_cut_in_the_midst_is_gone_on_after_without_another_download(server, mirror, loops, image, proxy, notes):
    proc.run(["qemu-img", "convert", "-O", "qcow2", image, mirror[0] / "disk.qcow2"])
    asked = []

    def find():
        asked.append(1)
        if len(asked) == 1:
            proxy.cut()  # the download is there
        return device

    device = loops.attach(32 * MIB)
    shell = server.shell(port=proxy.port, patience=30)
    wanted = source(mirror, "disk.qcow2", "qcow2")
    done = fetch_and_write(wanted, shell, find, blank=True, scratch=str(server.directory), progress=notes)
    with open_image(image, "raw") as reader, open(device, "rb") as disk:
        assert disk.read(reader.virtual_size) == image.read_bytes()
    assert done.written
    assert mirror[2].asked == 1
