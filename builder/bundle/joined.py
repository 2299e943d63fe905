"""The parts of a bundle as one stream: each held against its digest before a byte of it is handed on.

What is wrong with the parts is found out here, in the words of the manifest: which file, which index, which digest.
"""

from __future__ import annotations

import hashlib
import io
import re
from bisect import bisect_right
from collections.abc import Callable, Generator
from itertools import accumulate, pairwise
from typing import BinaryIO

from builder.bundle.records import Manifest
from builder.errors import BundleRefused, HostError
from builder.progress import SILENT, Progress

_PIECE = 256 * 1024  # bytes
AGAIN = "Fetch that part again; if the bundle's own is damaged, bundle the image again."
_NUMBER = re.compile(r"\.part\.(\d+)$")

OpenPart = Callable[[int], BinaryIO]


class Parts:
    """The manifest's parts in its order; `open_part(index)` opens one as a file that can seek, FileNotFoundError if it
    is not there.
    """

    def __init__(self, manifest: Manifest, open_part: OpenPart, progress: Progress = SILENT) -> None:
        self._manifest, self._open_part, self._progress = manifest, open_part, progress
        self._ends: list[int] = []

    def require_complete(self) -> None:
        """Return if every part is there and they are as long as the manifest says, read nothing of them otherwise.

        Raises BundleRefused that names the part that is missing or has another length.
        """
        sizes = [self._size(index) for index in range(len(self._manifest.parts))]
        self._ends = list(accumulate(sizes))
        total, said = sum(sizes), self._manifest.bundled_size
        if total != said:
            for index in range(len(sizes)):
                self._require_digest(index)
            raise BundleRefused(
                f"the parts have their digests and {total} bytes in all, but the manifest's bundled_size is {said}",
                hint="The manifest was altered or badly made: get it again from where the bundle comes from.",
            )
        if not total or total % 16:
            raise BundleRefused(
                f"the parts have {total} bytes in all, which is no whole number of AES blocks of 16 bytes",
                hint="A part was left out when the manifest was made: bundle the image again.",
            )

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield the encrypted bytes in pieces. Raises BundleRefused at the first part without its digest."""
        self._progress.total(self._manifest.bundled_size)
        for index in range(len(self._manifest.parts)):
            with self._open(index) as file:
                self._require_digest(index, file)
                file.seek(0)
                while piece := _read(file, self.named(index)):
                    yield piece
                    self._progress.advance(len(piece))

    def named(self, index: int) -> str:
        """Return what messages call a part."""
        return f"{self._manifest.parts[index].filename} (index {index} of {len(self._manifest.parts)} parts)"

    def at(self, offset: int) -> str:
        """Return what messages call the place `offset` bytes into the stream, which lies in its part or before it."""
        index = min(bisect_right(self._ends, max(0, offset - 1)), len(self._ends) - 1)
        return f"byte {offset} of the stream, in {self.named(index)}"

    def disorder(self) -> str:
        """Return which part comes before its turn by its file's number, or ""."""
        found = [_NUMBER.search(part.filename) for part in self._manifest.parts]
        for index, (before, after) in enumerate(pairwise(found)):
            if before and after and int(after[1]) != int(before[1]) + 1:
                return f"{self.named(index + 1)} follows {self._manifest.parts[index].filename} in the manifest"
        return ""

    def _open(self, index: int) -> BinaryIO:
        try:
            return self._open_part(index)
        except FileNotFoundError as error:
            raise BundleRefused(
                f"{self.named(index)} is missing",
                hint="Put it beside the others; `emi fetch-bundle` fetches what lacks.",
            ) from error
        except OSError as error:
            raise _unreadable(self.named(index), error) from error

    def _size(self, index: int) -> int:
        with self._open(index) as file:
            return file.seek(0, io.SEEK_END)

    def _require_digest(self, index: int, file: BinaryIO | None = None) -> None:
        if file is None:
            with self._open(index) as opened:
                return self._require_digest(index, opened)
        found = part_sha1(file, self.named(index))
        if found == self._manifest.parts[index].sha1.lower():
            return None
        expected = self._manifest.parts[index].sha1
        digests = f"its SHA-1 is {found}, the manifest says {expected}"
        raise BundleRefused(f"{self.named(index)} {self._cause(index, found)}: {digests}", hint=AGAIN)

    def _cause(self, index: int, found: str) -> str:
        for other, part in enumerate(self._manifest.parts):
            if part.sha1.lower() == found:
                return f"holds the bytes of {self.named(other)}, the files were swapped"
        length = self._length(index)
        expected = self._manifest.bundled_size - (self._ends[-1] - length)
        if length < expected:
            return f"is cut off after {length} of {expected} bytes"
        if length > expected:
            return f"has {length} bytes, {length - expected} too many"
        return "is damaged"

    def _length(self, index: int) -> int:
        return self._ends[index] - (self._ends[index - 1] if index else 0)


def part_sha1(file: BinaryIO, named: str) -> str:
    """Return the SHA-1 (lowercase hex) of a part from its beginning. Raises HostError when it cannot be read."""
    digest = hashlib.sha1(usedforsecurity=False)
    file.seek(0)
    while piece := _read(file, named):
        digest.update(piece)
    return digest.hexdigest()


def _read(file: BinaryIO, named: str) -> bytes:
    try:
        return file.read(_PIECE)
    except OSError as error:
        raise _unreadable(named, error) from error


def _unreadable(named: str, error: OSError) -> HostError:
    return HostError(f"{named} cannot be read: {error.strerror or error}", hint="Check the file and its disk.")
