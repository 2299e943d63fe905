import pytest
from pydantic import ValidationError

from builder.errors import GuestError
from builder.guest.edits import SetLabel, Unchanged, WriteFile
from builder.guest.facts import Filesystem, KnownFacts
from pipelines.steps.fstab import Fstab, FstabOptions

STEP = Fstab()
ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs", uuid="1111")
ESP = Filesystem(device="/dev/sda15", type="vfat", label="UEFI", uuid="3083-1F07")
BARE = Filesystem(device="/dev/sda1", type="ext4", uuid="1111")


def facts(*filesystems: Filesystem, fstab: bytes | None) -> KnownFacts:
    return KnownFacts(root="/dev/sda1", filesystems=filesystems, files={} if fstab is None else {"/etc/fstab": fstab})


def test_entries_are_rewritten_and_it_says_which():
    fstab = b"UUID=1111 / ext4 defaults 0 1\n/dev/sdb1 /data xfs nofail 0 0\n"
    (edit,) = STEP.edits(FstabOptions(), facts(ROOT, ESP, fstab=fstab), {})
    assert edit == WriteFile(
        path="/etc/fstab",
        data=b"LABEL=rootfs / ext4 defaults 0 1\n/dev/sdb1 /data xfs nofail 0 0\n",
        why="/: UUID=1111 -> LABEL=rootfs; /data: /dev/sdb1 stays: it is on another disk",
    )


@pytest.mark.parametrize(
    ("fstab", "why"),
    [
        (None, "the guest has no /etc/fstab"),
        (b"", "no entry names a filesystem but by label"),
        (b"LABEL=rootfs / ext4 defaults 0 1\n", "no entry names a filesystem but by label"),
        (b"LABEL=rootfs / ext4\n/dev/sdb1 /data xfs\n", "/data: /dev/sdb1 stays: it is on another disk"),
    ],
)
def test_nothing_to_do_says_why(fstab, why):
    assert STEP.edits(FstabOptions(), facts(ROOT, ESP, fstab=fstab), {}) == Unchanged(why=why)


def test_the_root_is_labelled_first_where_asked():
    label, write = STEP.edits(FstabOptions(root_label="rootfs"), facts(BARE, ESP, fstab=b"/dev/vda1 / ext4\n"), {})
    assert label == SetLabel(device="/dev/sda1", label="rootfs", why="/dev/sda1 labelled rootfs (had none)")
    assert write.data == b"LABEL=rootfs / ext4\n"


def test_a_new_root_label_is_followed():
    edits = STEP.edits(FstabOptions(root_label="new"), facts(ROOT, fstab=b"LABEL=rootfs / ext4\n"), {})
    assert [type(edit) for edit in edits] == [SetLabel, WriteFile]
    assert edits[1].data == b"LABEL=new / ext4\n"


def test_the_label_alone_is_an_edit_too():
    assert len(STEP.edits(FstabOptions(root_label="new"), facts(ROOT, fstab=None), {})) == 1


def test_by_uuid():
    (edit,) = STEP.edits(
        FstabOptions(by="uuid"), facts(ROOT, ESP, fstab=b"LABEL=rootfs / ext4\nLABEL=UEFI /efi vfat\n"), {}
    )
    assert edit.data == b"UUID=1111 / ext4\nUUID=3083-1F07 /efi vfat\n"


def test_a_root_that_goes_alone_leaves_the_others_behind():
    written = b"UUID=1111 / ext4\nLABEL=UEFI /boot/efi vfat umask=0077\n"
    (edit,) = STEP.edits(FstabOptions(alone=True), facts(ROOT, ESP, fstab=written), {})
    assert edit.data == b"LABEL=rootfs / ext4\n# LABEL=UEFI /boot/efi vfat umask=0077\n"
    assert edit.why == "/boot/efi: LABEL=UEFI -> commented out; /: UUID=1111 -> LABEL=rootfs"
    assert isinstance(STEP.edits(FstabOptions(alone=True), facts(ROOT, fstab=edit.data), {}), Unchanged)


@pytest.mark.parametrize(
    ("options", "filesystems", "expected"),
    [
        (FstabOptions(), [BARE], "the entry for / in /etc/fstab cannot name its filesystem by label: its ext4"),
        (FstabOptions(root_label="UEFI"), [BARE, ESP], "/dev/sda15 is labelled UEFI already"),
        (FstabOptions(root_label="a" * 17), [BARE], "has 17 bytes"),
    ],
)
def test_a_root_that_cannot_be_named_is_an_error(options, filesystems, expected):
    with pytest.raises(GuestError, match=expected):
        STEP.edits(options, facts(*filesystems, fstab=b"UUID=1111 / ext4\n"), {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"by": "uuid", "root_label": "x"}, "`root_label` is for `by: label`"),
        ({"root_label": ""}, "cannot be empty"),
        ({"root_label": "rootfs"}, None),
        ({}, None),
    ],
)
def test_options_are_checked(options, expected):
    problems = STEP.check(FstabOptions(**options))
    assert not problems if expected is None else expected in problems[0]


def test_options_are_closed():
    with pytest.raises(ValidationError):
        FstabOptions(by="partuuid")
