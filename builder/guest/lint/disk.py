"""Rules on the disk: firmware, partition table, size, and how its filesystems were left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from builder.guest.lint.remaking import BY_HAND, REMAKING, WRAPPING, end, remade, rounded, shrunk, trimmed
from builder.guest.lint.rule import Found, Rule, Severity
from builder.guest.lint.subject import Subject, Target
from builder.image.firmware import BIOS_BOOT_TYPE
from builder.units import format_size

_GIB = 1 << 30
_SPARE = 1 << 30  # bytes that a disk may end behind its last partition
_ARM = ("aarch64", "arm", "riscv64")


def bios_cannot_boot(subject: Subject) -> Iterator[Found]:
    """A machine with a BIOS finds nothing to start, and the target's machines have one.

    Eucalyptus' KVM instances and qemu without other firmware have a BIOS only; EC2 uses it unless the image is
    registered with another boot mode. Source: EC2 User Guide, "Boot modes"; GRUB manual, "BIOS installation".
    """
    if (
        subject.bare
        or subject.target == "eucalyptus-xen"
        or subject.system.architecture in _ARM
        or subject.firmware.bios
    ):
        return
    uefi, why = subject.firmware.uefi, subject.firmware.bios_problem or "its first sector holds no boot code"
    only = " It boots by UEFI only."
    registered = uefi and subject.target == "aws"
    with_uefi: Mapping[Target, Severity] = {"aws": "note", "qemu": "warning"}
    yield Found(
        severity=with_uefi.get(subject.target, "error") if uefi else "error",
        what=f"a BIOS cannot boot this disk: {why}.{only if uefi else ''}",
        where="sector 0",
        mends=() if registered else remade(subject),
        advice="Register it with `boot_mode: uefi`." if registered else BY_HAND,
    )


def no_esp(subject: Subject) -> Iterator[Found]:
    """There is no EFI system partition, so that machines with UEFI firmware cannot boot the disk.

    On ARM there is no other way; for EC2 it forbids `boot_mode: uefi` and the instance types that know nothing else.
    Source: UEFI Specification 2.10, 13.3; EC2 User Guide, "Requirements for UEFI boot mode".
    """
    firmware = subject.firmware
    if subject.bare or firmware.esp is not None:
        return
    arm = subject.system.architecture in _ARM
    if arm or subject.target == "aws":
        yield Found(
            severity="error" if arm else "note",
            what="there is no EFI system partition: "
            + (
                "an ARM machine boots by nothing else"
                if arm
                else "instance types that boot by UEFI only cannot be used"
            ),
            where="the partition table",
            mends=remade(subject),
            advice="Install the distribution's GRUB for EFI into one, where the image is made." if arm else BY_HAND,
        )


def esp_without_loader(subject: Subject) -> Iterator[Found]:
    """The EFI system partition has no loader at the place where a firmware looks that was never told of another.

    A cloud's firmware has no memory of `grub-install`: it starts EFI/BOOT/BOOTX64.EFI (BOOTAA64.EFI on ARM) and nothing
    else. Source: UEFI Specification 2.10, 3.5.1.1; grub-install's --removable and --force-extra-removable.
    """
    firmware = subject.firmware
    if subject.bare or firmware.esp is None or firmware.fallbacks:
        return
    others = f"; there are {', '.join(firmware.loaders[:4])}" if firmware.loaders else ""
    needed = subject.system.architecture in _ARM or not firmware.bios
    vital = needed and subject.target in ("aws", "qemu")
    yield Found(
        severity="error" if vital else "warning",
        what=f"the EFI system partition has no EFI/BOOT/BOOT*.EFI{others}",
        where=f"partition {firmware.esp}",
        mends=remade(subject) if vital else (),
        advice="Copy the loader there, or run grub-install --removable in a `run` step.",
    )


def firmware_mismatch(subject: Subject) -> Iterator[Found]:
    """The boot code in the first sector does not fit the partition table.

    GRUB on GPT needs a BIOS boot partition for its core; an ESP on an MBR disk works on EC2, but not with all firmware.
    Source: GRUB manual, "BIOS installation".
    """
    table, firmware = subject.table, subject.firmware
    if table is None or not firmware.boot_code:
        return
    bios_boot = any(part.type == BIOS_BOOT_TYPE for part in table.partitions)
    if table.kind == "gpt" and firmware.boot_code == "GRUB" and not bios_boot:
        yield Found(
            severity="warning",
            what="GRUB's code for BIOS is on a GPT disk without a BIOS boot partition: an update of GRUB will fail",
            where="the partition table",
            mends=remade(subject),
            advice=BY_HAND,
        )


def no_partition_table(subject: Subject) -> Iterator[Found]:
    """The image is a bare filesystem, and the target's machines boot a disk.

    Source: EC2 User Guide, "Linux AMI virtualization types": HVM starts the boot record of the root volume.
    """
    if subject.bare and subject.target in ("aws", "qemu"):
        aws = subject.target == "aws"
        yield Found(
            severity="error" if aws else "note",
            what="the image is a filesystem without a disk around it: "
            + ("nothing starts it" if aws else "it needs -kernel and -initrd"),
            where="the disk",
            mends=remade(subject),
            advice="Make a bootable disk of it with an `assemble` step.",
        )


def damaged_partition_table(subject: Subject) -> Iterator[Found]:
    """The partition table is damaged, or partitions overlap or lie beyond the disk's end.

    It is what a truncated download or a disk shrunk without its table looks like. Source: UEFI Specification 2.10, 5.3;
    NixOS/amis issue #123 ("throws away half the data").
    """
    for problem in subject.table.problems if subject.table else ():
        cut = "does not lie on the disk" in problem or "overlap" in problem
        yield Found(
            severity="error" if cut else "warning",
            what=f"the partition table: {problem}",
            where="the partition table",
            advice="Fetch or make the image anew." if cut else "`sgdisk -e` on a copy repairs what was moved.",
        )


def unclean_filesystem(subject: Subject) -> Iterator[Found]:
    """A filesystem was not unmounted before the image was taken, or has errors.

    What was not written is lost, and the first boot begins with a check that may stop. Source: e2fsck(8); mozsearch
    issue #1110 (no sync before the snapshot: files of 0 bytes); awslabs/coldsnap issue #81.
    """
    for found in subject.facts.filesystems:
        if found.unclean:
            errors = found.unclean.startswith("errors")
            yield Found(
                severity="error" if errors else "warning",
                what=f"the {found.type} filesystem on {found.device}: {found.unclean}",
                where=found.device,
                advice="Check it on a copy with fsck, and look for what is missing."
                if errors
                else "Any guest step that changes it replays the journal; better take the image of a stopped machine.",
            )


def disk_larger_than_needed(subject: Subject) -> Iterator[Found]:
    """The disk goes on for more than 1 GiB behind its last partition: every volume made of it pays for that.

    Where the volume's size is told, it is that which is paid for. Source: EC2 API Reference, CreateVolume: a volume is
    never smaller than its snapshot.
    """
    if subject.table is None or not subject.table.partitions or subject.volume_size is not None:
        return
    last, size = end(subject), subject.reader.virtual_size
    if size - last > _SPARE:
        yield Found(
            severity="warning",
            what=f"the disk has {format_size(size)}, its last partition ends at {format_size(last)}",
            where="the partition table",
            mends=trimmed(subject),
            advice="Cut it with a `resize` step, or let the root partition grow into it.",
        )


def disk_larger_than_volume(subject: Subject) -> Iterator[Found]:
    """The disk is larger than the volume that it is meant for, which is told by `volume_size` (`--volume-size`).

    No such volume can be made of it. Source: EC2 API Reference, RegisterImage, EbsBlockDevice: VolumeSize must be at
    least the snapshot's.
    """
    size = subject.reader.virtual_size
    if subject.volume_size is not None and size > subject.volume_size:
        yield Found(
            severity="error",
            what=f"the disk has {format_size(size)}, its volume is to have {format_size(subject.volume_size)}",
            where="the disk",
            mends=shrunk(subject, subject.volume_size),
            advice="Make the volume larger, or the image smaller where it is made: nothing shrinks its root.",
        )


def size_not_whole(subject: Subject) -> Iterator[Found]:
    """The disk's size is no whole number of GiB, which is what volumes are made in: it is rounded up.

    The second copy of a GPT is then not at the end of the volume; growpart puts it right at first boot. Source: EC2
    API Reference, CreateVolume: Size, in GiBs.
    """
    size = subject.reader.virtual_size
    if subject.target != "qemu" and not subject.bare and size % _GIB and subject.volume_size is None:
        yield Found(
            severity="note",
            what=f"the disk has {format_size(size)}; its volumes will have a whole number of GiB",
            where="the disk",
            mends=rounded(subject),
            advice="Nothing need be done where the root partition grows at first boot.",
        )


RULES = (
    Rule(check=bios_cannot_boot, worst="error", mended_by=REMAKING),
    Rule(check=no_esp, worst="error", mended_by=REMAKING),
    Rule(check=esp_without_loader, worst="error", mended_by=REMAKING),
    Rule(check=firmware_mismatch, worst="warning", mended_by=REMAKING),
    Rule(check=no_partition_table, worst="error", mended_by=WRAPPING),
    Rule(check=damaged_partition_table, worst="error"),
    Rule(check=unclean_filesystem, worst="error"),
    Rule(check=disk_larger_than_volume, worst="error", mended_by=("resize",)),
    Rule(check=disk_larger_than_needed, worst="warning", mended_by=("resize",)),
    Rule(check=size_not_whole, worst="note", mended_by=("resize",)),
)
