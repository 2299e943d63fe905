"""Which drivers a guest's kernels can begin with."""

from __future__ import annotations

import pytest

from builder.errors import GuestError
from builder.guest.drivers import GROUPS, Kernel, drivers, kernels, modules_of, require
from builder.guest.facts import KnownFacts
from tests.builder.guest import archives

DEP = b"kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz\nkernel/net/xen-netfront.ko:\n"
BUILTIN = b"kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/nvme/host/nvme.ko\n"


def guest(version: str = "6.1.0", **more: bytes) -> KnownFacts:
    files = {f"/lib/modules/{version}/modules.dep": DEP, f"/lib/modules/{version}/modules.builtin": BUILTIN}
    return KnownFacts(files={**files, **more})


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/boot/initrd.img-6.1.0", {}),  # Debian, Ubuntu
        ("/boot/initramfs-6.1.0.img", {}),  # Fedora, EL
        ("/boot/initrd-6.1.0", {}),  # SUSE
        ("/boot/initrd-6.1.0.img", {}),  # EL5
        (
            "/boot/0123456789abcdef/6.1.0/initrd",  # kernel-install
            {
                "/boot/0123456789abcdef/6.1.0/linux": b"MZ",
                "/boot/loader/entries/x.conf": b"version 6.1.0\nlinux /0123456789abcdef/6.1.0/linux\n"
                b"initrd /0123456789abcdef/6.1.0/initrd\n",
            },
        ),
        ("/lib/modules/6.1.0/initramfs.img", {}),  # image mode
        (
            "/boot/initramfs-linux-lts.img",  # Arch
            {"/lib/modules/6.1.0/pkgbase": b"linux-lts\n", "/boot/vmlinuz-linux-lts": b"MZ"},
        ),
        ("", {"/boot/initramfs-6.0.0.img": b""}),
        ("", {"/boot/vmlinuz-6.1.0": b"MZ"}),
    ],
)
def test_where_an_initramfs_lies(path, more):
    facts = guest(**({path: b"070701"} if path else {}), **more)
    assert kernels(facts) == (Kernel(version="6.1.0", modules="/lib/modules/6.1.0", initramfs=path),)


def test_kernels_in_order_and_each_once():
    files = dict.fromkeys((f"/lib/modules/{version}/modules.dep" for version in ("6.10.1", "6.9.2-a", "6.9.2")), b"")
    facts = KnownFacts(files={**files, "/usr/lib/modules/6.9.2/modules.dep": b"", "/lib/modules/left/": b""})
    assert [kernel.version for kernel in kernels(facts)] == ["6.9.2", "6.9.2-a", "6.10.1"]


def test_where_each_driver_is():
    packed = archives.PACKERS["zstd"](archives.newc("lib/modules/6.1.0/kernel/xen-netfront.ko.zst"))
    facts = guest(**{"/boot/initrd.img-6.1.0": packed})
    found = drivers(facts, kernels(facts)[0])
    assert {module: found.where(module) for module in ("virtio_blk", "xen-netfront", "nvme", "virtio_pci", "ena")} == {
        "virtio_blk": "on the disk only",
        "xen-netfront": "in the initramfs",
        "nvme": "built in",
        "virtio_pci": "built in",
        "ena": "not in this kernel",
    }
    assert found.lacking(["virtio", "ena", "xen-netfront"]) == ("virtio_blk",)
    assert not found.early("virtio_blk")
    assert found.trouble == ""


def test_old_names_and_kernels_without_a_list_of_what_is_built_in():
    version = "2.6.18-398.el5"
    files = {
        f"/lib/modules/{version}/modules.dep": b"/lib/modules/X/extra/xen-vbd.ko: a.ko\n/x/xen-vnif.ko:\n",
        f"/boot/initrd-{version}.img": archives.PACKERS["gzip"](archives.newc("lib/xen-vbd.ko", "init")),
        f"/boot/config-{version}": b"# CONFIG_VIRTIO_NET is not set\nCONFIG_VIRTIO_BLK=y\nCONFIG_VIRTIO_PCI=m\n",
    }
    facts = KnownFacts(files=files)
    found = drivers(facts, kernels(facts)[0])
    assert found.where("xen-blkfront") == "in the initramfs"
    assert found.where("virtio_blk") == "built in"
    assert found.where("virtio_pci") == "not in this kernel"
    assert found.lacking(tuple(GROUPS)) == ("xen_vnif",)
    assert found.loadable(tuple(GROUPS)) == ("xen_vbd", "xen_vnif")


def test_one_of_two_names_is_enough():
    names = b"kernel/xen-netfront.ko:\nextra/xen-vnif.ko:\n"
    packed = archives.newc("lib/xen-vnif.ko")
    facts = KnownFacts(files={"/lib/modules/2.6/modules.dep": names, "/boot/initrd-2.6.img": packed})
    found = drivers(facts, kernels(facts)[0])
    assert (found.lacking(["xen-netfront"]), found.loadable(["xen-netfront"])) == ((), ("xen_vnif",))


@pytest.mark.parametrize(
    ("initramfs", "trouble"),
    [
        (None, "kernel 6.1.0 has no initramfs"),
        (b"\x7fELF", "/boot/initrd.img-6.1.0 is no initramfs"),
        (archives.newc("squashfs-root.img"), "keeps its files in squashfs-root.img, which is not read here"),
    ],
)
def test_an_initramfs_that_cannot_be_read_is_told(initramfs, trouble):
    facts = guest(**({"/boot/initrd.img-6.1.0": initramfs} if initramfs else {}))
    found = drivers(facts, kernels(facts)[0])
    assert trouble in found.trouble
    assert found.where("nvme") == "built in"


def test_groups_are_modules():
    assert modules_of(["virtio", "nvme", "virtio_blk", "xen-blkfront", "mpt3sas"]) == (
        *GROUPS["virtio"],
        "nvme",
        "xen_blkfront",
        "mpt3sas",
    )


@pytest.mark.parametrize(
    ("version", "modules", "packed", "message"),
    [
        ("6.1.0", ("virtio_blk",), ("virtio_blk",), None),
        ("6.1.0", ("virtio_blk",), ("loop",), "made anew, and still lacks virtio_blk"),
        ("6.1.0", (), (), "is empty"),
        ("6.2.0", (), ("loop",), "the guest has no kernel 6.2.0 any more"),
    ],
)
def test_what_is_required_afterwards(version, modules, packed, message):
    data = archives.newc(*(f"lib/{name}.ko" for name in packed)) if packed else b""
    facts = guest(**{"/boot/initrd.img-6.1.0": data})
    if message is None:
        require(facts, version, modules)
        return
    with pytest.raises(GuestError, match=message):
        require(facts, version, modules)
