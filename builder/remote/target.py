"""A device or file on another machine that is to become an image: surveyed, written, read back, by Python or by sh."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import zstandard
from isal import igzip

from builder.digest import BLOCK
from builder.errors import DeviceDoubtful, DeviceMoved, RemoteError, RemoteFailed, WriteLost
from builder.remote import scripts
from builder.remote.abilities import Abilities
from builder.remote.command import Running, Shell
from builder.remote.listing import read

COARSE = 4 << 20  # bytes; sh needs three processes for each grain, so they are larger there
_SURVEY_TIME = 4 * 3600  # seconds for one survey: 1 TiB at 75 MB/s
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the image goes: `size` bytes of `path`, in grains of `grain` bytes."""

    path: str
    size: int
    root: bool  # only root may write it
    device: bool
    new: bool  # a file that was not there before
    abilities: Abilities
    mark: str = ""  # what its name means in this boot (scripts.MARK): nothing is done to it under another meaning

    @classmethod
    def prepare(cls, shell: Shell, abilities: Abilities, path: str, size: int) -> Self:
        """Look at the device, or make the file and give it its size; nothing is written to a device.

        Raises RemoteError (too small), DeviceDoubtful (in use), RemoteDenied, RemoteFailed.
        """
        quoted = shlex.quote(path)
        test = f"if [ -e {quoted} ]; then test -w {quoted}; else test -w {shlex.quote(str(Path(path).parent))}; fi"
        root = abilities.uid != 0 and shell.script(test, allowed=(0, 1), timeout=60).status == 1
        said = shell.script(_call(scripts.PREPARE, path, str(size)), root=root, timeout=60, shown=f"a look at {path}")
        *before, last = said.stdout.decode(errors="replace").splitlines()
        kind, room, name = last.split()
        if kind == "device":
            _require_idle(shell, path, name)
        if int(room) < size:
            raise RemoteError(
                f"{path} on {shell.name} has {room} bytes, but the image has {size}",
                hint="Make the volume at least as large as the image.",
            )
        return cls(
            path=path,
            size=size,
            root=root,
            device=kind == "device",
            new="new" in before,
            abilities=abilities,
            mark=next((line.removeprefix("mark ") for line in before if line.startswith("mark ")), ""),
        )

    @property
    def grain(self) -> int:
        """The bytes of which one digest is made."""
        return BLOCK if self.abilities.python else COARSE

    @property
    def packing(self) -> Literal["zstd", "gzip", ""]:
        """How bytes are compressed on the wire."""
        return "zstd" if "zstd" in self.abilities.tools else "gzip" if "gzip" in self.abilities.tools else ""

    def settle(self, shell: Shell) -> None:
        """Return once what was written is on the device and the kernel there has forgotten it. Raises as `survey`."""
        with (
            self.named(shell),
            shell.start(self._command("settle"), root=self.root, shown=f"sync of {self.path}") as running,
        ):
            self._begin(running)
            running.end_input()
            running.finish()

    def survey(self, shell: Shell, runs: Sequence[tuple[int, int]], grain: int = 0) -> dict[int, bytes]:
        """Return the SHA-256 of each grain that is not all zero; `runs` are (first grain, how many).

        Raises RemoteFailed, RemoteTrouble, RemoteDenied, DeviceMoved.
        """
        grain = grain or self.grain
        zero = hashlib.sha256(bytes(grain)).hexdigest()
        words = [str(self.size), str(grain), *([] if self.abilities.python else [zero])]
        command = self._command("survey", *words)
        shown = f"digests of {self.path}"
        with (
            self.named(shell),
            shell.start(command, root=self.root, timeout=_SURVEY_TIME, shown=shown) as running,
        ):
            self._begin(running)
            running.send("".join(f"{first} {count}\n" for first, count in runs).encode())
            running.end_input()
            *lines, last = running.finish().stdout.decode().splitlines() or [""]
        if last != "end":
            raise RemoteFailed(f"{shell.name}: the digests of {self.path} are not whole")
        return {int(index): bytes.fromhex(digest) for index, digest in (line.split() for line in lines)}

    def writer(self, shell: Shell) -> Writer:
        """Return what takes bytes for it, as a context manager; to be used within `named`."""
        unpack = {"zstd": "zstd -dcq | ", "gzip": "gzip -dc | ", "": ""}[self.packing]
        command = self._command("write", before=unpack)
        running = shell.start(command, root=self.root, timeout=_SURVEY_TIME, shown=f"write to {self.path}")
        writer = Writer(running, self.packing)
        if self.abilities.python:
            writer.send(_WORKER.read_bytes())
        return writer

    @contextmanager
    def named(self, shell: Shell) -> Iterator[None]:
        """Raise DeviceMoved where a command of ours inside the block found that the name means something else now."""
        try:
            yield
        except RemoteFailed as error:
            if error.status != scripts.MOVED:
                raise
            raise DeviceMoved(
                f"{shell.name} was started anew, or {self.path} exchanged: the name may mean another disk now"
            ) from error

    def guarded(self, command: str) -> str:
        """Return a command that runs only while the name means what it meant when the target was prepared."""
        if not self.mark:
            return command
        return (
            f'[ "$({_call(scripts.MARK, self.path)})" = {shlex.quote(self.mark)} ] || exit {scripts.MOVED}; {command}'
        )

    def _begin(self, running: Running) -> None:
        if self.abilities.python:
            running.send(_WORKER.read_bytes())

    def _command(self, what: Literal["settle", "survey", "write"], *words: str, before: str = "") -> str:
        if not self.abilities.python:
            text = {"settle": scripts.SETTLE, "survey": scripts.SURVEY, "write": scripts.WRITE}[what]
            return self.guarded(before + _call(text, self.path, *words))
        start = f"import sys; exec(sys.stdin.buffer.read({_WORKER.stat().st_size}))"
        return self.guarded(before + shlex.join([self.abilities.python, "-c", start, what, self.path, *words]))


