"""Boot files in odd forms; tests/pipelines/steps/test_grub.py has those of distributions."""

from __future__ import annotations

import pytest

from builder import proc
from builder.guest import bls, extlinux, grub_config, grub_defaults, menu_lst
from builder.guest.boot_names import BootNames
from builder.guest.bootloader import Settings, serial_of
from builder.guest.facts import Filesystem
from builder.guest.kernel_arguments import Wish

ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs", uuid="1111-aaaa", partuuid="p1", partlabel="linux")
DATA = Filesystem(device="/dev/sda2", type="xfs", label="data", uuid="2222-bbbb", partuuid="p2")
SWAP = Filesystem(device="/dev/sda3", type="swap", uuid="3333-cccc")
BOOT = Filesystem(device="/dev/sda4", type="ext4", label="boot", uuid="4444-dddd")


def names(by=None, boot=ROOT, root=ROOT) -> BootNames:
    return BootNames(filesystems=(root, DATA, SWAP, BOOT), root=root, boot=boot, by=by)


def settings(**given) -> Settings:
    chosen = {"wish": Wish(), "names": names(), **given}
    return Settings(**chosen)


ADD = settings(wish=Wish(add=("new",), remove=("quiet",)))
IN = b"terminal_input console serial\n"
MENU = b"serial --unit=0 --speed=115200\n" + IN + b"terminal_output console serial\n"
SERIAL = settings(menu=serial_of("ttyS0,115200"), timeout=3)


@pytest.mark.parametrize(
    ("by", "old", "new"),
    [
        (None, "UUID=1111-aaaa", "UUID=1111-aaaa"),
        (None, "UUID=1111-AAAA", "UUID=1111-AAAA"),
        (None, "UUID=gone", "UUID=1111-aaaa"),
        (None, "LABEL=gone", "LABEL=rootfs"),
        (None, "LABEL=ROOTFS", "LABEL=rootfs"),
        (None, "PARTUUID=gone", "UUID=1111-aaaa"),
        (None, "/dev/disk/by-label/gone", "LABEL=rootfs"),
        (None, "/dev/disk/by-label/rootfs", "/dev/disk/by-label/rootfs"),
        (None, "/dev/sda1", "/dev/sda1"),
        (None, "/dev/vda7", "/dev/vda7"),
        (None, "LABEL=data", "LABEL=data"),
        ("label", "UUID=1111-aaaa", "LABEL=rootfs"),
        ("label", "PARTUUID=p1", "LABEL=rootfs"),
        ("label", "PARTLABEL=linux", "LABEL=rootfs"),
        ("label", "/dev/xvda1", "LABEL=rootfs"),
        ("label", "/dev/sda", "LABEL=rootfs"),
        ("label", "/dev/nvme0n1p1", "LABEL=rootfs"),
        ("label", "/dev/nvme0n1p2", "/dev/nvme0n1p2"),
        ("label", "/dev/sda3", "LABEL=rootfs"),
        ("label", "/dev/sda2", "/dev/sda2"),
        ("label", "UUID=2222-bbbb", "UUID=2222-bbbb"),
        ("label", "/dev/mapper/vg-root", "/dev/mapper/vg-root"),
        ("label", "live:CDLABEL=x", "live:CDLABEL=x"),
        ("label", "nfs", "nfs"),
        ("uuid", "LABEL=rootfs", "UUID=1111-aaaa"),
        ("uuid", "/dev/disk/by-uuid/gone", "UUID=1111-aaaa"),
    ],
)
def test_by_what_name_the_root_is_found(by, old, new):
    renamed, why = names(by).rename(old)
    assert renamed == new
    assert not why or renamed == old


@pytest.mark.parametrize(
    ("by", "old", "new"),
    [
        ("label", "PARTUUID=p1", "PARTUUID=p1"),
        (None, "PARTUUID=gone", "PARTUUID=p1"),
        ("label", "/dev/vda1", "/dev/vda1"),
        ("label", "UUID=1111-aaaa", "LABEL=rootfs"),
    ],
)
def test_a_kernel_without_an_initramfs_knows_partitions_only(by, old, new):
    assert names(by).rename_early(old)[0] == new


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("search --no-floppy --fs-uuid --set=root gone", "search --no-floppy --fs-uuid --set=root 4444-dddd"),
        ("search -u -s root gone # was", "search -u -s root 4444-dddd # was"),
        ("search --label gone --set", "search --label boot --set"),
        ("search -l --hint hd0 gone", "search -l --hint hd0 boot"),
        ("search.fs_label gone root", "search.fs_label boot root"),
        ("search --fs-uuid --set=root 1111-aaaa", None),
        ("search --label data", None),
        ("search --file --set=root /x", None),
        ("search --fs-uuid --set=root $uuid", None),
        ("search", None),
        ("search --label", None),
        ("search.fs_uuid", None),
        ("searching --label gone", None),
    ],
)
def test_what_grub_searches_for(line, after):
    edited = grub_config.edit_config(line.encode() + b"\n", settings(names=names(boot=BOOT)))
    assert edited.data.decode() == (after or line) + "\n"


