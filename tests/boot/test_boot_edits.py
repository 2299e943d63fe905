"""A guest whose root has another label and whose initramfs lacks its disk's driver: mended, it boots."""

from __future__ import annotations

import gzip

import pytest

from builder import proc
from builder.guest.drivers import drivers, kernels
from builder.guest.edit import Plan, edit_image
from builder.guest.edits import WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.overlay import Layer
from pipelines.steps.fstab import Fstab, FstabOptions
from pipelines.steps.grub import Grub, GrubOptions
from pipelines.steps.initramfs import Initramfs, InitramfsOptions
from pipelines.steps.label import Label, LabelOptions
from tests.builder.guest import archives

GRUB = GrubOptions(add=("emi.test=1",), remove=("console=tty0",), timeout=2)


def cripple(facts: GuestFacts) -> list[WriteFile]:
    """Take the disk's driver out of the initramfs, and have the guest's program pack nothing that is not listed."""
    (kernel,) = kernels(facts)
    plain = gzip.decompress(facts.read(kernel.initramfs, limit=1 << 28) or b"")
    less = archives.without(plain, "/virtio_blk.ko", "/ena.ko")
    assert len(less) < len(plain)
    return [
        WriteFile(path=kernel.initramfs, data=gzip.compress(less, 1)),
        WriteFile(path="/etc/initramfs-tools/conf.d/modules", data=b"MODULES=list\n"),
        WriteFile(path="/etc/initramfs-tools/modules", data=b"ext4\n"),
    ]


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_a_mended_guest_boots(demo, boot, tmp_path):
    target = tmp_path / "edited.qcow2"
    lacking: list[tuple[str, ...]] = []

    def look(facts: GuestFacts) -> list[WriteFile]:
        lacking.extend(drivers(facts, kernel).lacking(["virtio", "ena"]) for kernel in kernels(facts))
        return []

    plans = [
        Plan(decide=cripple),
        Plan(decide=look),
        Plan(decide=lambda facts: Label().edits(LabelOptions(label="moved"), facts, {})),
        Plan(decide=lambda facts: Fstab().edits(FstabOptions(), facts, {})),
        *[Plan(decide=lambda facts: Grub().edits(GRUB, facts, {}))] * 2,
        *[Plan(decide=lambda facts: Initramfs().edits(InitramfsOptions(), facts, {}))] * 2,
    ]
    base = Layer(path=demo.disk, format="raw")
    outcomes = edit_image(base, target, plans, backing_name=str(demo.disk))
    assert lacking == [("virtio_blk", "ena")]
    assert "root=LABEL=rootfs -> root=LABEL=moved" in str(outcomes[4])
    assert "added virtio_pci, virtio_blk, virtio_scsi, virtio_net, ena" in str(outcomes[6])
    assert [str(outcome).partition(":")[0] for outcome in outcomes[5::2]] == ["unchanged", "unchanged"]

    disk = tmp_path / "edited.raw"
    proc.run(["qemu-img", "convert", "-q", "-f", "qcow2", "-O", "raw", target, disk], timeout=300)
    console = boot(disk, "bios")
    console.expect(r"^\S+ login: $", within=600)
    assert " root=LABEL=moved ro console=ttyS0,115200 emi.test=1\n" in console.log
    assert "[FAILED]" not in console.log