def _require_idle(shell: Shell, path: str, name: str) -> None:
    listing = read(shell)
    for device in listing.devices:
        if name in (device.name, *device.partitions) and device.uses:
            raise DeviceDoubtful(f"{shell.name}: {path} is in use: {', '.join(device.uses)}\n{listing}")


class Writer:
    """Takes ranges of bytes; `finish` returns when they are on the device. A cut leaves some of them there."""

    def __init__(self, running: Running, packing: Literal["zstd", "gzip", ""]) -> None:
        self._running = running
        self._packing = packing
        self._zstd = zstandard.ZstdCompressor(level=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._running.__exit__(kind, error, trace)

    def put(self, parts: Iterable[tuple[int, bytes | int]]) -> int:
        """Write ranges, each an offset with its bytes or with how many zeros; return the bytes sent for them."""
        return self.send(b"".join(_encoded(parts)))

    def send(self, data: bytes) -> int:
        """Send bytes of the stream, compressed; return how many that came to."""
        if self._packing == "zstd":
            data = self._zstd.compress(data)
        elif self._packing == "gzip":
            data = igzip.compress(data, 1)
        self._running.send(data)
        return len(data)

    def finish(self) -> None:
        """Return once all that was put has been written and fsynced. Raises RemoteFailed, RemoteTrouble, WriteLost."""
        self.send(b"e\n")
        self._running.end_input()
        if self._running.finish().stdout.split()[-1:] != [b"end"]:
            raise WriteLost("the writer on the other machine ended without having written all")


def _encoded(parts: Iterable[tuple[int, bytes | int]]) -> Iterator[bytes]:
    for offset, what in parts:
        if isinstance(what, int):
            yield b"z %d %d\n" % (offset, what)
        else:
            yield b"w %d %d\n" % (offset, len(what))
            yield what


def _call(text: str, *words: str) -> str:
    return shlex.join(["sh", "-c", text, "sh", *words])
