"""One member of a tar archive, read as a stream; nothing else of it reaches the disk."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Self, cast

from builder.errors import ArchiveRefused
from builder.unpack.decoders import DAMAGED
from builder.unpack.members import Choice, Kind

_READ = 1 << 20
_BLOCK = 512  # POSIX.1-1988 ustar
# A name or an extended header that is longer is an attack on memory; PATH_MAX is 4096.
_LONGEST_HEADER = 1 << 20
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_KINDS: dict[bytes, Kind] = {
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "named pipe",
}
_READS_AFTER_END = 100


def is_tar(head: bytes) -> bool:
    """Say whether `head`, the first 512 bytes, is a tar header: POSIX, GNU, or of the old kind without a magic."""
    if len(head) < _BLOCK or not head.strip(b"\0"):
        return False
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:  # its checksum is wrong
        return False
    return True


def extract(read: Callable[[int], bytes], choice: Choice, sink: Callable[[bytes], None], name: str) -> str:
    """Give the chosen member's bytes to `sink` and return its name; reads the archive `name` to its end.

    To the end, because only there the compression's own checksums are known, and whether the choice was unambiguous.
    Raises ArchiveRefused.
    """
    feed = cast("IO[bytes]", _Feed(read))  # tarfile only reads it
    with _damage_named(name), tarfile.open(fileobj=feed, mode="r|", bufsize=_READ, tarinfo=_Header) as archive:
        for header in archive:
            kind = "file" if header.isreg() else _KINDS.get(header.type, "special file")
            if not choice.takes(header.name, kind, header.size, header.linkname):
                continue
            content = archive.extractfile(header)
            assert content is not None
            left = header.size
            while left:
                data = content.read(min(left, _READ))
                if not data:
                    raise ArchiveRefused(f"{name} is cut off in the middle of {header.name!r}", hint=DAMAGED)
                sink(data)
                left -= len(data)
        while read(_READ):
            pass
    return choice.result()


class _Header(tarfile.TarInfo):
    """A TarInfo that refuses what would hide damage or fill the memory."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            # TarFile takes a damaged header in the middle for the archive's end.
            if type(error).__name__ in ("InvalidHeaderError", "TruncatedHeaderError"):
                raise _DamagedHeaderError(str(error)) from error
            raise

    def _proc_member(self, archive: tarfile.TarFile) -> Self:
        if self.type in _HEADERS and self.size > _LONGEST_HEADER:
            raise _DamagedHeaderError(f"a header of {self.size} bytes")
        inherited = cast("Callable[[tarfile.TarFile], Self]", super()._proc_member)  # type: ignore[misc]
        return inherited(archive)


class _DamagedHeaderError(Exception):
    pass


class _Feed:
    """What tarfile reads from; it asks again and again at the end of a damaged archive."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._after_end = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        if not data:
            self._after_end += 1
            if self._after_end > _READS_AFTER_END:
                raise _DamagedHeaderError("unexpected end of data")
        return data


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, _DamagedHeaderError, ValueError, EOFError, OverflowError) as error:
        raise ArchiveRefused(f"{name}: damaged tar archive ({error})", hint=DAMAGED) from error
