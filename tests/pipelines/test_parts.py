"""The verb `emi extract`: a new sparse file, or none."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from builder import proc

MIB = 1 << 20


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A directory for what is written."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("image_format", ["raw", "qcow2", "vmdk"])
def test_a_partition_of_an_image_in_any_format(image_format, emi, tiny_disk, scene, tmp_path) -> None:
    image, target = tiny_disk, scene / "root.raw"
    if image_format != "raw":
        image = tmp_path / "image"
        proc.run(["qemu-img", "convert", "-f", "raw", "-O", image_format, tiny_disk, image])
    done = emi("extract", image, "--partition", "1", "--to", target)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == f"{target}: partition 1 (255.0 MiB, Linux filesystem, ext4)"
    with open(tiny_disk, "rb") as disk:
        disk.seek(MIB)
        assert target.read_bytes() == disk.read(target.stat().st_size)
    assert target.stat().st_size > 254 * MIB
    assert target.stat().st_blocks * 512 < 32 * MIB
    assert [path.name for path in scene.iterdir()] == ["root.raw"]


def test_json_for_programs(emi, tiny_disk, scene) -> None:
    done = emi("extract", tiny_disk, "--type", "Linux filesystem", "--to", scene / "x", "--json")
    said = json.loads(done.out)
    assert (said["file"], said["size"]) == (str(scene / "x"), (scene / "x").stat().st_size)


@pytest.mark.parametrize("taken", ["file", "dangling link", "directory"])
def test_what_is_there_already_is_left_alone(taken, emi, tiny_disk, scene) -> None:
    target = scene / "taken"
    match taken:
        case "file":
            target.write_bytes(b"mine")
        case "directory":
            target.mkdir()
        case _:
            target.symlink_to("nowhere")
    before = target.lstat()
    done = emi("extract", tiny_disk, "--partition", "1", "--to", target)
    assert (done.code, f"{target} is there already" in done.err) == (3, True)
    after = target.lstat()  # its time of access is nobody's affair
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert [path.name for path in scene.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ((), 2, "nothing says which part of the disk: give one of --partition, --root"),
        (("--partition", "1", "--root"), 2, "--partition and --root each say which part"),
        (
            ("--partition", "2"),
            3,
            "the disk has no partition 2; there is partition 1 (255.0 MiB, Linux filesystem, ext4)",
        ),
        (("--partition", "1", "--to", "{scene}/no/where"), 2, "cannot be written: No such file or directory"),
    ],
)
def test_refusals_leave_nothing(words, code, expected, emi, tiny_disk, scene) -> None:
    said = [word.format(scene=scene) for word in words]
    done = emi("extract", tiny_disk, "--to", scene / "root.raw", *said)
    assert done.code == code
    assert expected in " ".join(done.err.split())
    assert list(scene.iterdir()) == []


def test_a_file_that_is_no_image_is_refused(emi, scene, tmp_path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no disk\n")
    done = emi("extract", text, "--partition", "1", "--to", scene / "root.raw")
    assert (done.code, "notes.txt is not a disk image but a text file" in done.err) == (3, True)
    assert list(scene.iterdir()) == []


def test_a_kill_leaves_no_half_file_under_the_name(emi, scene, tmp_path) -> None:
    disk, target = tmp_path / "disk.raw", scene / "part.raw"
    with open(disk, "wb") as out:
        for _ in range(300):
            out.write(os.urandom(MIB))
    proc.run(["sfdisk", "-q", disk], stdin=b"label: dos\n2048,,83\n")
    process = emi.start("extract", disk, "--partition", "1", "--to", target)
    while process.poll() is None and not any(scene.glob(".emi-extract-*/part.raw")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not target.exists()
    done = emi("extract", disk, "--partition", "1", "--to", target)
    assert done.code == 0, done.err
    assert target.stat().st_size == 299 * MIB
