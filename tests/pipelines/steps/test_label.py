import pytest

from builder.errors import GuestError
from builder.guest.edits import SetLabel, Unchanged
from builder.guest.facts import Filesystem, KnownFacts
from pipelines.steps.label import Label, LabelOptions

STEP = Label()
ROOT = Filesystem(device="/dev/sda1", type="ext4", label="old")
SWAP = Filesystem(device="/dev/sda5", type="swap")
ESP = Filesystem(device="/dev/sda15", type="vfat", label="UEFI")
VOLUME = Filesystem(device="/dev/vg/var", type="xfs", label="var")


def facts(**files: bytes) -> KnownFacts:
    return KnownFacts(root="/dev/sda1", filesystems=(ROOT, SWAP, ESP, VOLUME), files=files)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"label": "rootfs"},
            SetLabel(device="/dev/sda1", label="rootfs", why="/dev/sda1 labelled rootfs (was old)"),
        ),
        (
            {"label": "swap0", "partition": 5},
            SetLabel(device="/dev/sda5", label="swap0", why="/dev/sda5 labelled swap0 (had none)"),
        ),
        (
            {"label": "EFI", "current": "UEFI"},
            SetLabel(device="/dev/sda15", label="EFI", why="/dev/sda15 labelled EFI (was UEFI)"),
        ),
        (
            {"label": "log", "current": "var"},
            SetLabel(device="/dev/vg/var", label="log", why="/dev/vg/var labelled log (was var)"),
        ),
    ],
)
def test_the_chosen_filesystem_is_labelled(options, expected):
    assert list(STEP.edits(LabelOptions(**options), facts(), {})) == [expected]


@pytest.mark.parametrize(
    "options", [{"label": "old"}, {"label": "old", "partition": 1}, {"label": "old", "current": "before"}]
)
def test_a_label_that_is_there_is_no_edit(options):
    assert STEP.edits(LabelOptions(**options), facts(), {}) == Unchanged(why="/dev/sda1 is labelled old already")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"label": "x", "partition": 2}, "no filesystem on partition 2 to label; it has /dev/sda1 .ext4, old., "),
        ({"label": "x", "current": "none"}, "no filesystem labelled none to label"),
        ({"label": "uefi", "partition": 15}, "capital ASCII"),
        ({"label": "UEFI"}, "/dev/sda15 is labelled UEFI already"),
    ],
)
def test_what_cannot_be_labelled_is_an_error(options, expected):
    with pytest.raises(GuestError, match=expected):
        STEP.edits(LabelOptions(**options), facts(), {})


def test_what_still_names_the_old_label_is_told():
    files = {"/etc/fstab": b"UUID=1 / ext4\n", "/boot/grub/grub.cfg": b"linux /vmlinuz root=LABEL=old ro\n"}
    (edit,) = STEP.edits(LabelOptions(label="new"), facts(**files), {})
    assert edit.why.endswith("; /boot/grub/grub.cfg still says LABEL=old")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"label": ""}, ["a label cannot be empty"]),
        ({"label": "x", "partition": 1, "current": "y"}, ["`partition` and `current` both say which filesystem"]),
        ({"label": "x", "partition": 1}, []),
    ],
)
def test_options_are_checked(options, expected):
    problems = STEP.check(LabelOptions(**options))
    assert len(problems) == len(expected)
    assert all(start in problem for start, problem in zip(expected, problems, strict=True))
