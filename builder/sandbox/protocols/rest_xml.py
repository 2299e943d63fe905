"""AWS's rest-xml protocol as S3 speaks it: members in the URI, the query string, headers and an XML body.

botocore's service model says which member is where, both ways; moto has no part in it, because a listing of a thousand
keys is to take milliseconds. Reading the model takes 20 ms, so it happens once, on the first call.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from functools import cache
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from builder.sandbox.wire import Answer, Refusal, Request

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_XML = {"Content-Type": "application/xml"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\r\ufffe\uffff]")
_NUMBER = re.compile(r"[+-]?\d{1,19}")
Values = dict[str, Any]


class S3Refusal(Refusal):
    """A refusal with the elements beside Code and Message that S3's documentation names, and headers of its own."""

    def __init__(
        self, code: str, message: str, *, status: int = 400, headers: Mapping[str, str] | None = None, **fields: object
    ) -> None:
        super().__init__(code, message, status=status)
        self.headers = headers or {}
        self.fields = fields


def refuse(refusal: Refusal, request: Request, host_id: str) -> Answer:
    """Return the refusal as S3 words it, whose own word for a call it does not have is NotImplemented."""
    code, status = ("NotImplemented", 501) if refusal.code == "UnsupportedOperation" else (refusal.code, refusal.status)
    fields: dict[str, object] = {"Code": code, "Message": refusal.message}
    if isinstance(refusal, S3Refusal):
        fields |= refusal.fields
    fields |= {"Resource": fields.get("Resource", request.raw_path), "RequestId": request.id, "HostId": host_id}
    text = "".join(f"<{name}>{_text(str(value))}</{name}>" for name, value in fields.items())
    headers = {**_XML, **(refusal.headers if isinstance(refusal, S3Refusal) else {})}
    body = f"{_DECLARATION}<Error>{text}</Error>".encode()
    if request.method == "HEAD":  # it says nothing but its status
        return Answer(status=status, headers={**headers, "Content-Length": "0"})
    return Answer(status=status, headers=headers, body=body)


class Model:
    """S3's service model: parameters out of requests, answers out of values."""

    def __init__(self) -> None:
        import botocore.session  # noqa: TID251 - the model's words, no call to a cloud

        self._model = botocore.session.get_session().get_service_model("s3")

    def operations(self) -> Iterator[tuple[str, str, str]]:
        """Yield (name, method, URI with the query that tells it apart) of every call of the real service."""
        for name in self._model.operation_names:
            http = self._model.operation_model(name).http
            yield name, http["method"], http["requestUri"]

    def checksum_required(self, action: str) -> bool:
        """Say whether the call must come with Content-MD5 or another checksum of its body."""
        return bool((self._model.operation_model(action).http_checksum or {}).get("requestChecksumRequired"))

    def parameters(self, action: str, request: Request) -> Values:
        """Return what the URI's query and the headers say, by the names of the model. Raises Refusal."""
        values: Values = {}
        for name, shape in self._model.operation_model(action).input_shape.members.items():
            place, wire = shape.serialization.get("location"), shape.serialization.get("name", name)
            if place == "headers":
                values[name] = {
                    header[len(wire) :]: request.header(header) or ""
                    for header in request.header_names
                    if header.startswith(wire) and len(header) > len(wire)
                }
                continue
            text = request.query.get(wire) if place == "querystring" else None
            if place == "header":
                text = request.header(wire)
            if text is None:
                continue
            if shape.type_name == "timestamp" and place == "header":
                with suppress(ValueError):  # a date that is none is no condition, and no Expires that S3 minds
                    values[name] = parse_time(text)
                if name == "Expires":
                    values[name] = text
                continue
            values[name] = _scalar(shape, text, wire)
        return values

    def body(self, action: str, data: bytes) -> tuple[str, Values]:
        """Return the payload member's name and the values in the XML `data`. Raises Refusal (MalformedXML)."""
        shape = self._model.operation_model(action).input_shape
        payload = shape.serialization["payload"]
        member = shape.members[payload]
        try:
            root = ET.fromstring(data)  # noqa: S314 - bodies are small, and expat bounds what entities expand to
        except (ET.ParseError, ValueError, LookupError):
            raise malformed() from None
        if _local(root.tag) != member.serialization.get("name", member.name):
            raise malformed()
        return payload, _structure(member, root)

    def answer(self, action: str, result: Mapping[str, Any], *, root: str = "", status: int = 200) -> Answer:
        """Return the result: header members as headers, the others as XML under `root` or the payload's own name."""
        shape = self._model.operation_model(action).output_shape
        headers: dict[str, str] = {}
        body: dict[str, Any] = {}
        for name, value in result.items() if shape is not None else ():
            if value is None:
                continue
            member = shape.members[name]
            place, wire = member.serialization.get("location"), member.serialization.get("name", name)
            if place == "headers":
                headers |= {f"{wire}{key}": text for key, text in value.items()}
            elif place == "header":
                headers[wire] = _word(member, value, header=True)
            else:
                body[name] = value
        payload = shape.serialization.get("payload") if shape is not None else None
        if payload in body:
            member = shape.members[payload]
            if member.type_name != "structure":  # a bucket policy
                headers["Content-Type"] = "application/json"
                return Answer(status=status, headers=headers, body=body[payload].encode())
            shape, root, body = member, root or member.serialization.get("name", member.name), body[payload]
        elif not root:
            return Answer(status=status, headers=headers)
        text = "".join(_members(shape, body))
        document = f'{_DECLARATION}<{root} xmlns="{NAMESPACE}">{text}</{root}>'
        return Answer(status=status, headers={**headers, **_XML}, body=document.encode())


