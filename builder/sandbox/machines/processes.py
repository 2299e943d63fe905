"""Processes and directories of machines: started to end with us, and what an earlier life of ours left, ended."""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder import pool, proc

# The programs that machines are started with, which name their directory; somebody's `tail -f console` is none of them.
_PROGRAMS = (b"setpriv", b"qemu-system-x86_64", b"unshare", b"sh")
_GONE = 10_000  # milliseconds that a killed process may take to be gone


class Starter:
    """Starts processes that the kernel kills when ours ends, however it ends.

    To the kernel the parent of a process is the thread that made it, so that one is kept for nothing else.
    """

    def __init__(self) -> None:
        self._worker = pool.Worker()

    def start(self, words: Sequence[str | Path], **options: Any) -> proc.Process:
        """Start a program as `proc.start` does, after `proc.find`, whose ToolMissing it raises."""
        command = [str(word) for word in words]
        proc.find(command[0])
        return self._worker.begin(lambda: proc.start(command, **options)).result()


def prepare(directory: Path, *, keep: Sequence[str] = ()) -> None:
    """Make a machine's directory, for its owner alone, or empty it of all but the files in `keep`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in directory.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def sweep(directory: Path) -> None:
    """End every process of a machine whose command line names a file below the directory, and empty the directory.

    The kernel has ended them already, but for one that was just being started when its parent was killed.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in _naming(f"{directory}/"):
        _kill(number, f"{directory}/")
    for entry in directory.iterdir():
        shutil.rmtree(entry, ignore_errors=True)


def _naming(begin: str) -> list[int]:
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [number for number in numbers if number != os.getpid() and _names(number, begin)]


def _names(number: int, begin: str) -> bool:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.path.basename(words[0]) in _PROGRAMS and any(word.startswith(os.fsencode(begin)) for word in words)  # noqa: PTH119 - bytes


def _kill(number: int, begin: str) -> None:
    with suppress(OSError):
        descriptor = os.pidfd_open(number)
        try:
            if _names(number, begin):  # still the same process, now that its number cannot be given to another
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                waiting = select.poll()
                waiting.register(descriptor, select.POLLIN)
                waiting.poll(_GONE)
        finally:
            os.close(descriptor)
