"""Commands on another machine: no pty, quoted words, a time limit, the exit status and last words in every error.

What a chatty login shell prints before our command is not the command's: each is preceded by a random mark on both
streams, and what comes before it is dropped. A command without input is killed with all its children when its input
ends, which happens at its time limit, when we die, and when the connection is cut; one that reads its input finds the
end of it. So nothing that we started keeps a device open for longer than the machine needs to notice.
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Self

from builder import pool
from builder.errors import RemoteDenied, RemoteFailed, RemoteTrouble
from builder.remote.connection import Remote

_TAIL = 2000  # characters of stderr kept for an error: a screenful
_MOST = 64 << 20  # bytes of output that are kept when nobody takes them as they come
_SHOWN = 400  # characters of a command shown in an error
_READ = 1 << 18
# sbin is where blockdev and losetup are; messages are compared, so they are to be in English.
_SETTING = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; LC_ALL=C; export PATH LC_ALL"
# The shell's own background job reads our end of the input; at its end the whole process group goes (sshd gives each
# command a session of its own, so the group is only ours).
_WATCH = "exec 3<&0; { cat <&3 >/dev/null; kill -9 0; } >/dev/null 2>&1 & exec 3<&- </dev/null"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command said, as bytes, its last words on standard error, and its status: 0, unless others are allowed."""

    stdout: bytes
    stderr: str
    status: int


