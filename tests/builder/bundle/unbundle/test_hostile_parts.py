"""Parts, keys and gzip streams that are damaged or made to harm: each refused with its exact cause, nothing is left."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.bundle.records import ContentKey
from builder.errors import BundleRefused

Make = SimpleNamespace
CASES: dict[str, tuple[Callable[[Make], Any], str]] = {}
SIZE = 512_345  # of the image that `make` knows


def case(name: str, message: str) -> Callable[[Callable[[Make], Any]], Callable[[Make], Any]]:
    """Add a bundle that must be refused with this message, whose {words} the test fills in."""

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


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 30
    assert len({message for _, message in CASES.values()}) >= 25
