"""What imports need of S3 and IAM, in between so that neither knows the other."""

from __future__ import annotations

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


class Objects(Protocol):
    """The objects of S3, as VM Import sees them through a role."""

    def role_may_read(self, task: ImportTask) -> bool:
        """Say whether the task's role exists, lets VM Import take it on, and may read the bucket and the object."""

    def opened(self, bucket: str, key: str) -> AbstractContextManager[Opened]:
        """Give the object's bytes, which stay readable within the block. Raises FileNotFoundError."""

    def as_file(self, bucket: str, key: str) -> AbstractContextManager[Path]:
        """Give the object as a file within the block, not to be written to. Raises FileNotFoundError."""
