"""The demo's root partition into an instance-store bundle and back: emi beside the pipelines of the tools before it.

    python bench/bundle.py [--short] [--rounds N] [PARTITION.raw]

    emi, fast      builder/bundle/stream.py: isal level 2
    emi, small     the same with `compression: small`: zlib-ng level 5
    pigz           tar | pigz | openssl enc | split, SHA-1s by tee and by split's filter: euca2ools
    gzip -9        tar -S | gzip -9 | ... : ec2-ami-tools; once
    Python         one thread: zlib level 6, hashlib, cryptography; once
    SHA-1          of the image alone, by hashlib: no single stream can be faster

and back: builder/bundle/unbundle.py beside cat | openssl enc -d | gunzip | tar -x, with and without the tar's SHA-1.
Whole processes are timed, Python's start included, in turns; medians count. The image is in the page cache; only our
unbundle calls fsync. Every bundle is read back by openssl, gunzip and tar and compared with the image. MB of memory are
VmHWM, of emi's process. `--short` takes the image's first 96 MiB and one round: to see that it works, its ratios mean
little.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snapshot import demo_image

from builder.image.extract import Layout, Wanted, find
from builder.image.reader import open_image, window
from builder.image.write import write_sparse

ROOT = Path(__file__).parents[1]
MB = 1_000_000
ROUNDS = 3
SHORT = 96 << 20  # bytes
KEY, IV = "000102030405060708090a0b0c0d0e0f", "0f0e0d0c0b0a09080706050403020100"
LIMITS = {
    "of pigz' wall time": 0.15,
    "of gzip -6's size, fast": 1.12,
    "of gzip -6's size, small": 1.03,
    "of the classic unbundle's wall time": 1 / 3,
    "MB of memory": 200,
    "of the image's data written by unbundle": 1.01,
}

ENCRYPT = f"openssl enc -e -aes-128-cbc -K {KEY} -iv {IV}"
DECRYPT = f"cat image.part.* | openssl enc -d -aes-128-cbc -K {KEY} -iv {IV} | gunzip -c"
SPLIT = """split -a 3 -d -b 10485760 --filter='tee "$FILE" | sha1sum >>"$FILE.sha1"' - image.part."""
CLASSIC = "set -e -o pipefail; tar -c {options} -C {directory} image | tee >(sha1sum >tar.sha1) | {gzip}"
CLASSIC += f" | {ENCRYPT} | {SPLIT}"

PEAK = """
import re
print("peak", re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""
BUNDLE = f"""
import sys
from pathlib import Path
from builder.bundle import stream
from builder.bundle.records import ContentKey, Shape
from builder.image.reader import open_image
key = ContentKey(key=bytes.fromhex("{KEY}"), iv=bytes.fromhex("{IV}"))
with open_image(Path(sys.argv[1]), "raw") as reader:
    made = stream.write(reader, Path.cwd(), Shape(name="image", compression=sys.argv[2]), key)
Path("made").write_text(repr(made))
{PEAK}"""
UNBUNDLE = f"""
import sys
from pathlib import Path
from builder.bundle.records import Bundler, ContentKey, Manifest, Part, Stream, WrittenPart
from builder.bundle.unbundle import unbundle
key = ContentKey(key=bytes.fromhex("{KEY}"), iv=bytes.fromhex("{IV}"))
made = eval(Path("made").read_text())
manifest = Manifest(
    bundler=Bundler(name="emi", version="", release=""), architecture="x86_64", name="image", user="0" * 12,
    tar_sha1=made.tar_sha1, size=made.size, bundled_size=made.bundled_size,
    parts=tuple(Part(filename=part.filename, sha1=part.sha1) for part in made.parts),
)
unbundle(manifest, lambda index: open(made.parts[index].filename, "rb"), key, Path("image"))
{PEAK}"""
PYTHON = f"""
import hashlib, sys, tarfile, zlib
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
cipher = Cipher(algorithms.AES(bytes.fromhex("{KEY}")), modes.CBC(bytes.fromhex("{IV}"))).encryptor()
member = tarfile.TarInfo("image")
image = open(sys.argv[1], "rb")
member.size = image.seek(0, 2)
image.seek(0)
sha1, pack, rest, number = hashlib.sha1(), zlib.compressobj(6, wbits=31), bytearray(), 0
def cut(size):
    global number
    with open(f"image.part.{{number:02d}}", "wb") as part:
        part.write(rest[:size])
    hashlib.sha1(rest[:size]).hexdigest()
    del rest[:size]
    number += 1
def put(data):
    rest.extend(cipher.update(data))
    while len(rest) >= 10 << 20:
        cut(10 << 20)
length = 0
def add(data):
    global length
    sha1.update(data)
    data = pack.compress(data)
    length += len(data)
    put(data)
add(member.tobuf(tarfile.GNU_FORMAT))
while data := image.read(1 << 20):
    add(data)
add(bytes(-member.size % 512 + 1024))
data = pack.flush()
padding = 16 - (length + len(data)) % 16
put(data + bytes([padding]) * padding)
cut(10 << 20)
"""
SHA1 = """
import hashlib, sys
sha1 = hashlib.sha1()
with open(sys.argv[1], "rb") as image:
    while data := image.read(1 << 20):
        sha1.update(data)
"""


@dataclass(kw_only=True)
class Subject:
    """A command in a directory of its own, and what its runs took: seconds of wall and CPU time, MB of memory."""

    name: str
    command: Sequence[str | Path]
    directory: Path
    rounds: int = ROUNDS
    output: str = "image.part.*"  # removed before each run
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: float = 0
    taken: float = 0  # MB on the disk, of the image that came back

    def measure(self) -> None:
        """Run the command once, unless it has had its rounds."""
        if len(self.wall) == self.rounds:
            return
        self.directory.mkdir(exist_ok=True)
        for old in self.directory.glob(self.output):
            old.unlink()
        os.sync()  # what another has written must not slow this one down
        before, began = os.times(), time.monotonic()
        done = subprocess.run(
            self.command,
            cwd=self.directory,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        self.wall.append(time.monotonic() - began)
        after = os.times()
        self.cpu.append(after.children_user - before.children_user + after.children_system - before.children_system)
        if told := re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE):
            self.peak = max(self.peak, int(told[1]) * 1024 / MB)

    @property
    def seconds(self) -> float:
        """The median of its wall times."""
        return statistics.median(self.wall)

    @property
    def size(self) -> int:
        """The bytes of its parts."""
        return sum(path.stat().st_size for path in self.directory.glob("image.part.*") if path.suffix != ".sha1")


def main() -> int:
    """Print the tables; return 1 when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, help="a raw partition; by default the demo's")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--short", action="store_true", help="the first 96 MiB, one round")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the directory is removed
    with tempfile.TemporaryDirectory(prefix="emi-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        image = prepare(chosen.image, directory, short=chosen.short)
        rounds = 1 if chosen.short else chosen.rounds
        bundlers = bundling(image, rounds)
        unbundlers = unbundling(bundlers[0].directory, image, rounds)
        classic = subprocess.run(
            ["bash", "-c", f"tar -c -C {image.parent} image | gzip -6 | wc -c"], capture_output=True, check=True
        )
        found = report(bundlers, unbundlers, int(classic.stdout))
        found["of the image's data written by unbundle"] = unbundlers[0].taken * MB / (image.stat().st_blocks * 512)
    broken = [f"{value:.3f} {name}, and the limit is {LIMITS[name]:.3f}" for name, value in found.items()
              if value > LIMITS[name]]  # fmt: skip
    print("\n".join(["", *broken]) if broken else "\nall limits are kept")
    return 1 if broken else 0


def prepare(given: Path | None, directory: Path, *, short: bool) -> Path:
    """Return the image as a sparse raw file named `image`: the demo's root partition, or a part of what is given."""
    target = directory / "source" / "image"
    target.parent.mkdir()
    with open_image(given or demo_image(), "raw") as disk:
        offset, size = 0, disk.virtual_size
        if given is None:
            place = find(Layout.of(disk), Wanted(partition=1))
            assert place is not None
            offset, size = place.offset, place.size
        part = window(disk, offset, min(size, SHORT) if short else size)
        write_sparse(part, target)
    data = target.stat().st_blocks * 512
    print(
        f"{target.stat().st_size / MB:.0f} MB image, {data / MB:.0f} MB of it data;"
        f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    return target


def bundling(image: Path, rounds: int) -> list[Subject]:
    """Measure every way to make a bundle, in turns, and read back what it made."""
    directory = image.parents[1]
    python = [sys.executable, "-c"]

    def classic(options: str, gzip: str) -> list[str | Path]:
        return ["bash", "-c", CLASSIC.format(options=options, directory=image.parent, gzip=gzip)]

    made = [
        ("emi, fast", [*python, BUNDLE, image, "fast"], rounds),
        ("emi, small", [*python, BUNDLE, image, "small"], rounds),
        ("pigz", classic("", "pigz -c"), rounds),
        ("gzip -9", classic("-h -S --owner 0 --group 0", "gzip -9 -c"), 1),
        ("Python, zlib", [*python, PYTHON, image], 1),
        ("SHA-1 of it alone", [*python, SHA1, image], rounds),
    ]
    everyone = [
        Subject(name=name, command=command, directory=directory / f"bundle{number}", rounds=times)
        for number, (name, command, times) in enumerate(made)
    ]
    for _ in range(rounds):
        for subject in everyone:
            subject.measure()
    for subject in everyone[:-1]:
        check = f"set -o pipefail; rm -f *.sha1; {DECRYPT} | tar -xOf - | cmp - {image}"
        subprocess.run(["bash", "-c", check], cwd=subject.directory, check=True)
    return everyone


def unbundling(bundle: Path, image: Path, rounds: int) -> list[Subject]:
    """Measure the ways back from emi's bundle, in turns, and compare what comes out."""
    digest = "set -e -o pipefail; {} | tee >(sha1sum >tar.sha1) | tar -x"
    ways = [
        ("emi, verified", [sys.executable, "-c", UNBUNDLE]),
        ("classic", ["bash", "-c", f"set -o pipefail; {DECRYPT} | tar -x"]),
        ("classic with SHA-1", ["bash", "-c", digest.format(DECRYPT)]),
    ]
    everyone = [
        Subject(name=name, command=command, directory=bundle, rounds=rounds, output="image") for name, command in ways
    ]
    for number in range(rounds):
        for subject in everyone:
            subject.measure()
            out = bundle / "image"
            if number == 0:
                subprocess.run(["cmp", image, out], check=True)
            subject.taken = out.stat().st_blocks * 512 / MB
    return everyone


def report(bundlers: list[Subject], unbundlers: list[Subject], gzip6: int) -> dict[str, float]:
    """Print the tables and return what limits are held against."""
    fast, small, pigz, *_ = bundlers
    print(f"\n{'':20}{'wall s':>8}{'CPU s':>8}{'x pigz':>8}{'parts MB':>10}{'x gzip -6':>10}{'peak MB':>9}")
    for one in bundlers:
        size = f"{one.size / MB:10.1f}{one.size / gzip6:10.3f}" if one.size else " " * 20
        print(
            f"{one.name:20}{one.seconds:8.2f}{statistics.median(one.cpu):8.2f}{one.seconds / pigz.seconds:8.3f}"
            f"{size}{one.peak or float('nan'):9.0f}"
        )
    print(f"gzip -6 of the tar: {gzip6 / MB:.1f} MB")
    ours, classic, _ = unbundlers
    print(f"\n{'and back':20}{'wall s':>8}{'CPU s':>8}{'x classic':>10}{'peak MB':>9}{'MB taken':>10}")
    for one in unbundlers:
        print(
            f"{one.name:20}{one.seconds:8.2f}{statistics.median(one.cpu):8.2f}{one.seconds / classic.seconds:10.3f}"
            f"{one.peak or float('nan'):9.0f}{one.taken:10.0f}"
        )
    return {
        "of pigz' wall time": fast.seconds / pigz.seconds,
        "of gzip -6's size, fast": fast.size / gzip6,
        "of gzip -6's size, small": small.size / gzip6,
        "of the classic unbundle's wall time": ours.seconds / classic.seconds,
        "MB of memory": max(one.peak for one in (fast, small, ours)),
    }


if __name__ == "__main__":
    sys.exit(main())
