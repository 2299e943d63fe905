"""The ways in which an answer goes wrong between the service and its client."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NoReturn

from builder.sandbox.wire import Answer, Request

_PIECE = 64 << 10  # bytes sent at once
_BEATS = 10  # pieces a second of a body that trickles


def cut(request: Request) -> NoReturn:
    """Reset the connection: the client sees ECONNRESET, not an end. Raises ConnectionResetError for our own server."""
    connection = request.connection
    # With a linger time of zero close() sends RST in place of FIN (socket(7)). All who hold the descriptor let go of
    # it: cheroot's two files and its socket; `linger` keeps cheroot from shutting the connection down once more.
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.linger = True
    connection.rfile.close()
    connection.wfile.close()
    connection.socket.close()
    raise ConnectionResetError(errno.ECONNRESET, "reset by a fault")


def body_of(answer: Answer) -> Iterator[bytes]:
    """Yield the answer's body, whichever way it is held; the stream is closed when it ends."""
    if answer.stream is None:
        for start in range(0, len(answer.body), _PIECE):
            yield answer.body[start : start + _PIECE]
        return
    try:
        for descriptor, offset, count in answer.stream.stretches():
            done = 0
            while done < count:
                data = os.pread(descriptor, min(_PIECE, count - done), offset + done)
                if not data:
                    return
                done += len(data)
                yield data
    finally:
        answer.stream.close()


def halved(answer: Answer, request: Request) -> Iterator[bytes]:
    """Yield half of the body, then cut; at once when there is none."""
    if answer.length < 2:
        cut(request)
    return _half(answer, request)


def _half(answer: Answer, request: Request) -> Iterator[bytes]:
    left = answer.length // 2
    for piece in body_of(answer):
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            break
    cut(request)


def trickled(answer: Answer, rate: float) -> Iterator[bytes]:
    """Yield the body at `rate` bytes a second."""
    size = max(1, int(rate / _BEATS))
    for piece in body_of(answer):
        for start in range(0, len(piece), size):
            part = piece[start : start + size]
            yield part
            time.sleep(len(part) / rate)


def corrupted(answer: Answer, *, matching: bool) -> Answer:
    """Return the answer with a wrong byte in its body, and with `matching` headers that say nothing else.

    A stream is damaged as it is sent (`flipped`); its checksum headers are then left out rather than computed anew.
    """
    body = _damaged(answer.body, len(answer.body) // 2)
    headers = dict(answer.headers)
    if matching:
        headers = _without_checksums(headers)
        if "x-amz-Checksum" in answer.headers:  # the EBS direct APIs'
            headers["x-amz-Checksum"] = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return replace(answer, body=body, headers=headers)


def _without_checksums(headers: Mapping[str, str]) -> dict[str, str]:
    kept = ("x-amz-checksum", "x-amz-checksum-algorithm")
    wrong = [name for name in headers if name.lower().startswith("x-amz-checksum-") and name.lower() not in kept]
    return {name: value for name, value in headers.items() if name not in wrong}


def flipped(answer: Answer) -> Iterator[bytes]:
    """Yield the body with a wrong byte in its middle."""
    at = answer.length // 2
    for piece in body_of(answer):
        yield _damaged(piece, at) if 0 <= at < len(piece) else piece
        at -= len(piece)


def _damaged(data: bytes, at: int) -> bytes:
    if not data:
        return data
    return data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
