"""The ports of a running sandbox: a plain one, and one for TLS beside it if asked, for one and the same application."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cheroot.server import HeaderReader, HTTPConnection, HTTPRequest
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Gateway_10, Server

from builder import durable, pool
from builder.errors import HostError
from builder.sandbox import certificates, settings
from builder.sandbox.chunked import ChunkedBody
from builder.sandbox.sockets import make_file

HOST = "127.0.0.1"
_EXPECT = b"Sandbox-Expect"  # the name under which the header `Expect` passes through cheroot unseen
_THREADS = 40  # for each port; the fastest of those measured; idle keep-alive connections take none
_IDLE = 300  # seconds until an idle connection is closed
_BACKLOG = 512

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports, bound; connections wait from then on, and are answered once `serve` runs."""

    plain: Server
    tls: Server | None

    @classmethod
    def bind(cls, directory: Path, last: settings.Settings, port: int, tls_port: int, *, tls: bool) -> Ports:
        """Bind the ports asked for; 0 is the one of last time if it is free, else any. Raises HostError."""
        plain = _bind(port, last.port)
        if not tls:
            return cls(plain=plain, tls=None)
        secure = _bind(tls_port, last.tls_port)
        secure.ssl_adapter = _Adapter(certificates.ensure(directory))
        return cls(plain=plain, tls=secure)

    @property
    def address(self) -> str:
        """HOST:PORT that answers may name: TLS where there is, since clients put https before a region's endpoint."""
        return f"{HOST}:{_port(self.tls or self.plain)}"

    def remember(self, directory: Path, chosen: settings.Settings) -> None:
        """Write down how we are reached: for the next start, and for those who look for us."""
        plain, tls = _port(self.plain), _port(self.tls) if self.tls else None
        settings.remember_ports(directory, chosen, plain, tls)
        plain_url, tls_url = f"http://{HOST}:{plain}", f"https://{HOST}:{tls}" if tls else None
        endpoint = {
            "url": tls_url or plain_url,
            "plain_url": plain_url,
            "tls_url": tls_url,
            "region": chosen.region,
            "personality": chosen.personality,
            "release": chosen.release,
            "machines": chosen.machines,
            "access_key": chosen.access_key,
            "secret_key": chosen.secret_key,
            "ca_file": str(directory / settings.CA) if tls else None,
            "pid": os.getpid(),
            "directory": str(directory),
        }
        durable.write_file(directory / settings.ENDPOINT, json.dumps(endpoint).encode())

    def serve(self, app: Callable[..., Any]) -> None:
        """Answer requests for good."""
        for server in filter(None, (self.plain, self.tls)):
            server.wsgi_app = app
        if self.tls:
            pool.Background(self.tls.serve)
        self.plain.serve()


def _port(server: Server) -> int:
    port: int = server.bind_addr[1]
    return port


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
        # Connections inherit it, and what is left of them when we are killed must not keep the next start off the port.
        # cheroot sets it for a port that was asked for, not where the kernel chose.
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return server
    raise HostError(f"port {port} on {HOST} is taken by another program", hint="choose another port, or leave it out")


class _Headers(HeaderReader):
    """Keeps `Expect` from cheroot, which would say `100 Continue` before anybody looked at the request."""

    def _transform_key(self, key_name: bytes) -> bytes:
        name: bytes = super()._transform_key(key_name)  # type: ignore[misc] # not in its stubs
        return _EXPECT if name == b"Expect" else name


class _Request(HTTPRequest):
    """A request with headers read by the above."""

    header_reader = _Headers()


class _Connection(HTTPConnection):
    """A connection that makes such requests, and reads and writes in our way."""

    RequestHandlerClass = _Request

    def __init__(self, server: Server, sock: socket.socket, _makefile: object) -> None:
        super().__init__(server, sock, make_file)


class _Gateway(Gateway_10):
    """Hands the application cheroot's own request, the header `Expect` under its name, and our reader of chunks."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override] # its stubs are wrong
        """Return WSGI's dictionary."""
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ["sandbox.request"] = request = self.req
        if request.chunked_read and not request.close_connection:
            request.close_connection = True  # until the body is read, nobody knows where the next request begins

            def ended() -> None:
                request.close_connection = False

            environ["wsgi.input"] = ChunkedBody(request.conn.rfile, ended)
        elif request.chunked_read:
            environ["wsgi.input"] = ChunkedBody(request.conn.rfile, lambda: None)
        expected = environ.pop("HTTP_SANDBOX_EXPECT", None)
        return environ if expected is None else {**environ, "HTTP_EXPECT": expected}


class _Server(Server):
    """cheroot, with its complaints in our log."""

    ConnectionClass = _Connection

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gateway = _Gateway

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: FBT001, FBT002 - its
        log.log(level, "%s", msg, exc_info=sys.exc_info() if traceback else None)


class _Adapter(BuiltinSSLAdapter):
    """TLS with our certificate; a client that stalls in its handshake holds up the others for 5 seconds at most."""

    def __init__(self, pair: Path) -> None:
        super().__init__(str(pair), str(pair))
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def wrap(self, sock: Any) -> Any:
        """Do the handshake."""
        idle = sock.gettimeout()
        sock.settimeout(5)  # a busy client may take more than one
        wrapped, environ = super().wrap(sock)  # type: ignore[no-untyped-call]
        wrapped.settimeout(idle)
        return wrapped, environ
