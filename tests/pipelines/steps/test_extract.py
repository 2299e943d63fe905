"""The step `extract` in a real store: a partition is a window on its disk's file, and nothing is copied."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from builder import proc
from builder.errors import FormatRefused, InputError
from builder.guest import overlay
from builder.guest.overlay import Layer
from builder.guest.session import Session
from builder.progress import SILENT
from pipelines.artifact import File, ImageFile
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.extract import Extract, ExtractOptions
from pipelines.store import FileStore

MIB = 1 << 20
TABLE = b"label: dos\n2048,8192,83\n10240,,5\n12288,10240,83\n"  # partition 5: 5 MiB at 6 MiB
PLACE, SIZE = 6 * MIB, 5 * MIB
Build = Callable[..., ImageFile]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture
def build(tmp_path: Path, store: FileStore) -> Build:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    outside = Outside(recipe_directory=tmp_path, cache=tmp_path / "cache", store=store)
    work = Work(scratch=scratch, outside=outside, pins={}, progress=SILENT)

    def run(source: File | ImageFile, **options: Any) -> ImageFile:
        chosen = ExtractOptions(**options)
        assert Extract().check(chosen) == ()
        return Extract().build(chosen, Inputs(source=source), work)

    return run


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An MBR disk of 16 MiB with data here and there, and a disk of the same kind in its partition 5."""
    inner = tmp_path / "inner.raw"
    dice = random.Random(5)
    path = tmp_path / "disk.raw"
    for image, size in ((path, 16 * MIB), (inner, SIZE)):
        with open(image, "wb") as out:
            out.truncate(size)
    proc.run(["sfdisk", "-q", path], stdin=TABLE)
    proc.run(["sfdisk", "-q", inner], stdin=b"label: dos\n2048,4096,83\n")
    with open(path, "r+b") as out:
        out.seek(PLACE)
        out.write(inner.read_bytes())
        for at in (PLACE + MIB + 4096, PLACE + 4 * MIB, 13 * MIB):
            out.seek(at)
            out.write(dice.randbytes(300_000))
    return path


def sealed(store: FileStore, disk: Path, image_format: str, tmp_path: Path) -> File | ImageFile:
    """Put the disk into the store as one of the things that a step may be given."""
    made = tmp_path / f"made.{image_format}"
    match image_format:
        case "raw":
            proc.run(["cp", "--sparse=always", disk, made])
        case "overlay":
            base = sealed(store, disk, "raw", tmp_path)
            image = store.image(base)
            layer = overlay.create(store.layer(image), made, backing_name=store.backing_name(image.digest))
            said = f"json:{json.dumps(overlay.node(layer))}"  # its header holds once it is in the store
            proc.run(["qemu-io", "-c", f"write -P 9 {PLACE + 2 * MIB} 64k", said])
            return store.seal_layer(made, image)
        case "qcow2":
            proc.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, made])
        case _:
            proc.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", disk, made])
    return store.seal_file(made, name=made.name)


@pytest.mark.parametrize("image_format", ["raw", "qcow2", "compressed", "overlay"])
def test_a_partition_is_a_window_on_the_disks_file(
    image_format: str, store: FileStore, build: Build, disk: Path, tmp_path: Path
) -> None:
    source = sealed(store, disk, image_format, tmp_path)
    before = sorted(tmp_path.glob("objects/*/*"))
    part = build(source, partition=5)
    assert (part.digest, part.offset, part.virtual_size) == (source.digest, PLACE, SIZE)
    expected = bytearray(disk.read_bytes()[PLACE : PLACE + SIZE])
    if image_format == "overlay":
        expected[2 * MIB : 2 * MIB + 65536] = b"\t" * 65536
    with store.open_image(part) as reader:
        assert reader.pread(SIZE + 9, 0) == expected + bytes(9)
    # A part of the part: the same file again.
    inner = build(part, partition=1)
    assert (inner.digest, inner.offset, inner.virtual_size) == (source.digest, PLACE + MIB, 2 * MIB)
    with store.open_image(inner) as reader:
        assert reader.pread(2 * MIB, 0) == expected[MIB : 3 * MIB]
    assert (sorted(tmp_path.glob("objects/*/*")), list((tmp_path / "scratch").iterdir())) == (before, [])


