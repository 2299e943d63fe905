"""The step `grub` on boot files as distributions make them: what changes, line by line, and that nothing else does.

A case's files stand below `=== PATH` (`link`: a symbolic link; `pad N`: filled up with `#` to N bytes, as grubenv is).
Its `expected` is what `diff -U0` says of each file that the step writes.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest
import yaml

from builder.errors import GuestError
from builder.guest.edits import Unchanged, WriteFile
from builder.guest.facts import Filesystem, KnownFacts
from pipelines.steps.grub import Grub, GrubOptions

STEP = Grub()
CASES = sorted(Path(__file__).with_name("grub").glob("*.case"))
HOSTILE = b"# \xff\xfe\x00 \x1b[2J quiet root=LABEL=old $(reboot) `reboot` '\"\\\n\n#\xe2\x80\xa8 timeout=9\r\n"


def options(given: dict | None) -> GrubOptions:
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in (given or {}).items()}
    return GrubOptions(**plain)


class Case:
    """One case, parsed."""

    def __init__(self, path: Path) -> None:
        parts = re.split(r"^=== (.*)\n", path.read_text(), flags=re.MULTILINE)[1:]
        sections = dict(zip(parts[::2], parts[1::2], strict=True))
        self.options = options(yaml.safe_load(sections.pop("options")))
        self.expected = sections.pop("expected")
        self.root = ""
        self.filesystems = tuple(
            self._filesystem(line) for line in sections.pop("disk: device type label uuid partuuid").splitlines()
        )
        self.files = dict(self._file(name, text) for name, text in sections.items())

    def _filesystem(self, line: str) -> Filesystem:
        device, kind, label, uuid, partuuid, *root = line.split()
        self.root = device if root else self.root
        label, partuuid = ("" if value == "-" else value for value in (label, partuuid))
        return Filesystem(device=device, type=kind, label=label, uuid=uuid, partuuid=partuuid)

    def _file(self, name: str, text: str) -> tuple[str, bytes | str]:
        path, *form = name.split()
        if form == ["link"]:
            return path, text.strip()
        return path, text.encode().ljust(int(form[1]), b"#") if form else text.encode()

    def facts(self, files: dict[str, bytes | str]) -> KnownFacts:
        return KnownFacts(root=self.root, filesystems=self.filesystems, files=files)

    def edited(self, files: dict[str, bytes | str]) -> dict[str, bytes]:
        """The files that the step writes."""
        edits = STEP.edits(self.options, self.facts(files), {})
        if isinstance(edits, Unchanged):
            return {}
        assert all(type(edit) is WriteFile and edit.why.startswith(f"{edit.path}: ") for edit in edits)
        return {edit.path: edit.data for edit in edits}

    def difference(self) -> str:
        """What `diff -U0` says of the files written, without line numbers."""
        lines = []
        for path, data in sorted(self.edited(self.files).items()):
            old = self.files[path]
            assert isinstance(old, bytes)
            both = (each.decode().rstrip("#").splitlines() for each in (old, data))
            found = list(difflib.unified_diff(*both, n=0, lineterm=""))[2:]
            lines += [f"--- {path}", *(line for line in found if not line.startswith("@@"))]
        return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_changes_in_the_files_of(path):
    case = Case(path)
    assert case.difference() == case.expected
    assert case.expected


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_once_is_enough_for(path):
    case = Case(path)
    files = {**case.files, **case.edited(case.files)}
    assert case.edited(files) == {}
    why = STEP.edits(case.options, case.facts(files), {})
    assert isinstance(why, Unchanged)
    assert "so already" in why.why


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_bytes_that_are_not_understood_survive_in_the_files_of(path):
    case = Case(path)
    plain = case.edited(case.files)
    hostile = {
        name: data + HOSTILE if isinstance(data, bytes) and not name.endswith("grubenv") else data
        for name, data in case.files.items()
    }
    for name, data in case.edited(hostile).items():
        assert data.count(HOSTILE) == (not name.endswith("grubenv"))
        assert data.replace(HOSTILE, b"") == plain[name]


def test_there_are_cases():
    assert len(CASES) >= 12


ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs", uuid="1111-2222")
GRUB = b"linux /boot/vmlinuz-6.1 root=UUID=1111-2222 ro\ninitrd /boot/initrd.img-6.1\n"


def one(files: dict[str, bytes | str], *filesystems: Filesystem) -> KnownFacts:
    return KnownFacts(root="/dev/sda1", filesystems=filesystems or (ROOT,), files=files)


@pytest.mark.parametrize(
    ("given", "files", "why"),
    [
        ({}, {}, "the guest has no boot loader's configuration"),
        ({}, {"/boot/grub/grub.cfg": GRUB}, "/boot/grub/grub.cfg says so already"),
        ({"root": "uuid"}, {"/boot/grub/grub.cfg": GRUB}, "/boot/grub/grub.cfg says so already"),
        ({"remove": ["quiet"]}, {"/boot/grub/grub.cfg": GRUB, "/etc/kernel/cmdline": b"ro\n"}, "say so already"),
        (
            {"root": "label"},
            {"/boot/grub/grub.cfg": GRUB.replace(b"UUID=1111-2222", b"/dev/mapper/vg-root")},
            "root=/dev/mapper/vg-root stays: it is no partition of a disk",
        ),
        ({}, {"/boot/EFI/Linux/arch-linux.efi": b"MZ"}, "the guest boots unified kernel images, which hold"),
    ],
)
def test_nothing_to_do_says_why(given, files, why):
    found = STEP.edits(options(given), one(files), {})
    assert isinstance(found, Unchanged)
    assert why in found.why


@pytest.mark.parametrize(
    ("given", "files", "filesystems", "message"),
    [
        ({"timeout": 1}, {}, (), "cannot be set: the guest has no boot loader's configuration"),
        (
            {"add": ["a"]},
            {"/boot/efi/EFI/Linux/x.efi": b"MZ"},
            (),
            "cannot be set: the guest boots unified kernel images",
        ),
        (
            {"root": "label"},
            {"/boot/grub/grub.cfg": GRUB},
            [Filesystem(device="/dev/sda1", type="ext4", uuid="1111-2222")],
            "cannot name the root filesystem on /dev/sda1 by label: it has no label",
        ),
        (
            {"root": "label"},
            {"/boot/grub/grub.cfg": GRUB},
            [Filesystem(device="/dev/sda1", type="ext4", label="two words", uuid="1111-2222")],
            "its label 'two words' cannot stand on a command line",
        ),
        (
            {"root": "label"},
            {"/boot/grub/grub.cfg": GRUB},
            [ROOT, Filesystem(device="/dev/sda2", type="ext4", label="rootfs")],
            "/dev/sda1 and /dev/sda2 are both labelled so",
        ),
        (
            {"add": ["x" * 900]},
            {"/boot/grub2/grubenv": (b"# GRUB Environment Block\nkernelopts=" + b"y" * 200 + b"\n").ljust(1024, b"#")},
            (),
            "/boot/grub2/grubenv has 1024 bytes, and the kernel's arguments do not fit",
        ),
    ],
)
def test_what_cannot_be_done_is_an_error(given, files, filesystems, message):
    with pytest.raises(GuestError, match=re.escape(message)):
        STEP.edits(options(given), one(files, *filesystems), {})


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"add": ["a b"]}, "'a b' is no argument that boot loaders hand on"),
        ({"add": ["$(reboot)"]}, "is no argument"),
        ({"replace": ['"x"']}, "is no argument"),
        ({"add": ["--"]}, "is no argument"),
        ({"remove": [" "]}, "' ' is no kernel argument to remove"),
        ({"console": "serial"}, "'serial' is no console: write it like ttyS0,115200"),
        ({"console": "ttyS0,115200\n"}, "is no console"),
        ({"root": "label", "replace": ["root=/dev/vda1"]}, "both say where the root filesystem is"),
        ({"root": "uuid", "remove": ["root"]}, "root is to be named and removed"),
        ({"add": ["quiet"], "remove": ["quiet"]}, "quiet is to be added and removed"),
    ],
)
def test_options_are_checked(given, problem):
    (found,) = STEP.check(options(given))
    assert problem in found


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"add": ["net.ifnames=0", "console=ttyS0,115200n8", "rd.driver.pre=xen-blkfront,nvme", "root=LABEL=a"]},
        {"console": "hvc0", "root": "uuid"},
        {"console": "ttyAMA0,115200"},
    ],
)
def test_options_that_are_right(given):
    assert STEP.check(options(given)) == []


def test_a_step_before_may_have_relabelled_the_root():
    before = {"/boot/grub/grub.cfg": GRUB.replace(b"UUID=1111-2222", b"LABEL=old")}
    (edit,) = STEP.edits(GrubOptions(), one(before), {})
    assert edit.data == GRUB.replace(b"UUID=1111-2222", b"LABEL=rootfs")
    assert edit.why == "/boot/grub/grub.cfg: root=LABEL=old -> root=LABEL=rootfs"