@cache
def model() -> Model:
    """Return S3's model, read once."""
    return Model()


def malformed() -> Refusal:
    """Return S3's refusal of a body that does not fit its schema."""
    return Refusal(
        "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"
    )


# In


def _scalar(shape: Any, text: str, wire: str) -> Any:
    """Return a query parameter or a header as its type. Raises Refusal (InvalidArgument)."""
    kind = shape.type_name
    try:
        if kind == "timestamp":
            return parse_time(text)
        if kind in ("integer", "long"):
            return int(text if _NUMBER.fullmatch(text) else "")  # int() alone takes 1_0 and blanks
        if kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError):
        message = f"Provided {wire} not an integer or within integer range" if kind == "integer" else f"Invalid {wire}"
        raise S3Refusal("InvalidArgument", message, ArgumentName=wire, ArgumentValue=text) from None
    if kind == "list":
        return [word.strip() for word in text.split(",")]
    return text


def parse_time(text: str) -> float:
    """Return an HTTP date or an ISO 8601 time in seconds since the epoch. Raises ValueError."""
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        moment = datetime.fromisoformat(text)
    return calendar.timegm(moment.astimezone(UTC).timetuple()) if moment.tzinfo else calendar.timegm(moment.timetuple())


def _structure(shape: Any, element: ET.Element) -> Values:
    names = {}
    values: Values = {}
    for name, member in shape.members.items():
        flat = member.type_name == "list" and member.serialization.get("flattened")
        default = (member.member.serialization.get("name") if flat else None) or name
        wire = member.serialization.get("name", default)
        if member.serialization.get("xmlAttribute"):
            for key, text in element.attrib.items():
                if _local(key) == wire.rpartition(":")[2]:
                    values[name] = text
        else:
            names[wire] = (name, member, flat)
    for child in element:
        tag = _local(child.tag)
        if tag not in names:
            raise malformed()
        name, member, flat = names[tag]
        if flat:
            values.setdefault(name, []).append(_value(member.member, child))
        elif name in values:
            raise malformed()
        else:
            values[name] = _value(member, child)
    if set(shape.required_members) - set(values):
        raise malformed()
    return values


def _value(shape: Any, element: ET.Element) -> Any:
    if shape.type_name == "structure":
        return _structure(shape, element)
    if shape.type_name == "list":
        wire = shape.member.serialization.get("name", "member")
        if any(_local(child.tag) != wire for child in element):
            raise malformed()
        return [_value(shape.member, child) for child in element]
    text = element.text or ""
    if len(element):
        raise malformed()
    try:
        value = _scalar(shape, text.strip() if shape.type_name != "string" else text, "")
    except Refusal:
        raise malformed() from None
    # A region has a refusal of its own, and the model knows not all of them.
    if getattr(shape, "enum", None) and value not in shape.enum and shape.name != "BucketLocationConstraint":
        raise malformed()
    return value


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


# Out


def iso(moment: float) -> str:
    """Return a time as S3's XML writes it: 2026-01-31T23:59:59.000Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment * 1000) % 1000:03d}Z"


def _word(shape: Any, value: Any, *, header: bool = False) -> str:
    if shape.type_name == "timestamp":
        if isinstance(value, str):
            return value
        return formatdate(value, usegmt=True) if header else iso(value)
    if shape.type_name == "boolean":
        return "true" if value else "false"
    return str(value)


def _text(value: str) -> str:
    """Return the text as XML's content; what XML 1.0 cannot hold goes in as a reference, as S3 sends it."""
    return _CONTROL.sub(lambda match: f"&#x{ord(match[0]):x};", escape(value, {'"': "&quot;"}))


_Writer = Callable[[Any], Iterator[str]]


def _members(shape: Any, values: Mapping[str, Any]) -> Iterator[str]:
    writers = _writers(shape)
    for name, value in values.items():
        if value is not None:
            yield from writers[name](value)


@cache
def _writers(shape: Any) -> dict[str, _Writer]:
    return {name: _writer(name, member) for name, member in shape.members.items()}


def _writer(name: str, member: Any) -> _Writer:
    wire = member.serialization.get("name", name)
    if member.type_name == "list":
        inner = member.member.serialization.get("name", "member")
        one = _element(inner if not member.serialization.get("flattened") else _flat_name(name, member), member.member)
        if member.serialization.get("flattened"):
            return lambda items: (text for item in items for text in one(item))
        return lambda items: iter((f"<{wire}>", *(text for item in items for text in one(item)), f"</{wire}>"))
    return _element(wire, member)


def _flat_name(name: str, member: Any) -> str:
    found: str = member.serialization.get("name") or member.member.serialization.get("name") or name
    return found


def _element(wire: str, shape: Any) -> _Writer:
    opening, closing = f"<{wire}>", f"</{wire}>"
    if shape.type_name == "structure":
        attribute = next((name for name, one in shape.members.items() if one.serialization.get("xmlAttribute")), None)
        if attribute is not None:  # only Grantee has one: its xsi:type

            def typed(value: Mapping[str, Any]) -> Iterator[str]:
                yield f'<{wire} xmlns:xsi="{_XSI}" xsi:type="{_text(value[attribute])}">'
                yield from _members(shape, {name: one for name, one in value.items() if name != attribute})
                yield closing

            return typed
        return lambda value: iter((opening, *_members(shape, value), closing))
    if shape.type_name == "string":
        return lambda value: iter((opening, _text(value), closing))
    return lambda value: iter((opening, _word(shape, value), closing))
