"""Golden fstabs: `fstabs/NAME.case` holds a disk, its fstab, what that becomes by label, and what stays and why.

By UUID as well where that tells more. They are written in the manner of the systems and tools they are named for.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder import proc
from builder.guest.facts import Filesystem
from builder.guest.fstab import Mount, Naming, escape, mounts, parse, render, rewrite, unescape

CASES = sorted((Path(__file__).parent / "fstabs").glob("*.case"))
UUID = "5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11"
ROOT = Filesystem(device="/dev/sda1", type="ext4", label="rootfs", uuid=UUID)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What a fstab becomes, and the entries that name a device and stay."""

    by: Naming
    data: bytes
    stays: list[str]


@dataclass(frozen=True, kw_only=True)
class Case:
    filesystems: list[Filesystem]
    root: str
    fstab: bytes
    goldens: list[Golden]


def load(path: Path) -> Case:
    # latin-1, since a fstab may hold any bytes; a title may end in "(no final newline)".
    text = path.read_bytes().decode("latin-1")
    parts: dict[str, bytes] = {}
    for title, cut, body in re.findall(
        r"^=== ([^:\n(]+?)(?:: .*)?( \(no final newline\))?\n((?:(?!=== ).*\n)*)", text, re.M
    ):
        parts[title] = body.removesuffix("\n" if cut else "").encode("latin-1")
    filesystems = []
    root = ""
    for line in parts["disk"].decode().splitlines():
        words = [word.replace("\\x20", " ").replace("\\\\", "\\") for word in line.split()]
        device, kind, label, uuid, partuuid, partlabel = ("" if word == "-" else word for word in words[:6])
        root = device if words[6:] == ["root"] else root
        filesystems.append(
            Filesystem(device=device, type=kind, label=label, uuid=uuid, partuuid=partuuid, partlabel=partlabel)
        )
    names: tuple[tuple[Naming, str, str], ...] = (("label", "by label", "stays"), ("uuid", "by uuid", "stays by uuid"))
    goldens = [
        Golden(by=by, data=parts[title], stays=parts[stays].decode().splitlines())
        for by, title, stays in names
        if title in parts
    ]
    return Case(filesystems=filesystems, root=root, fstab=parts["fstab"], goldens=goldens)


def goldens() -> list[Any]:
    """Return every case with each of its results."""
    return [
        pytest.param(case, golden, id=f"{path.stem} by {golden.by}")
        for path in CASES
        for case in [load(path)]
        for golden in case.goldens
    ]


def test_the_corpus_is_there():
    assert len(CASES) >= 40
    assert len(goldens()) >= 80


@pytest.mark.parametrize(("case", "golden"), goldens())
def test_golden(case, golden):
    rewritten = rewrite(case.fstab, case.filesystems, root=case.root, by=golden.by)
    assert rewritten.data == golden.data
    assert [str(kept) for kept in rewritten.kept] == golden.stays


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_entries_are_read_as_libmount_reads_them(path, tmp_path):
    case = load(path)
    for number, data in enumerate([case.fstab, *(golden.data for golden in case.goldens)]):
        table = tmp_path / f"fstab{number}"
        table.write_bytes(data)
        entries = [line.entry for line in parse(data) if line.entry]
        ours = [(entry.spec, entry.mount_point, entry.type) for entry in entries]
        assert [entry for entry in ours if entry != ("this", "is", "not")] == libmount(table)


def libmount(table: Path) -> list[tuple[str, str, str]]:
    words = ["findmnt", "--tab-file", str(table), "--json", "--list", "--output", "SOURCE,TARGET,FSTYPE"]
    said = proc.run(words, allowed=(0, 1), environment={"LC_ALL": "C.UTF-8"}).stdout.decode("utf-8", "surrogateescape")
    found = json.loads(said)["filesystems"] if said else []  # it says nothing, with status 1, of an empty table
    return [(each["source"], each["target"], each["fstype"]) for each in found]


@pytest.mark.parametrize(("case", "golden"), goldens())
def test_only_the_first_field_of_what_changed_is_another(case, golden):
    rewritten = rewrite(case.fstab, case.filesystems, root=case.root, by=golden.by)
    lines = zip(case.fstab.split(b"\n"), golden.data.split(b"\n"), strict=True)
    changed = [(old, new) for old, new in lines if old != new]
    assert len(changed) == len(rewritten.changes)
    for old, new in changed:
        assert re.split(rb"[ \t]+", old.lstrip())[1:] == re.split(rb"[ \t]+", new.lstrip())[1:]


@pytest.mark.parametrize(("case", "golden"), goldens())
def test_rewriting_again_changes_nothing(case, golden):
    again = rewrite(golden.data, case.filesystems, root=case.root, by=golden.by)
    assert again.data == golden.data
    assert not again.changes
    assert [str(kept) for kept in again.kept] == golden.stays


def distinct(path: Path) -> bool:
    found = load(path).filesystems
    return all(
        len(set(names)) == len(names) and all(names)
        for names in ([each.label for each in found], [each.uuid for each in found])
    )


@pytest.mark.parametrize("path", [path for path in CASES if distinct(path)], ids=lambda path: path.stem)
def test_by_uuid_and_back(path):
    case = load(path)
    by_label = rewrite(case.fstab, case.filesystems, root=case.root).data
    by_uuid = rewrite(case.fstab, case.filesystems, root=case.root, by="uuid").data
    again = rewrite(by_uuid, case.filesystems, root=case.root)
    specs = [[line.split()[:1] for line in data.splitlines()] for data in (again.data, by_label)]
    assert specs[0] == specs[1]


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


def test_what_is_mounted_where_on_this_disk_and_nothing_else():
    data = b"""
/dev/mapper/centos-root / xfs defaults 0 0
/dev/vda2 /boot ext4 defaults 0 2
/dev/vda3 /boot/efi vfat umask=0077 0 2
/dev/hda /media/cdrom iso9660 noauto 0 0
/dev/vda1 /media/stick vfat noauto 0 0
/dev/mapper/centos-home /home xfs defaults 0 0
LABEL=data /srv/my\\040data btrfs subvol=@data,compress=zstd 0 0
/srv /home none bind 0 0
/dev/vda5 none swap sw 0 0
"""
    filesystems = [
        ROOT,
        Filesystem(device="/dev/sda2", type="ext4"),
        Filesystem(device="/dev/sda3", type="vfat"),
        Filesystem(device="/dev/sda4", type="btrfs", label="data"),
        Filesystem(device="/dev/sda5", type="swap"),
    ]
    assert mounts(data, filesystems, root=ROOT.device) == [
        Mount(device="/dev/sda2", mount_point="/boot"),
        Mount(device="/dev/sda3", mount_point="/boot/efi"),
        Mount(device="/dev/sda4", mount_point="/srv/my data", options=("subvol=@data",)),
    ]
