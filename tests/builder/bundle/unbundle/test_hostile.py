"""Bundles that are damaged or made to harm: each refused with its exact cause, and nothing left of it."""

from __future__ import annotations

import gzip
import random
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.bundle.records import ContentKey
from builder.bundle.tar_sparse import Map
from builder.errors import BundleRefused

Make = SimpleNamespace
CASES: dict[str, tuple[Callable[[Make], Any], str]] = {}
SIZE = 512_345  # of the image that `make` knows


def case(name: str, message: str) -> Callable[[Callable[[Make], Any]], Callable[[Make], Any]]:
    """Add a bundle that must be refused with this message; {digest}, {digestN} are those of a part's bytes."""

    def add(build: Callable[[Make], Any]) -> Callable[[Make], Any]:
        assert name not in CASES
        CASES[name] = build, message
        return build

    return add


def whole(make: Make) -> Any:
    return make.bundled(make.plain_tar())


# Parts
case("a part is missing", "p.part.02 (index 2 of 4 parts) is missing")(lambda make: whole(make).holding(p02=None))
case("the first part is missing", "p.part.00 (index 0 of 4 parts) is missing")(
    lambda make: whole(make).holding(p00=None)
)


@case(
    "a part is cut off",
    "p.part.01 (index 1 of 4 parts) is cut off after 65535 of 65536 bytes: its SHA-1 is {there01}, "
    "the manifest says {said01}",
)
def _cut_off(make: Make) -> Any:
    return whole(make).holding(p01=whole(make).files["p.part.01"][:-1])


@case(
    "the last part is empty",
    "p.part.03 (index 3 of 4 parts) is cut off after 0 of {last} bytes: "
    "its SHA-1 is da39a3ee5e6b4b0d3255bfef95601890afd80709, the manifest says {said03}",
)
def _empty_last(make: Make) -> Any:
    return whole(make).holding(p03=b"")


@case(
    "a part has bytes behind its end",
    "p.part.03 (index 3 of 4 parts) has {longer} bytes, 5 too many: its SHA-1 is {there03}, the manifest says {said03}",
)
def _too_long(make: Make) -> Any:
    return whole(make).holding(p03=whole(make).files["p.part.03"] + b"more!")


@case(
    "one bit of a part is wrong",
    "p.part.02 (index 2 of 4 parts) is damaged: its SHA-1 is {there02}, the manifest says {said02}",
)
def _one_bit(make: Make) -> Any:
    data = bytearray(whole(make).files["p.part.02"])
    data[777] ^= 1
    return whole(make).holding(p02=bytes(data))


@case(
    "two parts are swapped",
    "p.part.00 (index 0 of 4 parts) holds the bytes of p.part.02 (index 2 of 4 parts), the files were swapped: "
    "its SHA-1 is {said02}, the manifest says {said00}",
)
def _swapped(make: Make) -> Any:
    files = whole(make).files
    return whole(make).holding(p00=files["p.part.02"], p02=files["p.part.00"])


@case(
    "a part is there twice",
    "p.part.01 (index 1 of 4 parts) holds the bytes of p.part.00 (index 0 of 4 parts), the files were swapped: "
    "its SHA-1 is {said00}, the manifest says {said01}",
)
def _twice(make: Make) -> Any:
    return whole(make).holding(p01=whole(make).files["p.part.00"])


@case(
    "a part of another bundle",
    "p.part.01 (index 1 of 4 parts) is damaged: its SHA-1 is {there01}, the manifest says {said01}",
)
def _foreign(make: Make) -> Any:
    return whole(make).holding(p01=random.Random(0).randbytes(make.PART))


@case(
    "the manifest lists the parts in another order",
    "the gzip stream is damaged before byte {read} of the stream, in p.part.02 (index 1 of 4 parts): {isal}; "
    "the manifest lists p.part.02 (index 1 of 4 parts) after p.part.00",
)
def _reordered(make: Make) -> Any:
    return whole(make).listing(0, 2, 1, 3)


@case(
    "the manifest begins with another part",
    "the key does not open the parts: what it decrypts does not begin as gzip does; "
    "the manifest lists p.part.00 (index 1 of 4 parts) after p.part.01",
)
def _begins_elsewhere(make: Make) -> Any:
    return whole(make).listing(1, 0, 2, 3)


