"""The running sandbox: cheroot on a loopback port, and one for TLS if asked, for one directory, until it is killed.

It has no orderly shutdown to rely on: whatever was acknowledged is in the files (docs/design/sandbox.md), so ending
it is a signal.
"""

from __future__ import annotations

import fcntl
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Unpack

from builder import pool
from builder.errors import BusyError
from builder.sandbox import importing, replacing, settings
from builder.sandbox.access.gate import Gate
from builder.sandbox.access.iam import Iam
from builder.sandbox.access.keys import Keys
from builder.sandbox.app import App, Service
from builder.sandbox.bundling import Bundling
from builder.sandbox.cloud import Cloud
from builder.sandbox.disks import Disks
from builder.sandbox.ebs import EbsDirect
from builder.sandbox.ec2 import Ec2, bundle_look
from builder.sandbox.eucalyptus.empyrean import Empyrean
from builder.sandbox.fleet import drivers, outcomes
from builder.sandbox.fleet.fleet import Fleet, forget
from builder.sandbox.personality import Personality
from builder.sandbox.ports import Ports
from builder.sandbox.protocols import query
from builder.sandbox.running import NONE
from builder.sandbox.s3 import S3
from builder.sandbox.ssm import Ssm
from builder.sandbox.state import State
from builder.sandbox.sts import Sts
from builder.sandbox.tokens import Tokens
from builder.sandbox.vmie import BucketObjects

_WATCH = 2  # seconds between looks at whether the directory is still there


def serve(
    directory: Path,
    *,
    port: int = 0,
    tls: bool | None = None,
    tls_port: int = 0,
    ready: Callable[[], None],
    **like: Unpack[settings.Like],
) -> None:
    """Serve `directory` for good; call `ready` once requests are answered.

    The plain port is always there; with `tls` (None: as last time) there is one for TLS beside it, for the same
    application. A port of 0 means the one it had last, or any that is free; `like` is as
    settings.load takes it. Raises BusyError when another process serves the directory, HostError when a port is
    taken, UsageError when the directory has another personality.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = _lock(directory)
    # What an earlier server wrote says nothing about this one.
    (directory / settings.ENDPOINT).unlink(missing_ok=True)
    replacing.finish(directory)
    chosen = settings.load(directory, **like)
    bundling = Bundling(directory)
    state = State(directory / "state.sqlite")
    ports = Ports.bind(directory, chosen, port, tls_port, tls=chosen.tls if tls is None else tls)
    kind = Personality.of(chosen)
    cloud = Cloud(
        state,
        Disks(directory / "disks"),
        settle=chosen.settle,
        address=ports.address,
        personality=kind,
        bundling=bundling,
    )
    gate = Gate(Keys(state, chosen), region=chosen.region, personality=kind)
    tokens = Tokens(bytes.fromhex(chosen.key))
    s3 = S3(cloud, gate, directory / "s3")
    cloud.objects = BucketObjects(s3)
    importing.resume(cloud, cloud.objects)
    bundle_look.resume(cloud)
    _run_machines(cloud, directory, chosen.machines)
    services = _services(cloud, gate, tokens, s3, life=chosen.session_life)
    app = App(directory, cloud, gate, services, bundling)
    ports.remember(directory, chosen)
    pool.Background(_warm)
    pool.Background(lambda: _end_with(directory, lock))
    ready()
    try:
        ports.serve(app)
    finally:
        lock.close()


def _warm() -> None:
    """Read EC2's model, so that the first call need not wait for it; then spare the collector all that stays."""
    try:
        query.service("ec2")
    finally:
        gc.freeze()
        gc.enable()


def _run_machines(cloud: Cloud, directory: Path, driver: str) -> None:
    """Have instances be what the setting says; those that an earlier server ran have ended with it."""
    outcomes.recover(cloud)
    if driver == NONE:
        forget(directory)
    else:
        cloud.machines = Fleet(cloud, drivers.driver(driver, directory), driver, directory)


def _services(cloud: Cloud, gate: Gate, tokens: Tokens, s3: S3, *, life: float | None) -> list[Service]:
    """Return the services of the cloud's personality; sessions last at most `life` seconds."""
    kind, state, bundling = cloud.personality, cloud.state, cloud.bundling
    iam = Iam(state, gate.keys, bundling=bundling, like=kind)
    common: list[Service] = [Ec2(cloud), iam, s3, Sts(state, gate, life=life)]
    return [*common, *([Empyrean(bundling, kind)] if kind.is_eucalyptus else [EbsDirect(cloud, tokens), Ssm(cloud)])]


def _lock(directory: Path) -> IO[bytes]:
    """Take the lock that says who serves the directory; the kernel gives it back however we end."""
    lock = open(directory / settings.SERVING, "ab")  # noqa: SIM115 - held until we end
    for _ in range(20):  # somebody asking for the status holds it for a moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return lock
    raise BusyError(f"another process serves {directory}")


def _end_with(directory: Path, lock: IO[bytes]) -> None:
    """End the process once the directory is gone, or another in its place: nobody could find or stop us any more."""
    ours = os.fstat(lock.fileno()).st_ino
    while True:
        time.sleep(_WATCH)
        try:
            if (directory / settings.SERVING).stat().st_ino == ours:
                continue
        except FileNotFoundError:
            pass
        os._exit(0)
