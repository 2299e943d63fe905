"""`fstab` and `label` on a real image under TCG: emi's lean session beside one virt-customize call with the same edits.

    python bench/guest_session.py [IMAGE.raw]        (default: the demo's, as bench/snapshot.py finds it)

    ahead      the appliance launches while the image is still coming (a copy paced like a download); what is left of
               the launch when the image is there, and the edits after that
    cold       the same edits with the launch waited for
    customize  virt-customize --edit --run-command on an overlay of the same image

Ways take turns, medians count. The edits are checked: every way must end with the same label and the same root entry.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from snapshot import demo_image

from builder.guest.edit import Plan, edit_image
from builder.guest.facts import GuestFacts
from builder.guest.guest import Guest
from builder.guest.overlay import Layer, create
from builder.guest.session import Session
from pipelines.steps.fstab import Fstab, FstabOptions
from pipelines.steps.label import Label, LabelOptions

ROUNDS = 3
EDITS_LIMIT = 4.0  # seconds after the launch
RATE = 50_000_000  # bytes/s of the download that the launch hides behind
LABEL = "emi-bench"
SLOW = ("inspect_os", "read_file", "cat", "download", "list_filesystems", "command", "sh")


@dataclass(kw_only=True)
class Took:
    """Seconds of one way, round by round."""

    launch: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    edits: list[float] = field(default_factory=list)
    edits_cpu: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


def label(facts: GuestFacts):
    return Label().edits(LabelOptions(label=LABEL), facts, {})


def fstab(facts: GuestFacts):
    return Fstab().edits(FstabOptions(), facts, {})


PLANS = [Plan(decide=label), Plan(decide=fstab)]


def paced_copy(source: Path, target: Path, rate: int) -> None:
    """Copy what is no hole, no faster than `rate` bytes/s: a download, without the network."""
    began, moved = time.monotonic(), 0
    with open(source, "rb") as reading, open(target, "wb") as writing:
        size = source.stat().st_size
        writing.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(reading.fileno(), at, os.SEEK_HOLE)
            while at < end:
                chunk = os.pread(reading.fileno(), min(1 << 20, end - at), at)
                os.pwrite(writing.fileno(), chunk, at)
                at += len(chunk)
                moved += len(chunk)
                time.sleep(max(0.0, began + moved / rate - time.monotonic()))


def emi(image: Path, target: Path, took: Took, before: Callable[[], Path] | None) -> Session:
    """Run the two steps; `before` is what happens while the appliance launches, and returns the image."""
    began, children = time.monotonic(), cpu_of_children()
    session = Session()
    base = before() if before else image
    waiting = time.monotonic()
    took.launch.append(session.launched())
    ready, launching = time.monotonic(), cpu_of(session)
    outcomes = edit_image(
        Layer(path=base, format="raw"), target, PLANS, backing_name=str(base.absolute()), session=session
    )
    done = time.monotonic()
    assert all(outcome.edits for outcome in outcomes), [str(outcome) for outcome in outcomes]
    took.waited.append(ready - waiting)
    took.edits.append(done - ready)
    took.edits_cpu.append(cpu_of_children() - children - launching)
    took.whole.append(done - began)
    return session


def cpu_of(session: Session) -> float:
    """Return the seconds of CPU that the appliance has used."""
    fields = Path(f"/proc/{session._pid}/stat").read_text().rpartition(")")[2].split()  # noqa: SLF001 - proc(5) 14, 15
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_children() -> float:
    """Return the seconds of CPU of all processes that were ours and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def customize(image: Path, target: Path, took: Took, root: str) -> None:
    """Make the same edits with virt-customize: perl on the fstab, e2label in the guest."""
    create(Layer(path=image, format="raw"), target, backing_name=str(image.absolute()))
    words = ["virt-customize", "-q", "--no-network", "--smp", "2", "--format", "qcow2", "-a", str(target)]
    words += ["--edit", rf"/etc/fstab: s,^\S+(\s+/\s),LABEL={LABEL}$1,", "--run-command", f"e2label {root} {LABEL}"]
    environment = {**os.environ, "LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    began = time.monotonic()
    subprocess.run(words, check=True, env=environment)
    took.whole.append(time.monotonic() - began)


def result_of(base: Path, overlay: Path) -> tuple[str, str, str]:
    """Return the root's device, its label and what the fstab's root entry names."""
    with Session() as session:
        session.attach(Layer(path=overlay, format="qcow2", beneath=Layer(path=base, format="raw")))
        facts = Guest(session)
        root = facts.filesystem(facts.root)
        assert root is not None
        lines = [line.split() for line in facts.text("/etc/fstab").splitlines() if line.split()[1:2] == ["/"]]
        return root.device, root.label, lines[0][0]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("image", nargs="?", type=Path, help="a raw disk; by default the demo's")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    image: Path = arguments.image or demo_image()
    ways = {name: Took() for name in ("ahead", "cold", "customize")}
    session = None
    with tempfile.TemporaryDirectory(prefix="emi-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        probe = create(Layer(path=image, format="raw"), directory / "probe", backing_name=str(image))
        root, _, _ = result_of(image, probe.path)
        for turn in range(arguments.rounds):
            copy = directory / "copy.raw"

            def download(copy: Path = copy) -> Path:
                paced_copy(image, copy, RATE)
                return copy

            results = {}
            target = directory / f"{turn}.qcow2"
            emi(image, target, ways["ahead"], download)
            results["ahead"] = result_of(copy, target)
            target.unlink()
            copy.unlink()
            session = emi(image, target, ways["cold"], None)
            results["cold"] = result_of(image, target)
            target.unlink()
            customize(image, target, ways["customize"], root)
            results["customize"] = result_of(image, target)
            target.unlink()
            assert set(results.values()) == {(root, LABEL, f"LABEL={LABEL}")}, results
    assert session is not None
    return report(ways, session)


def report(ways: dict[str, Took], session: Session) -> int:
    """Print the figures; the exit status says whether a limit was broken."""
    median = statistics.median
    ahead, cold, peer = ways["ahead"], ways["cold"], ways["customize"]
    print(f"{'':12}{'launch s':>10}{'waited s':>10}{'edits s':>10}{'CPU s':>10}{'whole s':>10}")
    for name, took in (("ahead", ahead), ("cold", cold)):
        figures = (took.launch, took.waited, took.edits, took.edits_cpu, took.whole)
        print(f"{name:12}" + "".join(f"{median(values):10.2f}" for values in figures))
    print(f"{'customize':12}{'':40}{median(peer.whole):10.2f}")
    print(f"launch hidden behind the download: {1 - median(ahead.waited) / median(ahead.launch):.0%}")
    seen = median(ahead.waited) + median(ahead.edits)
    print(
        f"added to the run: {seen:.2f} s, {seen / median(peer.whole):.2f} of virt-customize; cold "
        f"{median(cold.whole) / median(peer.whole):.2f}"
    )
    print("calls of a cold session:")
    for name, seconds in sorted(session.seconds.items(), key=lambda pair: -pair[1]):
        print(f"  {name:20}{session.calls[name]:4}{seconds:9.3f} s")
    slow = [name for name in SLOW if session.calls[name]]
    edits = median([*ahead.edits, *cold.edits])
    print(f"edits after launch {edits:.2f} s (limit {EDITS_LIMIT:g}); slow calls: {slow or 'none'}")
    return int(edits > EDITS_LIMIT or bool(slow))


if __name__ == "__main__":
    sys.exit(main())
