"""The tar around an image: one regular file, byte for byte as euca2ools from 3.0 on has Python 2's tarfile write it.

GNU format: `ustar` and two blanks where POSIX has a NUL and "00", mode 0644, everything else 0 or empty. The numbers of
a device are "0000000" and a NUL although there is no device: Python 3's tarfile leaves them empty, which changes the
digest that the manifest holds. Source: facts pinned by running euca2ools 3.4; GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

BLOCK = 512
RECORD = 20 * BLOCK  # bytes; an archive's length is a multiple of it
_NAME = 100  # bytes of a header's field
_OCTAL_LIMIT = 8**11  # bytes; a larger size is written to base 256, its first byte being 0x80
_LONG_NAME = "././@LongLink"  # the member before a member whose name is longer than the field


def header(name: str, size: int) -> bytes:
    """Return what stands before the image's bytes: a header, of 512 bytes unless `name` is longer than 100."""
    encoded = name.encode()
    if len(encoded) <= _NAME:
        return _header(encoded, size, kind=b"0", mode=0o644)
    long = encoded + b"\0"
    return (
        _header(_LONG_NAME.encode(), len(long), kind=b"L", mode=0)
        + long.ljust(-(-len(long) // BLOCK) * BLOCK, b"\0")
        + _header(encoded[:_NAME], size, kind=b"0", mode=0o644)
    )


def trailer(length: int) -> bytes:
    """Return the zeros that end an archive of one member, whose headers and content have `length` bytes."""
    padding = -length % BLOCK
    end = 2 * BLOCK
    return bytes(padding + end + -(length + padding + end) % RECORD)


def _header(name: bytes, size: int, *, kind: bytes, mode: int) -> bytes:
    fields = (
        name.ljust(_NAME, b"\0"),
        _octal(mode, 8),
        _octal(0, 8),  # owner
        _octal(0, 8),  # group
        _octal(size, 12) if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big"),
        _octal(0, 12),  # modified
        b" " * 8,  # the checksum, as it counts for itself
        kind,
        bytes(100),  # link
        b"ustar  \0",
        bytes(64),  # names of owner and group
        _octal(0, 8),  # device
        _octal(0, 8),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


def _octal(number: int, width: int) -> bytes:
    return f"{number:0{width - 1}o}\0".encode()
