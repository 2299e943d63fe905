"""What emi costs before it does anything: `emi --help`, and a run in which nothing is left to do.

Beside `python -c pass` (what no Python program can beat) and `pip --version` (a command of the same kind, in the same
environment). Ten runs each, taken in turns so that a busy machine slows all alike; the median counts.
"""

from __future__ import annotations

import os
import statistics
import struct
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROUNDS = 10
BIN = Path(sys.executable).parent
# The smallest recipe with cloud steps: a 1 MiB disk of which one block holds data.
RECIPE = """\
name: overhead
steps:
  - download: {{ url: "file://{image}" }}
  - convert: {{ format: raw }}
  - snapshot: {{ verify: true }}
  - register: {{ name: overhead }}
"""


@dataclass
class Subject:
    """A command, and the seconds that each of its runs took."""

    name: str
    command: Sequence[str | Path]
    limit: float | None = None  # seconds of wall time that issue 2 allows
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> int:
    """Print the table; return 1 when a limit is broken."""
    with tempfile.TemporaryDirectory(prefix="emi-bench-") as directory:
        environment = {**os.environ, "EMI_HOME": f"{directory}/home"}
        # Where Python may not keep what it compiled, every start compiles 150 files anew: not how anybody installs emi.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        recipe = prepare(Path(directory))
        try:
            subprocess.run([BIN / "emi", "run", recipe], env=environment, check=True, stdout=sys.stderr)
            subjects = [
                Subject("python -c pass", [sys.executable, "-c", "pass"]),
                Subject("pip --version", [sys.executable, "-m", "pip", "--version"]),
                Subject("emi --help", [BIN / "emi", "--help"], limit=0.3),
                Subject("emi run, unchanged", [BIN / "emi", "run", recipe], limit=1.0),
            ]
            for _ in range(ROUNDS):
                for subject in subjects:
                    measure(subject, environment)
        finally:
            subprocess.run([BIN / "emi", "sandbox", "stop"], env=environment, check=False, stdout=sys.stderr)
    return report(subjects)


def prepare(directory: Path) -> Path:
    """Write the recipe and its image; return the recipe."""
    image = directory / "disk.raw"
    # An MBR with one Linux partition: boot flag and CHS are zero, then type, first sector, sectors.
    partition = struct.pack("<B3xB3xII", 0, 0x83, 1, 2047)
    image.write_bytes((bytes(446) + partition).ljust(510, b"\0") + b"\x55\xaa" + bytes((1 << 20) - 512))
    recipe = directory / "overhead.yaml"
    recipe.write_text(RECIPE.format(image=image))
    return recipe


def measure(subject: Subject, environment: Mapping[str, str]) -> None:
    """Run the command once and note its wall and CPU seconds, those of its children included."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(subject.command, env=environment, check=True, capture_output=True)
    subject.wall.append(time.perf_counter() - started)
    after = os.times()
    subject.cpu.append(
        after.children_user - before.children_user + after.children_system - before.children_system,
    )


def report(subjects: Sequence[Subject]) -> int:
    """Print one line per subject, the median of wall and CPU, and the ratio to the first; return the exit status."""
    floor = statistics.median(subjects[0].wall)
    print(f"{'':20} {'wall s':>7} {'slowest':>8} {'CPU s':>6} {'x python':>9}  limit")
    broken = False
    for subject in subjects:
        wall = statistics.median(subject.wall)
        verdict = ""
        if subject.limit is not None:
            broken |= wall > subject.limit
            verdict = f"{subject.limit:g} s: {'BROKEN' if wall > subject.limit else 'kept'}"
        cpu = statistics.median(subject.cpu)
        print(f"{subject.name:20} {wall:7.3f} {max(subject.wall):8.3f} {cpu:6.3f} {wall / floor:9.1f}  {verdict}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
