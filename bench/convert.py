"""A compressed qcow2 to a sparse raw file, and only read: emi beside `qemu-img convert -W -m 16`, its fastest settings.

    python bench/convert.py [IMAGE]

IMAGE is a raw disk; without it one is made from /usr/share. Whole processes are timed, in turns, so that a busy machine
slows both alike; medians count. What Python needs to start is shown and taken off: a run of emi pays it once, however
much it converts. Both outputs are compared byte for byte.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 5
CPU_LIMIT = 0.5  # of qemu-img's user + system time

CONVERT = """
import sys
from pathlib import Path
from builder.image.convert import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""
READ = """
import sys
from pathlib import Path
from builder import pool
from builder.image.reader import open_image
from builder.image.stream import data_blocks
with open_image(Path(sys.argv[1])) as reader:
    for _ in pool.each(lambda n: len(reader.pread(524288, n * 524288)), data_blocks(reader), workers=2):
        pass
"""


@dataclass
class Subject:
    """A command, and what each of its runs took in seconds; `target` is removed before each."""

    name: str
    command: Sequence[str | Path]
    target: Path | None = None
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0  # KiB of resident memory

    def measure(self) -> None:
        """Run the command once."""
        if self.target is not None:
            self.target.unlink(missing_ok=True)
        began = time.monotonic()
        process = subprocess.Popen(self.command, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"exit status {process.returncode} from {self.name}")
        self.wall.append(time.monotonic() - began)
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        self.peak = max(self.peak, usage.ru_maxrss)


def main() -> int:
    """Print the table; return 1 when emi's share of qemu-img's CPU time is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, help="a raw disk")
    with tempfile.TemporaryDirectory(prefix="emi-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        raw = (parser.parse_args().image or make_disk(directory / "made.raw")).absolute()
        qcow2, theirs, ours = (directory / name for name in ("source.qcow2", "theirs.raw", "ours.raw"))
        call("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2)
        pairs = {
            "to a raw file": (
                Subject("qemu-img -W -m 16", [*QEMU, "-f", "qcow2", "-O", "raw", qcow2, theirs], theirs),
                Subject("emi", [sys.executable, "-c", CONVERT, qcow2, ours], ours),
            ),
            "only read": (
                Subject("qemu-img -W -m 16", [*QEMU, *null_target(raw.stat().st_size, qcow2)]),
                Subject("emi", [sys.executable, "-c", READ, qcow2]),
            ),
        }
        start = Subject("emi, start only", [sys.executable, "-c", "import builder.image.convert"])
        for _ in range(ROUNDS):
            for subject in (start, *(subject for pair in pairs.values() for subject in pair)):
                subject.measure()
        call("cmp", theirs, ours)
        print(
            f"{raw}: {raw.stat().st_size >> 20} MiB, {raw.stat().st_blocks >> 11} MiB on disk; qcow2 {mib(qcow2)} MiB"
        )
        print(f"sparse output: qemu-img {mib(theirs)} MiB, emi {mib(ours)} MiB on disk; bytes equal")
        shares = [show(title, pair, start) for title, pair in pairs.items()]
    return 1 if max(shares) > CPU_LIMIT else 0


QEMU = ("qemu-img", "convert", "-W", "-m", "16")


def null_target(size: int, source: Path) -> Sequence[str | Path]:
    """Return the arguments that make qemu-img read `source` and write nothing."""
    return ["-n", "--target-image-opts", "-f", "qcow2", source, f"driver=null-co,size={size}"]


def show(title: str, pair: tuple[Subject, Subject], start: Subject) -> float:
    """Print the medians and ratios of a pair; return emi's share of the peer's CPU time, its start taken off."""
    print(f"\n{title:<20} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9}")
    for subject in (*pair, start):
        wall, cpu = statistics.median(subject.wall), statistics.median(subject.cpu)
        print(f"{subject.name:<20} {wall:8.2f} {cpu:8.2f} {subject.peak >> 10:9}")
    peer, ours = pair
    wall = (statistics.median(ours.wall) - statistics.median(start.wall)) / statistics.median(peer.wall)
    cpu = (statistics.median(ours.cpu) - statistics.median(start.cpu)) / statistics.median(peer.cpu)
    print(f"{'ratio':<20} {wall:8.2f} {cpu:8.2f}   (CPU limit {CPU_LIMIT})")
    return cpu


def make_disk(path: Path) -> Path:
    """Make a 4 GiB ext4 filesystem of what /usr/share holds."""
    with open(path, "wb") as disk:
        disk.truncate(4 << 30)
    call("/sbin/mkfs.ext4", "-q", "-F", "-d", "/usr/share", "-E", "lazy_itable_init=0,nodiscard", path)
    return path


def mib(path: Path) -> int:
    """Return how many MiB the file takes on the disk."""
    return path.stat().st_blocks >> 11


def call(*command: str | Path) -> None:
    """Run a command to its end."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    raise SystemExit(main())
