"""What a file was established to be: the value that identify() returns and the rule that decides whether to open it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.errors import FormatRefused

Format = Literal["raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc"]  # qemu's names for them

Read = Callable[[int, int], bytes]  # (offset, length) -> at most length bytes of a file

# The largest EBS volume (io2 Block Express: 64 TiB). A header that claims more is a lie or a mistake.
MAX_VIRTUAL_SIZE = 64 << 40


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an image's own header says; sizes are bytes. `dangers` are whole reasons to refuse it, a clause each."""

    noun: str
    virtual_size: int | None = None
    backing_file: str | None = None
    dangers: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a file is. `format` is None when it is no disk image; `noun` says for people what it is then."""

    path: Path
    format: Format | None
    noun: str
    file_size: int
    virtual_size: int | None = None
    backing_file: str | None = None
    dangers: Sequence[str] = ()
    advice: str | None = None

    @property
    def unknown(self) -> bool:
        """Say whether nothing at all is known about the bytes: only the recipe can say that they are a raw disk."""
        return self.format is None and self.noun == UNKNOWN


UNKNOWN = "data of no known format"


def require_safe(identity: Identity, *, backing_given: bool = False) -> None:
    """Return if the file is a disk image that may be opened; `backing_given` when its backing is not taken from it.

    Raises FormatRefused naming the file, what it is, and every danger found.
    """
    if identity.format is None:
        raise FormatRefused(f"{identity.path} is not a disk image but {identity.noun}", hint=identity.advice)
    reasons = list(identity.dangers)
    if identity.backing_file is not None and not backing_given:
        reasons.insert(0, f"it names {shown(identity.backing_file)} as its backing file, which would be read into it")
    if reasons:
        raise FormatRefused(
            f"{identity.path} is {identity.noun} that is not safe to open: {'; '.join(reasons)}",
            hint="An image must stand alone: let its publisher flatten it (`qemu-img convert`), or choose another.",
        )


def shown(name: str) -> str:
    """Return a name from an untrusted header as a message may show it: quoted, escaped and not endless."""
    return repr(name if len(name) <= 200 else f"{name[:200]}…")


def printable(text: str) -> str:
    """Return text from an untrusted image with what could steer a terminal replaced."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def size_dangers(virtual_size: int) -> list[str]:
    """Return what is absurd about a virtual size (bytes) that a header claims."""
    if virtual_size > MAX_VIRTUAL_SIZE:
        return [f"it claims a disk of {virtual_size} bytes, and no volume is larger than 64 TiB"]
    if virtual_size == 0:
        return ["it claims a disk of 0 bytes"]
    return []