def test_what_was_copied_out_stays_beside_it(store: FileStore, build: Build, disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"kernel")
    kernel = store.seal_file(path, name="kernel")
    image = store.image(sealed(store, disk, "raw", tmp_path)).model_copy(update={"kernel": kernel})
    assert build(image, partition=1).kernel == kernel


def test_a_disk_that_is_one_filesystem_is_handed_on(store: FileStore, build: Build, tmp_path: Path) -> None:
    path = tmp_path / "bare.raw"
    with open(path, "wb") as out:
        out.truncate(4 * MIB)
    proc.run(["mkfs.ext4", "-q", "-L", "bare", path])
    image = store.seal_image(path, format="raw", virtual_size=4 * MIB)
    assert build(image, label="bare") == image
    with pytest.raises(InputError, match="no partition 1; there is no partition table, ext4 labelled bare"):
        build(image, partition=1)


def test_a_format_that_only_qemu_reads_is_to_be_converted_first(
    store: FileStore, build: Build, disk: Path, tmp_path: Path
) -> None:
    proc.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", disk, tmp_path / "d.vmdk"])
    with pytest.raises(FormatRefused, match=r"d\.vmdk is a VMDK image") as caught:
        build(store.seal_file(tmp_path / "d.vmdk", name="d.vmdk"), partition=1)
    assert "`convert`" in str(caught.value.hint)


def test_options_are_closed_and_checked() -> None:
    assert Extract().check(ExtractOptions(root=True)) == ()
    assert "give one of them" in Extract().check(ExtractOptions(root=True, partition=1))[0]
    for wrong in ({"partition": 0}, {"root": "yes"}, {"partition": "1"}, {"parttition": 1}):
        with pytest.raises(ValidationError):
            ExtractOptions(**wrong)


def prepared(session: Session, path: Path, size: int, *calls: tuple[Any, ...]) -> Path:
    """Make a disk by appliance calls, as a raw file."""
    with open(path, "wb") as out:
        out.truncate(size)
    layer = overlay.create(Layer(path=path, format="raw"), path.with_suffix(".layer"), backing_name=path.name)
    session.attach(layer)
    for name, *arguments in calls:
        session.call(name, *arguments)
    session.detach()
    flat = path.with_suffix(".flat")
    proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", layer.path, flat])
    return flat


@pytest.mark.sweep
def test_what_no_window_on_the_disk_shows_becomes_a_file(store: FileStore, build: Build, tmp_path: Path) -> None:
    """A root on a volume in pieces, and one in a subvolume, each found by an appliance of the step's own."""
    root = (("mkdir", "/etc"), ("write", "/etc/fstab", b"# root\n"))
    both = ["/dev/sda1", "/dev/sda2"]
    pieces = (
        ("part_init", "/dev/sda", "gpt"),
        ("part_add", "/dev/sda", "p", 2048, 2048 + 24 * 2048 - 1),
        ("part_add", "/dev/sda", "p", 64 * 2048, 64 * 2048 + 24 * 2048 - 1),
        *(("pvcreate", device) for device in both),
        ("vgcreate", "vg", both),
        ("lvcreate", "root", "vg", 32),
        ("mkfs", "ext4", "/dev/vg/root"),
        ("mount", "/dev/vg/root", "/"),
        *root,
        ("umount_all",),
        ("vg_activate_all", False),
    )
    inside = (("mkdir", "/@/etc"), ("write", "/@/etc/fstab", b"# root\n"))
    btrfs = (
        ("mkfs", "btrfs", "/dev/sda"),
        ("mount", "/dev/sda", "/"),
        ("btrfs_subvolume_create", "/home"),
        ("btrfs_subvolume_create", "/@"),
        *inside,
    )
    with Session() as session:
        lvm_disk = prepared(session, tmp_path / "lvm.raw", 128 * MIB, *pieces)
        btrfs_disk = prepared(session, tmp_path / "btrfs.raw", 128 * MIB, *btrfs)
    volume = build(store.seal_file(lvm_disk, name="lvm.raw"), root=True)
    assert (volume.format, volume.window, volume.backing, volume.virtual_size) == ("raw", None, None, 32 * MIB)
    assert store.allocated(volume) < 16 * MIB
    assert b"# root\n" in store.path(volume).read_bytes()
    whole = store.image(store.seal_file(btrfs_disk, name="btrfs.raw"))
    top = build(whole, root=True)
    assert (top.format, top.window, top.backing, top.virtual_size) == ("qcow2", None, whole, 128 * MIB)
    assert build(top, root=True) == top
