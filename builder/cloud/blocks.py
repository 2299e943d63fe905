"""PutSnapshotBlock and GetSnapshotBlock over http.client: a third of botocore's CPU, and so the service's full rate.

boto3 holds the interpreter for 1.7-2.2 ms per 512 KiB block and stops at 0.6 of the quota of 1000 puts a second; this
client needs about 1 ms, most of it TLS and SHA-256, both outside the interpreter's lock.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from builder.cloud.api import BlockRef
from builder.cloud.limits import limits
from builder.cloud.pacer import Pacer
from builder.cloud.refusals import Refusal
from builder.cloud.sigv4 import UNSIGNED, Signer, encode_query
from builder.digest import BLOCK
from builder.errors import CloudError, CloudTrouble

_TIMEOUT = 60  # seconds for connecting and between two bytes; the service's own model of a put is 0.1 s


@dataclass(frozen=True, kw_only=True)
class _Request:
    what: str  # for messages: service:Action and the block
    method: str
    path: str  # percent-encoded
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    payload: str


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class _TlsConnection(http.client.HTTPSConnection):
    """An HTTPS connection that resumes the TLS session of an earlier one: 64 handshakes at the price of one."""

    def __init__(self, host: str, port: int | None, *, context: ssl.SSLContext, name: str) -> None:
        super().__init__(host, port, timeout=_TIMEOUT, context=context)
        self._tls, self._name = context, name
        self.session: ssl.SSLSession | None = None

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)  # TCP_NODELAY, and CONNECT where there is a proxy
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name, session=self.session)


class BlockClient:
    """Puts and gets single blocks, each in one attempt; safe to use from several threads at once.

    Every thread that calls gets a connection of its own, kept for the next call. Raises only errors of
    builder/errors.py; CloudTrouble is worth another attempt, since both calls are idempotent.
    """

    def __init__(self, url: str, signer: Signer, *, pacer: Pacer, ca_file: Path | None = None) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._name, self._port = parts.hostname or "", parts.port
        self._prefix = parts.path.rstrip("/")
        self._signer, self._pacer = signer, pacer
        self._context = ssl.create_default_context(cafile=ca_file) if self._secure else None
        self._proxy = urlsplit(getproxies().get("https", "")) if self._secure and not proxy_bypass(self._name) else None
        self._session: ssl.SSLSession | None = None
        # Last in, first out: after a pause the connections that the server has not dropped yet come first.
        self._idle: deque[http.client.HTTPConnection] = deque()
        self.close = weakref.finalize(self, _close_all, self._idle)

    def put(self, snapshot_id: str, index: int, data: bytes, sha256: bytes) -> None:
        """Put 512 KiB at block `index`; return when the cloud has acknowledged the same checksum."""
        checksum = base64.b64encode(sha256).decode()
        request = _Request(
            what=f"ebs:PutSnapshotBlock: block {index} of {snapshot_id}",
            method="PUT",
            path=f"{self._prefix}/snapshots/{quote(snapshot_id, safe='')}/blocks/{index}",
            headers={
                "content-type": "application/octet-stream",
                "x-amz-checksum": checksum,
                "x-amz-checksum-algorithm": "SHA256",
                "x-amz-data-length": str(len(data)),
            },
            body=data,
            # Unsigned bodies are for https only; over plain http the hash that we hold anyway is signed: as botocore.
            payload=UNSIGNED if self._secure else sha256.hex(),
        )
        answer = self._exchange(request)
        if answer.status != 201:
            raise self._refused("ebs:PutSnapshotBlock", answer)
        if answer.headers.get("x-amz-checksum") != checksum:
            raise CloudTrouble(f"{request.what}: acknowledged with another checksum")

    def get(self, snapshot_id: str, block: BlockRef) -> bytes:
        """Return the 512 KiB of a block; they have the checksum that the cloud states."""
        request = _Request(
            what=f"ebs:GetSnapshotBlock: block {block.index} of {snapshot_id}",
            method="GET",
            path=f"{self._prefix}/snapshots/{quote(snapshot_id, safe='')}/blocks/{block.index}",
            query={"blockToken": block.token},
            payload=hashlib.sha256(b"").hexdigest(),
        )
        answer = self._exchange(request)
        if answer.status != 200:
            raise self._refused("ebs:GetSnapshotBlock", answer)
        stated = answer.headers.get("x-amz-checksum")
        if len(answer.body) != BLOCK or base64.b64encode(hashlib.sha256(answer.body).digest()).decode() != stated:
            raise CloudTrouble(f"{request.what}: damaged on the way")
        return answer.body

    def _exchange(self, request: _Request) -> _Answer:
        self._pacer.wait()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            reused = connection.sock is not None
            try:
                return self._ask(connection, request)
            except ssl.SSLCertVerificationError as error:
                raise CloudError(
                    f"the certificate of {self._name} is not trusted: {error.verify_message}",
                    hint="Give the certificate authority's file in AWS_CA_BUNDLE.",
                ) from error
            except (OSError, http.client.HTTPException) as error:
                if not reused:
                    why = str(error) or type(error).__name__
                    raise CloudTrouble(f"{request.what}: {why}") from error
                # The server had closed it while it was idle: each such connection is tried once, then a new one.

    def _ask(self, connection: http.client.HTTPConnection, request: _Request) -> _Answer:
        signed = self._signer.sign(
            request.method, request.path, query=request.query, headers=request.headers, payload=request.payload
        )
        target = f"{request.path}?{encode_query(request.query)}" if request.query else request.path
        try:
            if connection.sock is None:
                connection.connect()
            # A server that refuses early reads no further: the pipe breaks, and its answer says why.
            with contextlib.suppress(BrokenPipeError), _corked(connection.sock):
                connection.request(request.method, target, request.body, signed)
            response = connection.getresponse()
            answer = _Answer(status=response.status, headers=response.headers, body=_read(response))
        except BaseException:
            connection.close()
            raise
        if self._session is None and isinstance(connection.sock, ssl.SSLSocket):
            self._session = connection.sock.session  # TLS 1.3 hands out its tickets with the first answer
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._name, self._port, timeout=_TIMEOUT)
        if self._proxy and self._proxy.hostname:
            made = _TlsConnection(self._proxy.hostname, self._proxy.port, context=self._context, name=self._name)
            made.set_tunnel(self._name, self._port, _proxy_headers(self._proxy.username, self._proxy.password))
        else:
            made = _TlsConnection(self._name, self._port, context=self._context, name=self._name)
        made.session = self._session
        return made

    def _refused(self, call: str, answer: _Answer) -> Exception:
        try:
            said = json.loads(answer.body)
        except ValueError:
            said = None
        said = said if isinstance(said, dict) else {}
        kind = str(answer.headers.get("x-amzn-errortype") or said.get("__type") or f"HTTP {answer.status}")
        refusal = Refusal(
            call=call,
            code=kind.partition(":")[0].rpartition("#")[2],
            message=said.get("Message") or said.get("message") or "",
            status=answer.status,
            reason=said.get("Reason") or "",
            date=answer.headers.get("date"),
        )
        if refusal.throttled:
            self._pacer.throttled()
        return refusal.error()


def _read(response: http.client.HTTPResponse) -> bytes:
    """Return the body. Raises TimeoutError when it trickles: the socket's own limit is between two bytes."""
    if not response.length:  # none, as a put's, or of unknown length
        return response.read()
    deadline = time.monotonic() + limits().answer
    body, done = memoryview(bytearray(response.length)), 0
    while done < len(body):
        count = response.fp.readinto1(body[done:])  # one receive; its own read() would go on until all is there
        if count == 0:
            raise http.client.IncompleteRead(b"", len(body) - done)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no whole answer within {limits().answer:.0f} s")
        done += count
    response.length = 0
    response.read()  # so that it knows of its end, and the connection can be used again
    return bytes(body)


@contextlib.contextmanager
def _corked(connection: socket.socket) -> Iterator[None]:
    """Have the kernel send full packets only, until the end of the block.

    OpenSSL writes 33 records a put, and each would go out by itself: the kernel's part of a put falls by a fifth.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    yield
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    if not user:
        return {}
    pair = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {pair}"}


def _close_all(connections: deque[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()
