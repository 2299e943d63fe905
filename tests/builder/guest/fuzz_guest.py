"""Feed mutated bytes to the parsers of files inside guests.

    PYTHONPATH=. python tests/builder/guest/fuzz_guest.py SECONDS [SEED] [FILE]

As tests/builder/image/fuzz_qcow2.py does for images (tests/fuzzing.py says how). The promise: an initramfs is read or
refused by FormatRefused, a boot loader's file is edited once and for all or refused by GuestError; no other exception,
no large memory, no hang. The first byte chooses the parser.
"""

from __future__ import annotations

import contextlib

import archives
import atheris

from tests import fuzzing

with atheris.instrument_imports(include=["builder.guest"]):
    from builder.errors import FormatRefused, GuestError
    from builder.guest import bls, extlinux, grub_config, grub_defaults, initramfs, menu_lst
    from builder.guest.boot_names import BootNames
    from builder.guest.bootloader import FileEdit, Settings, serial_of
    from builder.guest.facts import Filesystem
    from builder.guest.kernel_arguments import Wish

LIMITS = initramfs.Limits(unpacked=16 << 20, names=1000, name_bytes=100_000)


ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs", uuid="1111-aaaa", partuuid="p1")
SETTINGS = Settings(
    wish=Wish(add=("new",), replace=("a=b",), remove=("quiet", "x=y"), console="ttyS0,115200"),
    names=BootNames(filesystems=(ROOT,), root=ROOT, boot=ROOT, by="label"),
    timeout=3,
    menu=serial_of("ttyS0,115200"),
)
ENTRY = b"linux /vmlinuz\ninitrd /i\noptions root=UUID=x quiet $kernelopts\noptions a=1 console=tty0\n"
BLOCK = b"# GRUB Environment Block\nkernelopts=root=LABEL=x quiet\nb=1\n"
MENU = (
    b"### BEGIN /etc/grub.d/00_header ###\nif [ ${recordfail} ] ; then\nset timeout=9\nelse\n set timeout=1\nfi\n"
    b"terminal_output gfxterm\n### END /etc/grub.d/00_header ###\nsearch --label --set=root x\n"
    b"menuentry 'a' {\n\tlinux /vmlinuz root=PARTUUID=p quiet $b 'c d' # e\n\tinitrd /i\n}\nset kernelopts=\"a \"\n"
)
LEGACY = b"default 0\nterminal console\n# kopt=ro\n# defoptions=quiet\ntitle a\nkernel /vmlinuz root=/dev/sda1\n"
EXTLINUX = b"TIMEOUT 5\nLABEL a\nLINUX /vmlinuz\nAPPEND initrd=/i root=/dev/vda1\n"
DEFAULTS = b"GRUB_CMDLINE_LINUX='a'\nexport GRUB_CMDLINE_LINUX_DEFAULT=\"quiet \\\n b\" # c\nGRUB_TERMINAL=$(x)\n"


def edit_defaults(data: bytes) -> FileEdit:
    """As one file among others would be edited."""
    return grub_defaults.edit_defaults({"/etc/default/grub": data}, SETTINGS).get(
        "/etc/default/grub", FileEdit(data=data)
    )


EDITORS = (
    lambda data: grub_config.edit_config(data, SETTINGS),
    edit_defaults,
    lambda data: menu_lst.edit_menu(data, SETTINGS),
    lambda data: extlinux.edit_menu(data, SETTINGS),
    lambda data: bls.edit_entry(data, SETTINGS, kernelopts=True),
    lambda data: bls.edit_grubenv(data, SETTINGS, path="/boot/grub/grubenv"),
    lambda data: bls.edit_loader(data, SETTINGS),
    lambda data: bls.edit_cmdline(data, SETTINGS),
)
FILES = (MENU, DEFAULTS, LEGACY, EXTLINUX, ENTRY, BLOCK.ljust(1024, b"#"), b"timeout 5\n", b"root=LABEL=x quiet\n")


def corpus() -> list[bytes]:
    """Small inputs of every kind."""
    plain = archives.newc("init", "lib/modules/6.1/kernel/drivers/block/virtio_blk.ko", data=b"data")
    packed = [pack(plain) for pack in archives.PACKERS.values()]
    images = [
        plain,
        *packed,
        archives.zstd(plain, sized=True),
        plain + bytes(64) + packed[0],
        archives.newc("a", magic=b"070702", trailer=False),
        archives.PACKERS["gzip"](archives.newc("zeros", data=bytes(1 << 20))),
    ]
    texts = [bytes([number]) + data for number, data in enumerate(FILES)]
    return [*texts, *(bytes([len(EDITORS)]) + data for data in images)]


def one_input(data: bytes) -> None:
    """What atheris calls for each input."""
    number = data[0] if data else 255
    if number < len(EDITORS):
        edit_twice(number, data[1:])
    else:
        read_initramfs(data[1:])


def read_initramfs(data: bytes) -> None:
    """Read it whole and in pieces, with one result."""
    results: list[object] = []
    for pieces in (data, [data[start : start + 13] for start in range(0, len(data), 13)]):
        try:
            results.append(initramfs.read(pieces, limits=LIMITS))
        except FormatRefused:  # for another reason in pieces, perhaps: a decoder sees the damage sooner
            results.append(None)
    assert results[0] == results[1]


def edit_twice(number: int, data: bytes) -> None:
    """Edit a file, and find nothing to do in the result; the file stays when nothing was said."""
    with contextlib.suppress(GuestError):
        once = EDITORS[number](data)
        assert bool(once.changes) == (once.data != data), once
        again = EDITORS[number](once.data)
        assert again.data == once.data, (once, again)


if __name__ == "__main__":
    fuzzing.main(one_input, corpus(), longest=20_000)
