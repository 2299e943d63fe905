"""The root partition out of a disk, raw and compressed qcow2: emi beside `qemu-img convert`, `dd` and guestfish.

    python bench/extract.py [--quick] [IMAGE.raw]      (default: the demo's, as bench/snapshot.py finds it)

    emi        finds partition 1 and writes a sparse raw file, as `emi extract` does (whose fsync no peer has)
    emi, none  what a recipe's `extract` does: finds it, and hands on where it lies
    qemu-img   convert with the raw driver's offset and size over the disk's own driver; once more with -W -m 16
    dd         bs=1M from the byte where it begins: of the raw disk, which for a qcow2 has to be made first
    guestfish  download /dev/sda1, launch included; once, since it takes so long, and not at all with --quick
    seed       dd bs=1, as in the seed's blog: from a sample of 16 MB

Whole processes are timed, in turns; medians count. What Python needs to start is shown and taken off: a run of emi pays
it once, whatever it does. The disk is in the page cache. Read is what a process asked of the kernel (rchar in its
/proc/PID/io). Every output is compared byte for byte with what dd cut out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snapshot import demo_image

from builder.image.extract import Layout, Place, Wanted, find
from builder.image.reader import open_image

ROOT = Path(__file__).parents[1]
ROUNDS = 5
LIMIT = 1.5  # times the best peer's wall time
SAMPLE = 16_000_000  # bytes

START = "import builder.guest.extract_file"
WHERE = """
import sys
from pathlib import Path
from builder.guest.extract import extract
from builder.guest.overlay import Layer
from builder.image.extract import Wanted
print(extract(Layer(path=Path(sys.argv[1]), format=sys.argv[2]), Wanted(partition=1), Path("/nowhere")))
"""
WRITE = """
import sys
from pathlib import Path
from builder.guest import overlay
from builder.guest.extract import extract
from builder.guest.overlay import Layer
from builder.image.extract import Wanted
from builder.image.write import write_sparse
found = extract(Layer(path=Path(sys.argv[1]), format=sys.argv[2]), Wanted(partition=1), Path("/nowhere"))
part = Layer(path=Path(sys.argv[1]), format=sys.argv[2], window=(found.offset, found.size))
with overlay.open_layer(part) as reader:
    write_sparse(reader, Path(sys.argv[3]))
"""


@dataclass(kw_only=True)
class Subject:
    """A command, and what its runs took: seconds of wall and CPU time, bytes read; `target` is removed before each."""

    name: str
    command: Sequence[str | Path]
    target: Path | None = None
    rounds: int = ROUNDS
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    read: int = 0

    def measure(self) -> None:
        """Run the command once, unless it has had its rounds."""
        if len(self.wall) == self.rounds:
            return
        if self.target is not None:
            self.target.unlink(missing_ok=True)
        os.sync()  # what another has written must not slow this one down
        began = time.monotonic()
        process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ | DIRECT)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - began
        self.read = int(Path(f"/proc/{process.pid}/io").read_text("ascii").split()[1])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"exit status {process.returncode} from {self.name}")
        self.wall.append(wall)
        self.cpu.append(usage.ru_utime + usage.ru_stime)

    @property
    def seconds(self) -> float:
        """The median of its wall times."""
        return statistics.median(self.wall)

    def line(self) -> str:
        """Return its row of the table."""
        taken = f"{self.target.stat().st_blocks >> 11:9}" if self.target else f"{'-':>9}"
        return f"{self.name:<26}{self.seconds:9.2f}{statistics.median(self.cpu):9.2f}{self.read >> 20:10}{taken}"


DIRECT = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}


def main() -> int:
    """Print the tables; return 1 when emi is slower than the limit allows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, help="a raw disk")
    parser.add_argument("--quick", action="store_true", help="leave guestfish out: some minutes")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emi-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        raw = (chosen.image or demo_image()).absolute()
        qcow2 = directory / "disk.qcow2"
        subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True)
        place, data = where(raw)
        print(f"{raw.name}: {place.title}, {data >> 20} MiB of it data; qcow2 {qcow2.stat().st_size >> 20} MiB")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        wanted = directory / "wanted.raw"
        wanted.touch()
        dd = Subject(name="dd bs=1M", command=cut(raw, wanted, place, "1M"), target=wanted, rounds=3)
        fish = Subject(
            name="guestfish download", command=guestfish(raw, directory), target=directory / "fish", rounds=1
        )
        shares = [
            contest("raw", subjects(raw, "raw", place, directory), (dd,) if chosen.quick else (dd, fish), wanted),
            contest("compressed qcow2", subjects(qcow2, "qcow2", place, directory), (), wanted),
        ]
        seed(raw, directory, place)
    return 1 if max(shares) > LIMIT else 0