def test_a_boot_filesystem_without_a_label_is_searched_by_uuid():
    bare = Filesystem(device="/dev/sda1", type="ext4", uuid="1111-aaaa")
    for old, new in (
        ("search --label --set=root gone", "search --fs-uuid --set=root 1111-aaaa"),
        ("search.fs_label gone root", "search.fs_uuid 1111-aaaa root"),
    ):
        edited = grub_config.edit_config(old.encode(), settings(names=names(root=bare, boot=bare)))
        assert edited.data.decode() == new


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"linux /vmlinuz quiet", b"linux /vmlinuz new"),
        (b"linux /vmlinuz", b"linux /vmlinuz new"),
        (b"\tlinux16 ($root)/vmlinuz quiet ro # quiet\r\n", b"\tlinux16 ($root)/vmlinuz ro new # quiet\r\n"),
        (b"linux /vmlinuz quiet; initrd /x }", b"linux /vmlinuz new; initrd /x }"),
        (b"linuxefi '/v m' quiet", b"linuxefi '/v m' new"),
        (b"linux /boot/memtest86+.bin quiet", None),
        (b"linux /ipxe.lkrn quiet", None),
        (b"module2 /boot/initrd quiet", None),
        (b"linux ($root)/vmlinuz $kernelopts quiet", b"linux ($root)/vmlinuz $kernelopts"),
        (b"linux /vmlinuz root=LABEL=data quiet", None),
        (b"#linux /vmlinuz quiet", None),
        (b"linuxed /vmlinuz quiet", None),
        (b'set kernelopts="ro quiet "\n', b'set kernelopts="ro new "\n'),
        (b'set default_kernelopts="a\\"b quiet"', b'set default_kernelopts="a\\"b new"'),
        (b"linux /vmlinuz " + b"quiet " * 4000, None),
    ],
)
def test_which_words_are_the_kernels(before, after):
    assert grub_config.edit_config(before, ADD).data == (after or before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            b"# c\n\nmenuentry a {\n}\n",
            b"# c\n\n" + MENU + b"set timeout=3\nmenuentry a {\n}\n",
        ),
        (b"configfile /x\n", None),
        (
            b"serial --speed=115200 --unit=0\nset timeout=3\nterminal_output gfxterm\nblscfg\n",
            b"serial --speed=115200 --unit=0\nset timeout=3\n" + IN + b"terminal_output gfxterm serial\nblscfg\n",
        ),
        (
            b"timeout=9\nserial --unit=1\nterminal_input serial_com0\nterminal_output serial\nblscfg",
            b"timeout=3\nserial --unit=0 --speed=115200\nterminal_input serial_com0\nterminal_output serial\nblscfg",
        ),
    ],
)
def test_the_menu_on_a_serial_line(before, after):
    edited = grub_config.edit_config(before, SERIAL)
    assert edited.data == (after or before)
    assert grub_config.edit_config(edited.data, SERIAL).changes == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b'GRUB_CMDLINE_LINUX="new"\n'),
        (b"A=1", b'A=1\nGRUB_CMDLINE_LINUX="new"\n'),
        (b"GRUB_CMDLINE_LINUX=quiet\n", b"GRUB_CMDLINE_LINUX=new\n"),
        (b"GRUB_CMDLINE_LINUX=ro # x\n", b'GRUB_CMDLINE_LINUX="ro new" # x\n'),
        (b"export GRUB_CMDLINE_LINUX='a quiet'\n", b"export GRUB_CMDLINE_LINUX='a new'\n"),
        (b'GRUB_CMDLINE_LINUX="a \\\n quiet"\n', b'GRUB_CMDLINE_LINUX="a new"\n'),
        (
            b'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX+=" quiet b"\n',
            b'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX+=" b new"\n',
        ),
        (
            b'GRUB_CMDLINE_LINUX="quiet a"\nGRUB_CMDLINE_LINUX="b"\n',
            b'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX="b new"\n',
        ),
        (
            b'GRUB_CMDLINE_LINUX="new"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX b"\n',
            b'GRUB_CMDLINE_LINUX="new"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX b"\n',
        ),
        (
            b'GRUB_CMDLINE_LINUX="new"\nGRUB_CMDLINE_LINUX="b"\n',
            b'GRUB_CMDLINE_LINUX="new"\nGRUB_CMDLINE_LINUX="b new"\n',
        ),
        (b'GRUB_CMDLINE_LINUX_DEFAULT="new quiet"\n', b'GRUB_CMDLINE_LINUX_DEFAULT="new"\n'),
        (
            b"GRUB_CMDLINE_LINUX=$(cat /x)\n",
            b'GRUB_CMDLINE_LINUX=$(cat /x)\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX new"\n',
        ),
        (b'#GRUB_CMDLINE_LINUX="quiet"\n', b'#GRUB_CMDLINE_LINUX="quiet"\nGRUB_CMDLINE_LINUX="new"\n'),
    ],
)
def test_settings_of_grub_mkconfig(before, after):
    edits = grub_defaults.edit_defaults({"/etc/default/grub": before}, ADD)
    assert {path: edit.data for path, edit in edits.items()} == (
        {} if before == after else {"/etc/default/grub": after}
    )
    assert grub_defaults.edit_defaults({"/etc/default/grub": after}, ADD) == {}
    # What grub-mkconfig's shell makes of it; += is bash's.
    words = ["bash", "-c", '. "$0"; echo "$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"', "/dev/stdin"]
    said = proc.run(words, stdin=after)
    assert said.stdout.decode().split().count("new") == 1
    assert "quiet" not in said.stdout.decode().split()


