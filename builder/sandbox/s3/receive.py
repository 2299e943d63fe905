"""A request's body on its way into a file: taken out of its aws-chunked coding, hashed, held against what was said.

Source of the coding: "Signature calculations for the Authorization header: transferring a payload in multiple chunks"
in the S3 API reference: `SIZE-IN-HEX[;chunk-signature=HEX]` CRLF bytes CRLF …, a chunk of size 0, trailing headers.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass

from builder import pool
from builder.sandbox.access import streaming
from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.s3 import checksums
from builder.sandbox.wire import Denied, Refusal, Request

LARGEST = 5 << 30  # bytes of one put or part; S3's limit
_PIECE = 512 << 10  # bytes received, hashed and written together; one buffer for each thread
_LINE = 4096  # bytes of a chunk's head or a trailing header
_HEAD = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?\r\n")
_BUFFERS = pool.Local()


class Body:
    """The bytes that a request carries. `length` is how many they are; `trailer` is there once they are read."""

    def __init__(self, request: Request) -> None:
        self._request = request
        payload = request.signature.payload if request.signature is not None else ""
        payload = payload or request.header("x-amz-content-sha256") or ""
        codings = [word.strip().lower() for word in (request.header("Content-Encoding") or "").split(",")]
        self._coded = payload.startswith("STREAMING-") or "aws-chunked" in codings
        self.trailer: dict[str, str] = {}
        self._left, self._ended = 0, False
        self._chunks = None
        if payload in (streaming.SIGNED, streaming.SIGNED_TRAILER) and request.signature is not None:
            self._chunks = streaming.Chunks(request.signature)
            self._claimed, self._sum = "", hashlib.sha256()
        self.length = self._stated_length()

    def _stated_length(self) -> int:
        text = self._request.header("x-amz-decoded-content-length" if self._coded else "Content-Length")
        if text is None:
            if self._request.header("Transfer-Encoding") is None and not self._coded:
                return 0
            raise Refusal("MissingContentLength", "You must provide the Content-Length HTTP header.", status=411)
        if not text.isdecimal():
            raise Refusal("InvalidArgument", "The length of the body is not a number.")
        return int(text)

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as the body goes; fewer bytes only at its end. Raises Refusal when it is torn."""
        try:
            return self._decoded(buffer) if self._coded else self._request.receive(buffer)
        except (ConnectionError, TimeoutError):  # who would read the answer is gone, or asleep
            self._request.hang_up()
            message = "Your socket connection to the server was not read from or written to within the timeout period."
            raise Refusal("RequestTimeout", message) from None

    def _decoded(self, buffer: memoryview) -> int:
        done = 0
        while done < len(buffer) and not self._ended:
            if self._left == 0:
                self._next_chunk()
                continue
            count = self._request.receive(buffer[done : min(len(buffer), done + self._left)])
            if count == 0:
                raise incomplete()
            if self._chunks is not None:
                self._sum.update(buffer[done : done + count])
            done, self._left = done + count, self._left - count
            if self._left == 0:
                self._end_chunk()
        return done

    def _next_chunk(self) -> None:
        match = _HEAD.fullmatch(self._line())
        if match is None:
            raise Refusal("InvalidChunkSizeError", "The chunk's head is malformed.")
        self._left = int(match[1], 16)
        if self._chunks is not None:
            self._claimed, self._sum = (match[2] or b"").decode(), hashlib.sha256()
        if self._left == 0:
            if self._chunks is not None:
                self._chunks.check(self._claimed, self._sum.hexdigest())
            self._read_trailer()
            self._ended = True

    def _end_chunk(self) -> None:
        if self._line() != b"\r\n":
            raise Refusal("InvalidChunkSizeError", "A chunk is longer than its head says.")
        if self._chunks is not None:
            self._chunks.check(self._claimed, self._sum.hexdigest())

    def _read_trailer(self) -> None:
        lines = b""
        while (line := self._request.receive_line(_LINE)) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").strip().partition(":")
            self.trailer[name.strip().lower()] = value.strip()
            if name.lower() != "x-amz-trailer-signature":
                lines += line.rstrip(b"\r\n") + b"\n"
        if self._chunks is not None and lines:
            self._chunks.check_trailer(self.trailer.pop("x-amz-trailer-signature", ""), lines)

    def _line(self) -> bytes:
        line = self._request.receive_line(_LINE)
        if not line.endswith(b"\r\n"):
            raise incomplete()
        return line


