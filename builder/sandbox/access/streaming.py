"""Signatures of the chunks of a streamed body (x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER]).

Source: "Signature calculations for the Authorization header: transferring payload in multiple chunks" and "… trailing
headers" in the S3 API reference. Each chunk's signature covers the one before it, the first the request's own.
"""

from __future__ import annotations

import hashlib
import hmac

from builder.sandbox.wire import Denied, Signature

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
ALL = frozenset({SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER})
EUCALYPTUS = frozenset({SIGNED})  # what its S3V4Authentication knows
_EMPTY = hashlib.sha256(b"").hexdigest()


class Chunks:
    """Verifies the chunks of one request in their order; one thread."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._last = signature.value

    def check(self, claimed: str, sha256: str) -> None:
        """Hold the `chunk-signature` of the next chunk (the empty last one too) against its data's SHA-256 (hex).

        Raises Denied.
        """
        self._check("AWS4-HMAC-SHA256-PAYLOAD", claimed, f"{_EMPTY}\n{sha256}")

    def check_trailer(self, claimed: str, lines: bytes) -> None:
        """Hold `x-amz-trailer-signature` against the trailing headers: lines `name:value\\n` as they came, CR removed.

        Raises Denied.
        """
        self._check("AWS4-HMAC-SHA256-TRAILER", claimed, hashlib.sha256(lines).hexdigest())

    def _check(self, kind: str, claimed: str, covered: str) -> None:
        of = self._signature
        text = f"{kind}\n{of.stamp}\n{of.scope}\n{self._last}\n{covered}"
        right = hmac.digest(of.key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(right, claimed):
            raise Denied("mismatch")
        self._last = right
