"""A disk whose unused blocks hold bytes: what is stored of it gets smaller, and what is used stays."""

from __future__ import annotations

import os

import pytest

from builder import proc
from builder.guest.edit import Plan, _run
from builder.guest.guest import Guest
from builder.guest.overlay import Layer, open_layer
from builder.progress import SILENT
from pipelines.steps.sparsify import Sparsify, SparsifyOptions

MIB = 1 << 20
STEP = Sparsify()
OS = {"etc/os-release": b"ID=debian\n", "etc/fstab": b"# empty\n"}


def data(layer: Layer) -> int:
    with open_layer(layer) as reader:
        return sum(extent.length for extent in reader.extents())


def noise(disk, offset: int, size: int) -> None:
    with open(disk, "r+b") as file:
        file.seek(offset)
        file.write(os.urandom(size))


@pytest.mark.sweep
def test_what_nothing_uses_is_given_back(appliance, disks, part, tmp_path):
    kept = os.urandom(MIB)
    parts = [
        part(type="vfat", size=36, label="EFI"),
        part(type="ext4", size=32, files=OS | {"kept": kept, "garbage": os.urandom(8 * MIB)}),
        part(type="ext4", size=24, files={"garbage": os.urandom(6 * MIB)}),  # no fstab names it
        part(type="swap", size=16, label="sw", uuid="5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11"),
        part(type="swap", size=32),  # becomes LVM's
    ]
    disk = disks.gpt("full.raw", parts)
    starts = [1, 37, 69, 93, 109]  # MiB
    for start in (37, 69):
        proc.run(["debugfs", "-w", "-R", "rm /garbage", f"{disk}?offset={start * MIB}"])
    noise(disk, (93 + 1) * MIB, 14 * MIB)  # what was swapped out
    layer = disks.overlay(disk)
    appliance.attach(layer)
    try:
        appliance.call("pvcreate", "/dev/sda5")
        appliance.call("vgcreate", "vg0", ["/dev/sda5"])
        appliance.call("lvcreate", "data", "vg0", 8)
        appliance.call("lvcreate", "gone", "vg0", 12)
        appliance.call("mkfs", "ext4", "/dev/vg0/data")
        for at in range(12):
            appliance.call("pwrite_device", "/dev/vg0/gone", os.urandom(MIB), at * MIB)
        appliance.call("lvremove", "/dev/vg0/gone")
        appliance.flush()
        before = data(layer)
        guest = Guest(appliance)
        (edit,) = STEP.edits(SparsifyOptions(), guest, {})
        told = guest.apply(edit)
        after = data(layer)
        assert "gave back" in told
        assert "; " not in told, "something could not be trimmed"
        # Of 40 MiB; the edges of files lie in clusters that hold more.
        assert before - after > 38 * MIB
        assert [found.label for found in guest.filesystems if found.type == "swap"] == ["sw"]
        assert guest.read("/kept") == kept
        again = _run(guest, Plan(decide=lambda facts: STEP.edits(SparsifyOptions(), facts, {})), SILENT)
        assert str(again) == "unchanged: nothing to gain"
    finally:
        appliance.detach()
    flat = tmp_path / "flat.raw"
    proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", layer.path, flat])
    assert flat.stat().st_blocks * 512 < before - 38 * MIB
    for start in starts[1:3]:
        proc.run(["e2fsck", "-fn", f"{flat}?offset={start * MIB}"])
    words = ["blkid", "-p", "-o", "export", "-O", str(93 * MIB), flat]
    said = proc.run(words).stdout.decode().split()
    assert {"LABEL=sw", "UUID=5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11", "TYPE=swap"} <= set(said)
