"""The opaque strings that clients carry back to us, signed so that none can be made up: block and page tokens."""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
import time

BLOCK_TOKEN_LIFE = 7 * 24 * 3600  # seconds; the EBS direct APIs let block tokens live seven days
_MAC = 16  # bytes kept of the HMAC
_EXPIRY = struct.Struct(">Q")


class Tokens:
    """Makes and checks tokens under the key of one sandbox directory."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def for_block(self, snapshot_id: str, index: int, expiry: int) -> str:
        """Return the token that reads a block until `expiry` (seconds since the epoch)."""
        return _text(_EXPIRY.pack(expiry) + self._mac(f"block/{snapshot_id}/{index}/{expiry}"))

    def reads(self, token: str, snapshot_id: str, index: int) -> bool:
        """Say whether the token reads this block now."""
        data = _data(token)
        if len(data) != _EXPIRY.size + _MAC:
            return False
        (expiry,) = _EXPIRY.unpack_from(data)
        return expiry >= time.time() and hmac.compare_digest(token, self.for_block(snapshot_id, index, expiry))

    def for_page(self, scope: str, position: int) -> str:
        """Return the token of the page that starts at `position` of the listing named `scope`."""
        return _text(_EXPIRY.pack(position) + self._mac(f"page/{scope}/{position}"))

    def page(self, token: str, scope: str) -> int | None:
        """Return the position of a page token of that listing, or None when it is not one."""
        data = _data(token)
        if len(data) != _EXPIRY.size + _MAC:
            return None
        position: int = _EXPIRY.unpack_from(data)[0]
        return position if hmac.compare_digest(token, self.for_page(scope, position)) else None

    def _mac(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), "sha256")[:_MAC]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _data(token: str) -> bytes:
    try:
        return base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        return b""
