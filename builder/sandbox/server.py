"""The running sandbox: cheroot on one loopback port, for one directory, until it is killed.

It has no orderly shutdown to rely on: whatever was acknowledged is in the files (docs/design/sandbox.md), so ending
it is a signal.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server

from builder import durable, pool
from builder.errors import BusyError, HostError
from builder.sandbox import certificates, settings
from builder.sandbox.app import App
from builder.sandbox.cloud import Cloud
from builder.sandbox.disks import Disks
from builder.sandbox.ebs import EbsDirect
from builder.sandbox.ec2 import Ec2
from builder.sandbox.protocols import query
from builder.sandbox.state import State
from builder.sandbox.sts import Sts
from builder.sandbox.tokens import Tokens

HOST = "127.0.0.1"
_THREADS = 40  # the fastest of those measured; idle keep-alive connections take none
_IDLE = 300  # seconds until an idle connection is closed
_BACKLOG = 512
_WATCH = 2  # seconds between looks at whether the directory is still there

log = logging.getLogger(__name__)


def serve(directory: Path, *, port: int = 0, tls: bool = False, ready: Callable[[], None]) -> None:
    """Serve `directory` for good; call `ready` once requests are answered.

    `port` 0 means the one it had last, or any that is free. Raises BusyError when another process serves the
    directory, HostError when the port is taken.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = _lock(directory)
    # What an earlier server wrote says nothing about this one.
    (directory / settings.ENDPOINT).unlink(missing_ok=True)
    chosen = settings.load(directory)
    state = State(directory / "state.sqlite")
    server = _bind(port, chosen.port)
    bound: int = server.bind_addr[1]
    if tls:
        server.ssl_adapter = _Adapter(certificates.ensure(directory))
    cloud = Cloud(state, Disks(directory / "disks"), settle=chosen.settle, address=f"{HOST}:{bound}")
    tokens = Tokens(bytes.fromhex(chosen.key))
    server.wsgi_app = App(directory, cloud, [Ec2(cloud), EbsDirect(cloud, tokens), Sts()])
    settings.remember_port(directory, chosen, bound)
    _announce(directory, chosen, bound, tls=tls)
    pool.Background(lambda: query.service("ec2"))  # so that the first call of EC2 need not wait for it
    pool.Background(lambda: _end_with(directory, lock))
    ready()
    try:
        server.serve()
    finally:
        lock.close()


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


def _bind(port: int, last: int) -> Server:
    """Return a server bound to `port`, or without one to the last port if it is free, else to any."""
    for candidate in [port] if port else [last, 0]:
        server = _Server((HOST, candidate), None, numthreads=_THREADS, request_queue_size=_BACKLOG, timeout=_IDLE)
        server.keep_alive_conn_limit = None  # type: ignore[assignment] # documented: no limit
        try:
            server.prepare()
        except OSError as error:
            if error.errno != errno.EADDRINUSE and "in use" not in str(error):
                raise
            continue
        return server
    raise HostError(f"port {port} on {HOST} is taken by another program", hint="choose another port, or leave it out")


def _announce(directory: Path, chosen: settings.Settings, port: int, *, tls: bool) -> None:
    endpoint = {
        "url": f"{'https' if tls else 'http'}://{HOST}:{port}",
        "region": chosen.region,
        "access_key": chosen.access_key,
        "secret_key": chosen.secret_key,
        "ca_file": str(directory / settings.CA) if tls else None,
        "pid": os.getpid(),
        "directory": str(directory),
    }
    durable.write_file(directory / settings.ENDPOINT, json.dumps(endpoint).encode())


class _Server(Server):
    """cheroot, with its complaints in our log."""

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: FBT001, FBT002 - its
        log.log(level, "%s", msg, exc_info=sys.exc_info() if traceback else None)


class _Adapter(BuiltinSSLAdapter):
    """TLS with our certificate; a client that stalls in its handshake holds up the others for a second at most."""

    def __init__(self, pair: Path) -> None:
        super().__init__(str(pair), str(pair))
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def wrap(self, sock: Any) -> Any:
        """Do the handshake."""
        idle = sock.gettimeout()
        sock.settimeout(1)
        wrapped, environ = super().wrap(sock)  # type: ignore[no-untyped-call]
        wrapped.settimeout(idle)
        return wrapped, environ
