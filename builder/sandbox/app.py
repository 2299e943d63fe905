"""The WSGI application: finds the service that a request is for, lets it answer, and writes the call down."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from builder.sandbox import audit
from builder.sandbox.cloud import Cloud
from builder.sandbox.protocols import query, rest_json
from builder.sandbox.wire import Answer, Caller, Refusal, Request

log = logging.getLogger(__name__)
_OWN = "/_sandbox/"  # our own pages, beside the services
_PAGE = 4 << 20  # bytes of the call list in one answer
_REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Service(Protocol):
    """One service of the cloud; `service` is its name in the signature's credential scope."""

    service: str

    @property
    def actions(self) -> frozenset[str]:
        """The names of the calls that are answered."""

    def action(self, request: Request) -> str:
        """Return the name of the call."""

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as the service words it."""


class App:
    """Everything behind the port."""

    def __init__(self, directory: Path, cloud: Cloud, services: Sequence[Service]) -> None:
        self._directory = directory
        self._cloud = cloud
        self._services = {service.service: service for service in services}
        self._audit = audit.Audit(directory)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        try:
            answer = self._own_page(request) if request.path.startswith(_OWN) else self._answer(request)
            request.drain()
        except OSError as error:  # the client went away
            log.info("connection lost: %s", error)
            answer = Answer(status=400)
        headers = {"Content-Length": str(len(answer.body)), "x-amzn-RequestId": request.id, **answer.headers}
        start_response(_REASONS[answer.status], list(headers.items()))
        return [answer.body] if request.method != "HEAD" else []

    def _answer(self, request: Request) -> Answer:
        caller = request.caller
        service: Service = self._services.get(caller.service, _ABSENT) if caller else _ABSENT
        action, error = "", ""
        try:
            action = service.action(request)
            # Seam: a table of faults acts here. Before this line a call can be refused, delayed or cut; after it, its
            # answer can be lost.
            answer = service.perform(action, request, caller or _NOBODY)
        except Refusal as refusal:
            error = refusal.code
            answer = service.refuse(refusal, request)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            error = "InternalError"
            answer = service.refuse(Refusal(error, "An internal error has occurred", status=500), request)
        scope = caller or _NOBODY
        self._audit.add(scope.service, action, answer.status, error, scope.region)
        return answer

    def _own_page(self, request: Request) -> Answer:
        match request.path.removeprefix(_OWN):
            case "status":
                return rest_json.answer(self._cloud.summary())
            case "calls":
                start = request.query.get("from", "0")
                return self._calls(int(start)) if start.isdecimal() else Answer(status=400)
            case "actions":
                return rest_json.answer({name: sorted(one.actions) for name, one in self._services.items()})
            case _:
                return Answer(status=404)

    def _calls(self, start: int) -> Answer:
        """Return the calls from byte `start` of the list, and where the next look begins."""
        with open(self._directory / audit.FILE, "rb") as file:
            file.seek(start)
            data = file.read(_PAGE)
        whole = data[: data.rfind(b"\n") + 1]
        calls = [json.loads(line) for line in whole.splitlines()]
        return rest_json.answer({"calls": calls, "next": start + len(whole)})


class _Absent:
    """Stands for every service that the sandbox does not have: it refuses, in the protocol that the request speaks."""

    service = ""
    actions: frozenset[str] = frozenset()

    def action(self, request: Request) -> str:
        """Return the best name that the request gives its call."""
        target = request.header("X-Amz-Target")
        if target:
            return target.rpartition(".")[2]
        return request.form.get("Action") or f"{request.method} {request.path}"

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Raise Refusal."""
        if request.caller is None:
            raise Refusal("MissingAuthenticationToken", "The request is not signed.", status=403)
        raise Refusal("UnsupportedOperation", f"The sandbox does not support {caller.service}:{action}.")

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal in XML or JSON as the real service would."""
        if request.header("X-Amz-Target"):
            return rest_json.refuse_json(refusal, request)
        if request.caller is not None and request.caller.service == "s3":
            return query.refuse_s3(refusal, request)
        if "Action" not in request.form:
            return rest_json.refuse(refusal, request)
        if request.caller is None:
            return query.refuse_ec2(refusal, request)
        return query.refuse_query(refusal, request)


_ABSENT = _Absent()
_NOBODY = Caller(account="", region="", service="", access_key="")
