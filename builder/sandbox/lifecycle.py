"""Start, find and stop the sandbox of a directory. Imports nothing of it: safe and quick for every command line.

Who runs is decided by a lock that the kernel holds for the server's process, so neither a stale file nor a reused
process id can deceive. The server is a process of its own that outlives whoever started it.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import secrets
import select
import signal
import subprocess  # noqa: TID251 - its TimeoutExpired; processes start in builder/proc.py
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Unpack
from urllib.parse import urlencode

import builder
from builder import pool, proc
from builder.errors import BusyError, HostError
from builder.sandbox import endpoint, settings

_POLL = 0.02  # seconds
_PATIENCE = 10  # seconds for a running server to say where it listens, or to end
_GRACE = 2  # seconds for SIGTERM before SIGKILL
_LEASE = 10  # seconds for which calls wait after the last word of who had them wait
_TAIL = 2000  # characters of the server's log shown in an error

Endpoint = endpoint.Endpoint
ask = endpoint.ask


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a running sandbox holds. `allocated_bytes` is what the snapshots' blocks take on the disk."""

    endpoint: Endpoint
    images: int
    snapshots: int
    pending_snapshots: int
    volume_bytes: int
    allocated_bytes: int


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What bundles are made with, as PEM files: the cloud's certificate, an account's own and its private key (RSA)."""

    account: str
    cloud_certificate: Path
    certificate: Path
    private_key: Path


@dataclass(frozen=True, kw_only=True)
class Account:
    """An account beside the directory's first one, and its root's access key."""

    account: str
    access_key: str
    secret_key: str


def start(
    directory: Path,
    *,
    port: int = 0,
    tls: bool | None = None,
    tls_port: int = 0,
    timeout: float = 30,
    **like: Unpack[settings.Like],
) -> Endpoint:
    """Start the sandbox of `directory`, or adopt the one that runs there already, and return once it answers.

    The plain port is always there; `tls` says whether one for TLS is as well (None: as last time). A port of 0 means
    the one it had last, or any that is free. `like` is what settings.Like says: `personality` is `aws` or `eucalyptus`,
    of the first start for good; `release` is the one of Eucalyptus, such as 4.4 (at first 5.1); `machines` is what runs
    behind its instances, one of settings.DRIVERS (at first `none`: they are records). One that is adopted keeps the
    ports, the release and the machines it has. Raises HostError when it cannot start, with its own words; UsageError
    when the directory has another personality; BusyError when another start or stop takes longer than `timeout`
    seconds.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory, timeout):
        settings.check(directory, **like)
        found = _find(directory)
        if found is None:
            options = _options(port, tls_port, tls=tls)
            options += [word for name, value in like.items() if value for word in (f"--{name}", str(value))]
            _launch(directory, options, timeout)
            found = _find(directory)
    if found is None:
        raise HostError(f"the sandbox in {directory} ended right after its start; see {directory / settings.LOG}")
    return found.endpoint


def stop(directory: Path, *, timeout: float = 30) -> bool:
    """End the sandbox of `directory`; say whether one was running. Its state stays."""
    directory = directory.resolve()
    if not directory.is_dir():
        return False
    with _alone(directory, timeout):
        # Not `_find`: one that hangs is ended as well.
        if not _is_serving(directory):
            return False
        try:
            _end(directory, endpoint.read(directory).pid)
        except FileNotFoundError:
            message = f"the sandbox in {directory} is starting at this moment"
            raise BusyError(message, hint="try again in a second") from None
        return True


@contextmanager
def at_rest(directory: Path, *, timeout: float = 30) -> Iterator[None]:
    """Have the sandbox of `directory` stopped inside the block, and nobody start it; start it again if it ran.

    Raises as `start` and `stop` do.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory, timeout):
        ran = _is_serving(directory)
        if ran:
            _end(directory, endpoint.read(directory).pid)
        try:
            yield
        finally:
            if ran:
                _launch(directory, _options(0, 0, tls=None), timeout)


@contextmanager
def still(directory: Path, *, timeout: float = 60) -> Iterator[Callable[[], None]]:
    """Have nothing change in `directory` inside the block: calls wait, and where nobody serves it, nobody starts.

    The block gets a function that raises HostError unless that was so until now; should we die, calls go on after
    seconds. Raises BusyError when calls in progress, or another's pause, take longer than `timeout` seconds.
    """
    directory = directory.resolve()
    found = _find(directory)
    if found is not None:
        with _Pause(found.endpoint, timeout) as pause:
            yield pause.check
        return
    with _alone(directory, timeout):
        if _is_serving(directory):
            raise BusyError(f"the sandbox in {directory} has just been started", hint="try again")
        yield lambda: None


def status(directory: Path) -> Status | None:
    """Return what the sandbox of `directory` holds, or None when none runs there."""
    return _find(directory.resolve())


def add_account(directory: Path, name: str) -> Account:
    """Make another account in the running sandbox of `directory`; it is durable once this returns.

    Names are for people and need not differ. Raises HostError when no sandbox runs there.
    """
    found = _find(directory.resolve())
    if found is None:
        raise HostError(f"no sandbox runs in {directory}", hint="start it: emi sandbox start")
    return Account(**ask(found.endpoint, f"/_sandbox/accounts?{urlencode({'name': name})}", method="PUT"))


def identity(directory: Path, account: str | None = None) -> Identity:
    """Return what bundles of an account (None: the first) are made with in the running sandbox of `directory`.

    The files are there, durably, and stay the same from then on. Raises HostError when no sandbox runs there, or it
    has no such account.
    """
    found = _find(directory.resolve())
    if found is None:
        raise HostError(f"no sandbox runs in {directory}", hint="start it: emi sandbox start")
    words = f"?{urlencode({'account': account})}" if account else ""
    told = ask(found.endpoint, f"/_sandbox/identity{words}", method="PUT")
    number = told.pop("account")
    return Identity(account=number, **{name: Path(file) for name, file in told.items()})


def forward(directory: Path, port: int) -> None:
    """Let guests that are launched from now on reach a port of this host's 127.0.0.1, as 169.254.169.251:`port`.

    It lasts until the sandbox ends. Raises HostError when no sandbox runs there.
    """
    found = _find(directory.resolve())
    if found is None:
        raise HostError(f"no sandbox runs in {directory}", hint="start it: emi sandbox start")
    ask(found.endpoint, f"/_sandbox/forward?{urlencode({'port': port})}", method="PUT")


@contextmanager
def _alone(directory: Path, timeout: float) -> Iterator[None]:
    """Hold the lock under which one process at a time starts or stops the sandbox of this directory."""
    deadline = time.monotonic() + timeout
    with open(directory / settings.STARTING, "ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"another process has been starting or stopping the sandbox in {directory} for too long"
                    raise BusyError(message) from None
                time.sleep(_POLL)
        yield


def _is_serving(directory: Path) -> bool:
    """Say whether a process serves the directory: it holds the serving lock exclusively for as long as it lives."""
    try:
        with open(directory / settings.SERVING, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not deceive each other
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _options(port: int, tls_port: int, *, tls: bool | None) -> list[str]:
    """Return the words for the server's command line."""
    chosen = [] if tls is None else ["--tls" if tls else "--no-tls"]
    return ["--port", str(port), "--tls-port", str(tls_port), *chosen]