def where(raw: Path) -> tuple[Place, int]:
    """Return where partition 1 lies, and how many bytes of it are data."""
    with open_image(raw, "raw") as reader:
        place = find(Layout.of(reader), Wanted(partition=1))
        assert place is not None
        ends = [(extent.offset, extent.offset + extent.length) for extent in reader.extents()]
    inside = [min(end, place.offset + place.size) - max(start, place.offset) for start, end in ends]
    return place, sum(max(length, 0) for length in inside)


def subjects(disk: Path, image_format: str, place: Place, directory: Path) -> list[Subject]:
    """Return emi and qemu-img on that disk: start, where, write, and the peers."""
    inner = {"driver": image_format, "file": {"driver": "file", "filename": str(disk)}}
    part = f"json:{json.dumps({'driver': 'raw', 'offset': place.offset, 'size': place.size, 'file': inner})}"
    ours, theirs, eager = (directory / f"{name}.raw" for name in ("ours", "theirs", "eager"))
    python = [sys.executable, "-c"]
    return [
        Subject(name="emi, start only", command=[*python, START]),
        Subject(name="emi, none written", command=[*python, WHERE, disk, image_format]),
        Subject(name="emi", command=[*python, WRITE, disk, image_format, ours], target=ours),
        Subject(name="qemu-img", command=["qemu-img", "convert", "-O", "raw", part, theirs], target=theirs),
        Subject(
            name="qemu-img -W -m 16",
            command=["qemu-img", "convert", "-W", "-m", "16", "-O", "raw", part, eager],
            target=eager,
        ),
    ]


def cut(raw: Path, target: Path, place: Place, size: str) -> list[str | Path]:
    """Return dd's command for a range of bytes."""
    counted = ["iflag=skip_bytes,count_bytes", f"skip={place.offset}", f"count={place.size}"]
    return ["dd", f"if={raw}", f"of={target}", f"bs={size}", *counted, "status=none"]


def guestfish(raw: Path, directory: Path) -> list[str | Path]:
    """Return guestfish's command."""
    return ["guestfish", "--ro", "--format=raw", "-a", raw, "run", ":", "download", "/dev/sda1", directory / "fish"]


def contest(title: str, ours: list[Subject], others: Sequence[Subject], wanted: Path) -> float:
    """Measure in turns, print the table, and return emi's share of the best peer's time, its start taken off."""
    everyone = [*ours, *others]
    for _ in range(ROUNDS):
        for subject in everyone:
            subject.measure()
    print(f"\n{title:<26}{'wall s':>9}{'CPU s':>9}{'read MiB':>10}{'MiB used':>9}")
    for subject in everyone:
        print(subject.line())
        if subject.target and subject.target != wanted:
            subprocess.run(["cmp", wanted, subject.target], check=True)
    start, _, emi, *peers = everyone
    best = min(peers, key=lambda peer: peer.seconds)
    share = (emi.seconds - start.seconds) / best.seconds
    print(f"emi without its start: {share:.2f} times {best.name} (limit {LIMIT})")
    for subject in everyone:
        if subject.target and subject.target != wanted:
            subject.target.unlink()
    return share


def seed(raw: Path, directory: Path, place: Place) -> None:
    """Measure dd bs=1 on a sample and say what the partition would take."""
    sample = Place(number=1, offset=place.offset, size=SAMPLE, title="")
    target = directory / "sample"
    once = Subject(name="dd bs=1", command=cut(raw, target, sample, "1"), target=target, rounds=1)
    once.measure()
    rate = SAMPLE / once.seconds
    print(f"\nthe seed's dd bs=1: {rate / 1e6:.2f} MB/s, so {place.size / rate / 60:.0f} minutes for the partition")


if __name__ == "__main__":
    raise SystemExit(main())
