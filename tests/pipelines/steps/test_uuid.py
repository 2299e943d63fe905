import pytest

from builder.errors import GuestError
from builder.guest.edits import SetUuid, Unchanged, WriteFile
from builder.guest.facts import Filesystem, KnownFacts
from pipelines.steps.uuid import Uuid, UuidOptions

STEP = Uuid()
OLD, NEW = "5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11", "0a1b2c3d-0000-4000-8000-00000000beef"
PARTUUID = "d76b0da7-f842-5900-90da-0f422b87d8a9"
ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs", uuid=OLD, partuuid=PARTUUID)
ESP = Filesystem(device="/dev/sda15", type="vfat", label="UEFI", uuid="AE3F-7229", partuuid="77d26d0a")
SWAP = Filesystem(device="/dev/sda5", type="swap")
ODD = Filesystem(device="/dev/sda7", type="ntfs", uuid="01D5", label="win")
TWIN = Filesystem(device="/dev/sda8", type="ext4", label="win")


def decide(options: dict, *, root: Filesystem = ROOT, **files: bytes):
    facts = KnownFacts(root="/dev/sda1", filesystems=(root, ESP, SWAP, ODD, TWIN), files=files)
    return STEP.edits(UuidOptions(**options), facts, {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"uuid": NEW.upper()},
            SetUuid(device="/dev/sda1", uuid=NEW, why=f"/dev/sda1 has the UUID {NEW} (was {OLD})"),
        ),
        (
            {"uuid": "7b2a-04f1", "partition": 15},
            SetUuid(device="/dev/sda15", uuid="7B2A-04F1", why="/dev/sda15 has the UUID 7B2A-04F1 (was AE3F-7229)"),
        ),
        (
            {"uuid": NEW, "partition": 5},
            SetUuid(device="/dev/sda5", uuid=NEW, why=f"/dev/sda5 has the UUID {NEW} (had none)"),
        ),
        (
            {"uuid": "0000-0001", "label": "UEFI"},
            SetUuid(device="/dev/sda15", uuid="0000-0001", why="/dev/sda15 has the UUID 0000-0001 (was AE3F-7229)"),
        ),
    ],
)
def test_the_chosen_filesystem_gets_it(options, expected):
    assert list(decide(options)) == [expected]


def test_a_derived_uuid_is_the_same_in_every_build_and_another_for_another_seed():
    made = {seed: decide({"seed": seed})[-1].uuid for seed in ("", "a", "b")}
    assert made == {
        "": "e79b4f7e-1fcf-528c-b835-111aeb101fd3",
        "a": "128c7166-5a65-5e7b-8301-9a0784683d8b",
        "b": "3dfb054c-0979-59dc-a970-ab45fc3e5430",
    }


def test_a_derived_uuid_that_is_there_is_no_edit():
    (edit,) = decide({"seed": "a"})
    there = Filesystem(device="/dev/sda1", type="ext4", uuid=edit.uuid, partuuid=PARTUUID)
    assert decide({"seed": "a"}, root=there) == Unchanged(why=f"/dev/sda1 has the UUID {edit.uuid} already")


def test_a_derived_id_of_vfat_has_eight_digits():
    (edit,) = decide({"partition": 15})
    assert len(edit.uuid) == 9


# Lines as the tools that own these files write them.
FILES = {
    "/boot/grub/grub.cfg": "  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 {0}\n"
    "  linux /boot/vmlinuz root=UUID={0} ro console=ttyS0\n",
    "/boot/efi/EFI/debian/grub.cfg": "search.fs_uuid {0} root hd0,gpt1\nset prefix=($root)'/boot/grub'\n",
    "/boot/grub2/grubenv": "# GRUB Environment Block\nkernelopts=root=UUID={0} ro\n##########\n",
    "/boot/loader/entries/a-5.14.conf": "title A\noptions root=UUID={0} ro\n",
    "/boot/grub/menu.lst": "# kopt=root=UUID={0} ro\nuuid {0}\n",
    "/etc/default/grub": 'GRUB_CMDLINE_LINUX="resume=UUID={0}"\n',
    "/etc/initramfs-tools/conf.d/resume": "RESUME=UUID={0}\n",
    "/etc/crypttab": "data UUID={0} none luks\n",
    "/etc/fstab": "UUID={0} / ext4\n/dev/disk/by-uuid/{0} /srv ext4 bind 0 0\nUUID=x{0} /x ext4\n# \udcff\n",
}


