"""Kill -9 within a group of guest steps, then resume: the disk below untouched, no process left, the same guest."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from builder import proc
from builder.image.raw import window
from builder.image.write import write_sparse
from pipelines.artifact import ImageFile
from pipelines.store import FileStore

RECIPE = """
name: guest
vars:
  n: {type: int}
  disk: {type: string}
steps:
  - download: {url: "file://{disk}"}
  - label: {label: "root-{n}"}
  - fstab:
  - files:
      entries:
        - {path: /etc/motd, content: "made by {n}", mode: "0600"}
        - {path: /data, delete: true}
outputs:
  image: files
"""
GONE_WITHIN = 30  # seconds for libguestfs to end the appliance of a process that was killed
START = 1 << 20  # of the disk's root


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The recipe, to be run under any number; the appliances of its runs are known by their directory."""

    emi: Any
    recipe: Path
    disk: Path
    place: Path

    def words(self, number: int) -> tuple[str, ...]:
        return ("--var", f"disk={self.disk}", "--var", f"n={number}")

    @property
    def scratch(self) -> dict[str, str]:
        """The variables for a directory of our own, but for the appliance, which takes seconds to make."""
        shared = os.environ.get("LIBGUESTFS_CACHEDIR") or os.environ.get("TMPDIR") or "/var/tmp"
        return {"TMPDIR": str(self.place), "LIBGUESTFS_CACHEDIR": shared}

    def run(self, number: int, **environment: str) -> dict[str, Any]:
        return self.emi.run(self.recipe, *self.words(number), **self.scratch, **environment)

    def survives(self, number: int, point: str) -> None:
        """Kill a run at that moment, look, resume it, and look again."""
        below = sha256(self.disk.read_bytes()).digest()
        cut = self.emi("run", self.recipe, *self.words(number), EMI_CRASH_AT=point, **self.scratch)
        assert cut.code == -9, (point, cut.err)
        assert sha256(self.disk.read_bytes()).digest() == below, point
        assert not self.left(), point
        again = ("resume",) if number % 2 else ("run", self.recipe, *self.words(number))
        resumed = self.emi(*again, "--json", **self.scratch)
        assert resumed.code == 0, (point, resumed.err)
        self.look(number, resumed.last())
        assert sha256(self.disk.read_bytes()).digest() == below, point
        assert not list((self.emi.home / "scratch").glob("*")), point

    def look(self, number: int, last: dict[str, Any]) -> None:
        """Expect all edits in the guest, each once."""
        group = next(step for step in json.loads(Path(last["report"]).read_text())["steps"] if " + " in step["step"])
        assert group["step"] == "label + fstab + files"
        image, root = ImageFile(**last["outputs"]["image"]), self.place / f"root-{number}"
        with FileStore(self.emi.home / "store" / "objects").open_image(image) as reader:
            write_sparse(window(reader, START, reader.virtual_size - 2 * START), root)
        assert read(root, "/etc/fstab") == f"# tiny\nLABEL=root-{number} / ext4 defaults 0 1\n"
        assert read(root, "/etc/motd") == f"made by {number}"
        assert "Mode:  0600" in debugfs(root, "stat /etc/motd")
        assert "data" not in debugfs(root, "ls -p /")
        assert f"Filesystem volume name:   root-{number}\n" in debugfs(root, "show_super_stats -h")
        proc.run(["e2fsck", "-fn", root])
        root.unlink()

    def left(self) -> list[str]:
        """Return what runs of the appliance when it has had its time to end."""
        deadline = time.monotonic() + GONE_WITHIN
        while (running := list(self._running())) and time.monotonic() < deadline:
            time.sleep(0.2)
        return running

    def _running(self) -> Iterable[str]:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            if os.fsencode(self.place) in command:
                yield command.replace(b"\0", b" ").decode(errors="replace")


def read(image: Path, path: str) -> str:
    return debugfs(image, f"cat {path}")


def debugfs(image: Path, request: str) -> str:
    return proc.run(["debugfs", "-R", request, image]).stdout.decode()


@pytest.fixture
def guest(emi, tiny_disk, tmp_path, tmp_path_factory) -> Subject:
    recipe = tmp_path / "guest.yaml"
    recipe.write_text(RECIPE)
    # A short name: sockets are made in it.
    return Subject(emi=emi, recipe=recipe, disk=tiny_disk, place=tmp_path_factory.mktemp("k"))


@pytest.mark.sweep
def test_a_kill_while_the_appliance_launches(guest) -> None:
    # The cheapest moment, as it waits for one launch only; the sweep below has all of those that come after one.
    guest.survives(1, "after journal:intent@2")


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_every_point(guest, tmp_path) -> None:
    log = tmp_path / "points"
    guest.look(0, guest.run(0, EMI_CRASH_LOG=str(log)))
    points = [point for point in dict.fromkeys(log.read_text().splitlines()) if point.startswith("guest.")]
    assert len(points) >= 9, points
    for number, point in enumerate(points, 1):
        guest.survives(number, point)
