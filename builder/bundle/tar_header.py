"""Headers of tar archives, as far as a bundle has them: POSIX ustar, pax and GNU's, of one regular file.

Layouts: POSIX.1-1988 ustar, POSIX.1-2001 pax, and GNU tar's manual, "Basic Tar Format" (`struct posix_header`,
`struct oldgnu_header`, `struct sparse_header`).
"""

from __future__ import annotations

from dataclasses import dataclass

from builder.errors import BundleRefused

BLOCK = 512
DAMAGED = "The digests of its parts hold, so it was made like this: bundle the image again."
OLD_GNU_SPARSE, PAX, PAX_GLOBAL = b"S", b"x", b"g"
LONG_NAMES = (b"L", b"K")
_REGULAR = (b"0", b"\0", b"7", OLD_GNU_SPARSE)
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a named pipe",
    b"D": "a directory listing",
    b"M": "the continuation of another volume's file",
    b"V": "a volume's label",
}


@dataclass(frozen=True, kw_only=True)
class Header:
    """One header block; `size` is how many bytes of content follow it in the archive."""

    block: bytes
    type: bytes
    name: str
    size: int


def parse(block: bytes) -> Header:
    """Return what a block of 512 bytes says. Raises BundleRefused when it is no header or its checksum is wrong."""
    if len(block) < BLOCK:
        raise BundleRefused("the tar stream is damaged: it ends in the middle of a header", hint=DAMAGED)
    said = _octal(block[148:156])
    plain = block[:148] + b" " * 8 + block[156:]
    # Old programs added up signed characters.
    if said not in (sum(plain), sum(byte - 256 if byte > 127 else byte for byte in plain)):
        raise BundleRefused("the tar stream is damaged: a header does not have its checksum", hint=DAMAGED)
    name = block[:100].partition(b"\0")[0].decode("utf-8", "replace")
    return Header(block=block, type=block[156:157], name=name, size=number(block[124:136], "size"))


def require_regular(header: Header) -> None:
    """Return if the header is a regular file's. Raises BundleRefused that says what it is."""
    if header.type not in _REGULAR or (header.type == b"\0" and header.name.endswith("/")):
        kind = _KINDS.get(header.type, f"of the unknown type {header.type!r}")
        if header.name.endswith("/"):
            kind = "a directory"
        raise BundleRefused(
            f"the tar stream holds {header.name!r}, which is {kind}, where the image should be",
            hint="A bundle holds one regular file. Do not use this one.",
        )


def number(digits: bytes, field: str) -> int:
    """Return a field's number: octal text, or GNU's base-256. Raises BundleRefused for anything else."""
    if digits[0] == 0x80:
        return int.from_bytes(digits[1:], "big")
    found = _octal(digits)
    if found is None:
        raise BundleRefused(f"the tar stream is damaged: {field} is {digits!r}, which is no number", hint=DAMAGED)
    return found


def _octal(digits: bytes) -> int | None:
    text = digits.strip(b" \0")
    if not text:
        return 0
    # int() alone takes signs and underscores too.
    return int(text, 8) if all(0x30 <= byte <= 0x37 for byte in text) else None


def pax_records(content: bytes) -> list[tuple[str, bytes]]:
    """Return the records of a pax header, in order: `LENGTH KEYWORD=VALUE\\n`, the length being all of it."""
    records, at = [], 0
    while at < len(content):
        digits, _, _ = content[at : at + 20].partition(b" ")
        end = at + (int(digits) if digits.isdigit() else 0)
        keyword, equals, value = content[at + len(digits) + 1 : end - 1].partition(b"=")
        if not equals or end > len(content) or content[end - 1 : end] != b"\n":
            raise BundleRefused(
                "the tar stream is damaged: a record of a pax header is not as it must be", hint=DAMAGED
            )
        records.append((keyword.decode("utf-8", "replace"), value))
        at = end
    return records
