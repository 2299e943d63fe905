"""Where faults act on a call: before it is performed, on its result, and on the way its answer takes.

app.py calls `before`, `after` and `pieces`, in this order and in one thread for each request; what acts on a request is
remembered for its thread in between.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from fnmatch import fnmatchcase
from pathlib import Path

from builder import pool
from builder.sandbox.faults import codes, delivery, fates
from builder.sandbox.faults.model import Fault
from builder.sandbox.faults.table import Table
from builder.sandbox.running import Machines, NoMachines
from builder.sandbox.state import State
from builder.sandbox.wire import Answer, Refusal, Request

_ID = re.compile(r"\b(?:import-snap|snap|[ae]mi|[ae]ki|[ae]ri|vol|i)-[0-9a-f]{8,17}\b")
_READS = ("Describe", "List", "Get")  # how calls that look for resources are named


@dataclass(frozen=True, kw_only=True)
class Met:
    """A call that faults may act on."""

    service: str
    call: str
    account: str = ""
    region: str = ""


@dataclass(kw_only=True)
class _Acting:
    """What acts on the request at hand."""

    met: Met
    faults: list[tuple[int, Fault]] = field(default_factory=list)

    def of(self, *effects: str) -> list[Fault]:
        """Return the faults of these effects."""
        return [fault for _, fault in self.faults if fault.effect in effects]


class Faults:
    """The faults of one sandbox at work."""

    def __init__(self, state: State, directory: Path, machines: Callable[[], Machines] = NoMachines) -> None:
        self.table = Table(state, directory)
        self._machines = machines
        self._state = state
        self._here = pool.Local()

    def before(self, request: Request, met: Met) -> None:
        """Decide which faults act on this call. Raises Refusal when one of them refuses it."""
        self._state.hide(())
        self._here.acting = None
        hidden: set[str] = set()
        found = self.table.acting(lambda fault: self._concerns(fault, met, request, hidden))
        if not found:
            return
        acting = self._here.acting = _Acting(met=met, faults=found)
        self._state.hide(hidden)
        for fault in acting.of(*codes.REFUSALS):
            raise codes.refusal(fault, service=met.service, call=met.call)
        if acting.of("reset"):
            raise Refusal("ConnectionReset", "The connection is reset by a fault.", status=503)  # nobody reads it

    def clock(self) -> float:
        """Return the time, in seconds since the epoch, as the service sees it for the request at hand."""
        acting = self._acting()
        skews = acting.of("skew") if acting else []
        return time.time() + sum(fault.parameter("seconds") for fault in skews)

    def after(self, request: Request, answer: Answer) -> Answer:
        """Return the answer as the faults leave it, whether the call was performed or refused."""
        acting = self._acting()
        if acting is None:
            return answer
        self._state.hide(())
        if answer.status < 300:
            for fault in acting.of("stuck", "fail"):
                fates.seal(self._state, fault, acting.met.call, answer, lambda: _mentioned(request))
            for fault in acting.of("dies"):
                fates.doom(self._machines(), fault.parameter("seconds"), answer, _mentioned(request))
            for fault in acting.of("corrupt"):
                answer = delivery.corrupted(answer, matching=fault.matching)
        if acting.of("skew"):
            answer = replace(answer, headers={**answer.headers, "Date": formatdate(self.clock(), usegmt=True)})
        return answer

    def said(self) -> str:
        """Return what acts on the request at hand, for the list of calls: `3:throttle 4:slow`, or nothing."""
        acting = self._acting()
        return " ".join(f"{number}:{fault.effect}" for number, fault in acting.faults) if acting else ""

    def pieces(self, request: Request, answer: Answer) -> Iterable[bytes] | None:
        """Return the answer's body if faults change how it is sent, else None; wait, or cut, where they say so.

        Raises ConnectionResetError once the connection is cut.
        """
        acting = self._acting()
        if acting is None:
            return None
        self._here.acting = None
        if slow := acting.of("slow"):
            time.sleep(sum(fault.parameter("seconds") for fault in slow))
        if acting.of("reset", "lost"):
            delivery.cut(request)
        body: Iterator[bytes] | None = None
        if trickle := acting.of("trickle"):
            body = delivery.trickled(answer, min(fault.parameter("rate") for fault in trickle))
        if acting.of("reset-body"):
            body = delivery.halved(answer, request)
        elif body is None and answer.stream is not None and acting.of("corrupt"):
            body = delivery.flipped(answer)
        return iter(()) if body is not None and request.method == "HEAD" else body

    def _acting(self) -> _Acting | None:
        acting: _Acting | None = getattr(self._here, "acting", None)
        return acting

    def _concerns(self, fault: Fault, met: Met, request: Request, hidden: set[str]) -> bool:
        if not fault.concerns(service=met.service, call=met.call, account=met.account, region=met.region):
            return False
        if fault.effect == "lag":
            young = fates.young(self._state, fault.parameter("seconds"))
            if not met.call.startswith(_READS):
                young &= _mentioned(request)  # what a name clashes with is known at once, as in the real service
            found = {key for key in young if fnmatchcase(key, fault.resource)}
            hidden |= found
            return bool(found)
        return fault.resource == "*" or any(fnmatchcase(name, fault.resource) for name in _names(request))


def _mentioned(request: Request) -> set[str]:
    """Return the ids of resources that the request names."""
    return {found for name in _names(request) for found in _ID.findall(name)}


def _names(request: Request) -> Iterator[str]:
    """Yield what the request names: its path, the path's parts, its parameters' values."""
    path = request.path
    yield path
    yield from filter(None, path.split("/"))
    form: Mapping[str, str] = request.form
    yield from form.values()
