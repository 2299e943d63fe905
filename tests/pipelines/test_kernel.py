"""The `kernel` step as a user has it: a guest with a /boot of its own, and what is made of the two files after it."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from builder import proc

MIB = 1 << 20
KERNEL = random.Random(1).randbytes(3 * MIB + 17)
RAMDISK = random.Random(2).randbytes(2 * MIB + 1)
RECIPE = """
name: kernel
vars:
  disk: {type: string}
steps:
  - download: {url: "file://{disk}"}
  - fstab:
  - kernel:
  - label: {label: renamed}
    id: root
  - expect: {labels: [renamed]}
  - decompress:
    from: kernel.ramdisk
outputs:
  kernel: kernel.kernel
  ramdisk: expect.ramdisk
  image: root
  digest: root.digest
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Path:
    """A disk with a /boot of its own: a kernel, its initramfs, an older pair and an empty name of a newer one."""
    place = tmp_path_factory.mktemp("kernel")
    boot, root = place / "boot", place / "root"
    for path, data in {
        boot / "vmlinuz-6.1.0-9-amd64": b"older",
        boot / "initrd.img-6.1.0-9-amd64": b"older",
        boot / "vmlinuz-6.1.0-10-amd64": KERNEL,
        boot / "initrd.img-6.1.0-10-amd64": _gzip(RAMDISK),
        boot / "vmlinuz-6.1.0-11-amd64": b"",
        root / "boot" / "hidden-by-the-mount": b"",
        root / "etc" / "os-release": b"ID=debian\n",
        root / "etc" / "fstab": b"/dev/vda2 / ext4 defaults 0 1\n/dev/vda1 /boot ext4 defaults 0 2\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "vmlinuz").symlink_to("boot/vmlinuz-6.1.0-10-amd64")
    disk = place / "disk.raw"
    with open(disk, "wb") as file:
        file.truncate(82 * MIB)
    proc.run(["sgdisk", "-n1:2048:+32M", "-n2:0:+48M", disk])
    for offset, tree, label, size in ((1, boot, "boot", 32), (33, root, "root", 48)):
        options = f"offset={offset * MIB},nodiscard"
        proc.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-d", tree, "-E", options, disk, f"{size}m"])
    return disk


def _gzip(data: bytes) -> bytes:
    return proc.run(["gzip", "-c", "-n"], stdin=data).stdout


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.sweep
def test_kernel_and_ramdisk_come_out_in_the_launch_of_their_neighbours(emi, tmp_path, disk) -> None:
    recipe = tmp_path / "kernel.yaml"
    recipe.write_text(RECIPE)
    last = emi.run(recipe, "--var", f"disk={disk}")
    outputs = last["outputs"]
    assert outputs["kernel"]["digest"] == _digest(KERNEL)
    assert outputs["ramdisk"]["digest"] == _digest(_gzip(RAMDISK))
    assert outputs["image"]["kernel"] == outputs["kernel"]
    assert outputs["digest"] == outputs["image"]["digest"]
    steps = {step["step"]: step["result"] for step in json.loads(Path(last["report"]).read_text())["steps"]}
    assert list(steps) == ["download", "fstab + kernel + root", "expect", "decompress"]
    assert steps["decompress"]["digest"] == _digest(RAMDISK)
    again = emi("plan", recipe, "--json", "--var", f"disk={disk}")
    assert [step["verdict"] for step in json.loads(again.out)] == ["done"] * 4


def test_a_part_that_no_step_puts_there_is_told_by_validate(emi, tmp_path, disk) -> None:
    recipe = tmp_path / "kernel.yaml"
    recipe.write_text(RECIPE.replace("from: kernel.ramdisk", "from: fstab.ramdisk"))
    done = emi("validate", recipe, "--var", f"disk={disk}")
    assert done.code == 2
    assert "kernel.yaml:13:11: `fstab` has no ramdisk beside its image: no `kernel` step led to it" in done.err
    assert "did you mean `expect.ramdisk`?" in done.err
