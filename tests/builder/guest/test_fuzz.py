"""The fuzzer of the parsers of files inside guests, for a bounded time."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from builder import proc

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def fuzz(directory: Path, seconds: int, seed: int) -> int:
    """Fuzz in a process of its own and return the number of inputs tried."""
    # Through a shell that forks, as tests/builder/image/test_fuzz.py says.
    done = proc.run(
        ["sh", "-c", '"$@"; exit "$?"', "sh", sys.executable, HERE / "fuzz_guest.py", str(seconds), str(seed)],
        environment={"PYTHONPATH": str(ROOT)},
        directory=directory,
        timeout=seconds * 4 + 60,
    )
    tried = re.search(rb"number_of_executed_units: (\d+)", done.stderr)
    assert tried, done.stderr[-2000:].decode(errors="replace")
    return int(tried[1])


def test_no_input_makes_a_parser_fail_in_a_way_not_promised(tmp_path: Path) -> None:
    assert fuzz(tmp_path, seconds=5, seed=1) > 50
    assert list(tmp_path.glob("crash-*")) == []


@pytest.mark.sweep
@pytest.mark.parametrize("seed", [21, 22])
def test_no_input_for_a_minute_each(seed: int, tmp_path: Path) -> None:
    assert fuzz(tmp_path, seconds=60, seed=seed) > 1000
    assert list(tmp_path.glob("crash-*")) == []
