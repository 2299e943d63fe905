"""The WSGI application: finds the service that a request is for, lets it answer, and writes the call down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from builder.sandbox import audit, sending
from builder.sandbox.access import claim, words
from builder.sandbox.access.gate import Gate
from builder.sandbox.bundling import Bundling
from builder.sandbox.cloud import Cloud
from builder.sandbox.eucalyptus import paths
from builder.sandbox.faults.seam import Faults, Met
from builder.sandbox.own import OwnPages
from builder.sandbox.protocols import query, rest_json
from builder.sandbox.wire import ANONYMOUS, Answer, Caller, Denied, Need, Refusal, Request

log = logging.getLogger(__name__)
_REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Service(Protocol):
    """One service of the cloud; `service` is its name in the signature's credential scope."""

    service: str

    @property
    def actions(self) -> frozenset[str]:
        """The names of the calls that are answered."""

    def action(self, request: Request) -> str:
        """Return the name of the call."""

    def permissions(self, action: str, request: Request, caller: Caller) -> Iterable[Need]:
        """Return what the caller must be allowed for this call: all of it, before it is performed. Raises Refusal."""

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as the service words it."""


class App:
    """Everything behind the port."""

    def __init__(
        self, directory: Path, cloud: Cloud, gate: Gate, services: Sequence[Service], bundling: Bundling
    ) -> None:
        self._directory = directory
        self._cloud = cloud
        self._gate = gate
        self._services = {service.service: service for service in services}
        self._audit = audit.Audit(directory)
        self._faults = Faults(cloud.state, directory, lambda: cloud.machines)
        gate.clock = self._faults.clock
        actions = {name: sorted(service.actions) for name, service in self._services.items()}
        self._own = OwnPages(directory, cloud, self._faults.table, actions, bundling)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., sending.Write]) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        try:
            if self._own.wanted(request):
                answer = self._own.answer(request)
            else:
                with self._own.pause.passing():
                    answer = self._answer(request)
            request.drain()
        except OSError as error:  # the client went away
            log.info("connection lost: %s", error)
            answer = Answer(status=400)
        headers = {"Content-Length": str(answer.length), "x-amzn-RequestId": request.id, **answer.headers}
        write = start_response(_REASONS[answer.status], list(headers.items()))
        if (pieces := self._faults.pieces(request, answer)) is not None:
            return pieces
        if answer.stream is not None:
            sending.send(answer.stream, request, write)
            return []
        return [answer.body] if request.method != "HEAD" else []

    def _answer(self, request: Request) -> Answer:
        caller, name, region, action, error = ANONYMOUS, "", "", "", ""
        service: Service = _ABSENT
        try:
            if self._cloud.personality.is_eucalyptus:
                paths.route(request)
            claimed = claim.read(request)
            name = claimed.service if claimed is not None else claim.service_of(request)
            name = request.service or name
            region = self._gate.region(request, claimed)
            service = self._services.get(name, _ABSENT)
            action = service.action(request)
            account = self._gate.account(claimed)
            self._faults.before(request, Met(service=name, call=action, account=account, region=region))
            caller = self._gate.caller(request, claimed, name)
            self._gate.require(service.permissions(action, request, caller), request, caller)
            answer = service.perform(action, request, caller)
        except Denied as denied:
            name = name or request.service or claim.service_of(request)
            service = self._services.get(name, _ABSENT)
            refusal = words.of(denied, name, target=request.header("X-Amz-Target") is not None)
            error = refusal.code
            answer = service.refuse(refusal, request)
        except Refusal as refusal:
            error = refusal.code
            answer = service.refuse(refusal, request)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            error = "InternalError"
            answer = service.refuse(Refusal(error, "An internal error has occurred", status=500), request)
        answer = self._faults.after(request, answer)
        self._audit.add(name, action, answer.status, error, caller.region or region, fault=self._faults.said())
        return answer


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

    def permissions(self, _action: str, _request: Request, _caller: Caller) -> Iterable[Need]:
        """Return nothing: what does not exist is refused to everybody alike."""
        return ()

    def perform(self, action: str, _request: Request, caller: Caller) -> Answer:
        """Raise Refusal."""
        raise Refusal("UnsupportedOperation", f"The sandbox does not support {caller.service}:{action}.")

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal in XML or JSON as the real service would."""
        if request.header("X-Amz-Target"):
            return rest_json.refuse_json(refusal, request)
        scope = claim.scoped(request)
        if scope == "s3":
            return query.refuse_s3(refusal, request)
        if claim.is_form(request):
            return query.refuse_query(refusal, request)
        return rest_json.refuse(refusal, request)


_ABSENT = _Absent()
