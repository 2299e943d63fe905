"""The list of calls made: one JSON line per call in `calls.jsonl`, so that a plan can be held against what was done."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder import pool

FILE = "calls.jsonl"


@dataclass(frozen=True, kw_only=True)
class AuditedCall:
    """One call as it ended: `time` in seconds since the epoch, `error` the code it was refused with, or empty.

    `fault` names the faults that acted on it (docs/sandbox-faults.md), such as `1:throttle`, or is empty.
    """

    time: float
    service: str
    action: str
    status: int
    error: str = ""
    region: str = ""
    fault: str = ""


class Audit:
    """Appends to the list. After kill -9 its last line may be cut: of a call that was not answered. Readers skip it."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._lock = pool.Lock()
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._append(b"\n")  # what a kill cut ends here, so that the next line is whole

    def add(
        self, service: str, action: str, status: int, error: str = "", region: str = "", *, fault: str = ""
    ) -> None:
        """Append one call; cheap enough for every block."""
        acted = f', "fault": {json.dumps(fault)}' if fault else ""
        line = (
            f'{{"time": {time.time():.6f}, "service": {json.dumps(service)}, "action": {json.dumps(action)}, '
            f'"status": {status}, "error": {json.dumps(error)}, "region": {json.dumps(region)}{acted}}}\n'
        )
        self._append(line.encode())

    def _append(self, line: bytes) -> None:
        with self._lock:  # a write may stop at a page's end: the rest must follow before another line does
            while line:
                line = line[os.write(self._file, line) :]


def read_calls(directory: Path, *, start: int = 0) -> Iterator[AuditedCall]:
    """Yield the calls made so far, from byte `start` of the list (`position` tells where it ends now)."""
    try:
        with open(directory / FILE, encoding="utf-8") as file:
            file.seek(start)
            for line in file:
                if line.endswith("}\n"):
                    yield AuditedCall(**json.loads(line))
    except FileNotFoundError:
        return


def latest_calls(directory: Path, most: int) -> Iterator[AuditedCall]:
    """Yield the latest calls, oldest first: as many as the last `most` bytes of the list hold."""
    try:
        with open(directory / FILE, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - most)
            file.seek(start)
            whole = file.read(most).rpartition(b"\n")[0].split(b"\n")
    except FileNotFoundError:
        return
    for line in whole[start > 0 :]:  # the first one is cut, unless it is the very first
        if line.endswith(b"}"):
            yield AuditedCall(**json.loads(line))


def position(directory: Path) -> int:
    """Return where the list of calls ends now, in bytes: read_calls from here yields what comes after."""
    try:
        return (directory / FILE).stat().st_size
    except FileNotFoundError:
        return 0