class Running:
    """A command that runs there; as a context manager it is ended at the block's end, however that comes."""

    def __init__(self, remote: Remote, script: str, *, root: bool, streams: bool, timeout: float, shown: str) -> None:
        self._remote = remote
        self._root = root
        self._shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} …"
        self._timeout = timeout
        self._mark = secrets.token_hex(12)
        self._group = ""  # the process group there, once the mark has come
        self._begun = False
        self._before = b""
        self._channel = remote.session()
        self._deadline = time.monotonic() + timeout  # from here on: a machine that boots may take longer than that
        inner = f"printf '\\n%s %s\\n' {self._mark} $$; printf '\\n%s\\n' {self._mark} >&2; {_SETTING}; "
        command = f"exec sh -c {shlex.quote(inner + ('' if streams else _WATCH + '; ') + script)}"
        if root:
            command = f"exec sudo -n sh -c {shlex.quote(inner + ('' if streams else _WATCH + '; ') + script)}"
        self._channel.settimeout(max(1.0, timeout))
        try:
            self._channel.exec_command(command)
        except Exception as error:  # whatever paramiko raises when a channel breaks
            raise self._broken(error) from error
        self._errors = pool.Background(self._read_errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._channel.exit_status_ready():
            self._kill()
        self._channel.close()

    def send(self, data: bytes) -> None:
        """Give the command `data` to read. Raises RemoteTrouble on a cut, and what ended the command early."""
        try:
            self._channel.settimeout(self._left())
            self._channel.sendall(memoryview(data))  # type: ignore[arg-type]  # of bytes it would copy the rest often
        except TimeoutError as error:
            raise self._late() from error
        except (OSError, EOFError) as error:  # paramiko: "Socket is closed"
            raise self._broken(error) from error

    def end_input(self) -> None:
        """Tell the command that nothing more will come."""
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError):  # it has ended meanwhile, which finish() will tell
            return

    def receive(self) -> bytes:
        """Return what the command prints next, b"" at its end."""
        while True:
            data = self._receive()
            if self._begun or not data:
                return data
            self._before += data
            found = self._before.find(b"\n" + self._mark.encode() + b" ")
            end = self._before.find(b"\n", found + 1) if found >= 0 else -1
            if end >= 0:
                self._begun = True
                self._group = self._before[found:end].split()[1].decode()
                if rest := self._before[end + 1 :]:
                    return rest
            elif len(self._before) > _MOST:
                raise RemoteFailed(f"the login shell of {self._remote.name} prints without end and runs no command")

    def finish(self, allowed: Collection[int] = (0,), taken: Callable[[bytes], object] | None = None) -> Said:
        """Wait for the command's end, with what it prints handed to `taken` or returned. Raises RemoteFailed."""
        kept: list[bytes] = []
        size = 0
        while data := self.receive():
            size += len(data)
            if taken is None and size > _MOST:
                raise RemoteFailed(f"{self._remote.name} printed more than {_MOST >> 20} MiB: {self._shown}")
            (taken or kept.append)(data)
        errors = self._errors.result(max(1.0, self._left()))
        if not self._channel.status_event.wait(min(10.0, self._left())) or self._channel.exit_status == -1:
            raise self._cut()
        said = Said(stdout=b"".join(kept), stderr=errors, status=self._channel.exit_status)
        if not self._begun:
            raise self._unbegun(said)
        if said.status not in allowed:
            words = said.stderr or said.stdout.decode(errors="replace")[-_TAIL:]
            error = RemoteFailed(f"{self._remote.name}: {_ending(said.status)} from: {self._shown}\n{words}".rstrip())
            error.killed, error.status = said.status > 128, said.status
            raise error
        return said

    def _receive(self) -> bytes:
        try:
            self._channel.settimeout(self._left())
            data = self._channel.recv(_READ)
        except TimeoutError as error:
            raise self._late() from error
        except (OSError, EOFError) as error:
            raise self._broken(error) from error
        return data

    def _read_errors(self) -> str:
        mark = f"\n{self._mark}\n".encode()
        text = b""
        while data := self._channel.recv_stderr(_READ):
            text = (text + data)[-_READ:] if mark in text[:_READ] else text + data
            before, found, after = text.partition(mark)
            if found:
                text = before[-100:] + found + after[-_READ // 2 :]
        _, found, after = text.partition(mark)
        return (after if found else text).decode(errors="replace").strip()[-_TAIL:]

    def _left(self) -> float:
        if (left := self._deadline - time.monotonic()) <= 0:
            raise self._late()
        return left

    def _late(self) -> RemoteFailed:
        self._kill()
        return RemoteFailed(f"{self._remote.name}: no end after {self._timeout:g} s: {self._shown}")

    def _kill(self) -> None:
        """End the process there: by the end of its input, and by a signal through a second channel where that works."""
        self.end_input()
        if not self._group.isdigit() or not self._remote.alive():
            return
        sudo = "sudo -n " if self._root else ""
        text = f"read -r _ _ _ _ group _ </proc/{self._group}/stat && kill -s KILL -- -$group"
        try:
            channel = self._remote.session()
            channel.settimeout(10)
            channel.exec_command(f"exec {sudo}sh -c {shlex.quote(text)}")
            channel.status_event.wait(10)
            channel.close()
        except Exception:  # noqa: BLE001 - the end of its input remains, and a closed channel
            return

    def _broken(self, error: Exception) -> RemoteFailed | RemoteTrouble:
        """Say why the channel does not take or give bytes: the command has ended, or the connection was cut."""
        if self._remote.alive() and self._channel.status_event.wait(5) and self._channel.exit_status != -1:
            try:
                self.finish(allowed=())
            except RemoteFailed as ended:
                return ended
            except (RemoteDenied, RemoteTrouble) as ended:
                raise ended from error
        return self._cut()

    def _cut(self) -> RemoteFailed | RemoteTrouble:
        if self._remote.alive():  # SSH tells of a signal, but not by a status
            error = RemoteFailed(f"{self._remote.name}: killed there by a signal: {self._shown}")
            error.killed = True
            return error
        return RemoteTrouble(f"the connection to {self._remote.name} was cut during: {self._shown}")

    def _unbegun(self, said: Said) -> RemoteDenied | RemoteFailed:
        words = said.stderr or self._before.decode(errors="replace").strip()[-_TAIL:]
        if self._root and ("sudo" in words or said.status == 127):
            return RemoteDenied(
                f"{self._remote.name} does not give root's rights without a password: {words}",
                hint="Log in as root, or allow it there: `USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d.",
            )
        return RemoteFailed(
            f"{self._remote.name} did not run the command ({_ending(said.status)}); it said: {words}",
            hint="Many images want another user than root: admin, ubuntu, ec2-user. Its login shell must run commands.",
        )


def _ending(status: int) -> str:
    if status > 128:
        return f"killed by signal {status - 128}"
    return f"exit status {status}"


class Shell:
    """Runs commands on one machine, as the login's user or as root: with sudo only where that user is not root."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self._uid: int | None = None

    @property
    def name(self) -> str:
        """How messages call the machine."""
        return self.remote.name

    def run(
        self,
        argv: Sequence[str],
        *,
        root: bool = False,
        stdin: bytes | None = None,
        timeout: float = 600,
        allowed: Collection[int] = (0,),
    ) -> Said:
        """Run one program with these words to its end. Raises RemoteFailed, RemoteDenied, RemoteTrouble."""
        return self.script(shlex.join(argv), root=root, stdin=stdin, timeout=timeout, allowed=allowed)

    def script(
        self,
        text: str,
        *,
        root: bool = False,
        stdin: bytes | None = None,
        timeout: float = 600,
        allowed: Collection[int] = (0,),
        shown: str = "",
    ) -> Said:
        """Run a text for POSIX sh to its end; `shown` is how messages call it. Raises as `run`."""
        with self.start(text, root=root, streams=stdin is not None, timeout=timeout, shown=shown) as running:
            feeding = None if stdin is None else pool.Background(lambda: _feed(running, stdin))
            said = running.finish(allowed)
            if feeding is not None:
                feeding.result(10)
        return said

    def start(
        self, text: str, *, root: bool = False, streams: bool = True, timeout: float = 3600, shown: str = ""
    ) -> Running:
        """Start a text for POSIX sh, for `timeout` seconds at most; with `streams` it reads what is sent to it."""
        return Running(
            self.remote,
            text,
            root=root and not self.is_root(),
            streams=streams,
            timeout=timeout,
            shown=shown or text,
        )

    def is_root(self) -> bool:
        """Say whether the login is root's; asked once."""
        if self._uid is None:
            with Running(self.remote, "id -u", root=False, streams=False, timeout=60, shown="id -u") as running:
                self._uid = int(running.finish().stdout)
        return self._uid == 0


def _feed(running: Running, data: bytes) -> None:
    try:
        running.send(data)
    except (RemoteFailed, RemoteTrouble):  # told by finish()
        return
    running.end_input()
