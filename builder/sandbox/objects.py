"""What imports and bundles need of S3 and IAM, in between so that neither knows the other."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builder.sandbox.records import ImportTask


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """`length` bytes of an open file, from `offset`."""

    descriptor: int
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An object's size in bytes, and where they lie, in order; each file is open until the next stretch is taken."""

    size: int
    stretches: Iterator[Stretch]

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the bytes, at most `size` at a time; once."""
        for one in self.stretches:
            offset, end = one.offset, one.offset + one.length
            while offset < end:
                piece = os.pread(one.descriptor, min(size, end - offset), offset)
                if not piece:
                    raise OSError(errno.EIO, "a file is shorter than its record says")
                offset += len(piece)
                yield piece


class Objects(Protocol):
    """The objects of S3, as VM Import sees them through a role, and EC2 the parts of bundles."""

    def role_may_read(self, task: ImportTask) -> bool:
        """Say whether the task's role exists, lets VM Import take it on, and may read the bucket and the object."""

    def bundle_may_be_read(self, bucket: str, key: str) -> bool:
        """Say whether the object is there and readable for whom the canned ACL `aws-exec-read` grants it to."""

    def opened(self, bucket: str, key: str) -> AbstractContextManager[Opened]:
        """Give the object's bytes, which stay readable within the block. Raises FileNotFoundError."""

    def as_file(self, bucket: str, key: str) -> AbstractContextManager[Path]:
        """Give the object as a file within the block, not to be written to. Raises FileNotFoundError."""
