"""A request as it came over the wire, who made it, and what goes back; no service's meaning yet."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, unquote

ACCOUNT = "123456789012"  # the one account of this version; a second one needs only `Caller.of` to tell them apart
_BODY_LIMIT = 1 << 20  # bytes of a control-plane request; EC2 takes far less
_CREDENTIAL = re.compile(r"(?:Credential=|^)([^/,\s]+)/\d{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request")
_PIECE = 1 << 16


class Refusal(Exception):
    """The cloud says no; each service wraps it in its own protocol. `reason` is the EBS direct APIs' finer word."""

    def __init__(self, code: str, message: str, *, status: int = 400, reason: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose request it is, from the signature's credential scope: the account, the region and the service asked."""

    account: str
    region: str
    service: str
    access_key: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes back to the client."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Request:
    """One HTTP request, read from its WSGI environment only as far as somebody asks."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self.id = str(uuid.uuid4())
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ["PATH_INFO"]
        length = environ.get("CONTENT_LENGTH", "")
        self.length = int(length) if length.isdecimal() else 0
        self._unread = self.length

    def header(self, name: str) -> str | None:
        """Return a header's value, or None; `name` in any case."""
        value: str | None = self._environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value

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
        """The whole body of a control-plane call. Raises Refusal when it is beyond 1 MiB."""
        if self.length > _BODY_LIMIT:
            raise Refusal("RequestEntityTooLarge", f"a request of {self.length} bytes", status=413)
        data: bytes = self._environ["wsgi.input"].read(self.length)
        self._unread -= len(data)
        return data

    def read_into(self, buffer: memoryview) -> bool:
        """Fill `buffer` from the body; say whether it was filled, or the client went away in the middle."""
        source = self._environ["wsgi.input"]
        # cheroot's body is a reader that knows its length around a buffered one, whose readinto receives straight
        # into our memory: a third of the CPU time of read() for 512 KiB.
        count = source.rfile.readinto(buffer)
        source.remaining -= count
        self._unread -= count
        return bool(count == len(buffer))

    def drain(self) -> None:
        """Read what is left of the body, piece by piece; cheroot would, but all of it into memory."""
        while self._unread > 0 and (piece := self._environ["wsgi.input"].read(min(self._unread, _PIECE))):
            self._unread -= len(piece)

    @cached_property
    def caller(self) -> Caller | None:
        """Who signed it, or None when nobody did."""
        scope = self.header("Authorization") or unquote(self.query.get("X-Amz-Credential", ""))
        match = _CREDENTIAL.search(scope)
        if match is None:
            return None
        access_key, region, service = match.groups()
        return Caller(account=ACCOUNT, region=region, service=service, access_key=access_key)
