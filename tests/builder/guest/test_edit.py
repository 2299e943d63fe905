"""Guest steps on an image from start to end, checked on the host by other tools than the appliance's."""

import os
import signal
from pathlib import Path

import pytest

from builder import proc
from builder.digest import file_sha256
from builder.errors import GuestError
from builder.guest.edit import Outcome, Plan, edit_image
from builder.guest.edits import SetLabel, Unchanged, WriteFile
from builder.guest.fstab import rewrite
from builder.guest.overlay import Layer
from builder.guest.session import Session

FSTAB = b"# caf\xe9\nPARTLABEL=linux / ext4 defaults 0 1\n/dev/vda1 /boot/efi vfat umask=0077 0 1\n"
SECTOR_OF_ROOT = 2048 + 34 * 2048


def label(facts):
    if facts.filesystem(facts.root).label == "rootfs":
        return Unchanged(why="labelled already")
    return (SetLabel(device=facts.root, label="rootfs"),)


def fstab(facts):
    rewritten = rewrite(facts.read("/etc/fstab"), facts.filesystems, root=facts.root)
    return (WriteFile(path="/etc/fstab", data=rewritten.data),)


@pytest.fixture
def image(disks, part):
    """A disk in a place like the store's: objects/ab/HEX."""

    def make() -> Path:
        files = {"etc/os-release": "../usr/lib/os-release", "usr/lib/os-release": b"ID=debian\n", "etc/fstab": FSTAB}
        files["garbage"] = os.urandom(4 << 20)
        parts = [part(type="vfat", size=34, label="UEFI"), part(type="ext4", size=32, name="linux", files=files)]
        disk = disks.gpt("disk", parts)
        # Bytes of a deleted file: what fstrim is for.
        proc.run(["debugfs", "-w", "-R", "rm /garbage", f"{disk}?offset={SECTOR_OF_ROOT * 512}"])
        base = disks.directory / "objects" / "ab" / "0123"
        base.parent.mkdir(parents=True)
        return disk.rename(base)

    return make


@pytest.mark.sweep
def test_an_image_that_comes_after_the_launch_is_edited(image, tmp_path):
    notes = []

    class Watch:
        def total(self, count): ...
        def advance(self, count): ...
        def note(self, text):
            notes.append(text)

    target = tmp_path / "scratch.qcow2"
    session = Session()
    session.launched()
    base = image()  # not a byte of it was there before
    before = file_sha256(base)
    outcomes = edit_image(
        Layer(path=base, format="raw"),
        target,
        [Plan(decide=label), Plan(decide=fstab), Plan(decide=label)],
        backing_name="../ab/0123",
        progress=Watch(),
        session=session,
    )
    assert [str(outcome) for outcome in outcomes] == [
        "labelled /dev/sda2 rootfs",
        "wrote /etc/fstab",
        "unchanged: labelled already",
    ]
    assert session.calls["launch"] == 0
    assert any("launched in" in note for note in notes)
    assert file_sha256(base) == before
    raw = sealed(target, tmp_path)
    assert proc.run(["debugfs", "-R", "cat /etc/fstab", raw_root(raw)]).stdout == (
        b"# caf\xe9\nLABEL=rootfs / ext4 defaults 0 1\nLABEL=UEFI /boot/efi vfat umask=0077 0 1\n"
    )
    words = ["blkid", "-p", "-s", "LABEL", "-o", "value", "-O", str(SECTOR_OF_ROOT * 512), raw]
    assert proc.run(words).stdout == b"rootfs\n"
    proc.run(["e2fsck", "-fn", raw_root(raw)])
    assert data_of(raw) < data_of(base) - (3 << 20), "the deleted file's blocks were not given back"


def sealed(target: Path, directory: Path) -> Path:
    """Put the overlay where the store would, and flatten it through the name in its header."""
    final = directory / "objects" / "cd" / "4567"
    final.parent.mkdir()
    target.rename(final)
    proc.run(["qemu-img", "check", "-q", "-f", "qcow2", final])
    raw = directory / "flat.raw"
    proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", final, raw])
    return raw


def raw_root(raw: Path) -> str:
    return f"{raw}?offset={SECTOR_OF_ROOT * 512}"


def data_of(path: Path) -> int:
    data = path.read_bytes()
    return sum(any(data[at : at + 4096]) for at in range(0, len(data), 4096)) * 4096


@pytest.mark.sweep
def test_nothing_to_do_leaves_no_overlay(image, tmp_path):
    target = tmp_path / "scratch.qcow2"

    def unchanged(facts):
        return Unchanged(why="it is as it should be")

    with Session() as session:
        plans = [Plan(decide=unchanged), Plan(decide=lambda facts: ())]
        layer = Layer(path=image(), format="raw")
        outcomes = edit_image(layer, target, plans, backing_name="x", session=session)
        assert outcomes == [Outcome(why="it is as it should be"), Outcome(why="nothing to do")]
        assert not target.exists()
        with pytest.raises(GuestError, match="closed"):
            session.launched()


@pytest.mark.sweep
def test_an_appliance_that_hangs_is_ended_and_leaves_nothing(image, tmp_path, capfd):
    base = image()
    target = tmp_path / "scratch.qcow2"
    session = Session()
    stopped = []

    def hang(facts):
        session.limit = 1
        assert session._pid is not None
        os.kill(session._pid, signal.SIGSTOP)
        stopped.append(session._pid)
        return (SetLabel(device=facts.root, label="x"),)

    with pytest.raises(GuestError, match="did not answer remount within 1 s and was ended"):
        edit_image(Layer(path=base, format="raw"), target, [Plan(decide=hang)], backing_name="x", session=session)
    assert not target.exists()
    assert stopped
    assert not Path(f"/proc/{stopped[0]}").exists()
    assert capfd.readouterr().err == ""