def test_the_last_file_decides():
    files = {"/etc/default/grub": b"GRUB_TIMEOUT=5\n", "/etc/default/grub.d/9.cfg": b"GRUB_TIMEOUT='7'\n"}
    edits = grub_defaults.edit_defaults(files, SERIAL)
    assert edits["/etc/default/grub.d/9.cfg"].data == b"GRUB_TIMEOUT='3'\n"
    assert edits["/etc/default/grub"].data == (
        b'GRUB_TIMEOUT=5\nGRUB_TERMINAL="console serial"\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n'
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"title a\nkernel /vmlinuz ro quiet", b"title a\nkernel /vmlinuz ro new"),
        (b"title a\nkernel --no-mem-option /vmlinuz quiet\t\n", b"title a\nkernel --no-mem-option /vmlinuz new\t\n"),
        (
            b"kernel /xen.gz quiet\nmodule /vmlinuz-2.6 quiet\nmodule /initrd quiet\n",
            b"kernel /xen.gz quiet\nmodule /vmlinuz-2.6 new\nmodule /initrd quiet\n",
        ),
        (b"kernel (hd0,0)/boot/memtest.bin quiet\n", None),
        (b"# defoptions=quiet\n", b"# defoptions=\n"),
        (b"## kopt=quiet\n", None),
        (b"# defoptions=b\n# kopt=a\n", b"# defoptions=b\n# kopt=a new\n"),
        (b"# kopt_2_6=ro quiet\n# kopt=ro\n", b"# kopt_2_6=ro new\n# kopt=ro new\n"),
    ],
)
def test_menus_of_grub_legacy(before, after):
    assert menu_lst.edit_menu(before, ADD).data == (after or before)


def test_a_menu_of_grub_legacy_on_a_serial_line():
    before = b"terminal console\ntimeout 5\ntitle a\n"
    edited = menu_lst.edit_menu(before, SERIAL)
    assert edited.data == (b"serial --unit=0 --speed=115200\nterminal --timeout=2 console serial\ntimeout 3\ntitle a\n")
    assert menu_lst.edit_menu(edited.data, SERIAL).changes == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"LABEL a\nKERNEL /vmlinuz\nAPPEND initrd=/i quiet\n", b"LABEL a\nKERNEL /vmlinuz\nAPPEND initrd=/i new\n"),
        (b"LABEL a\nKERNEL menu.c32\nAPPEND quiet\n", None),
        (b"LABEL a\nAPPEND quiet\n", None),
        (b"APPEND root=LABEL=gone quiet\nLABEL a\n", b"APPEND root=LABEL=rootfs new\nLABEL a\n"),
        (b"APPEND quiet\n", None),
    ],
)
def test_menus_of_extlinux(before, after):
    assert extlinux.edit_menu(before, ADD).data == (after or before)


def test_entries_and_what_they_lean_on():
    entry = b"linux /vmlinuz\noptions $kernelopts quiet\n"
    assert bls.edit_entry(entry, ADD, kernelopts=True).data == b"linux /vmlinuz\noptions $kernelopts\n"
    assert bls.edit_entry(entry, ADD, kernelopts=False).data == b"linux /vmlinuz\noptions $kernelopts new\n"
    assert bls.edit_entry(b"efi /x\noptions quiet\n", ADD, kernelopts=False).changes == ()
    block = b"# GRUB Environment Block\nx=a\\\\b\\\nkernelopts=quiet\n".ljust(1024, b"#")
    edited = bls.edit_grubenv(block, ADD, path="/x")
    assert edited.data == b"# GRUB Environment Block\nx=a\\\\b\\\nkernelopts=new\n".ljust(1024, b"#")
    assert bls.edit_grubenv(b"kernelopts=quiet\n", ADD, path="/x").changes == ()
    assert bls.edit_loader(b"timeout menu-force\n", SERIAL).data == b"timeout 3\n"
    assert bls.edit_loader(b"default x", SERIAL).data == b"default x\ntimeout 3\n"