@case(
    "the manifest leaves out the last part",
    "the encrypted stream does not end with padding (PKCS#7): its end is missing or was altered",
)
def _without_last(make: Make) -> Any:
    return whole(make).listing(0, 1, 2)


@case(
    "the manifest leaves out a part in the middle",
    "the gzip stream is damaged before byte {read} of the stream, in p.part.02 (index 1 of 3 parts): {isal}; "
    "the manifest lists p.part.02 (index 1 of 3 parts) after p.part.00",
)
def _without_middle(make: Make) -> Any:
    return whole(make).listing(0, 2, 3)


@case(
    "the manifest lists a part more",
    "bytes that are no gzip follow the gzip stream's end, from byte {after} of the stream, "
    "in p.part.03 (index 3 of 5 parts) on",
)
def _part_more(make: Make) -> Any:
    stream = make.encrypt(gzip.compress(make.plain_tar()).ljust(4 * make.PART, b"\0") + make.pkcs7(b"surplus"))
    return make.cut(stream, tar=make.plain_tar())


# Numbers of the manifest
case(
    "bundled_size is another",
    "the parts have their digests and {total} bytes in all, but the manifest's bundled_size is 7",
)(lambda make: whole(make).saying(bundled_size=7))
case("the size is smaller", "the tar stream holds an image of 512345 bytes, the manifest says 512344")(
    lambda make: whole(make).saying(size=SIZE - 1)
)
case("the size is larger", "the tar stream holds an image of 512345 bytes, the manifest says 512346")(
    lambda make: whole(make).saying(size=SIZE + 1)
)
case(
    "the size is beyond all limits",
    "the manifest says that its image has 70368744177664 bytes, beyond the limit of 64 GiB",
)(lambda make: whole(make).saying(size=64 << 40))
case("the tar's digest is another", f"the tar stream's SHA-1 is {{tar}}, the manifest says {'0' * 40}")(
    lambda make: whole(make).saying(tar_sha1="0" * 40)
)


# Encryption
@case("the key is another", "the key does not open the parts: what it decrypts does not begin as gzip does")
def _other_key(make: Make) -> Any:
    return make.with_key(whole(make), ContentKey(key=b"k" * 16, iv=make.KEY.iv))


@case("the vector is another", "the key does not open the parts: what it decrypts does not begin as gzip does")
def _other_iv(make: Make) -> Any:
    return make.with_key(whole(make), ContentKey(key=make.KEY.key, iv=b"i" * 16))


@case(
    "no block is left for padding",
    "the parts have {total} bytes in all, which is no whole number of AES blocks of 16 bytes",
)
def _no_blocks(make: Make) -> Any:
    return make.cut(make.encrypt(make.pkcs7(gzip.compress(make.plain_tar())))[:-1], tar=make.plain_tar())


def padded_with(padding: bytes) -> Callable[[Make], Any]:
    """A bundle whose stream ends with these bytes where PKCS#7's should be."""

    def build(make: Make) -> Any:
        tar = make.plain_tar()
        stream = gzip.compress(tar)
        # A comment in gzip's header makes the stream as long as the padding needs.
        comment = b"c" * (-(len(stream) + 1 + len(padding)) % 16) + b"\0"
        stream = stream[:3] + b"\x10" + stream[4:10] + comment + stream[10:]
        return make.cut(make.encrypt(stream + padding), tar=tar)

    return build


BAD_PADDING = "the encrypted stream does not end with padding (PKCS#7): its end is missing or was altered"
case("padding of zeros", BAD_PADDING)(padded_with(bytes(16)))
case("padding that counts too far", BAD_PADDING)(padded_with(b"\x11" * 16))
case("padding whose bytes differ", BAD_PADDING)(padded_with(b"\x04\x03\x04\x04"))


# gzip
def compressed(make: Make, alter: Callable[[bytes], bytes]) -> Any:
    return make.bundled(make.plain_tar(), compress=lambda tar: alter(gzip.compress(tar)))


