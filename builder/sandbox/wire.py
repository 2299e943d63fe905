"""A request as it came over the wire, who made it, and what goes back; no service's meaning yet."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import parse_qs

ACCOUNT = "123456789012"  # the directory's first account; access/accounts.py adds others
_BODY_LIMIT = 1 << 20  # bytes of a control-plane request; EC2 takes far less
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIECE = 1 << 16
_BUFFERED = 1 << 13  # bytes; not less than cheroot's buffer
_UNPREFIXED = {"CONTENT_TYPE", "CONTENT_LENGTH"}  # what WSGI names without HTTP_


class Refusal(Exception):
    """The cloud says no; each service wraps it in its own protocol. `reason` is the EBS direct APIs' finer word."""

    def __init__(self, code: str, message: str, *, status: int = 400, reason: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.reason = reason


class Denied(Refusal):
    """Who asks is not who it says, or may not; `kind` is one of access/words.py, which has each service's words."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail, status=403)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose request it is, by its verified signature: the region and the service it asks, the account it acts in.

    `arn` is that of the principal as GetCallerIdentity tells it (of a session: arn:aws:sts::…:assumed-role/ROLE/NAME),
    `principal` that of the user or the role whose policies count, `root` whether it is the account itself. Without an
    account it is anonymous: only a resource's own policy can allow it anything.
    """

    account: str
    region: str
    service: str
    access_key: str
    arn: str = ""
    user_id: str = ""
    principal: str = ""
    root: bool = False


ANONYMOUS = Caller(account="", region="", service="", access_key="", arn="*")


@dataclass(frozen=True, kw_only=True)
class Need:
    """One permission that a call needs: the action's name in policies, on each of these resources.

    `context` holds the condition keys that the service knows of the call, besides the global ones: a text, or a tuple
    for a key with several values. `policy` is the resource's own policy document (JSON) and `owner` the account whose
    the resource is; without an owner it is the caller's. `strict` says that within one account too the resource's
    policy must allow it: a role's trust policy.
    """

    action: str
    resources: tuple[str, ...] = ("*",)
    context: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    policy: str | None = None
    owner: str | None = None
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A verified signature, and what of the body it covers.

    `payload` is what the client stated as x-amz-content-sha256, else the SHA-256 (hex) that the signature was made
    with: a hash, UNSIGNED-PAYLOAD or a word that begins with STREAMING-. `key`, `stamp`, `scope` and `value` (hex) are
    what the signatures of a streamed body's chunks are chained to (access/streaming.py).
    """

    payload: str
    key: bytes = field(repr=False)
    stamp: str
    scope: str
    value: str

    def forbids(self, sha256: str) -> bool:
        """Say whether a body of this SHA-256 (hex) is not the one that was signed."""
        return bool(_SHA256.fullmatch(self.payload)) and self.payload != sha256


class Stream(Protocol):
    """A body that is sent piece by piece out of open files; `sending.py` does it."""

    @property
    def length(self) -> int:
        """How many bytes it has: all of them are sent, or the connection is cut."""

    def stretches(self) -> Iterator[tuple[int, int, int]]:
        """Yield (descriptor, offset, count) in order; a descriptor is open until the next one is asked for."""

    def close(self) -> None:
        """Let go of the files; called once, sent or not."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes back to the client: `body`, or in its place `stream`."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Stream | None = None

    @property
    def length(self) -> int:
        """How many bytes its body has."""
        return len(self.body) if self.stream is None else self.stream.length


class Request:
    """One HTTP request, read from its WSGI environment only as far as somebody asks."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self.id = str(uuid.uuid4())
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ["PATH_INFO"]
        self.signature: Signature | None = None  # once it is verified
        self.service = ""  # where the path says it and not the signature
        self._base = ""
        length = environ.get("CONTENT_LENGTH", "")
        self.length = int(length) if length.isdecimal() else 0
        self._unread = self.length
        self._expects = environ.get("HTTP_EXPECT", "").lower() == "100-continue"

    def header(self, name: str) -> str | None:
        """Return a header's value, or None; `name` in any case."""
        key = name.upper().replace("-", "_")
        value: str | None = self._environ.get(key if key in _UNPREFIXED else "HTTP_" + key)
        return value

    @property
    def header_names(self) -> list[str]:
        """The names of all headers that came, in lower case."""
        return [key[5:].lower().replace("_", "-") for key in self._environ if key.startswith("HTTP_")]

    def adopt(self, headers: Mapping[str, str]) -> None:
        """Take these as headers too, where the client sent none of that name; a character is a byte."""
        for name, value in headers.items():
            self._environ.setdefault("HTTP_" + name.upper().replace("-", "_"), value)

    def route(self, service: str, base: str) -> None:
        """Take the request as one for `service`, whose paths begin with `base`: what is left is the request's path."""
        self.service, self._base = service, base
        self.path = self.path.removeprefix(base) or "/"

    @property
    def sent_path(self) -> str:
        """The path as it was sent and signed, percent-encoded."""
        uri: str = self._environ["REQUEST_URI"]
        path = uri.partition("?")[0]
        return path if path.startswith("/") else "/" + path.partition("://")[2].partition("/")[2]

    @property
    def raw_path(self) -> str:
        """The path within the service, percent-encoded."""
        return self.sent_path.removeprefix(self._base) or "/"

    @property
    def raw_query(self) -> str:
        """The query string as it was sent, percent-encoded."""
        text: str = self._environ["QUERY_STRING"]
        return text

    @property
    def address(self) -> str:
        """The client's address."""
        text: str = self._environ.get("REMOTE_ADDR", "")
        return text

    @property
    def is_secure(self) -> bool:
        """Whether it came over TLS."""
        return bool(self._environ.get("wsgi.url_scheme") == "https")

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query string's parameters, the first of each name."""
        text: str = self._environ["QUERY_STRING"]
        return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}

    @cached_property
    def form(self) -> Mapping[str, str]:
        """The parameters of a query-protocol call, from the body or the query string. Reads the body."""
        if self._environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            pairs = parse_qs(self.body.decode(errors="replace"), keep_blank_values=True)
            return {**self.query, **{name: values[0] for name, values in pairs.items()}}
        return self.query

    @cached_property
    def body(self) -> bytes:
        """The whole body of a control-plane call. Raises Refusal beyond 1 MiB, Denied if it is not what was signed."""
        if self.length > _BODY_LIMIT:
            raise Refusal("RequestEntityTooLarge", f"a request of {self.length} bytes", status=413)
        self._welcome()
        data: bytes = self._environ["wsgi.input"].read(self.length)
        self._unread -= len(data)
        if self.signature is not None and self.signature.forbids(hashlib.sha256(data).hexdigest()):
            raise Denied("payload")
        return data

    def signed(self, signature: Signature) -> None:
        """Remember the verified signature. Raises Denied when the body was read and is not what it covers."""
        self.signature = signature
        if "body" in self.__dict__ and signature.forbids(hashlib.sha256(self.body).hexdigest()):
            raise Denied("payload")

    def read_into(self, buffer: memoryview) -> bool:
        """Fill `buffer` from the body; say whether it was filled, or the client went away in the middle.

        Whoever streams a body holds it against `signature.forbids` once it has its hash.
        """
        if "body" in self.__dict__:  # its hash was needed to verify the signature
            buffer[: len(self.body)] = self.body
            return len(self.body) == len(buffer)
        self._welcome()
        return self._fill(buffer) == len(buffer)

    def receive(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as the body goes and return how many bytes came: fewer only at its end."""
        self._welcome()
        source = self._environ["wsgi.input"]
        if self._environ.get("wsgi.input_terminated"):  # Transfer-Encoding: chunked, of no known length
            data = source.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        return self._fill(buffer[: self._unread])

    def _fill(self, buffer: memoryview) -> int:
        """Receive until the buffer is full or the client is gone; return how many bytes came."""
        source = self._environ["wsgi.input"]
        # cheroot's body is a reader that knows its length around a buffered one. What is beyond its buffer is received
        # straight into our memory, a third of the CPU time of read() for 512 KiB. Its own readinto would do so too, but
        # fails (Python's _pyio in 3.11) when more is buffered than there is room left.
        reader, done = source.rfile, 0
        try:
            while done < len(buffer):
                left = len(buffer) - done
                if reader.has_data() or left <= _BUFFERED:
                    data = reader.read1(left)
                    count = len(data)
                    buffer[done : done + count] = data
                else:
                    count = reader.raw.readinto(buffer[done:])
                if not count:
                    break
                done += count
        finally:  # what is left is known whatever happens: `drain` waits for no more than that
            source.remaining -= done
            self._unread -= done
        return done

    def receive_line(self, limit: int) -> bytes:
        """Return the body's next line with its end, or as much of it as `limit` bytes hold."""
        self._welcome()
        source = self._environ["wsgi.input"]
        line: bytes = source.readline(limit)
        self._unread -= len(line) if self._unread else 0
        return line

    def _welcome(self) -> None:
        if self._expects:
            self._expects = False
            self._environ["sandbox.request"].conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def socket(self) -> Any:
        """The connection, for who sends a body out of files; a TLS socket on the TLS port."""
        return self._environ["sandbox.request"].conn.socket

    @property
    def connection(self) -> Any:
        """Our server's own connection, for who cuts it."""
        return self._environ["sandbox.request"].conn

    def hang_up(self) -> None:
        """Have the connection closed once the answer is sent."""
        self._environ["sandbox.request"].close_connection = True

    def drain(self) -> None:
        """Read what is left of the body, piece by piece; cheroot would, but all of it into memory.

        A client that still waits for `100 Continue` may send its body or not: the connection ends with the answer.
        """
        streamed = self._environ.get("wsgi.input_terminated")
        if self._expects and (self.length or streamed):
            self.hang_up()
            return
        if streamed:
            self._environ["wsgi.input"].drain()
            return
        while self._unread > 0 and (piece := self._environ["wsgi.input"].read(min(self._unread, _PIECE))):
            self._unread -= len(piece)
