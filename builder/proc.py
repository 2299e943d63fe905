"""The one door to other programs: no shell, a time limit, and the pasteable command in every error."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess  # noqa: TID251 - this is the door
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ToolFailed, ToolMissing

# Debian's package for each program, for the error message and for `emi doctor`.
PACKAGES: Mapping[str, str] = {
    "debugfs": "e2fsprogs",
    "gpgv": "gpgv",
    "grub-mkimage": "grub-common",
    "mcopy": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mke2fs": "e2fsprogs",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "sfdisk": "fdisk",
    "sgdisk": "gdisk",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
}
Process = subprocess.Popen[bytes]
_TAIL = 2000  # characters of stderr shown in an error: a screenful


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a program said, as bytes, and its exit status: 0, unless others were allowed."""

    stdout: bytes
    stderr: bytes
    status: int = 0


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout: float = 3600,
    allowed: Collection[int] = (0,),
) -> Completed:
    """Run a program to its end and return its output; it dies with us, also on kill -9.

    `environment` is added to ours, `timeout` is in seconds, `allowed` are the exit statuses that are no error. Output
    is spooled to unlinked files, so a chatty program costs no memory. Raises ToolMissing (with the package to install)
    and ToolFailed (with the command, ready to paste, and its last lines).
    """
    command = [str(word) for word in argv]
    find(command[0])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(
            command,
            stdin=stdin is not None,
            stdout=out.fileno(),
            stderr=err.fileno(),
            environment=environment,
            directory=directory,
        )
        try:
            process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            end(process)
            raise ToolFailed(f"no end after {timeout:g} s: {shlex.join(command)}") from None
        except BaseException:
            end(process)
            raise
        out.seek(0)
        err.seek(0)
        done = Completed(stdout=out.read(), stderr=err.read(), status=process.returncode)
    if process.returncode not in allowed:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-_TAIL:]
        raise ToolFailed(f"exit status {process.returncode} from: {shlex.join(command)}\n{said}")
    return done


def follow(
    argv: Sequence[str | Path],
    *,
    heard: Callable[[str], None],
    stdout: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end, handing each line of its standard error to `heard` as it comes; otherwise as `run`.

    Standard output goes to the descriptor `stdout`, which stays the caller's to close.
    """
    command = [str(word) for word in argv]
    find(command[0])
    reader, writer = os.pipe()
    last: deque[str] = deque(maxlen=40)
    with open(reader, encoding="utf-8", errors="replace") as lines:
        try:
            process = start(command, stdout=stdout, stderr=writer, environment=environment)
        finally:
            os.close(writer)
        try:
            for line in lines:
                last.append(line)
                heard(line.rstrip("\n"))
            process.wait()
        except BaseException:
            end(process)
            raise
    if process.returncode:
        said = "".join(last).strip()[-_TAIL:]
        raise ToolFailed(f"exit status {process.returncode} from: {shlex.join(command)}\n{said}")


def start(
    command: Sequence[str],
    *,
    stdin: bool | socket.socket = False,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    outlives_us: bool = False,
) -> Process:
    """Start a program in a process group of its own; unless `outlives_us`, the kernel kills it when we die.

    The caller ends it with `end`. `setpriv --pdeathsig` (util-linux, essential in Debian) asks the kernel for that,
    because a `preexec_fn` is unsafe beside threads. To the kernel "we" are the thread that calls this: a program that
    is to live longer than one call is started by a thread that does (`pool.Worker`). `stdin` is a pipe if true, nothing
    if false, or a socket to be its descriptor 0.
    """
    prefix = [] if outlives_us else ["setpriv", "--pdeathsig", "KILL", "--"]
    return subprocess.Popen(
        [*prefix, *command],
        stdin=stdin.fileno() if isinstance(stdin, socket.socket) else subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=_with_sbin({**os.environ, **(environment or {})}),
        cwd=directory,
        start_new_session=True,
    )


def end(process: Process, *, grace: float = 2) -> None:
    """End a program we started and everything in its process group; return when it is gone.

    One whose status is known already is left alone: its number may be another program's by now.
    """
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(grace)
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def find(program: str) -> Path:
    """Return where `program` is. Raises ToolMissing with the Debian package that has it."""
    path = shutil.which(program, path=_with_sbin(os.environ)["PATH"])
    if path is None:
        package = PACKAGES.get(program, program)
        raise ToolMissing(f"{program} is not installed", hint=f"sudo apt-get install {package}")
    return Path(path)


def _with_sbin(environment: Mapping[str, str]) -> Mapping[str, str]:
    # Debian keeps mkfs, sgdisk and friends in sbin, which a user's PATH lacks.
    return {**environment, "PATH": f"{environment.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
