"""Rules on names of filesystems: those in /etc/fstab, and the one after root= on the kernel's command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from builder.guest.facts import Filesystem
from builder.guest.fstab import escape
from builder.guest.lint.devices import Device, device
from builder.guest.lint.remaking import ASSEMBLED, LABEL, by_grub
from builder.guest.lint.rule import Found, Mend, Rule
from builder.guest.lint.subject import FstabLine, Subject

_OPTIONAL = ("nofail", "noauto", "x-systemd.automount")


def fstab_unstable_device(subject: Subject) -> Iterator[Found]:
    """An entry of /etc/fstab names its filesystem by a device name, which differs from machine to machine.

    The same disk is /dev/xvda on Xen, /dev/vda on virtio and /dev/nvme0n1 on EC2's Nitro; systemd waits 90 s for a
    device that does not come and ends in emergency mode. Source: EC2 User Guide, "Device names on Linux instances";
    packer issues #5848, #10807, #775.
    """
    for line, found in _named(subject):
        assert line.entry is not None
        if found.how not in ("kernel name", "hardware") or not found.first:
            continue
        optional = _optional(line)
        mended = found.filesystem is not None or line.entry.mount_point == "/"
        yield Found(
            severity="warning" if optional or line.entry.type == "swap" else "error",
            what=f"{line.entry.mount_point} is named by {line.entry.spec}, which another machine does not have",
            where=line.where,
            quote=line.text,
            mends=(_fstab(subject),) if mended else (),
            advice="" if mended else "Name it by LABEL= or UUID=, or remove the line.",
        )


def fstab_root_mismatch(subject: Subject) -> Iterator[Found]:
    """The entry for / in /etc/fstab names another filesystem than the root, or none that is there.

    It happens where an image was copied to a filesystem made anew: the UUID is another one. The boot ends in a
    read-only root or emergency mode. Source: fstab(5), systemd-remount-fs(8).
    """
    for line, found in _named(subject):
        assert line.entry is not None
        if line.entry.mount_point != "/" or found.how not in ("tag", "volume") or _is(found.filesystem, subject.root):
            continue
        named = f"{found.filesystem.device}" if found.filesystem else "nothing on this disk"
        yield Found(
            severity="error",
            what=f"the entry for / says {line.entry.spec}, which is {named}; the root is {subject.root.device}",
            where=line.where,
            quote=line.text,
            mends=(_fstab(subject),) if found.how == "tag" else (),
            advice="" if found.how == "tag" else "Name the root by LABEL= or UUID=.",
        )


def fstab_absent_device(subject: Subject) -> Iterator[Found]:
    """An entry of /etc/fstab needs a filesystem that this image does not have, and lacks `nofail`.

    systemd waits 90 s for the device, then stops in emergency mode, where nobody can log in. Source: systemd.mount(5),
    "nofail"; EC2 User Guide, "Make an Amazon EBS volume available for use", which asks for it.
    """
    # `alone` comments out what is not on the disk, and with it what else is on it.
    shared = any(found.filesystem and line.entry and line.entry.mount_point != "/" for line, found in _named(subject))
    for line, found in _named(subject):
        entry = line.entry
        assert entry is not None
        absent = found.how == "tag" or (found.how == "kernel name" and not found.first)
        if entry.mount_point == "/" or not absent or found.filesystem or _optional(line):
            continue
        swap = entry.type == "swap"
        yield Found(
            severity="warning" if swap else "error",
            what=f"{entry.mount_point} needs {entry.spec}, which is not in this image, and has no `nofail`"
            + (": the boot waits 90 s for it" if swap else ""),
            where=line.where,
            quote=line.text,
            mends=(Mend(step="fstab", options={"alone": True}),) if found.how == "tag" and not shared else (),
            advice="Remove the line, or add `nofail` to its options, with a `files` or `run` step.",
        )


def fstab_broken_line(subject: Subject) -> Iterator[Found]:
    """A line of /etc/fstab is neither an entry nor a comment, and is passed over or misread.

    Source: fstab(5): at least device, mount point and type.
    """
    for line in subject.fstab:
        if line.entry is None:
            yield Found(
                severity="warning",
                what="a line with fewer than three fields mounts nothing",
                where=line.where,
                quote=line.text,
                advice="Correct or remove it with a `files` or `run` step.",
            )


def fstab_no_root(subject: Subject) -> Iterator[Found]:
    """/etc/fstab has no entry for /, and the kernel is told to mount it read-only: it stays so.

    Source: systemd-remount-fs(8), which acts on the entry for /; kernel-parameters, `ro`.
    """
    if any(line.entry and line.entry.mount_point == "/" for line in subject.fstab):
        return
    if subject.system.family == "flatcar":  # it mounts its root from the initramfs, writable, by itself
        return
    label = subject.root.label or LABEL
    wanted = f"{escape(f'LABEL={label}')} / {subject.root.type} defaults 0 1"
    write = Mend(step="files", options={"entries": [{"path": "/etc/fstab", "content": f"{wanted}\n"}]})
    named = () if subject.root.label else (Mend(step="label", options={"label": label}),)
    for entry in subject.boot_entries[:1]:
        if "rw" not in entry.arguments:
            yield Found(
                severity="warning",
                what="there is no entry for /, and the kernel is not told `rw`: the root may stay read-only",
                where="/etc/fstab",
                quote=entry.text,
                mends=() if any(line.entry for line in subject.fstab) else (*named, write),
                advice=f"Write an entry such as `{wanted}` with a `files` step.",
            )


def root_unstable_device(subject: Subject) -> Iterator[Found]:
    """The kernel's command line names the root by a device name, which differs from machine to machine.

    The initramfs waits for it and then gives up, or the kernel panics. Source: as for fstab-unstable-device; EC2's
    troubleshooting of "Kernel panic - not syncing: VFS: Unable to mount root fs".
    """
    for where, text, spec, found in _roots(subject):
        # Eucalyptus' PV instances are told root=/dev/vda1 or sda1 by the cloud; their own configuration is not read.
        if found.how in ("kernel name", "hardware"):
            yield Found(
                severity="note" if subject.target == "eucalyptus-xen" else "error",
                what=f"the kernel is told root={spec}, which another machine does not have",
                where=where,
                quote=text,
                mends=_by_label(subject),
                advice=ASSEMBLED,
            )


def root_mismatch(subject: Subject) -> Iterator[Found]:
    """The kernel's command line names as root what is not on this disk, or another filesystem than the root.

    The initramfs waits for it in vain. Source: dracut.cmdline(7), initramfs-tools(7); images whose filesystem was
    remade, or relabelled without a new grub.cfg.
    """
    for where, text, spec, found in _roots(subject):
        if found.how not in ("tag", "volume") or _is(found.filesystem, subject.root):
            continue
        named = f"that is {found.filesystem.device}" if found.filesystem else "nothing on this disk is that"
        yield Found(
            severity="error",
            what=f"the kernel is told root={spec}, and {named}; the root is {subject.root.device}",
            where=where,
            quote=text,
            mends=_by_label(subject),
            advice=ASSEMBLED,
        )


def duplicate_name(subject: Subject) -> Iterator[Found]:
    """Two filesystems of the disk have one label or one UUID, and something names them by it.

    Which of them is found is chance. Source: mount(8), "duplicate"; xfs(5) refuses a second of one UUID.
    """
    specs = [line.entry.spec for line in subject.fstab if line.entry]
    specs += [spec for _, _, spec, _ in _roots(subject)]
    filesystems = [one for one in subject.facts.filesystems if one.type != "LVM2_member"]
    for tag in ("label", "uuid"):
        names = Counter(getattr(one, tag) for one in filesystems)
        for name, count in names.items():
            if name and count > 1 and f"{tag.upper()}={name}" in specs:
                devices = ", ".join(one.device for one in filesystems if getattr(one, tag) == name)
                yield Found(
                    severity="error",
                    what=f"{count} filesystems have the {tag} {name}: {devices}",
                    where="/etc/fstab",
                    quote=f"{tag.upper()}={name}",
                    advice=f"Give all but one another {tag}, with a `{tag}` step for each partition.",
                )


def swap_on_root_volume(subject: Subject) -> Iterator[Found]:
    """The image has swap on its own disk, which is paid for by size and, on EBS, worn by writes.

    Source: EC2 User Guide, "Instance store swap volumes": swap belongs on an instance store.
    """
    for line, found in _named(subject):
        assert line.entry is not None
        if line.entry.type == "swap" and found.filesystem is not None:
            yield Found(
                severity="note",
                what=f"swap lies on {found.filesystem.device} of this disk",
                where=line.where,
                quote=line.text,
                advice="Leave it out of the image where memory suffices; `assemble` makes a disk without it.",
            )


def _named(subject: Subject) -> Iterator[tuple[FstabLine, Device]]:
    """Yield the entries that name a disk, with what they name."""
    for line in subject.fstab:
        if line.entry and not {"bind", "rbind"} & set(line.entry.options):
            found = device(line.entry.spec, subject.facts.filesystems)
            if found.how != "other":
                yield line, found


def _roots(subject: Subject) -> Iterator[tuple[str, str, str, Device]]:
    """Yield where root= stands, the line, its value and what that names; each value once."""
    seen = set()
    for entry in subject.boot_entries:
        spec = entry.value("root")
        if spec and "$" not in spec and spec not in seen:
            seen.add(spec)
            yield f"{entry.config}:{entry.line}", entry.text, spec, device(spec, subject.facts.filesystems)


def _optional(line: FstabLine) -> bool:
    return line.entry is not None and any(option in _OPTIONAL for option in line.entry.options)


def _is(found: Filesystem | None, root: Filesystem) -> bool:
    return found is not None and found.device == root.device


def _fstab(subject: Subject) -> Mend:
    return Mend(step="fstab", options={} if subject.root.label else {"root_label": LABEL})


def _by_label(subject: Subject) -> tuple[Mend, ...]:
    """Return the steps that have the kernel find the root by its label."""
    label = () if subject.root.label else (Mend(step="label", options={"label": LABEL}),)
    grub = by_grub(subject, root="label")
    return (*label, *grub) if grub else ()


RULES = (
    Rule(check=fstab_unstable_device, worst="error", mended_by=("fstab",)),
    Rule(check=fstab_root_mismatch, worst="error", mended_by=("fstab",)),
    Rule(check=fstab_absent_device, worst="error", mended_by=("fstab",)),
    Rule(check=fstab_broken_line, worst="warning"),
    Rule(check=fstab_no_root, worst="warning", mended_by=("label", "files")),
    Rule(check=root_unstable_device, worst="error", mended_by=("label", "grub")),
    Rule(check=root_mismatch, worst="error", mended_by=("label", "grub")),
    Rule(check=duplicate_name, worst="error"),
    Rule(check=swap_on_root_volume, worst="note"),
)
