"""A small system: a tar as mmdebstrap writes it, with every kind of name, owner and attribute that packages bring."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder.bootstrap import grub
from builder.bootstrap.archive import Source
from builder.bootstrap.system import System
from builder.bootstrap.tree import Tree

EPOCH = 1_700_000_000
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_raw=ep, as setcap writes it


@dataclass(frozen=True)
class Entry:
    """A member of the tar."""

    name: str
    data: bytes | None = None
    link: str | None = None
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    mtime: float = EPOCH - 1000
    xattrs: dict[str, bytes] = field(default_factory=dict)


def directory(name: str, mode: int = 0o755, **more: object) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, mode=mode, **more)


ENTRIES = (
    directory("./"),
    directory("./boot"),
    Entry("./boot/vmlinuz-6.1.0-9-cloud-amd64", b"old kernel"),
    Entry("./boot/vmlinuz-6.1.0-10-cloud-amd64", b"new kernel"),
    Entry(f"./{grub.BOOT_IMAGE}", bytes(range(256)) * 2),
    Entry(f"./{grub.CORE_IMAGE}", b"core" * 10_001),
    Entry(f"./{grub.EFI_IMAGE}", b"efi" * 10_001),
    Entry("./dev/null", kind=tarfile.CHRTYPE),
    directory("./etc"),
    Entry("./etc/machine-id", b"0123456789abcdef\n"),
    Entry("./etc/shadow", b"root:*:20000::::::\n", mode=0o640, owner=(0, 42)),
    Entry("./etc/ssh/ssh_host_rsa_key", b"secret", mode=0o600),
    Entry('./etc/a "quoted" name', b"quotes"),
    Entry("./etc/<12>", b"looks like an inode"),
    Entry("./etc/$(touch x); `y` %s \\n", b"looks like a shell"),
    Entry("./etc/größe", b"umlauts"),
    Entry(b"./etc/latin-\xe9".decode(errors="surrogateescape"), b"no UTF-8"),
    directory("./home/user", mode=0o700, owner=(1000, 100_000)),
    Entry("./usr/bin/sudo", b"#!sudo", mode=0o4755),
    Entry("./usr/bin/ping", b"#!ping", mode=0o755, xattrs={"security.capability": CAPABILITY}),
    Entry("./usr/bin/perl", b"perl" * 5000, mode=0o755, mtime=EPOCH + 99.5),
    Entry("./usr/bin/perl5.36.0", link="./usr/bin/perl", kind=tarfile.LNKTYPE),
    Entry("./bin", link="usr/bin", kind=tarfile.SYMTYPE, mode=0o777),
    Entry("./usr/long", link="x" * 200, kind=tarfile.SYMTYPE, mode=0o777),
    Entry("./usr/share/empty"),
    directory("./var/log"),
    Entry("./var/log/apt.log", b"yesterday"),
    Entry("./var/log/wtmp", b"", mode=0o664, owner=(0, 43)),
    Entry("./var/lib/dpkg/status", b"Package: base\nStatus: install ok installed\n"),
    directory("./tmp", mode=0o1777),
)


def write_tar(path: Path, entries: tuple[Entry, ...]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.name)
            member.type, member.mode, member.mtime = entry.kind, entry.mode, entry.mtime
            member.uid, member.gid = entry.owner
            member.linkname = entry.link or ""
            member.size = len(entry.data or b"")
            member.pax_headers = {
                f"SCHILY.xattr.{name}": value.decode(errors="surrogateescape") for name, value in entry.xattrs.items()
            }
            tar.addfile(member, io.BytesIO(entry.data or b""))
    return path


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Tree]:
    """Unpack entries (the small system's, if none are given) into a tree with contents of its own."""
    made = 0

    def make(*entries: Entry) -> Tree:
        nonlocal made
        made += 1
        tree = Tree(tmp_path / f"contents-{made}")
        (tmp_path / f"contents-{made}").mkdir()
        with open(write_tar(tmp_path / f"{made}.tar", entries or ENTRIES), "rb") as archive:
            tree.unpack(archive)
        return tree

    return make


@pytest.fixture
def entry() -> type[Entry]:
    return Entry


@pytest.fixture
def capability() -> bytes:
    return CAPABILITY


@pytest.fixture
def system() -> System:
    sources = [Source.parse("deb http://127.0.0.1/debian bookworm main")]
    return System(distribution="debian", suite="bookworm", sources=sources, size=512 << 20, epoch=EPOCH)