def _launch(directory: Path, options: list[str], timeout: float) -> None:
    command = [sys.executable, "-P", "-m", "builder.sandbox", str(directory), "--detach", *options]
    root = str(Path(builder.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    with open(directory / settings.LOG, "ab") as log:
        before = log.tell()
        process = proc.start(
            command,
            stdout=log.fileno(),
            stderr=log.fileno(),
            environment={"PYTHONPATH": paths},
            directory=directory,
            outlives_us=True,
        )
        try:
            failed = process.wait(timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # the group: the server itself too
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise HostError(f"the sandbox in {directory} did not answer within {timeout:g} s") from None
            raise
    if failed:
        raise _failure(directory, before)


def _failure(directory: Path, before: int) -> HostError:
    with open(directory / settings.LOG, "rb") as log:
        log.seek(before)
        said = log.read().decode(errors="replace").strip()[-_TAIL:]
    message, _, hint = said.rpartition("\n")
    if "Traceback" in said:
        return HostError(f"the sandbox in {directory} failed to start; see {directory / settings.LOG}: {hint}")
    return HostError(f"the sandbox in {directory} failed to start: {message or hint}", hint=hint or None)


def _find(directory: Path) -> Status | None:
    """Return what the directory's server says, or None when none runs, be it that one ends while we ask."""
    trouble = "it does not say where it listens"
    deadline = time.monotonic() + _PATIENCE
    while _is_serving(directory):
        try:
            end = endpoint.read(directory)
            return Status(endpoint=end, **ask(end, "/_sandbox/status"))
        except (OSError, http.client.HTTPException) as error:  # starting, or ending, at this moment
            trouble = str(error)
        if time.monotonic() > deadline:
            raise HostError(f"the sandbox in {directory} runs but does not answer: {trouble}")
        time.sleep(_POLL)
    return None


class _Pause:
    """Calls of a running sandbox wait inside the block; see builder/sandbox/pause.py."""

    def __init__(self, end: Endpoint, timeout: float) -> None:
        self._endpoint = end
        self._timeout = timeout
        self._holder = secrets.token_hex(8)
        self._changed = pool.Condition()
        self._over = False

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self._timeout
        while not self._ask(_LEASE):
            if time.monotonic() > deadline:
                message = f"calls of the sandbox in {self._endpoint.directory} have been in progress for too long"
                raise BusyError(message, hint="end what uses it, or try again")
        self._renewing = pool.Background(self._renew)
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._renewing.result()
        self._ask(0, renew=True)

    def check(self) -> None:
        if not self._ask(_LEASE, renew=True):
            raise HostError(f"the sandbox in {self._endpoint.directory} went on before it was copied", hint="try again")

    def _renew(self) -> None:
        with self._changed:
            while not self._changed.wait_for(lambda: self._over, _LEASE / 10):
                self._ask(_LEASE, renew=True)

    def _ask(self, seconds: int, *, renew: bool = False) -> bool:
        path = f"/_sandbox/pause?holder={self._holder}&seconds={seconds}{'&renew=' if renew else ''}"
        try:
            return bool(ask(self._endpoint, path, method="PUT")["held"])
        except (OSError, http.client.HTTPException):
            return False


def _end(directory: Path, pid: int) -> None:
    """End the server: its process is held by a descriptor, so that a reused id is never hit."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            words = Path(f"/proc/{pid}/cmdline").read_text()
            if words and f"\0{directory}\0" not in words:  # one that is dying has none any more
                raise HostError(f"process {pid}, named in {directory / settings.ENDPOINT}, is not the sandbox")
            signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], _GRACE)[0]:  # readable once it has ended
                return
    except (ProcessLookupError, FileNotFoundError):
        return  # it ended by itself
    finally:
        os.close(process)
