"""AES-128-CBC over the whole stream of a bundle, with PKCS#7 padding at its end, as `openssl enc` does it."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from builder.bundle.records import ContentKey
from builder.errors import BundleRefused

_BLOCK = 16  # bytes


def first_block(encrypted: bytes, key: ContentKey) -> bytes:
    """Return the plain first block of a stream that begins with `encrypted`, or b"" when that is less than a block."""
    if len(encrypted) < _BLOCK:
        return b""
    return Cipher(algorithms.AES128(key.key), modes.CBC(key.iv)).decryptor().update(encrypted[:_BLOCK])


def decrypted(pieces: Iterator[bytes], key: ContentKey) -> Iterator[memoryview]:
    """Yield the plain bytes of encrypted pieces of any lengths, without their padding.

    Raises BundleRefused when the padding is not as it must be.
    """
    context = Cipher(algorithms.AES128(key.key), modes.CBC(key.iv)).decryptor()
    held = b""  # the last block so far: only at the end it is known to be the one with the padding
    for piece in pieces:
        # update_into costs half of update, which copies.
        buffer = bytearray(len(held) + len(piece) + _BLOCK)
        buffer[: len(held)] = held
        view = memoryview(buffer)
        end = len(held) + context.update_into(piece, view[len(held) :])
        keep = max(0, end - _BLOCK)
        held = bytes(view[keep:end])
        if keep:
            yield view[:keep]
    padding = held[-1] if len(held) == _BLOCK else 0
    if not 1 <= padding <= _BLOCK or held[-padding:] != bytes([padding]) * padding:
        raise BundleRefused(
            "the encrypted stream does not end with padding (PKCS#7): its end is missing or was altered",
            hint="The digests of the parts hold, so the manifest names too few of them: bundle the image again.",
        )
    if padding < _BLOCK:
        yield memoryview(held)[: _BLOCK - padding]