GZIP_DAMAGE = "the gzip stream is damaged before byte {end} of the stream, in p.part.03 (index 3 of 4 parts): {isal}"
case("gzip's CRC is another", GZIP_DAMAGE)(
    lambda make: compressed(make, lambda data: data[:-8] + b"\0\0\0\0" + data[-4:])
)
case("gzip's length is another", GZIP_DAMAGE)(lambda make: compressed(make, lambda data: data[:-4] + b"\1\0\0\0"))
case("gzip's data is damaged", "the gzip stream is damaged before byte {read} of the stream, in {part}: {isal}")(
    lambda make: compressed(make, lambda data: data[:70_000] + bytes(50) + data[70_050:])
)
case("gzip ends early", "the gzip stream is cut off at byte {end} of the stream, in p.part.03 (index 3 of 4 parts)")(
    lambda make: compressed(make, lambda data: data[:-9])
)
case(
    "gzip lacks the last byte of its trailer",
    "the gzip stream is cut off at byte {end} of the stream, in p.part.03 (index 3 of 4 parts)",
)(lambda make: compressed(make, lambda data: data[:-1]))
SURPLUS = (
    "bytes that are no gzip follow the gzip stream's end, from byte {after} of the stream, "
    "in p.part.03 (index 3 of 4 parts) on"
)
case("bytes follow gzip's end", SURPLUS)(lambda make: compressed(make, lambda data: data + b"hidden"))
case("zeros follow gzip's end", SURPLUS)(lambda make: compressed(make, lambda data: data + bytes(600)))
case("a second gzip member holds more", "a second member, 'q', follows the tar stream's end")(
    lambda make: compressed(make, lambda data: data + gzip.compress(make.header("q", 0) + bytes(1024)))
)
case("not gzip but zlib", "the key does not open the parts: what it decrypts does not begin as gzip does")(
    lambda make: make.bundled(make.plain_tar(), compress=zlib.compress)
)
case(
    "gzip members without end",
    "the gzip stream has 1001 members for 0 bytes, up to byte 20020 of the stream, "
    "in p.part.00 (index 0 of 2 parts): made to take time",
)(lambda make: make.bundled(b"", compress=lambda _: gzip.compress(b"") * 5000))


# tar
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
case("more lines than content", "the sparse map has 5 bytes, the tar stream stores -512")(
    tarred(pax(REAL, MAJOR, size=0), b"1\n0\n5\n".ljust(512, b"\0"), bytes(512), END)
)


def gzip_length(make: Make) -> int:
    return len(gzip.compress(make.plain_tar()))


@pytest.mark.parametrize("name", CASES)
def test_refused_with_its_cause(make: Make, name: str, tmp_path: Path) -> None:
    build, expected = CASES[name]
    bundle = build(make)
    with pytest.raises(BundleRefused) as refused:
        bundle.unbundle(tmp_path / "disk")
    assert refused.value.hint
    assert list(tmp_path.iterdir()) == []
    there = {f"there{name[-2:]}": make.sha1(data) for name, data in bundle.files.items()}
    said = {f"said{part.filename[-2:]}": part.sha1 for part in bundle.manifest.parts}
    sizes = {"total": sum(map(len, bundle.files.values())), "longer": len(bundle.files.get("p.part.03", b""))}
    last = {"last": bundle.manifest.bundled_size - 3 * make.PART}
    tar = {
        "tar": make.sha1(make.plain_tar()),
        "end": sizes["total"] - make.padding(bundle),
        "after": gzip_length(make) + 1,
    }
    wild = {"read": "\0", "isal": "\0", "part": "\0"}
    pieces = expected.format(**there, **said, **sizes, **last, **tar, **wild).split("\0")
    message = refused.value.message
    assert message.startswith(pieces[0])
    assert message.endswith(pieces[-1])
    at = 0
    for piece in pieces:
        at = message.index(piece, at) + len(piece)
    if len(pieces) == 1:
        assert message == pieces[0]


def test_a_map_has_an_end() -> None:
    ranges = Map(1 << 40)
    for index in range(1 << 20):
        ranges.add(index * 2, 1)
    with pytest.raises(BundleRefused, match="the sparse map has more than 1048576 ranges"):
        ranges.add(1 << 30, 1)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60
    assert len({message for _, message in CASES.values()}) >= 50
