"""Guest work on a real image under TCG, beside virt-customize and virt-sysprep with the same edits.

    python bench/guest.py [IMAGE.raw] [--only lean|ten|sysprep] [--rounds N]      (default: the demo's image)

    lean       one session: fstab, label, cloud-init, kernel and initramfs out, three files, fstrim. The time after the
               launch, wall and CPU of the appliance, and its calls; and what is left of the launch to wait for when it
               began beside a download of the image
    ten        ten guest steps in one recipe, by `emi run` with its download and store; one virt-customize call with all
               ten; ten calls with one each. Launches are counted by a qemu that says when it boots a kernel
    sysprep    `sysprep` and virt-sysprep with the operations that both have, on an image with something to remove

Every way must end in the same state, which is looked at. Medians are shown where there are rounds;
the limit is held by the best of them, since the other work of a machine only slows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snapshot import demo_image

from builder.guest.edit import Plan, edit_image
from builder.guest.edits import CopyOut, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.guest import Exchange, Guest
from builder.guest.overlay import Layer, create
from builder.guest.session import Session
from builder.guest.sysprep import Operation
from pipelines.steps.cloud_init import CloudInit, CloudInitOptions
from pipelines.steps.fstab import Fstab, FstabOptions
from pipelines.steps.kernel import Kernel, KernelOptions
from pipelines.steps.label import Label, LabelOptions
from pipelines.steps.sysprep import Sysprep, SysprepOptions

EDITS_LIMIT = 4.0  # seconds after the launch of a lean session
IDLE_LAUNCH = 8.0  # seconds of a launch on an idle machine with 2 cores; a slower one tells how busy the machine is
RATE = 50_000_000  # bytes/s of the download that the launch hides behind
LABEL = "emi-bench"
SLOW = ("inspect_os", "read_file", "cat", "download", "list_filesystems", "command", "sh", "is_file", "is_symlink")
EMI = Path(sys.executable).parent / "emi"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIkKSXVw7sSUl0NRS0wO5ArafowQ69c5MMwHyJVg0qMG bench"
TCG = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}  # as a Session does by itself here

LEAN: Sequence[Plan] = (
    Plan(decide=lambda facts: Label().edits(LabelOptions(label=LABEL), facts, {})),
    Plan(decide=lambda facts: Fstab().edits(FstabOptions(), facts, {})),
    Plan(decide=lambda facts: CloudInit().edits(CloudInitOptions(datasources=("Ec2", "None")), facts, {})),
    Plan(decide=lambda facts: Kernel().edits(KernelOptions(), facts, {})),
    Plan(decide=lambda _: [WriteFile(path=f"/etc/bench/{name}", data=b"x\n" * 50) for name in "abc"]),
)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edit in both languages, and how it is seen to be done. ROOT-UUID in a word is the root's."""

    step: str
    words: tuple[str, ...]
    done: Callable[[GuestFacts], bool]


# The fstab first, and by UUID: between two virt-customize calls it must be right, or the second finds no root.
TEN: Sequence[Edit] = (
    Edit(
        step="fstab: {by: uuid}",
        words=("--edit", r"/etc/fstab: s,^\S+(\s+/\s),UUID=ROOT-UUID$1,"),
        done=lambda facts: f"\nUUID={facts.filesystem(facts.root).uuid} / " in "\n" + facts.text("/etc/fstab"),
    ),
    Edit(
        step=f"label: {{label: {LABEL}}}",
        # By UUID: in virt-customize's appliance the disk is not /dev/sda each time.
        words=("--run-command", f"e2label $(blkid -U ROOT-UUID) {LABEL}"),
        done=lambda facts: facts.filesystem(facts.root).label == LABEL,
    ),
    Edit(
        step="cloud-init: {datasources: [Ec2, None]}",
        words=("--write", "/etc/cloud/cloud.cfg.d/99-emi-ec2.cfg:datasource_list: [ Ec2, None ]\n"),
        done=lambda facts: "datasource_list" in facts.text("/etc/cloud/cloud.cfg.d/99-emi-ec2.cfg"),
    ),
    Edit(
        step="users: {create: [{name: bench, groups: [adm]}]}",
        words=("--run-command", "useradd -m -s /bin/bash -G adm bench"),
        done=lambda facts: "\nbench:" in facts.text("/etc/passwd") and facts.exists("/home/bench/.profile"),
    ),
    Edit(
        step=f"ssh-keys: {{user: bench, keys: ['{KEY}']}}",
        words=("--ssh-inject", f"bench:string:{KEY}"),
        done=lambda facts: KEY in facts.text("/home/bench/.ssh/authorized_keys"),
    ),
    Edit(
        step="users: {lock: [root]}",
        words=("--run-command", "passwd -q -l root"),
        done=lambda facts: facts.text("/etc/shadow").startswith(("root:!", "root:*")),
    ),
    Edit(
        step="files: {entries: [{path: /etc/bench/a, content: one}, {path: /etc/bench/b, content: two}]}",
        words=("--mkdir", "/etc/bench", "--write", "/etc/bench/a:one", "--write", "/etc/bench/b:two"),
        done=lambda facts: facts.text("/etc/bench/a") + facts.text("/etc/bench/b") == "onetwo",
    ),
    Edit(
        step="files: {entries: [{path: /etc/motd, delete: true}]}",
        words=("--delete", "/etc/motd"),
        done=lambda facts: not facts.exists("/etc/motd"),
    ),
    Edit(
        step="run: {command: 'mkdir -p /etc/bench; echo here >/etc/bench/here'}",
        words=("--run-command", "mkdir -p /etc/bench; echo here >/etc/bench/here"),
        done=lambda facts: facts.text("/etc/bench/here") == "here\n",
    ),
    Edit(
        step="sysprep: {only: [machine-id]}",
        words=("--truncate", "/etc/machine-id"),
        done=lambda facts: facts.read("/etc/machine-id") in (None, b"", b"uninitialized\n"),
    ),
)

