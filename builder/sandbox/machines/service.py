"""The metadata service of one instance: HTTP over a socket file in its machine's directory, where qemu brings it.

So no other instance can ask it, nor another user of this host. Answers are EC2's ("Use the Instance Metadata Service"):
requests with a token (IMDSv2), and without one where that is allowed. The hop limit of a token's answer is not acted
upon: it counts routers on the way, and slirp ends the guest's connection before we could send anything along it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any
from urllib.parse import unquote

from builder import pool
from builder.sandbox.machines.metadata import VERSIONS, Metadata, Tree, tree

TOKEN, LIFE = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"
_MOST = 21600  # seconds that a token may live: six hours
_PATIENCE = 5  # seconds for one request: they are answered one after the other
_VERSION_2 = "latest/api/token"


class Service:
    """Answers requests from a thread of its own until `close`; `facts` is asked for each."""

    def __init__(self, place: Path, facts: Callable[[], Metadata]) -> None:
        """Listen at `place`, whose directory exists; a socket that an earlier service left there is replaced."""
        place.unlink(missing_ok=True)
        self._place = place
        self._key = secrets.token_bytes(32)
        self._server = _listening(place, self._handler(facts))
        self._open = True
        pool.Background(self._serve)

    def close(self) -> None:
        """Stop listening and remove the socket; safe to repeat.

        A request that is being answered is not waited for: its answer may wait for whoever closes.
        """
        if self._open:
            self._open = False
            self._place.unlink(missing_ok=True)
            with suppress(OSError):  # a thread that was between two requests has seen it and closed the socket
                self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread up

    def _serve(self) -> None:
        while self._open:
            self._server.handle_request()
        self._server.server_close()

    def _handler(self, facts: Callable[[], Metadata]) -> type[_Handler]:
        key = self._key

        class Handler(_Handler):
            """Knows whom it answers."""

            def told(self) -> Metadata:
                """Return the instance's facts as they are now."""
                return facts()

            def key(self) -> bytes:
                """Return what this service seals its tokens with."""
                return key

        return Handler


class _Server(UnixStreamServer):
    def handle_error(self, *_: Any) -> None:
        """Bear with a guest that has gone away."""


def _listening(place: Path, handler: type[_Handler]) -> UnixStreamServer:
    # A socket's path has 107 bytes at most, which directories of tests exceed: this way there always are enough.
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _Server(f"/proc/self/fd/{directory}/{place.name}", handler)
    finally:
        os.close(directory)


class _Handler(BaseHTTPRequestHandler):
    """One connection with one request, as IMDS closes each."""

    server_version, sys_version = "EC2ws", ""
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE

    def told(self) -> Metadata:
        """Return the instance's facts as they are now."""
        raise NotImplementedError

    def key(self) -> bytes:
        """Return what this service seals its tokens with."""
        raise NotImplementedError

    def log_message(self, *_: Any) -> None:
        """Say nothing: what guests ask is their own affair."""

    def do_PUT(self) -> None:
        """Give a token."""
        facts = self.told()
        if not facts.endpoint:
            self._say(403)
        elif not facts.tokens or self._path() != _VERSION_2:
            self._say(404 if not facts.tokens else 405)
        elif self.headers.get("X-Forwarded-For"):  # an open proxy on the instance: EC2 refuses it a token
            self._say(403)
        else:
            life = self.headers.get(LIFE, "")
            if life.isascii() and life.isdecimal() and 1 <= int(life) <= _MOST:
                self._say(200, self._token(int(life)).encode(), life=life)
            else:
                self._say(400)

    def do_GET(self, *, body: bool = True) -> None:
        """Answer with a value, or with the names in a directory."""
        facts = self.told()
        if not facts.endpoint:
            self._say(403)
        elif facts.tokens and not self._let_in(required=facts.tokens_required):
            self._say(401)
        else:
            found = _answer(facts, self._path())
            self._say(404 if found is None else 200, found or b"", body=body)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self.do_GET(body=False)

    def _path(self) -> str:
        return unquote(self.path.partition("?")[0]).strip("/")

    def _let_in(self, *, required: bool) -> bool:
        token = self.headers.get(TOKEN)
        if token is None:
            return not required
        end, _, seal = token.partition(".")
        genuine = hmac.compare_digest(seal.encode(), self._seal(end).encode())
        return genuine and time.time() < int(end)

    def _token(self, life: int) -> str:
        end = str(int(time.time()) + life)
        return f"{end}.{self._seal(end)}"

    def _seal(self, end: str) -> str:
        return hmac.new(self.key(), end.encode(), hashlib.sha256).hexdigest()

    def _say(self, status: int, said: bytes = b"", *, body: bool = True, life: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(said)))
        if life:
            self.send_header(LIFE, life)
        self.send_header("Connection", "close")
        self.end_headers()
        if body:
            self.wfile.write(said)
        self.close_connection = True


def _answer(facts: Metadata, path: str) -> bytes | None:
    if not path:
        return "\n".join(VERSIONS).encode()
    version, *names = path.split("/")
    if version not in VERSIONS:
        return None
    place: Tree | str | bytes = tree(facts)
    for name in names:
        if not isinstance(place, dict) or name not in place:
            return None
        place = place[name]
    if isinstance(place, dict):
        return _listing(facts, names, place).encode()
    return place.encode() if isinstance(place, str) else bytes(place)  # type: ignore[arg-type]


def _listing(facts: Metadata, names: list[str], place: dict[str, Tree | str | bytes]) -> str:
    if names == ["meta-data", "public-keys"]:
        return "\n".join(f"{at}={name}" for at, (name, _) in enumerate(facts.public_keys))
    return "\n".join(f"{name}/" if isinstance(below, dict) else name for name, below in place.items())
