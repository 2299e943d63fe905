"""Looking at an image: what it answers, that the image stays as it was, and that nothing is left behind."""

from pathlib import Path

import pytest

from builder import proc
from builder.digest import file_sha256
from builder.errors import FormatRefused, GuestError, InputError
from builder.guest.edits import WriteFile
from builder.guest.look import layer_of, look
from builder.guest.overlay import Layer
from builder.guest.session import Session

OS = {"etc/os-release": "../usr/lib/os-release", "usr/lib/os-release": b"ID=debian\n", "etc/fstab": b"# empty\n"}


@pytest.fixture
def image(disks, part, tmp_path) -> Path:
    """A root filesystem whose journal is still to be replayed, as after a crash."""
    path = disks.filesystem(tmp_path / "image.raw", part(type="ext4", size=16, label="bare", files=OS))
    proc.run(["debugfs", "-w", "-R", "feature needs_recovery", path])
    path.chmod(0o400)
    return path


@pytest.fixture
def scratch(tmp_path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


class Told(Exception):
    """A block's own error."""


@pytest.mark.sweep
def test_the_image_is_only_read_and_nothing_is_left_even_after_an_error(image, scratch):
    before = file_sha256(image)
    session = Session()
    pids = []

    def asked() -> None:
        with look(layer_of(image), session=session, scratch=scratch) as guest:
            pids.append(session._pid)
            assert list(scratch.iterdir()) == []
            assert (guest.root, guest.read("/etc/os-release")) == ("/dev/sda", b"ID=debian\n")
            assert [found.label for found in guest.filesystems] == ["bare"]
            guest.apply(WriteFile(path="/etc/fstab", data=b"written\n"))  # goes to the layer
            assert guest.read("/etc/fstab") == b"written\n"
            raise Told

    with pytest.raises(Told):
        asked()
    assert file_sha256(image) == before
    assert not Path(f"/proc/{pids[0]}").exists()
    with pytest.raises(GuestError, match="closed"):
        session.launched()


def test_an_image_that_is_not_what_it_is_said_to_be_ends_the_session_too(image, scratch):
    session = Session()
    with pytest.raises(FormatRefused), look(Layer(path=image, format="qcow2"), session=session, scratch=scratch):
        pass
    with pytest.raises(GuestError, match="closed"):
        session.launched()
    assert list(scratch.iterdir()) == []


def test_what_is_no_image_that_can_be_looked_at_is_refused(tmp_path):
    text, missing, vmdk, backed = (tmp_path / name for name in ("text", "missing", "disk.vmdk", "backed.qcow2"))
    text.write_text("hello\n")
    proc.run(["qemu-img", "create", "-q", "-f", "vmdk", vmdk, "1M"])
    proc.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", backed, "1M"])
    for path, kind, expected in (
        (text, FormatRefused, "is not a disk image but a text file"),
        (missing, InputError, "is not a file"),
        (vmdk, FormatRefused, "guests are looked at in raw and qcow2 images"),
        (backed, FormatRefused, "/etc/passwd"),
    ):
        with pytest.raises(kind, match=expected):
            layer_of(path)


def test_a_qcow2_is_looked_at_as_it_is(image, tmp_path):
    path = tmp_path / "image.qcow2"
    proc.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", image, path])
    assert layer_of(path) == Layer(path=path, format="qcow2")
