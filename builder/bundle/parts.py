"""A bundle's parts: a stream is encrypted as one, cut at every part size, and each part named and hashed.

A part is written under `.NAME.part.NN.new` and renamed when it is whole, so that a file with a part's name is a whole
part of this stream, whatever crashes. It is not fsynced: only who keeps the parts knows where.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from builder.bundle.records import ContentKey, Shape, WrittenPart
from builder.crashpoint import reach
from builder.durable import translate_disk_full
from builder.errors import HostError

_BLOCK = 16  # bytes of AES
_PIECE = 1 << 20  # bytes encrypted at once


def part_name(name: str, index: int) -> str:
    """Return the file name of a part: `NAME.part.00` to `NAME.part.99`, then `.100`, as euca2ools from 3.1 on."""
    return f"{name}.part.{index:02d}"


class PartWriter:
    """Makes the parts of one bundle in the directory `place`; if the block around it raises, they are removed again.

    `done` is called with each part as soon as it is whole, in the thread that writes. There is no empty part. Raises
    DiskFull and HostError.
    """

    def __init__(self, place: Path, shape: Shape, key: ContentKey, done: Callable[[WrittenPart, Path], None]) -> None:
        self._place, self._shape, self._done = place, shape, done
        self._cipher = Cipher(AES(key.key), CBC(key.iv)).encryptor()
        self._length = 0  # of the stream, not encrypted
        self._encrypted = bytearray(_PIECE + _BLOCK)
        self._file = -1
        self._size = 0
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self.written: list[WrittenPart] = []

    def write(self, data: bytes) -> None:
        """Encrypt what comes next in the stream."""
        self._length += len(data)
        source, target = memoryview(data), memoryview(self._encrypted)
        for start in range(0, len(source), _PIECE):
            # update_into: half the time of update, which copies (facts measured for bench/bundle.py)
            count = self._cipher.update_into(source[start : start + _PIECE], self._encrypted)
            self._put(target[:count])

    def finish(self) -> None:
        """End the stream, as PKCS#7 says: one to 16 bytes that say how many they are."""
        missing = _BLOCK - self._length % _BLOCK
        self.write(bytes([missing]) * missing)
        self._cipher.finalize()
        if self._file >= 0:
            self._end_part()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if kind is not None:
            # The one at work may have got its name in the moment before.
            for name in (self._aside.name, self._name, *(part.filename for part in self.written)):
                (self._place / name).unlink(missing_ok=True)

    @property
    def _name(self) -> str:
        return part_name(self._shape.name, len(self.written))

    @property
    def _aside(self) -> Path:
        return self._place / f".{self._name}.new"

    def _put(self, data: memoryview) -> None:
        while data:
            if self._file < 0:
                self._begin_part()
            some = data[: self._shape.part_size - self._size]
            self._sha1.update(some)
            self._size += len(some)
            data = data[len(some) :]
            with _told(self._aside):
                while some:
                    some = some[os.write(self._file, some) :]
            if self._size == self._shape.part_size:
                self._end_part()

    def _begin_part(self) -> None:
        with _told(self._aside):
            self._file = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._size = 0
        self._sha1 = hashlib.sha1(usedforsecurity=False)

    def _end_part(self) -> None:
        path = self._place / self._name
        with _told(self._aside):
            file, self._file = self._file, -1
            os.close(file)  # where some filesystems say that they are full
            reach("bundle.part-made")
            self._aside.replace(path)
        part = WrittenPart(index=len(self.written), filename=path.name, sha1=self._sha1.hexdigest(), size=self._size)
        self.written.append(part)
        reach("bundle.part-named")
        self._done(part, path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what goes wrong in writing `path` into errors of ours."""
    try:
        with translate_disk_full(path):
            yield
    except OSError as error:
        raise HostError(
            f"{path} cannot be written: {error.strerror}",
            hint="Look at the directory's rights and at the filesystem, then run again. Nothing half-written was kept.",
        ) from error