# Operations that both have: ours, theirs, and a file that is gone or empty afterwards.
OPERATIONS: Sequence[tuple[Operation, str, str]] = (
    ("machine-id", "machine-id", "/etc/machine-id"),
    ("history", "bash-history", "/root/.bash_history"),
    ("logs", "logfiles", "/var/log/dmesg"),
    ("dhcp-leases", "dhcp-client-state", "/var/lib/dhcp/dhclient.eth0.leases"),
    ("udev-persistent-net", "udev-persistent-net", "/etc/udev/rules.d/70-persistent-net.rules"),
    ("passwd-backups", "passwd-backups", "/etc/passwd-"),
    ("mail-spool", "mail-spool", "/var/spool/mail/root"),
    ("crash-dumps", "crash-data", "/var/crash/dump"),
    ("tmp-files", "tmp-files", "/tmp/left"),
    ("package-cache", "package-manager-cache", "/var/cache/apt/archives/left_1_all.deb"),
    ("blkid-cache", "blkid-tab", "/etc/blkid.tab"),
)


def timed(words: Sequence[str | Path], **environment: str) -> float:
    """Run a program that must succeed, and return its seconds."""
    began = time.monotonic()
    done = subprocess.run(words, env={**os.environ, **TCG, **environment}, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{words[0]} failed:\n{done.stderr}{done.stdout[-2000:]}")
    return time.monotonic() - began


@contextmanager
def looked_at(*layers: Layer) -> Iterator[Guest]:
    """Open the guest of the last layer."""
    with Session() as session:
        session.attach(layers[-1])
        yield Guest(session)


def over(image: Layer, target: Path) -> Layer:
    """Make an empty layer over an image."""
    return create(image, target, backing_name=str(image.path.absolute()))


def cpu_of(session: Session) -> float:
    """Return the seconds of CPU that the appliance has used."""
    fields = Path(f"/proc/{session._pid}/stat").read_text().rpartition(")")[2].split()  # noqa: SLF001 - proc(5) 14, 15
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def paced_copy(source: Path, target: Path) -> None:
    """Copy what is no hole, no faster than RATE: a download, without the network."""
    began, moved, at, size = time.monotonic(), 0, 0, source.stat().st_size
    with open(source, "rb") as reading, open(target, "wb") as writing:
        writing.truncate(size)
        while at < size:
            try:
                at = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(reading.fileno(), at, os.SEEK_HOLE)
            while at < end:
                chunk = os.pread(reading.fileno(), min(1 << 20, end - at), at)
                os.pwrite(writing.fileno(), chunk, at)
                at, moved = at + len(chunk), moved + len(chunk)
                time.sleep(max(0.0, began + moved / RATE - time.monotonic()))


@dataclass(frozen=True, kw_only=True)
class Lean:
    """One lean session, in seconds."""

    launch: float
    waited: float
    edits: float
    cpu: float
    session: Session


def lean_session(image: Layer, place: Path, before: Callable[[], None] = lambda: None) -> Lean:
    """Make the lean edits; `before` is what happens while the appliance launches."""
    exports = place / "exports"
    exports.mkdir()
    session = Session()
    before()
    waiting = time.monotonic()
    launch = session.launched()
    ready, cpu = time.monotonic(), cpu_of(session)
    used: list[float] = []
    last = Plan(decide=lambda _: [*(used.append(cpu_of(session)) or ()), WriteFile(path="/etc/bench/d", data=b"")])
    target = place / "lean.qcow2"
    outcomes = edit_image(
        image, target, [*LEAN, last], backing_name=str(image.path), exchange=Exchange(exports=exports), session=session
    )
    edits = time.monotonic() - ready
    assert all(outcome.edits for outcome in outcomes), [str(outcome) for outcome in outcomes]
    copied = [edit for outcome in outcomes for edit in outcome.edits if isinstance(edit, CopyOut)]
    assert sorted(edit.name for edit in copied) == sorted(path.name for path in exports.iterdir())
    assert all(path.stat().st_size > 1 << 20 for path in exports.iterdir())
    target.unlink()
    shutil.rmtree(exports)
    return Lean(launch=launch, waited=ready - waiting, edits=edits, cpu=used[0] - cpu, session=session)


def lean(image: Path, place: Path, rounds: int) -> bool:
    """Measure lean sessions; return whether they kept the limit."""
    copy = place / "copy.raw"
    base = Layer(path=image, format="raw")
    cold = [lean_session(base, place) for _ in range(rounds)]
    ahead = lean_session(Layer(path=copy, format="raw"), place, lambda: paced_copy(image, copy))
    copy.unlink()
    best = min(cold, key=lambda one: one.edits)
    edits, launch = (statistics.median(getattr(one, name) for one in cold) for name in ("edits", "launch"))
    print("lean session: label, fstab, cloud-init, kernel and initramfs out, 4 files, fstrim")
    print(
        f"  launch {launch:.2f} s; after it {edits:.2f} s, best {best.edits:.2f} s ({edits / launch:.2f} of the launch)"
    )
    print(f"  CPU of the appliance until the last file {statistics.median(one.cpu for one in cold):.2f} s")
    print(f"  launched beside a download: waited {ahead.waited:.2f} s of {ahead.launch:.2f} s")
    for name, seconds in sorted(best.session.seconds.items(), key=lambda pair: -pair[1])[:12]:
        print(f"    {name:20}{best.session.calls[name]:4}{seconds:9.3f} s")
    slow = [name for name in SLOW if best.session.calls[name]]
    limit = EDITS_LIMIT * max(1, best.launch / IDLE_LAUNCH)
    print(f"  limit {EDITS_LIMIT:g} s where a launch takes {IDLE_LAUNCH:g} s, so {limit:.1f} s here")
    print(f"  slow calls: {', '.join(slow) or 'none'}")
    return best.edits <= limit and not slow


def counting_qemu(place: Path) -> tuple[Path, Path]:
    """Make a qemu that notes each start of an appliance; return it and its notes."""
    notes, program = place / "launches", place / "qemu"
    real = shutil.which("qemu-system-x86_64")
    program.write_text(f'#!/bin/sh\ncase " $* " in *" -kernel "*) echo >>{notes};; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    return program, notes


def launches(notes: Path) -> int:
    """Return how many launches were noted, and forget them."""
    count = len(notes.read_text().splitlines()) if notes.exists() else 0
    notes.unlink(missing_ok=True)
    return count


def ten(image: Path, place: Path) -> bool:
    """Ten edits, three ways; return whether one launch did for the recipe."""
    qemu, notes = counting_qemu(place)
    hv = {"LIBGUESTFS_HV": str(qemu)}
    base = Layer(path=image, format="raw")
    with looked_at(over(base, place / "probe.qcow2")) as guest:
        uuid = guest.filesystem(guest.root).uuid
    words = [[word.replace("ROOT-UUID", uuid) for word in edit.words] for edit in TEN]
    recipe = place / "ten.yaml"
    steps = "".join(f"  - {edit.step}\n" for edit in TEN)
    recipe.write_text(f"name: ten\nsteps:\n  - download: {{url: 'file://{image}'}}\n{steps}")
    home = place / "home"
    whole = timed([EMI, "run", recipe, "--json"], EMI_HOME=str(home), **hv)
    timed([EMI, "sandbox", "stop"], EMI_HOME=str(home))
    ours = launches(notes)
    (report,) = (json.loads(path.read_text()) for path in home.glob("runs/*/report.json"))
    guest_step = report["steps"][-1]
    _, _, digest = guest_step["result"]["digest"].partition(":")
    (result,) = home.glob(f"store/objects/*/*{digest}")
    check(Layer(path=result, format="qcow2", beneath=base), "emi")
    inside = guest_step["seconds"]
    print("ten guest steps                       launches      whole s")
    print(f"  one recipe, by emi run              {ours:8}{whole:13.1f}   its guest steps {inside:.1f} s", flush=True)
    customize = ["virt-customize", "-q", "--no-network", "--smp", "2", "--format", "qcow2", "-a"]
    at_once = over(base, place / "at-once.qcow2")
    one = timed([*customize, at_once.path, *(word for each in words for word in each)], **hv)
    check(at_once, "virt-customize")
    once = launches(notes)
    print(f"  one virt-customize with all ten     {once:8}{one:13.1f}", flush=True)
    by_one = over(base, place / "by-one.qcow2")
    every = []
    for each in words:
        every.append(timed([*customize, by_one.path, *each], **hv))
        print(f"    {' '.join(each)[:60]:60}{every[-1]:6.1f}", flush=True)
    check(by_one, "ten virt-customize calls")
    print(f"  ten virt-customize calls            {launches(notes):8}{sum(every):13.1f}")
    single = sum(every)
    print(f"  emi run, with a download and a store besides: {whole / one:.2f} of one call, {whole / single:.2f} of ten")
    print(
        f"  its guest steps, launched beside the download: {inside / one:.2f} of one call, {inside / single:.2f} of ten"
    )
    shutil.rmtree(home)
    return ours == 1


def check(layer: Layer, who: str) -> None:
    """End the benchmark when one of the ten edits was not made."""
    with looked_at(layer) as guest:
        if missing := [edit.step for edit in TEN if not edit.done(guest)]:
            sys.exit(f"{who} did not do: {missing}")


def sysprep(image: Path, place: Path) -> bool:
    """Remove the same with both."""
    base = Layer(path=image, format="raw")
    dirty = Layer(path=place / "dirty.qcow2", format="qcow2", beneath=base)
    files = [WriteFile(path=path, data=b"left\n" * 100) for _, _, path in OPERATIONS]
    edit_image(base, dirty.path, [Plan(decide=lambda _: files)], backing_name=str(image))
    options = SysprepOptions(only=tuple(name for name, _, _ in OPERATIONS))
    session = Session()
    launch = session.launched()
    began = time.monotonic()
    ours = place / "sysprep.qcow2"
    plan = Plan(decide=lambda facts: Sysprep().edits(options, facts, {}))
    edit_image(dirty, ours, [plan], backing_name=str(dirty.path), session=session)
    edits = time.monotonic() - began
    gone(Layer(path=ours, format="qcow2", beneath=dirty), "sysprep")
    theirs = over(dirty, place / "virt-sysprep.qcow2")
    operations = ",".join(name for _, name, _ in OPERATIONS)
    peer = timed(["virt-sysprep", "-q", "--no-network", "--format", "qcow2", "-a", theirs.path,
                  "--operations", operations])  # fmt: skip
    gone(theirs, "virt-sysprep")
    print(f"{len(OPERATIONS)} operations of sysprep, launch included")
    print(f"  emi           {launch + edits:6.1f} s, of which {edits:.1f} s after the launch")
    print(f"  virt-sysprep  {peer:6.1f} s; emi {(launch + edits) / peer:.2f} of it")
    return launch + edits <= peer


def gone(layer: Layer, who: str) -> None:
    """End the benchmark when something is left."""
    with looked_at(layer) as guest:
        if left := [path for _, _, path in OPERATIONS if (guest.read(path) or b"").startswith(b"left")]:
            sys.exit(f"{who} left {left}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("image", nargs="?", type=Path, help="a raw disk; by default the demo's")
    parser.add_argument("--rounds", type=int, default=3, help="of lean sessions")
    parser.add_argument("--only", choices=("lean", "ten", "sysprep"))
    arguments = parser.parse_args()
    image: Path = (arguments.image or demo_image()).resolve()
    kept = []
    print(f"load of the machine: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="emi-bench-", dir="/var/tmp") as name:
        place = Path(name)
        if arguments.only in (None, "lean"):
            kept.append(lean(image, place, arguments.rounds))
        if arguments.only in (None, "ten"):
            kept.append(ten(image, place))
        if arguments.only in (None, "sysprep"):
            kept.append(sysprep(image, place))
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
