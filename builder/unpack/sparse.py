"""Write a file whose runs of zeros are holes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from builder import durable

_PAGE = 4096  # bytes; the granularity of holes on every filesystem that has them
_ZEROS = bytes(1 << 20)
_PAGE_OF_ZEROS = bytes(_PAGE)


class SparseWriter:
    """A new file at `path`, written from its beginning to its end; removed again if the block around it raises."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.size = 0  # bytes, holes included

    def write(self, data: bytes) -> None:
        """Append at most 1 MiB; zeros cost no space, wherever a whole page is made of them. Raises DiskFull."""
        start = self.size
        self.size += len(data)
        if _ZEROS.startswith(data):
            return
        view = memoryview(data)
        begin = None  # of the run of pages to write, relative to data
        edge = 0
        while edge < len(data):
            following = min(edge + _PAGE - (start + edge) % _PAGE, len(data))
            page = _PAGE_OF_ZEROS if following - edge == _PAGE else bytes(following - edge)
            if data.startswith(page, edge):  # memcmp; memoryviews compare item by item
                if begin is not None:
                    self._put(view[begin:edge], start + begin)
                    begin = None
            elif begin is None:
                begin = edge
            edge = following
        if begin is not None:
            self._put(view[begin:], start + begin)

    def finish(self) -> None:
        """Give the file its whole size, a hole at its end included."""
        with durable.translate_disk_full(self._path):
            os.ftruncate(self._file, self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self._file)
        if kind is not None:
            self._path.unlink(missing_ok=True)

    def _put(self, data: memoryview, offset: int) -> None:
        with durable.translate_disk_full(self._path):
            while data:
                written = os.pwrite(self._file, data, offset)
                data = data[written:]
                offset += written