def test_every_file_that_names_the_old_one_follows_and_fstab_last():
    files = {path: text.format(OLD).encode("utf-8", "surrogateescape") for path, text in FILES.items()}
    *follow, last = decide({"uuid": NEW}, **files, **{"/etc/dracut.conf": b"# nothing\n"})
    expected = {path: text.format(NEW).replace(f"x{NEW}", f"x{OLD}") for path, text in FILES.items()}
    assert {edit.path: edit.data.decode("utf-8", "surrogateescape") for edit in follow} == expected
    # /boot is where fstab says: it must be found there until the others are written, and be unmounted only then.
    assert follow[-1] == WriteFile(path="/etc/fstab", data=follow[-1].data, why="/etc/fstab follows")
    assert isinstance(last, SetUuid)


def test_capitals_are_the_same_uuid():
    text = f"UUID={OLD.upper()} / ext4 defaults 0 1\n".encode()
    assert decide({"uuid": NEW}, **{"/etc/fstab": text})[0].data == f"UUID={NEW} / ext4 defaults 0 1\n".encode()


def test_the_short_id_of_vfat_is_replaced_only_where_it_is_one():
    text = (
        b"UUID=AE3F-7229 /boot/efi vfat\n# AE3F-7229, UUID=AE3F-72290\nLABEL=AE3F-7229 /x vfat\n"
        b"/dev/disk/by-uuid/ae3f-7229 /y vfat\n"
    )
    follow, _ = decide({"uuid": "7B2A-04F1", "partition": 15}, **{"/etc/fstab": text})
    assert follow.data == (
        b"UUID=7B2A-04F1 /boot/efi vfat\n# AE3F-7229, UUID=AE3F-72290\nLABEL=AE3F-7229 /x vfat\n"
        b"/dev/disk/by-uuid/7b2a-04f1 /y vfat\n"
    )


def test_a_link_to_a_file_is_not_written_through():
    files = {"/boot/grub/menu.lst": f"uuid {OLD}".encode(), "/boot/grub/grub.conf": "./menu.lst"}
    assert [edit.path for edit in decide({"uuid": NEW}, **files)[:-1]] == ["/boot/grub/menu.lst"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"partition": 2}, "no filesystem on partition 2 to give a UUID; it has /dev/sda1 .ext4, rootfs., "),
        ({"label": "none"}, "no filesystem labelled none to give a UUID"),
        ({"label": "win"}, "2 filesystems are labelled win"),
        ({"partition": 7}, "/dev/sda7: the UUID of ntfs cannot be set; these can: ext2, "),
        ({"uuid": NEW, "partition": 15}, "is no UUID of vfat: that is 8 digits"),
        ({"uuid": "7B2A-04F1"}, "is no UUID of ext4: that has 32 digits"),
        ({"uuid": OLD, "partition": 5}, "/dev/sda1 has the UUID 5f7a.* already; two of one UUID"),
    ],
)
def test_what_cannot_be_is_an_error(options, expected):
    with pytest.raises(GuestError, match=expected):
        decide(options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"uuid": NEW}, []),
        ({"uuid": "7b2a-04f1"}, []),
        ({"uuid": "random"}, ["`uuid`: 'random' is no UUID"]),
        ({"uuid": "00000000-0000-0000-0000-000000000000"}, ["is no UUID"]),
        ({"uuid": NEW, "seed": "x"}, ["`seed` makes a UUID where none is given"]),
        ({"partition": 1, "label": "x"}, ["both say which filesystem"]),
    ],
)
def test_options_are_checked(options, expected):
    problems = STEP.check(UuidOptions(**options))
    assert len(problems) == len(expected)
    assert all(part in problem for part, problem in zip(expected, problems, strict=True))
