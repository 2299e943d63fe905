"""Unpacking an image: emi beside the classic tool of each format, file to file, and beside the bare decoder.

    tool     gzip, bzip2, xz and zstd with `-dc > file`, as shell scripts have it; xz also with -T0
    decoder  the library that emi uses for the format, into nothing: how much of the time is not writing

Each way is a process of its own; ways take turns, the median counts. Python's start-up is left out, because a run pays
it once and not per file. The image is 320 MiB that compress about 4:1, a quarter of it zeros; or the file named as the
argument.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 3
MIB = 1 << 20
LIMITS = {"of the tool's speed": 0.9, "peak MB": 256.0}
PACK = {
    "gz": ["gzip", "-6"],
    "bz2": ["bzip2", "-9"],
    "xz": ["xz", "-1", "-T1"],
    "xz blocks": ["xz", "-1", "-T2", "--block-size=8MiB"],
    "zst": ["zstd", "-q", "-3"],
}
TOOLS = {
    "gz": ["gzip", "-dc"],
    "bz2": ["bzip2", "-dc"],
    "xz": ["xz", "-dc", "-T0"],
    "xz blocks": ["xz", "-dc", "-T0"],
    "zst": ["zstd", "-q", "-dc"],
}
# Memory is read from VmHWM: ru_maxrss counts what a process was before its exec.
FRAME = """
import json, re, sys, time
from pathlib import Path
from builder.unpack import unpack
from builder.unpack.decoders import open_decoder
source = Path(sys.argv[1])
start, used = time.monotonic(), time.process_time()
{work}
figures = {{"wall": time.monotonic() - start, "cpu": time.process_time() - used}}
figures["peak"] = int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) / 1000
print(json.dumps(figures))
"""
EMI = FRAME.format(work='unpack(source, Path(sys.argv[2]), name="image")')
DECODER = FRAME.format(work='decoder = open_decoder(source, sys.argv[2], "image")\nwhile decoder.read(1 << 20): pass')


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one process cost: seconds of wall and CPU, and MB of memory."""

    wall: float
    cpu: float
    peak: float = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emi-bench-") as place:
        return _compare(Path(place), given.image or _image(Path(place) / "image"), given.rounds)


def _compare(place: Path, image: Path, rounds: int) -> int:
    size = image.stat().st_size
    print(f"{size / 1e6:.0f} MB on {os.cpu_count()} cores, {rounds} rounds; MB/s of what comes out (CPU s)")
    print(f"{'':10} {'tool':>16} {'decoder':>16} {'emi':>16} {'x tool':>8} {'x decoder':>10} {'peak MB':>8}")
    missed = []
    for kind, command in PACK.items():
        packed = place / f"packed.{kind.split()[0]}"
        with open(packed, "wb") as out:
            subprocess.run([*command, "-c", image], stdout=out, check=True)
        ways: dict[str, list[Figures]] = {"tool": [], "decoder": [], "emi": []}
        for _ in range(rounds):
            ways["tool"].append(_timed([*TOOLS[kind], packed], place / "out"))
            ways["decoder"].append(_told(DECODER, packed, kind.split()[0]))
            ways["emi"].append(_told(EMI, packed, place / "out"))
            subprocess.run(["cmp", image, place / "out"], check=True)
        missed += _line(kind, size, ways)
    for line in missed:
        print(f"MISSED  {line}")
    return 1 if missed else 0


def _line(kind: str, size: int, ways: dict[str, list[Figures]]) -> list[str]:
    wall = {name: statistics.median(each.wall for each in found) for name, found in ways.items()}
    cpu = {name: statistics.median(each.cpu for each in found) for name, found in ways.items()}
    shown = " ".join(f"{size / 1e6 / wall[name]:8.0f} ({cpu[name]:5.2f})" for name in ways)
    peak = max(each.peak for each in ways["emi"])
    figures = {"of the tool's speed": wall["tool"] / wall["emi"], "peak MB": peak}
    print(
        f"{kind:10} {shown} {wall['tool'] / wall['emi']:8.2f} {wall['decoder'] / wall['emi']:10.2f} {peak:8.0f}",
        flush=True,
    )
    worse = {
        name for name, limit in LIMITS.items() if (figures[name] > limit if "MB" in name else figures[name] < limit)
    }
    return [f"{kind}: {figures[name]:.2f} {name}, and the limit is {LIMITS[name]:g}" for name in sorted(worse)]


def _timed(command: list[str | Path], output: Path) -> Figures:
    with open(output, "wb") as out:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode} from {command}")
    return Figures(wall=time.monotonic() - start, cpu=used.ru_utime + used.ru_stime)


def _told(script: str, *words: str | Path) -> Figures:
    done = subprocess.run([sys.executable, "-c", script, *words], stdout=subprocess.PIPE, check=True)
    return Figures(**json.loads(done.stdout))


def _image(path: Path) -> Path:
    source = random.Random(1)
    words = [source.randbytes(source.randrange(3, 10)).hex().encode() for _ in range(3000)]
    with open(path, "wb") as out:
        for number in range(320):
            match number % 4:
                case 0:
                    piece = bytes(MIB)
                case 1:
                    piece = source.randbytes(MIB // 4).ljust(MIB, b"\0")
                case _:
                    piece = b" ".join(source.choices(words, k=130_000))[:MIB].ljust(MIB, b".")
            out.write(piece)
    return path


if __name__ == "__main__":
    for name in ("gzip", "bzip2", "xz", "zstd"):
        if not shutil.which(name):
            raise SystemExit(f"{name} is not installed")
    sys.exit(main())
