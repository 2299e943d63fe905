"""The image that comes out of a bundle: written once, beside its name, which it gets when all of it was verified."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from builder import durable, pool
from builder.errors import BusyError, DiskFull, HostError

_PAGE = 4096  # bytes; the granularity of holes on every filesystem that has them
# bytes; what was written goes to the disk meanwhile, so that the fsync at the end has little to wait for
_WRITE_OUT = 32 << 20
_STEP = 64 * 1024  # compared at once where it is zero
_ZERO_PAGE, _ZERO_STEP = bytes(_PAGE), bytes(_STEP)


class SparseImage:
    """A file of `size` zeros that becomes `target` by `commit`; before that it is `.NAME.unbundling` beside it.

    Left by a crash, that file is what the next attempt begins anew. Every other end of the block removes it. Raises
    BusyError while another process writes it, DiskFull, and HostError for what the filesystem cannot hold.
    """

    def __init__(self, target: Path, size: int) -> None:
        self._target, self._size = target, size
        self._aside = target.with_name(f".{target.name}.unbundling")
        self._file = -1
        self._waiting = 0  # bytes written since the last time that the disk was told to take what there is
        self._writing_out: pool.Background[None] | None = None

    def __enter__(self) -> Self:
        try:
            self._file = durable.take_aside(self._aside)
            with durable.translate_disk_full(self._aside):
                os.ftruncate(self._file, 0)  # what an earlier attempt left
                os.ftruncate(self._file, self._size)
        except BlockingIOError:
            raise BusyError(f"another process is unbundling to {self._target}") from None
        except OSError as error:
            self._drop()
            raise HostError(f"{self._aside} cannot be made with {self._size} bytes: {error.strerror}") from error
        except DiskFull:
            self._drop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def write(self, offset: int, data: bytes, begin: int, end: int) -> None:
        """Have `data[begin:end]` stand at `offset`, where nothing was written yet; its pages of zeros stay holes."""
        shift = offset - begin  # from a place in data to one in the image
        first = None  # of the run to be written
        at = begin
        while at < end:
            length, zeros = min(_STEP, end - at), _ZERO_STEP
            if length < _STEP or (at + shift) % _PAGE or not data.startswith(_ZERO_STEP, at):
                length = min(_PAGE - (at + shift) % _PAGE, end - at)
                zeros = _ZERO_PAGE if length == _PAGE else bytes(length)
            if data.startswith(zeros, at):  # memcmp; memoryviews compare item by item
                if first is not None:
                    self._put(data, first, at, first + shift)
                first = None
            elif first is None:
                first = at
            at += length
        if first is not None:
            self._put(data, first, end, first + shift)

    def commit(self) -> None:
        """Give the file its name, durably, in place of what had it."""
        with durable.translate_failures(self._aside):
            if self._writing_out:
                self._writing_out.result()
            os.fsync(self._file)
        with durable.translate_failures(self._target):
            durable.commit(self._aside, self._target)
        os.close(self._file)
        self._file = -1

    def _put(self, data: bytes, begin: int, end: int, offset: int) -> None:
        left = memoryview(data)[begin:end]
        with durable.translate_failures(self._aside):
            while left:
                written = os.pwrite(self._file, left, offset)
                left, offset = left[written:], offset + written
            self._waiting += end - begin
            if self._waiting >= _WRITE_OUT and (self._writing_out is None or self._writing_out.done()):
                if self._writing_out:
                    self._writing_out.result()  # the kernel tells an error once
                self._waiting = 0
                self._writing_out = pool.Background(partial(os.fdatasync, self._file))

    def _drop(self) -> None:
        if self._file < 0:
            return
        self._aside.unlink(missing_ok=True)
        if self._writing_out:
            with suppress(OSError):  # what is wrong with the disk, the write or the fsync has said
                self._writing_out.result()
        os.close(self._file)
        self._file = -1
