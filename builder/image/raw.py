"""Raw images, and a range of any image seen as an image of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from builder.errors import FormatRefused, HostError, InputError
from builder.image.stream import Extent, ImageReader


class SourceFile:
    """An open file that is only read, from any thread; trouble is told with its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        self.size = os.fstat(self.descriptor).st_size

    def read(self, length: int, offset: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only at the end of the file. Raises HostError."""
        if offset >= self.size:
            return b""
        try:
            data = os.pread(self.descriptor, length, offset)
            while len(data) < min(length, self.size - offset):  # a read is cut at 2 GiB, and by signals
                more = os.pread(self.descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise HostError(f"{self.path} cannot be read at byte {offset}: {error.strerror}") from error
        return data

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class RawReader:
    """A raw image file: its data extents are what the filesystem has not kept as a hole."""

    def __init__(self, path: Path) -> None:
        self._file = SourceFile(path)
        self.virtual_size = self._file.size

    @property
    def descriptor(self) -> int:
        """The open file, for a filesystem that can share its extents."""
        return self._file.descriptor

    def extents(self) -> Iterator[Extent]:
        """Yield what lies outside the file's holes."""
        end = 0
        while end < self.virtual_size:
            try:
                start = os.lseek(self.descriptor, end, os.SEEK_DATA)
                end = min(os.lseek(self.descriptor, start, os.SEEK_HOLE), self.virtual_size)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data after this
                    return
                raise
            if end <= start:
                return
            yield Extent(start, end - start)

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset`, zeros past the end."""
        data = self._file.read(length, offset)
        return data if len(data) == length else data.ljust(length, b"\0")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Window:
    """Bytes `offset` to `offset + size` of another image, which is closed with it when it is `owned`."""

    def __init__(self, reader: ImageReader, offset: int, size: int, *, owned: bool = False) -> None:
        if offset < 0 or size < 0 or offset + size > reader.virtual_size:
            raise FormatRefused(
                f"{size} bytes from {offset} do not lie within the image, which has {reader.virtual_size} bytes"
            )
        self.reader = reader
        self.offset = offset
        self.virtual_size = size
        self._owned = owned

    def extents(self) -> Iterator[Extent]:
        """Yield the part of the other image's extents that lies in the window."""
        stop = self.offset + self.virtual_size
        for extent in self.reader.extents():
            start, end = max(extent.offset, self.offset), min(extent.offset + extent.length, stop)
            if extent.offset >= stop:
                return
            if start < end:
                yield Extent(start - self.offset, end - start)

    def pread(self, length: int, offset: int) -> bytes:
        """Return exactly `length` bytes from `offset`, zeros past the window's end."""
        inside = max(0, min(length, self.virtual_size - offset))
        data = self.reader.pread(inside, self.offset + offset) if inside else b""
        return data + bytes(length - inside)

    def close(self) -> None:
        """Close the other image, if it is ours."""
        if self._owned:
            self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def window(reader: ImageReader, offset: int, size: int, *, owned: bool = False) -> ImageReader:
    """Return bytes `offset` to `offset + size` of `reader` as an image; closing it leaves `reader` open unless `owned`.

    Raises FormatRefused when they do not lie within it, which is what a hostile partition table asks for; an `owned`
    reader is closed then.
    """
    try:
        return Window(reader, offset, size, owned=owned)
    except FormatRefused:
        if owned:
            reader.close()
        raise
