"""From a packed file to the one file inside it."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder import pool
from builder.errors import ArchiveRefused, FormatRefused
from builder.image.identify import identify
from builder.progress import SILENT, Progress
from builder.unpack import tar_member, zip_member
from builder.unpack.decoders import Decoder, open_decoder
from builder.unpack.members import Choice, too_large
from builder.unpack.sparse import SparseWriter

Packing = Literal["gz", "bz2", "xz", "zst", "tar", "zip"]

# Bytes, zeros included although they take no space: most images are smaller, and a bomb of zeros ends within a minute.
DEFAULT_MAX_SIZE = 64 << 30
_READ = 1 << 20
_MAGICS: tuple[tuple[bytes, Packing], ...] = (
    (b"\x1f\x8b\x08", "gz"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
)
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_TAR_SUFFIXES = {".tgz": ".tar", ".tbz2": ".tar", ".txz": ".tar", ".tzst": ".tar"}


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """The file that came out: its size in bytes, holes included, and what the publisher calls it."""

    path: Path
    size: int
    name: str


def packing(path: Path) -> Packing | None:
    """Return how the file is packed, by its first bytes and whatever its name; None if it is not."""
    with open(path, "rb") as file:
        head = file.read(512)
    for magic, found in _MAGICS:
        if head.startswith(magic) and not (found == "bz2" and head[3:4] not in b"123456789"):
            return found
    if len(head) >= 8 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:  # a skippable zstd frame comes first
        return "zst"
    return "tar" if tar_member.is_tar(head) else None


def unpack(
    source: Path,
    into: Path,
    *,
    name: str,
    member: str | None = None,
    max_size: int = DEFAULT_MAX_SIZE,
    progress: Progress = SILENT,
) -> Unpacked:
    """Write what is packed in `source` to the new file `into`, with holes for zeros; `name` is for messages.

    Of an archive (tar, compressed or not, or zip) that is the one `member`, a name or a pattern, or else its only
    regular file. At most `max_size` bytes come out, and at most that many are decompressed. Raises FormatRefused for
    what is not packed, ArchiveRefused for what is damaged, dangerous or too large, and DiskFull; then `into` does not
    exist.
    """
    found = packing(source)
    if found is None:
        raise _not_packed(source, name)
    progress.total(source.stat().st_size)
    with SparseWriter(into) as out:
        match found:
            case "zip":
                inside = zip_member.extract(source, Choice(member, max_size=max_size, name=name), out.write, name)
                progress.advance(source.stat().st_size)
            case "tar":
                with closing(_Plain(source)) as plain:
                    inside = _unstream(plain, out, name, member, max_size, progress)
            case _:
                with closing(open_decoder(source, found, name)) as decoder:
                    inside = _unstream(decoder, out, name, member, max_size, progress)
        out.finish()
        return Unpacked(path=into, size=out.size, name=posixpath.basename(inside))


def _unstream(
    decoder: Decoder, out: SparseWriter, name: str, member: str | None, max_size: int, progress: Progress
) -> str:
    with closing(_Ahead(decoder, name, max_size, progress)) as stream:
        if tar_member.is_tar(stream.peek(512)):
            return tar_member.extract(stream.read, Choice(member, max_size=max_size, name=name), out.write, name)
        if member is not None:
            raise ArchiveRefused(
                f"{name} holds one file and is no archive: there is no member {member!r} to choose",
                hint="Remove `member:` from the `decompress` step.",
            )
        while data := stream.read(_READ):
            out.write(data)
    return _bare(name)


class _Plain:
    """A Decoder for what is not compressed: a tar archive as it lies there."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self.consumed = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.consumed += len(data)
        return data

    def close(self) -> None:
        self._file.close()


class _Ahead:
    """A Decoder's bytes, counted and bounded, decoded in a thread of their own while the last ones are written."""

    def __init__(self, decoder: Decoder, name: str, max_size: int, progress: Progress) -> None:
        self._decoder = decoder
        self._name = name
        self._max_size = max_size
        self._progress = progress
        self._told = 0
        self._total = 0
        self._current = b""
        self._chunks = pool.in_order(lambda _: decoder.read(_READ), itertools.repeat(None), workers=1, ahead=2)

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, and leave them to be read."""
        while len(self._current) < size and (data := self._take()):
            self._current += data
        return self._current[:size]

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b'' at the end."""
        data, self._current = self._current or self._take(), b""
        if len(data) > size:
            data, self._current = data[:size], data[size:]
        return data

    def close(self) -> None:
        """Wait for the thread; the decoder may be closed then."""
        if isinstance(self._chunks, Generator):
            self._chunks.close()

    def _take(self) -> bytes:
        data = next(self._chunks)
        self._total += len(data)
        if self._total > self._max_size:
            raise too_large(self._name, None, self._max_size)
        consumed = self._decoder.consumed
        self._progress.advance(consumed - self._told)
        self._told = consumed
        return data


def _bare(name: str) -> str:
    stem, suffix = posixpath.splitext(name)
    if suffix.lower() in _SUFFIXES and stem:
        return stem
    return stem + _TAR_SUFFIXES[suffix.lower()] if suffix.lower() in _TAR_SUFFIXES else name


def _not_packed(source: Path, name: str) -> FormatRefused:
    found = identify(source)
    if found.format is not None:
        return FormatRefused(
            f"{name} is {found.noun}, not compressed: remove the decompress step",
            hint="Give it to the next step as it is.",
        )
    return FormatRefused(
        f"{name} is {found.noun}, which is not compressed with xz, gz, bz2 or zst, nor a tar or zip archive",
        hint=found.advice,
    )
