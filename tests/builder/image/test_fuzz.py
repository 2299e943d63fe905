"""The fuzzer of our parsers of images, for a bounded time."""

from __future__ import annotations

from pathlib import Path

import pytest

FUZZER = Path(__file__).with_name("fuzz_qcow2.py")


def test_no_input_makes_a_parser_fail_in_a_way_not_promised(fuzz) -> None:
    assert fuzz(FUZZER, seconds=10, seed=1) > 100


@pytest.mark.sweep
@pytest.mark.parametrize("seed", [11, 12, 13, 14])
def test_no_input_for_a_minute_each(fuzz, seed: int) -> None:
    assert fuzz(FUZZER, seconds=60, seed=seed) > 1000
