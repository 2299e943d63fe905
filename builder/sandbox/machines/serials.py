"""The serial that a volume shows to a guest, in each cloud's way; guests find their volumes by it."""

from __future__ import annotations

from builder.sandbox.machines.machine import Bus


def serial_of(volume_id: str, device: str, *, eucalyptus: bool, at_boot: bool = False, root: bool = False) -> str:
    """Return the serial of a volume that was asked for as `device`.

    AWS: the id without its dash (`vol0123…`, 20 characters: "Identify the EBS device" in the EC2 guide). Eucalyptus:
    `euca-vol-0123…-dev-vdc` when attached to a running instance, `euca-bdm-ebs1-dev-vdb` when attached at its start
    (read in its node controller); virtio cuts both to 20 bytes. The name of the root's is our choice.
    """
    if not eucalyptus:
        return volume_id.replace("-", "")
    name = virtio_name(device)
    if root:
        return f"euca-bdm-emi-dev-{name}"
    return f"euca-bdm-ebs1-dev-{name}" if at_boot else f"euca-{volume_id}-dev-{name}"


def virtio_name(device: str) -> str:
    """Return the name that Eucalyptus asks of libvirt: `sd` becomes `vd` (`/dev/sdc` -> `vdc`), others stay."""
    name = device.removeprefix("/dev/")
    return f"vd{name[2:]}" if name.startswith("sd") else name


def bus_of(*, eucalyptus: bool) -> Bus:
    """Return how volumes are attached: NVMe on AWS (Nitro), virtio on Eucalyptus (KVM)."""
    return "virtio" if eucalyptus else "nvme"
