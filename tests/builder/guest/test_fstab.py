"""Golden fstabs: `fstabs/NAME.case` holds a disk, its fstab, the fstab by label, and what stays with its reason."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.guest.facts import Filesystem
from builder.guest.fstab import escape, parse, render, rewrite, unescape

CASES = sorted((Path(__file__).parent / "fstabs").glob("*.case"))
UUID = "5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11"
ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs", uuid=UUID)


@dataclass(frozen=True, kw_only=True)
class Case:
    filesystems: list[Filesystem]
    root: str
    fstab: bytes
    by_label: bytes
    stays: list[str]


def load(path: Path) -> Case:
    _, disk, fstab, by_label, stays = re.split(r"^=== .*\n", path.read_bytes().decode(), flags=re.MULTILINE)
    filesystems = []
    root = ""
    for line in disk.splitlines():
        words = [word.replace("\\x20", " ").replace("\\\\", "\\") for word in line.split()]
        device, kind, label, uuid, partuuid, partlabel = ("" if word == "-" else word for word in words[:6])
        root = device if words[6:] == ["root"] else root
        filesystems.append(
            Filesystem(device=device, type=kind, label=label, uuid=uuid, partuuid=partuuid, partlabel=partlabel)
        )
    return Case(
        filesystems=filesystems,
        root=root,
        fstab=fstab.encode(),
        by_label=by_label.encode(),
        stays=stays.splitlines(),
    )


def test_the_corpus_is_there():
    assert len(CASES) >= 15


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path):
    case = load(path)
    rewritten = rewrite(case.fstab, case.filesystems, root=case.root)
    assert rewritten.data.decode() == case.by_label.decode()
    assert [str(kept) for kept in rewritten.kept] == case.stays
    changed = sum(old != new for old, new in zip(case.fstab.split(b"\n"), case.by_label.split(b"\n"), strict=True))
    assert len(rewritten.changes) == changed


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_rewriting_again_changes_nothing(path):
    case = load(path)
    again = rewrite(case.by_label, case.filesystems, root=case.root)
    assert again.data == case.by_label
    assert not again.changes


def distinct(path: Path) -> bool:
    labels = [found.label for found in load(path).filesystems]
    return len(set(labels)) == len(labels) and all(labels)


@pytest.mark.parametrize("path", [path for path in CASES if distinct(path)], ids=lambda path: path.stem)
def test_by_uuid_and_back(path):
    case = load(path)
    by_uuid = rewrite(case.fstab, case.filesystems, root=case.root, by="uuid").data
    again = rewrite(by_uuid, case.filesystems, root=case.root)
    specs = [[line.split()[:1] for line in data.splitlines()] for data in (again.data, case.by_label)]
    assert specs[0] == specs[1]
    assert by_uuid != case.by_label


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", b"", id="empty"),
        pytest.param(b"\n\n", b"\n\n", id="blank lines"),
        pytest.param(b"UUID=%s / ext4 defaults 0 1", b"LABEL=rootfs / ext4 defaults 0 1", id="no final newline"),
        pytest.param(
            b"# c\r\nUUID=%s / ext4 defaults 0 1\r\n\r\n",
            b"# c\r\nLABEL=rootfs / ext4 defaults 0 1\r\n\r\n",
            id="CRLF",
        ),
        pytest.param(b"UUID=%s\t/\text4\r\n", b"LABEL=rootfs\t/\text4\r\n", id="CRLF after the third field"),
        pytest.param(
            b"# caf\xe9 \xff\nUUID=%s / ext4 x=\xfe\xff 0 1\n\x00\x01\n",
            b"# caf\xe9 \xff\nLABEL=rootfs / ext4 x=\xfe\xff 0 1\n\x00\x01\n",
            id="bytes that are no UTF-8",
        ),
        pytest.param(
            "UUID=%s / ext4 a\u2003b\x0bc\x85d 0 1\n".encode(),
            "LABEL=rootfs / ext4 a\u2003b\x0bc\x85d 0 1\n".encode(),
            id="blanks and line ends that are only Unicode's",
        ),
        pytest.param(b"UUID=%s \xff\xfe ext4 defaults\n", b"LABEL=rootfs \xff\xfe ext4 defaults\n", id="mount point"),
        pytest.param(b"\xef\xbb\xbfUUID=%s / ext4\n", b"\xef\xbb\xbfUUID=%s / ext4\n", id="a byte order mark"),
    ],
)
def test_every_other_byte_survives(data, expected):
    data, expected = (text.replace(b"%s", UUID.encode()) for text in (data, expected))
    assert rewrite(data, [ROOT], root=ROOT.device).data == expected


def test_parsing_and_rendering_is_the_identity_on_any_bytes():
    everything = bytes(range(256)) * 3 + b"\n" + bytes(reversed(range(256)))
    assert render(parse(everything)) == everything


@pytest.mark.parametrize("text", ["plain", "a b", "tab\there", "back\\slash", "new\nline", "\u00fcml\u00e4ut", "\\040"])
def test_fields_are_escaped_and_back(text):
    assert unescape(escape(text)) == text
    assert not set(" \t\n") & set(escape(text))
