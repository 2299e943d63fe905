"""Tar streams that are damaged or made to harm, in bundles that are right otherwise: each refused with its cause."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.bundle.tar_sparse import Map
from builder.errors import BundleRefused

Make = SimpleNamespace
CASES: dict[str, tuple[Callable[[Make], Any], str]] = {}
SIZE = 512_345  # of the image that `make` knows


def case(name: str, message: str) -> Callable[[Callable[[Make], Any]], Callable[[Make], Any]]:
    """Add a bundle that must be refused with this message."""

    def add(build: Callable[[Make], Any]) -> Callable[[Make], Any]:
        assert name not in CASES
        CASES[name] = build, message
        return build

    return add


def tarred(*pieces: bytes, size: int = SIZE) -> Callable[[Make], Any]:
    """A bundle of a tar stream of these pieces."""
    return lambda make: make.bundled(b"".join(pieces), size=size)


def head(**fields: object) -> bytes:
    info = tarfile.TarInfo(str(fields.pop("name", "p")))
    for name, value in {"size": SIZE, **fields}.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")


def altered(header: bytes, at: int, data: bytes) -> bytes:
    """The header with other bytes and a checksum that fits."""
    header = header[:at] + data + header[at + len(data) :]
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


END = bytes(1024)
for kind, type_, article in (
    ("directory", tarfile.DIRTYPE, "a directory"),
    ("symbolic link", tarfile.SYMTYPE, "a symbolic link"),
    ("hard link", tarfile.LNKTYPE, "a hard link"),
    ("block device", tarfile.BLKTYPE, "a block device"),
    ("character device", tarfile.CHRTYPE, "a character device"),
    ("pipe", tarfile.FIFOTYPE, "a named pipe"),
    ("unknown type", b"Q", "of the unknown type b'Q'"),
):
    member = "etc/" if kind == "directory" else "etc"
    case(f"the member is a {kind}", f"the tar stream holds {member!r}, which is {article}, where the image should be")(
        tarred(head(name="etc", type=type_, linkname="/etc/shadow", size=0), END)
    )
case("an old tar's directory", "the tar stream holds 'etc/', which is a directory, where the image should be")(
    tarred(altered(head(name="etc/", size=0), 156, b"\0"), END)
)
case("the tar is empty", "the tar stream holds no file")(tarred(bytes(10240)))
case("nothing at all is compressed", "the tar stream is cut off after 0 bytes, 512 more should follow")(tarred(b""))
case("what is compressed is the image itself", "the tar stream is damaged: a header does not have its checksum")(
    tarred(random.Random(1).randbytes(SIZE))
)
case("a tar header without its checksum", "the tar stream is damaged: a header does not have its checksum")(
    tarred(head()[:148] + b"0000000\0" + head()[156:], END)
)
case("the tar ends in its image", "the tar stream is cut off after 1512 bytes, 511345 more should follow")(
    tarred(head(), bytes(1000))
)
case("the tar ends without zeros", "the tar stream is cut off: it ends without its two blocks of zeros")(
    tarred(head(), bytes(SIZE), bytes(-SIZE % 512))
)
case("one block of zeros is missing", "the tar stream is cut off: it ends without its two blocks of zeros")(
    tarred(head(), bytes(SIZE), bytes(-SIZE % 512), bytes(512))
)
case("two members", "a second member, 'second', follows the image in the tar stream")(
    tarred(head(), bytes(SIZE), bytes(-SIZE % 512), head(name="second", size=1), b"2".ljust(512, b"\0"), END)
)
case("bytes between image and block", "the tar stream holds bytes between the image's end and its block's end")(
    tarred(head(), bytes(SIZE), b"hidden".rjust(-SIZE % 512, b"\0"), END)
)
case("bytes behind the tar's end", "bytes that are no tar follow the tar stream's end")(
    tarred(head(), bytes(SIZE), bytes(-SIZE % 512), END, b"hidden")
)
case("bytes behind the image", "bytes that are no tar follow the image in the tar stream")(
    tarred(head(), bytes(SIZE), bytes(-SIZE % 512), b"hidden" * 100, END)
)
case(
    "a negative size",
    f"the tar stream is damaged: size is {bytes([255] * 12)!r}, which is no number",
)(tarred(altered(head(), 124, b"\xff" * 12), END))
case("a size with a sign", "the tar stream is damaged: size is b'-0000000001\\x00', which is no number")(
    tarred(altered(head(), 124, b"-0000000001\0"), END)
)
case("a size that no file has", f"the tar stream holds an image of {(1 << 88) - 1} bytes, the manifest says {SIZE}")(
    tarred(altered(head(), 124, b"\x80" + b"\xff" * 11), END)
)
case("a name without end", "the tar stream has a header of 1073741824 bytes, 65536 are the most")(
    tarred(head(name="././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=1 << 30), END)
)
case("headers without end", "the tar stream has more than 16 headers before a file")(
    tarred(head(type=tarfile.XHDTYPE, size=0) * 20, END)
)
case("a pax header too long", "the tar stream has a header of 8589934592 bytes, 2097152 are the most")(
    tarred(head(type=tarfile.XHDTYPE, size=8 << 30), END)
)
case("a pax record that counts wrongly", "the tar stream is damaged: a record of a pax header is not as it must be")(
    tarred(head(type=tarfile.XHDTYPE, size=9), b"99 a=b\n".ljust(512, b"\0"), END)
)


# Bombs
case("zeros without end behind the tar", "more than 1048576 bytes of zeros follow the tar stream's end")(
    lambda make: make.bundled(make.plain_tar() + bytes(20 << 20))
)
case(
    "a gigabyte where the manifest says half a megabyte",
    f"the tar stream holds an image of {1 << 30} bytes, the manifest says {SIZE}",
)(lambda make: make.bundled(head(size=1 << 30) + bytes(10 << 20)))


# Sparse maps
def octal(value: int) -> bytes:
    return b"%011o\0" % value


def sparse(*ranges: tuple[int, int], real: int = SIZE, stored: int | None = None, more: bytes = b"\0") -> bytes:
    """An old GNU sparse header."""
    entries = b"".join(octal(offset) + octal(length) for offset, length in ranges).ljust(96, b"\0")
    size = sum(length for _, length in ranges) if stored is None else stored
    return altered(head(type=tarfile.GNUTYPE_SPARSE, size=size), 386, entries + more + octal(real))


case("sparse ranges overlap", "the sparse map has 512 bytes at 1024, which overlap those before, up to 1500")(
    tarred(sparse((0, 1500), (1024, 512)), bytes(2048), END)
)
case("sparse ranges are out of order", "the sparse map has 512 bytes at 0 after those at 4096: it is out of order")(
    tarred(sparse((4096, 512), (0, 512)), bytes(1024), END)
)
case("a sparse range lies beyond the end", "the sparse map has 512 bytes at 512000, beyond the image's 512345 bytes")(
    tarred(sparse((0, 512), (512_000, 512)), bytes(1024), END)
)
case("a sparse range beyond all numbers", f"the sparse map has {1 << 87} bytes at 0, beyond the image's 512345 bytes")(
    tarred(altered(sparse((0, 512)), 386 + 12, b"\x80" + (1 << 87).to_bytes(11, "big")), END)
)
case("the sparse map holds less than is stored", "the sparse map has 512 bytes, the tar stream stores 1024")(
    tarred(sparse((0, 512), stored=1024), bytes(1024), END)
)
case("the sparse image has another size", "the tar stream holds an image of 99 bytes, the manifest says 512345")(
    tarred(sparse((0, 10), real=99), bytes(512), END)
)
case(
    "a sparse map that is no number",
    "the tar stream is damaged: a range's offset is b'nonsense\\x00\\x00\\x00\\x00', which is no number",
)(tarred(altered(sparse((0, 512)), 386, b"nonsense\0\0\0\0"), END))
case("a sparse map that is cut off", "the tar stream is cut off after 512 bytes, 512 more should follow")(
    tarred(sparse((0, 512), more=b"\1"))
)
case("a sparse map of blocks without ranges", "the sparse map goes on after its end")(
    tarred(sparse((0, 512), more=b"\1"), (bytes(504) + b"\1" + bytes(7)) * 1000)
)
case("a sparse map of ranges without length", "the sparse map goes on after its end")(
    tarred(sparse((0, 512), more=b"\1"), ((octal(512) + octal(0)) * 21 + b"\1" + bytes(7)) * 1000)
)


def pax(*records: tuple[str, str], size: int = 512) -> bytes:
    content = b""
    for keyword, value in records:
        body = f" {keyword}={value}\n".encode()
        length = len(body) + len(str(len(body) + 2))
        content += str(length).encode() + body
    extended = head(type=tarfile.XHDTYPE, size=len(content)) + content + bytes(-len(content) % 512)
    return extended + head(size=size)


REAL = ("GNU.sparse.realsize", str(SIZE))
case("pax ranges overlap", "the sparse map has 10 bytes at 5, which overlap those before, up to 10")(
    tarred(pax(REAL, ("GNU.sparse.map", "0,10,5,10"), size=20), bytes(512), END)
)
case("a pax map of one number", "the sparse map ends with an offset without a length")(
    tarred(pax(REAL, ("GNU.sparse.map", "0,10,5")), bytes(512), END)
)
case("a pax map with a sign", "the sparse map is damaged: b'-5' is no number")(
    tarred(pax(REAL, ("GNU.sparse.map", "0,-5")), bytes(512), END)
)
case("a pax length without an offset", "the sparse map has a length without an offset")(
    tarred(pax(("GNU.sparse.size", str(SIZE)), ("GNU.sparse.numbytes", "5")), bytes(512), END)
)
case("a sparse pax member without a map", "the tar stream says that its file is sparse and has no map of it")(
    tarred(pax(REAL), bytes(512), END)
)
MAJOR = ("GNU.sparse.major", "1")
case("lines that are no map", "the sparse map is damaged: a line is no number")(
    tarred(pax(REAL, MAJOR), b"x" * 512, END)
)
case("lines beyond the end", "the sparse map has 512 bytes at 512000, beyond the image's 512345 bytes")(
    tarred(pax(REAL, MAJOR, size=1024), b"1\n512000\n512\n".ljust(512, b"\0"), bytes(512), END)
)
case("more lines than content", "the sparse map has 512 bytes, its member 0")(
    tarred(pax(REAL, MAJOR, size=0), b"1\n0\n5\n".ljust(512, b"\0"), bytes(512), END)
)


@pytest.mark.parametrize("name", CASES)
def test_refused_with_its_cause(make: Make, name: str, tmp_path: Path) -> None:
    build, message = CASES[name]
    with pytest.raises(BundleRefused) as refused:
        build(make).unbundle(tmp_path / "disk")
    assert refused.value.message == message
    assert refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_map_has_an_end() -> None:
    ranges = Map(1 << 40)
    for index in range(1 << 20):
        ranges.add(index * 2, 1)
    with pytest.raises(BundleRefused, match="the sparse map has more than 1048576 ranges"):
        ranges.add(1 << 30, 1)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 40
    assert len({message for _, message in CASES.values()}) >= 35
