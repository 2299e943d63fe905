"""How tests run a fuzzer."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import proc

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fuzz(tmp_path: Path) -> Callable[..., int]:
    """Fuzz in a process of its own, with no input that fails, and return the number of inputs tried."""

    def run(script: Path, *, seconds: int, seed: int) -> int:
        # Through a shell that forks: a process keeps, across exec, the peak of the one that it was forked from, and the
        # fuzzer would take pytest's memory for its own.
        done = proc.run(
            ["sh", "-c", '"$@"; exit "$?"', "sh", sys.executable, script, str(seconds), str(seed)],
            environment={"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},  # libFuzzer ends without clearing up
            directory=tmp_path,
            timeout=seconds * 4 + 60,
        )
        tried = re.search(rb"number_of_executed_units: (\d+)", done.stderr)
        assert tried, done.stderr[-2000:].decode(errors="replace")
        assert list(tmp_path.glob("crash-*")) == []
        return int(tried[1])

    return run
