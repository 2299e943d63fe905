"""What earlier downloads turned out to be, so that the same version of a file is not fetched again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from builder import durable


class Known(BaseModel):
    """A file that was downloaded whole once: `sha256:HEX` and bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    digest: str
    size: int


class Remembered:
    """Small answers, a file each under one directory; losing them costs a download, never a wrong byte."""

    def __init__(self, cache: Path) -> None:
        self._directory = cache / "downloads"

    def recall(self, *words: str | int | None) -> Known | None:
        """Return what `words` (a checksum; or a URL and its version) named when it was last downloaded."""
        try:
            return Known.model_validate_json(self._path(words).read_bytes())
        except (OSError, ValidationError):
            return None

    def keep(self, *words: str | int | None, digest: str, size: int) -> Self:
        """Remember it, for every later run."""
        self._directory.mkdir(parents=True, exist_ok=True)
        durable.write_file(self._path(words), Known(digest=digest, size=size).model_dump_json().encode())
        return self

    def _path(self, words: tuple[str | int | None, ...]) -> Path:
        return self._directory / f"{hashlib.sha256(json.dumps(words).encode()).hexdigest()}.json"
