"""The step `assemble`: what it boots of what it is given, what it is keyed by, what it refuses."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from builder import proc
from builder.errors import GuestError, InputError, UsageError
from builder.progress import SILENT
from pipelines.artifact import File, ImageFile
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.assemble import Assemble, AssembleOptions
from pipelines.store import FileStore

MIB = 1 << 20
FAT = 4 * MIB
OWN, OTHER = b"the root's own", b"another"

Build = Callable[..., ImageFile]


def kernel(mark: bytes) -> bytes:
    head = bytearray(0x1000)
    head[0x1FE:0x206] = b"\x55\xaa\xeb\x66HdrS"
    struct.pack_into("<H", head, 0x206, 0x020F)
    return bytes(head) + mark


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture
def outside(tmp_path: Path, store: FileStore) -> Outside:
    return Outside(recipe_directory=tmp_path, cache=tmp_path, store=store)


@pytest.fixture
def build(tmp_path: Path, outside: Outside) -> Build:
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def build(source: ImageFile | File, named: dict[str, File] | None = None, **options: Any) -> ImageFile:
        chosen = AssembleOptions(**options)
        assert not Assemble().check(chosen)
        work = Work(scratch=scratch, outside=outside, pins={}, progress=SILENT)
        return Assemble().build(chosen, Inputs(source=source, named=named or {}), work)

    return build


@pytest.fixture
def root(tmp_path: Path, store: FileStore) -> Callable[..., ImageFile]:
    """A sealed root filesystem, with a kernel in it if that is asked for."""

    def root(*, label: str = "rootfs", with_kernel: bool = False) -> ImageFile:
        tree, image = tmp_path / "tree", tmp_path / "root.img"
        (tree / "etc").mkdir(parents=True)
        (tree / "etc" / "fstab").write_text("LABEL=rootfs / ext4 defaults 0 1\n")
        if with_kernel:
            (tree / "boot").mkdir()
            (tree / "boot" / "vmlinuz-6.1.0-1-amd64").write_bytes(kernel(OWN))
            (tree / "boot" / "initrd.img-6.1.0-1-amd64").write_bytes(OWN)
            (tree / "vmlinuz").symlink_to("boot/vmlinuz-6.1.0-1-amd64")
            (tree / "initrd.img").symlink_to("boot/initrd.img-6.1.0-1-amd64")
        with open(image, "wb") as file:
            file.truncate(16 * MIB)
        proc.run(["mke2fs", "-q", "-F", "-t", "ext4", *(["-L", label] if label else []), "-d", tree, image])
        return store.seal_image(image, format="raw", virtual_size=16 * MIB)

    return root


@pytest.fixture
def sealed(tmp_path: Path, store: FileStore) -> Callable[[bytes], File]:
    def sealed(data: bytes) -> File:
        path = tmp_path / "file"
        path.write_bytes(data)
        return store.seal_file(path, name="file")

    return sealed


def beside(store: FileStore, disk: ImageFile, name: str) -> bytes:
    return proc.run(["mtype", "-i", f"{store.path(disk)}@@{FAT}", f"::/boot/{name}"]).stdout


def test_the_kernel_beside_the_image_is_booted_unless_another_is_named(build, root, sealed, store):
    own = {"kernel": sealed(kernel(OWN)), "ramdisk": sealed(OWN)}
    trio = root().model_copy(update=own)
    disk = build(trio)
    assert beside(store, disk, "vmlinuz") == kernel(OWN)
    assert beside(store, disk, "initrd.img") == OWN
    assert (disk.format, disk.kernel, disk.ramdisk) == ("raw", None, None)
    named = {"kernel": sealed(kernel(OTHER)), "ramdisk": sealed(OTHER)}
    disk = build(trio, named, kernel="step.kernel", ramdisk="step.ramdisk", cmdline="quiet  splash")
    assert beside(store, disk, "vmlinuz") == kernel(OTHER)
    assert beside(store, disk, "initrd.img") == OTHER
    assert b"root=LABEL=rootfs ro quiet splash console=tty0" in beside(store, disk, "grub/grub.cfg")


def test_the_root_may_be_a_download_a_qcow2_or_a_part_of_a_disk(build, root, sealed, store, tmp_path):
    raw = root()
    content = store.path(raw).read_bytes()
    disk, qcow2 = tmp_path / "disk.raw", tmp_path / "root.qcow2"
    disk.write_bytes(bytes(3 * MIB) + content + bytes(MIB))
    proc.run(["qemu-img", "convert", "-c", "-O", "qcow2", store.path(raw), qcow2])
    whole = store.seal_image(disk, format="raw", virtual_size=20 * MIB)
    shapes = (
        sealed(content),
        store.seal_image(qcow2, format="qcow2", virtual_size=16 * MIB),
        whole.part(3 * MIB, 16 * MIB),
    )
    for source in shapes:
        made = build(source, {"kernel": sealed(kernel(OTHER))}, kernel="step.kernel")
        assert store.path(made).read_bytes()[68 * MIB : 84 * MIB] == content


def test_the_initramfs_of_one_kernel_is_never_given_to_another(build, root, sealed, store):
    trio = root().model_copy(update={"kernel": sealed(kernel(OWN)), "ramdisk": sealed(OWN)})
    disk = build(trio, {"kernel": sealed(kernel(OTHER))}, kernel="step.kernel")
    config = beside(store, disk, "grub/grub.cfg")
    assert b"initrd" not in config
    assert b"root=PARTUUID=" in config


@pytest.mark.sweep
def test_the_kernel_inside_the_root_and_its_links(build, root, store):
    disk = build(root(with_kernel=True), size=256 * MIB)
    assert disk.virtual_size == 256 * MIB
    assert beside(store, disk, "vmlinuz") == kernel(OWN)
    assert beside(store, disk, "initrd.img") == OWN
    assert b'-f "($disk,gpt1)/vmlinuz"' in beside(store, disk, "grub/grub.cfg")


@pytest.mark.sweep
def test_a_root_without_a_kernel_is_refused(build, root, tmp_path):
    with pytest.raises(GuestError, match="no kernel"):
        build(root())
    assert not (tmp_path / "scratch" / "disk.raw").exists()


def test_what_needs_no_appliance_to_be_refused_starts_none(build, root, monkeypatch):
    unlabelled = root(label="")
    monkeypatch.setenv("PATH", "/nowhere")  # an appliance would be another error
    with pytest.raises(InputError, match="no label"):
        build(unlabelled)


def test_a_disk_that_is_too_small_is_refused_at_once(build, root):
    with pytest.raises(UsageError, match="too small"):
        build(root(), size=64 * MIB)


def test_it_is_keyed_by_the_loader_of_this_machine(outside):
    pins = [Assemble().pin(AssembleOptions(firmware=firmware), outside)["grub"] for firmware in (("bios",), ("uefi",))]
    assert pins[0] != pins[1]
    assert pins[0] == Assemble().pin(AssembleOptions(firmware=("bios",)), outside)["grub"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"ramdisk": "x.ramdisk"}, "give `kernel` as well"),
        ({"size": 100 * MIB + 1}, "whole MiB"),
        ({"firmware": ("uefi", "uefi")}, "twice"),
        ({"cmdline": "quiet root=/dev/sda1"}, "root= or console="),
        ({"cmdline": "console=hvc0"}, "root= or console="),
    ],
)
def test_options_that_cannot_be(options, problem):
    (said,) = Assemble().check(AssembleOptions(**options))
    assert problem in said


@pytest.mark.parametrize(
    "options",
    [
        {"table": "bsd"},
        {"firmware": ()},
        {"firmware": ("coreboot",)},
        {"cmdline": "quiet; reboot"},
        {"cmdline": "a=$b"},
        {"cmdline": "a='b c'"},
        {"cmdline": "a\nlinux /x"},
        {"console": ("ttyS0 init=/bin/sh",)},
        {"console": ("ttyS0,115200\n",)},
        {"surprise": 1},
    ],
)
def test_options_that_are_refused_by_their_types(options):
    with pytest.raises(ValidationError):
        AssembleOptions(**options)
