"""Sizes as people write them, and bytes as people read them."""

from __future__ import annotations

import re
from decimal import Decimal

_BINARY = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# As coreutils and qemu-img have it: `G` and `GiB` are 1024³ bytes, `GB` is 1000³.
_UNITS = {
    "": 1,
    "B": 1,
    **_BINARY,
    **{f"{letter}iB": factor for letter, factor in _BINARY.items()},
    "KB": 10**3,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_LARGEST = 1 << 63  # a file offset's limit: what no disk can hold is a slip of the pen


def parse_size(value: str | int) -> int:
    """Return the bytes that `value` means: `10 GiB`, `512MiB`, `4G`, `20GB` (1000³) or a plain number of bytes.

    Raises ValueError, whose text is fit for a user.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a size: write it like 10 GiB, 512MiB or 4G")  # noqa: TRY004 - for pydantic
    found = _SIZE.fullmatch(str(value).strip())
    if not found:
        raise ValueError(f"{value!r} is not a size: write it like 10 GiB, 512MiB or 4G")
    number, unit = found.groups()
    if unit not in _UNITS:
        raise ValueError(f"{value!r} has the unknown unit {unit!r}: use B, KiB, MiB, GiB or TiB (or KB, MB, GB, TB)")
    size = Decimal(number) * _UNITS[unit]
    if size != int(size):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    if size >= _LARGEST:
        raise ValueError(f"{value!r} is larger than any disk: 8388608 TiB is the limit")
    return int(size)


def format_size(count: int) -> str:
    """Return `count` bytes for a person: exact when it is a whole number of units (`10 GiB`), else `1.3 GiB`."""
    for letter, factor in reversed(_BINARY.items()):
        if count >= factor:
            whole, rest = divmod(count, factor)
            return f"{count / factor:.1f} {letter}iB" if rest else f"{whole} {letter}iB"
    return f"{count} bytes" if count != 1 else "1 byte"
