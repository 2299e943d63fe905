"""A body of no stated length: HTTP's chunked transfer coding (RFC 9112, section 7.1), read piece by piece.

cheroot has a reader for it, which holds each chunk in memory whole, be it as large as the client likes, and whose
`readline` with a limit never ends (11.1): SDKs send S3 uploads over TLS in this coding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from builder.sandbox.wire import Refusal

_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(;.*)?\r\n")
_LINE = 8192  # bytes of a chunk's head or a trailing field
_FIELDS = 100
_PIECE = 1 << 16


class ChunkedBody:
    """The bytes inside the chunks of `source`; `ended` is called once the last chunk and what trails it are read.

    Raises Refusal when the coding is broken or cut off.
    """

    def __init__(self, source: IO[bytes], ended: Callable[[], None]) -> None:
        self._source = source
        self._ended = ended
        self._left = 0
        self._begun = self._over = False

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        pieces = []
        while size > 0 and self._enter():
            data = self._source.read(min(size, self._left))
            self._took(data)
            size -= len(data)
            pieces.append(data)
        return b"".join(pieces)

    def readline(self, limit: int) -> bytes:
        """Return the next bytes up to a line feed and with it, `limit` of them at most."""
        line = b""
        while len(line) < limit and not line.endswith(b"\n") and self._enter():
            data = self._source.readline(min(limit - len(line), self._left))
            self._took(data)
            line += data
        return line

    def drain(self) -> None:
        """Read on to the end, or as far as the coding can be understood."""
        with suppress(Refusal):
            while self.read(_PIECE):
                pass

    def _enter(self) -> bool:
        """Go to where bytes are; say whether there are any."""
        if self._left == 0 and not self._over:
            if self._begun:
                self._require(self._source.read(2) == b"\r\n")
            match = _SIZE.fullmatch(self._source.readline(_LINE))
            self._require(match is not None)
            assert match is not None
            self._begun, self._left = True, int(match[1], 16)
            if self._left == 0:
                self._finish()
        return not self._over

    def _finish(self) -> None:
        for _ in range(_FIELDS):
            line = self._source.readline(_LINE)
            self._require(line.endswith(b"\r\n"))
            if line == b"\r\n":
                self._over = True
                self._ended()
                return
        self._require(right=False)

    def _took(self, data: bytes) -> None:
        self._require(bool(data))
        self._left -= len(data)

    def _require(self, right: bool) -> None:  # noqa: FBT001 - an assertion, on what came from outside
        if not right:
            self._over = True
            raise Refusal("IncompleteBody", "The chunks of the request body are malformed or cut off.")
