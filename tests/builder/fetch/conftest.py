"""A web server that fails by data, with and without TLS, and a proxy in front of it."""

from __future__ import annotations

import gzip
import http.server
import ipaddress
import select
import socket
import ssl
import struct
import threading  # noqa: TID251 - the server's own threads, not emi's
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from builder import pool
from builder.fetch import Limits, Web

MODIFIED = "Mon, 02 Nov 2026 10:00:00 GMT"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; the default is nothing. Numbers are bytes of the body."""

    status: int | None = None  # answer this, with an empty body
    headers: Mapping[str, str] = field(default_factory=dict)  # beside or instead of the usual ones
    cut: int | None = None  # end the connection after so many bytes
    reset: bool = False  # ... with a RST instead of a FIN
    stall: int | None = None  # fall silent after so many bytes
    trickle: int | None = None  # so many bytes at a time
    at_most: int | None = None  # send a shorter part than was asked for
    no_ranges: bool = False
    chunked: bool = False
    gzip: bool = False
    silent: bool = False  # close without an answer
    becomes: bytes | None = None  # the file has this content from now on
    etag: str | None = None  # ... and this ETag


@dataclass
class Resource:
    """One file of the server: its content, its validators, and what goes wrong with the first requests for it."""

    content: bytes
    etag: str | None = '"v1"'
    modified: str | None = MODIFIED
    faults: list[Fault] = field(default_factory=list)


@dataclass
class Request:
    """A request as it was seen, and how many bytes of the body were sent for it."""

    method: str
    path: str
    headers: Mapping[str, str]
    sent: int = 0


class Site:
    """The files of a server, what was asked of it, and where it is."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.files: dict[str, Resource] = {}
        self.requests: list[Request] = []
        self.over = threading.Event()
        self.refuse: list[int] = []  # a proxy's next answers to CONNECT

    def put(self, path: str, content: bytes, *faults: Fault, **validators: str | None) -> str:
        """Serve `content` and return its URL."""
        self.files[path] = Resource(content, faults=list(faults), **validators)
        return self.base + path

    @property
    def sent(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(request.sent for request in self.requests)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: ClassVar[Site]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        seen = Request(self.command, self.path, self.headers)
        self.site.requests.append(seen)
        self.close_connection = True
        path = self.path.removeprefix(self.site.base)
        resource = self.site.files.get(path)
        if resource is None:
            return self._answer(404, {})
        fault = resource.faults.pop(0) if resource.faults else Fault()
        resource.content = fault.becomes or resource.content
        resource.etag = fault.etag or resource.etag
        if fault.silent:
            return None
        if fault.status:
            return self._answer(fault.status, fault.headers)
        status, headers, body = self._body(resource, fault)
        if fault.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body))
        self._head(status, {**headers, **fault.headers})
        if self.command == "GET":
            self._send(body, fault, seen)
        return None

    def _body(self, resource: Resource, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        headers = {"ETag": resource.etag, "Last-Modified": resource.modified, "Date": formatdate(usegmt=True)}
        headers = {name: value for name, value in headers.items() if value}
        if fault.gzip:
            return 200, {**headers, "Content-Encoding": "gzip"}, gzip.compress(resource.content)
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        condition = self.headers.get("If-Range")
        if not wanted or fault.no_ranges or (condition and condition not in (resource.etag, resource.modified)):
            return 200, headers, resource.content
        first, _, last = wanted.partition("-")
        total = len(resource.content)
        end = min(int(last) + 1 if last else total, total)
        if fault.at_most:
            end = min(end, int(first) + fault.at_most)
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{total}"
        return 206, headers, resource.content[int(first) : end]

    def _send(self, body: bytes, fault: Fault, seen: Request) -> None:
        stops = [stop for stop in (fault.cut, fault.stall) if stop is not None]
        end = min([len(body), *stops])
        step = fault.trickle or (1 << 20)
        for start in range(0, end, step):
            piece = body[start : min(start + step, end)]
            seen.sent += len(piece)  # before the write: the client may be done before this thread runs again
            try:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if fault.chunked else piece)
            except OSError:
                return
        if fault.chunked and not stops:
            self.wfile.write(b"0\r\n\r\n")
        if fault.stall is not None:
            self.site.over.wait(60)
        if fault.reset:
            # Linger of zero seconds: close sends a RST and drops what is not yet delivered.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _answer(self, status: int, headers: Mapping[str, str]) -> None:
        self._head(status, {"Content-Length": "0", **headers})

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class Proxy(Handler):
    """Serves absolute URLs from the site itself, and tunnels CONNECT."""

    refuse: ClassVar[list[int]] = []

    def do_CONNECT(self) -> None:
        self.site.requests.append(Request("CONNECT", self.path, self.headers))
        self.close_connection = True
        if self.refuse:
            return self._answer(self.refuse.pop(), {})
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            self._head(200, {})
            ends = {self.connection: far, far: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return None
                    ends[end].sendall(data)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away is what the tests are about


@contextmanager
def serve(handler: type[Handler], scheme: str = "http", context: ssl.SSLContext | None = None) -> Iterator[Site]:
    server = _Server(("127.0.0.1", 0), handler, bind_and_activate=False)
    server.server_bind()
    server.server_activate()
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site = Site(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    handler.site = site
    running = pool.Background(lambda: server.serve_forever(0.02))
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        running.result(10)
        server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(type("PlainHandler", (Handler,), {})) as site:
        yield site


@pytest.fixture
def proxy() -> Iterator[Site]:
    refuse: list[int] = []
    with serve(type("ProxyHandler", (Proxy,), {"refuse": refuse})) as site:
        site.refuse = refuse
        yield site


@dataclass(frozen=True)
class Authority:
    """A certificate authority's certificate, and a server context whose certificate it signed."""

    bundle: Path
    server: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    place = tmp_path_factory.mktemp("tls")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
    key, own_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(public)
        made = made.serial_number(x509.random_serial_number())
        return made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))

    root = certificate(name, key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    own = certificate(own_name, own_key.public_key()).add_extension(
        x509.SubjectAlternativeName([address]), critical=False
    )
    pem = serialization.Encoding.PEM
    (place / "ca.pem").write_bytes(root.sign(key, hashes.SHA256()).public_bytes(pem))
    (place / "server.pem").write_bytes(
        own_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + own.sign(key, hashes.SHA256()).public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "server.pem")
    return Authority(place / "ca.pem", context)


@pytest.fixture
def secure(authority: Authority) -> Iterator[Site]:
    with serve(type("SecureHandler", (Handler,), {}), "https", authority.server) as site:
        yield site


@dataclass
class Notes:
    """A Progress that remembers."""

    texts: list[str] = field(default_factory=list)
    done: int = 0
    of: int = 0

    def total(self, count: int) -> None:
        self.of = count

    def advance(self, count: int) -> None:
        self.done += count

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def web(notes: Notes) -> Callable[..., Web]:
    """Make a Web that gives up after three attempts and half a second of silence."""

    def make(mirrors: Sequence[tuple[str, str]] = (), **limits: float) -> Web:
        patience = {"connect": 2, "silence": 0.5, "attempts": 3, "first_wait": 0.01, "longest_wait": 0.02, **limits}
        return Web(mirrors=mirrors, limits=Limits(**patience), progress=notes)

    return make


@pytest.fixture
def fault() -> type[Fault]:
    return Fault


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
