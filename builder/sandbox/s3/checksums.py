"""The checksums that S3 knows: computed piece by piece, joined over parts, and held against what a client says.

Sources: "Checking object integrity in Amazon S3" and the model's x-amz-checksum-* headers. awscrt (AWS's own) has the
CRCs in the CPU's carry-less multiplication and the xxHashes; it and hashlib let other threads run meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from awscrt import checksums as crt
from isal import isal_zlib

from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.wire import Request

COMPOSITE, FULL_OBJECT = "COMPOSITE", "FULL_OBJECT"
DEFAULT = "CRC64NVME"  # what S3 computes where a client says nothing


class Hash(Protocol):
    """What takes pieces and ends in a digest."""

    def update(self, piece: memoryview, /) -> object:
        """Take the next piece."""

    def digest(self) -> bytes:
        """Return the digest of all pieces."""


class _Crc:
    def __init__(self, function: Callable[[memoryview, int], int], size: int) -> None:
        self._function, self._size, self._value = function, size, 0

    def update(self, piece: memoryview) -> None:
        self._value = self._function(piece, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class _XxHash:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._state = make()

    def update(self, piece: memoryview) -> None:
        self._state.update(bytes(piece))  # it takes nothing that may change

    def digest(self) -> bytes:
        digest: bytes = self._state.finalize()
        return digest


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One algorithm: how to start it, how long its digest is, and how two digests of neighbours join, if they do."""

    start: Callable[[], Hash]
    size: int
    join: Callable[[int, int, int], int] | None = None


ALGORITHMS: dict[str, Algorithm] = {
    "CRC32": Algorithm(start=lambda: _Crc(isal_zlib.crc32, 4), size=4, join=crt.combine_crc32),
    "CRC32C": Algorithm(start=lambda: _Crc(crt.crc32c, 4), size=4, join=crt.combine_crc32c),
    "CRC64NVME": Algorithm(start=lambda: _Crc(crt.crc64nvme, 8), size=8, join=crt.combine_crc64nvme),
    "SHA1": Algorithm(start=lambda: hashlib.sha1(usedforsecurity=False), size=20),
    "SHA256": Algorithm(start=hashlib.sha256, size=32),
    "SHA512": Algorithm(start=hashlib.sha512, size=64),
    "MD5": Algorithm(start=lambda: hashlib.md5(usedforsecurity=False), size=16),
    "XXHASH64": Algorithm(start=lambda: _XxHash(crt.XXHash.new_xxhash64), size=8),
    "XXHASH3": Algorithm(start=lambda: _XxHash(crt.XXHash.new_xxhash3_64), size=8),
    "XXHASH128": Algorithm(start=lambda: _XxHash(crt.XXHash.new_xxhash3_128), size=16),
}


def header(algorithm: str) -> str:
    """Return the header that carries the algorithm's checksum."""
    return f"x-amz-checksum-{algorithm.lower()}"


def member(algorithm: str) -> str:
    """Return the checksum's name in S3's model, such as ChecksumCRC32."""
    return f"Checksum{algorithm}"


_HEADERS = {header(name): name for name in ALGORITHMS}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a client says about a body: its MD5, and one checksum, now or in the trailer that follows the body."""

    md5: bytes | None = None
    algorithm: str | None = None
    value: str | None = None  # base64; None while it is still to come in the trailer

    def check(self, md5: Callable[[], bytes], computed: Mapping[str, str], trailer: Mapping[str, str]) -> None:
        """Hold what was computed against it. Raises Refusal (BadDigest, InvalidRequest)."""
        if self.md5 is not None and (found := md5()) != self.md5:
            raise S3Refusal(
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                ExpectedDigest=base64.b64encode(self.md5).decode(),
                CalculatedDigest=base64.b64encode(found).decode(),
            )
        if self.algorithm is None:
            return
        value = self.value if self.value is not None else trailer.get(header(self.algorithm))
        if value is None:
            raise S3Refusal("MalformedTrailerError", "The request contained trailing data that was not well-formed.")
        check_form(self.algorithm, value)
        if value != computed[self.algorithm]:
            raise mismatch(self.algorithm)


def mismatch(algorithm: str) -> S3Refusal:
    """Return S3's refusal of bytes that do not have the checksum that the client states."""
    return S3Refusal("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")


def check_form(algorithm: str, value: str) -> None:
    """Raise Refusal unless `value` can be a checksum of that algorithm."""
    try:
        good = len(base64.b64decode(value, validate=True)) == ALGORITHMS[algorithm].size
    except (binascii.Error, ValueError):
        good = False
    if not good:
        raise S3Refusal("InvalidRequest", f"Value for {header(algorithm)} header is invalid.")


def claim(request: Request) -> Claim:
    """Return what the request's headers say about its body. Raises Refusal when they contradict themselves."""
    stated = {_HEADERS[name]: request.header(name) for name in request.header_names if name in _HEADERS}
    announced = [name.strip().lower() for name in (request.header("x-amz-trailer") or "").split(",") if name.strip()]
    coming = [_HEADERS[name] for name in announced if name in _HEADERS]
    if len(stated) + len(coming) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        raise S3Refusal("InvalidRequest", message)
    if len(coming) != len(announced):
        message = "The value specified in the x-amz-trailer header is not supported"
        raise S3Refusal("InvalidRequest", message)
    algorithm = next(iter([*stated, *coming]), None)
    wanted = request.header("x-amz-sdk-checksum-algorithm")
    if wanted is not None and wanted.upper() != algorithm:
        if wanted.upper() not in ALGORITHMS or algorithm is not None:
            raise S3Refusal("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
        message = (
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found."
        )
        raise S3Refusal("InvalidRequest", message)
    value = stated.get(algorithm) if algorithm is not None else None
    if algorithm is not None and value is not None:
        check_form(algorithm, value)
    return Claim(md5=_content_md5(request), algorithm=algorithm, value=value)


def _content_md5(request: Request) -> bytes | None:
    text = request.header("Content-MD5")
    if text is None:
        return None
    try:
        md5 = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        md5 = b""
    if len(md5) != 16:
        raise S3Refusal("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return md5


def composite(algorithm: str, values: Iterable[str]) -> str:
    """Return the checksum of the parts' checksums, with -N after it: a COMPOSITE checksum."""
    state, count = ALGORITHMS[algorithm].start(), 0
    for value in values:
        state.update(memoryview(base64.b64decode(value)))
        count += 1
    return f"{base64.b64encode(state.digest()).decode()}-{count}"


def joined(algorithm: str, parts: Iterable[tuple[str, int]]) -> str:
    """Return the checksum of the whole from (checksum, size) of its parts, without reading a byte: FULL_OBJECT.

    Only for the CRCs.
    """
    chosen = ALGORITHMS[algorithm]
    assert chosen.join is not None
    whole = 0
    for value, size in parts:
        whole = chosen.join(whole, int.from_bytes(base64.b64decode(value), "big"), size)
    return base64.b64encode(whole.to_bytes(chosen.size, "big")).decode()
