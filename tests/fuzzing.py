"""What the fuzzers share: how atheris is told what to try, for how long, and what is too large or too slow."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris

MEMORY = 400  # MiB of resident memory, Python and instrumentation included
SLOW = 10  # seconds for one input


def main(one_input: Callable[[bytes], None], corpus: Sequence[bytes], *, longest: int) -> None:
    """Obey the command line: SECONDS [SEED] fuzzes with inputs of at most `longest` bytes; SECONDS SEED FILE tries one.

    It ends the process: with status 0 when it says how many inputs were tried (number_of_executed_units); with another
    there is a defect, and the input lies in ./crash-*.
    """
    if len(sys.argv) > 3:
        one_input(Path(sys.argv[3]).read_bytes())
        return
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"
    with tempfile.TemporaryDirectory(prefix="emi-fuzz-") as seeds:
        for number, data in enumerate(corpus):
            one_input(data)
            (Path(seeds) / f"{number:02}").write_bytes(data)
        limits = [f"-max_total_time={sys.argv[1]}", f"-rss_limit_mb={MEMORY}", f"-timeout={SLOW}"]
        words = [sys.argv[0], f"-seed={seed}", *limits, f"-max_len={longest}", "-print_final_stats=1", seeds]
        atheris.Setup(words, one_input)
        atheris.Fuzz()