@dataclass(frozen=True, kw_only=True)
class Received:
    """What came: its size, its MD5, and the checksum to keep of it (base64, by its algorithm)."""

    size: int
    md5: bytes
    checksums: dict[str, str]


def receive(request: Request, descriptor: int, claim: checksums.Claim, *, keep: str) -> Received:
    """Write the request's body to a file and return what it was; whoever calls brings it to the disk.

    Each byte is hashed by MD5 (the ETag), by the algorithm that the client chose and the one to `keep`, and by SHA-256
    where the signature covers the body. Raises Refusal when any of these is not as the client says, when the body is
    shorter or longer than its length, or beyond 5 GiB.
    """
    body = Body(request)
    if body.length > LARGEST:
        raise S3Refusal(
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            ProposedSize=body.length,
            MaxSizeAllowed=LARGEST,
        )
    states = {"MD5": checksums.ALGORITHMS["MD5"].start()}
    signed = request.signature is not None and request.signature.forbids("")  # what was signed is a hash
    for name in filter(None, (keep, claim.algorithm, "SHA256" if signed else None)):
        if name not in states:
            states[name] = checksums.ALGORITHMS[name].start()
    size = _pour(body, descriptor, list(states.values()))
    digests = {name: state.digest() for name, state in states.items()}
    if signed and request.signature is not None and request.signature.forbids(digests["SHA256"].hex()):
        raise Denied("payload")
    values = {name: base64.b64encode(value).decode() for name, value in digests.items()}
    claim.check(lambda: digests["MD5"], values, body.trailer)
    return Received(size=size, md5=digests["MD5"], checksums={keep: values[keep]})


def read_all(request: Request, limit: int, *, about_object: bool) -> bytes:
    """Return a small body, held against what the client says of it. Raises Refusal, also beyond `limit` bytes.

    `about_object` says that checksums in the headers are those of an object, and say nothing of this body.
    """
    body = Body(request)
    if body.length > limit:
        raise Refusal("MaxMessageLengthExceeded", "Your request was too big.")
    claim = checksums.Claim() if about_object else checksums.claim(request)
    data = bytearray(body.length + 1)
    count = body.read_into(memoryview(data))
    if count != body.length:
        raise incomplete()
    whole = memoryview(data)[:count]
    if request.signature is not None and request.signature.forbids(hashlib.sha256(whole).hexdigest()):
        raise Denied("payload")
    values = {}
    if claim.algorithm is not None:
        state = checksums.ALGORITHMS[claim.algorithm].start()
        state.update(whole)
        values[claim.algorithm] = base64.b64encode(state.digest()).decode()
    claim.check(lambda: hashlib.md5(whole, usedforsecurity=False).digest(), values, body.trailer)
    return bytes(whole)


def _pour(body: Body, descriptor: int, states: list[checksums.Hash]) -> int:
    view = memoryview(_buffer())
    size = 0
    while count := body.read_into(view):
        piece = view[:count]
        for state in states:
            state.update(piece)
        while piece:
            piece = piece[os.write(descriptor, piece) :]
        size += count
        if size > body.length:
            break
    if size != body.length:
        raise incomplete()
    return size


def _buffer() -> bytearray:
    try:
        found: bytearray = _BUFFERS.piece
    except AttributeError:
        found = _BUFFERS.piece = bytearray(_PIECE)
    return found


def incomplete() -> Refusal:
    """Return S3's refusal of a body that is not as long as the request says."""
    message = "You did not provide the number of bytes specified by the Content-Length HTTP header"
    return Refusal("IncompleteBody", message)
