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
_BLOCK = 16  # bytes of AES
_AGAIN = "Fetch that part again; if the bundle's own is damaged, bundle the image again."
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
        """Return if every part is there and they are as long as the manifest says; nothing else of them is read.

        Raises BundleRefused that names the part that is missing or has another length.
        """
        self._ends = list(accumulate(self._size(index) for index in range(len(self._manifest.parts))))
        if wrong := self.wrong_total(self._ends[-1]):
            for index in range(len(self._ends)):
                with self._open(index) as file:
                    self._require_digest(index, file)
            raise BundleRefused(wrong, hint="The manifest was altered or badly made: get it again from its source.")

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

    def look(self, index: int) -> tuple[str, int]:
        """Return a part's SHA-1 and size. Raises BundleRefused when it is missing, HostError when it cannot be read."""
        with self._open(index) as file:
            sha1 = _sha1(file, self.named(index))
            self._progress.advance(file.tell())
            return sha1, file.tell()

    def wrong(self, index: int, sha1: str, *, size: int, total: int | None) -> str:
        """Return what is wrong with a part of these digest and size, or "". `total` has all parts, None: some lack."""
        expected = self._manifest.parts[index].sha1.lower()
        if sha1 == expected:
            return ""
        named = f"{self.named(index)} {self._cause(sha1, size, total)}"
        return f"{named}: its SHA-1 is {sha1}, the manifest says {expected}"

    def wrong_total(self, total: int) -> str:
        """Return what is wrong when the parts, each with its digest, have `total` bytes, or ""."""
        said = self._manifest.bundled_size
        if total != said:
            return f"the parts have their digests and {total} bytes in all, but the manifest's bundled_size is {said}"
        if total % _BLOCK:
            return f"the parts have {total} bytes in all, which is no whole number of AES blocks of {_BLOCK} bytes"
        return ""

    def named(self, index: int) -> str:
        """Return what messages call a part."""
        return f"{self._manifest.parts[index].filename} (index {index} of {len(self._manifest.parts)} parts)"

    def at(self, offset: int) -> str:
        """Return what messages call the place `offset` bytes into the stream."""
        index = min(bisect_right(self._ends, max(0, offset - 1)), len(self._ends) - 1)
        return f"byte {offset} of the stream, in {self.named(index)}"

    def disorder(self) -> str:
        """Return which part does not follow the one before it by its file's number, or ""."""
        found = [_NUMBER.search(part.filename) for part in self._manifest.parts]
        for index, (before, after) in enumerate(pairwise(found)):
            if before and after and int(after[1]) != int(before[1]) + 1:
                return f"the manifest lists {self.named(index + 1)} after {self._manifest.parts[index].filename}"
        return ""

    def _open(self, index: int) -> BinaryIO:
        try:
            return self._open_part(index)
        except FileNotFoundError as error:
            raise BundleRefused(
                f"{self.named(index)} is missing",
                hint="Put it beside the others: `emi fetch-bundle` fetches what lacks.",
            ) from error
        except OSError as error:
            raise _unreadable(self.named(index), error) from error

    def _size(self, index: int) -> int:
        with self._open(index) as file:
            return file.seek(0, io.SEEK_END)

    def _require_digest(self, index: int, file: BinaryIO) -> None:
        sha1 = _sha1(file, self.named(index))
        if wrong := self.wrong(index, sha1, size=file.tell(), total=self._ends[-1]):
            raise BundleRefused(wrong, hint=_AGAIN)

    def _cause(self, sha1: str, size: int, total: int | None) -> str:
        for other, part in enumerate(self._manifest.parts):
            if part.sha1.lower() == sha1:
                return f"holds the bytes of {self.named(other)}, the files were swapped"
        expected = size if total is None else self._manifest.bundled_size - (total - size)
        if size < expected:
            return f"is cut off after {size} of {expected} bytes"
        if size > expected:
            return f"has {size} bytes, {size - expected} too many"
        return "is damaged"


def _sha1(file: BinaryIO, named: str) -> str:
    """Return the SHA-1 (lowercase hex) of the file from its beginning, and leave it at its end."""
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
