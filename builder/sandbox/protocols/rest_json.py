"""AWS's rest-json protocol: JSON bodies, the error's type in the header x-amzn-ErrorType."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from builder.sandbox.wire import Answer, Refusal, Request

_TYPE = {"Content-Type": "application/json"}


def answer(body: Mapping[str, object], *, status: int = 200) -> Answer:
    """Return `body` as JSON."""
    return Answer(status=status, headers=_TYPE, body=json.dumps(body).encode())


def refuse(refusal: Refusal, request: Request) -> Answer:
    """Return the refusal; `Reason` only where the service has one."""
    body = {"Message": refusal.message} | ({"Reason": refusal.reason} if refusal.reason else {})
    headers = {**_TYPE, "x-amzn-ErrorType": refusal.code, "x-amzn-RequestId": request.id}
    return Answer(status=refusal.status, headers=headers, body=json.dumps(body).encode())


def refuse_json(refusal: Refusal, request: Request) -> Answer:
    """Return the refusal as services of the plain json protocol word it (SSM, DynamoDB, …)."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": request.id}
    body = json.dumps({"__type": refusal.code, "message": refusal.message}).encode()
    return Answer(status=refusal.status, headers=headers, body=body)


def parse(body: bytes) -> dict[str, Any]:
    """Return the parameters of a call. Raises Refusal when the body is no JSON object."""
    try:
        values = json.loads(body or b"{}")
    except ValueError as error:
        raise Refusal("SerializationException", f"The body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise Refusal("SerializationException", "The body is not a JSON object.")
    return values
