"""What faults do to resources: hide the young, keep them pending, let them fail, kill their machines."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from builder import pool
from builder.sandbox.faults.model import MAKES, Fault
from builder.sandbox.records import Image, ImportTask, Instance, Snapshot, Volume
from builder.sandbox.records.faults import Stuck
from builder.sandbox.running import Machines
from builder.sandbox.state import State
from builder.sandbox.wire import Answer

_INSTANCE = re.compile(r"\bi-[0-9a-f]{8,17}\b")
_WHY = "Client.InternalError: the sandbox was told to fail this."


def young(state: State, seconds: float) -> set[str]:
    """Return the ids of what was made less than so many seconds ago."""
    since = time.time() - seconds
    found = {one.key for one in list(state.all(Snapshot).values()) if one.start_time > since}
    found |= {one.key for one in list(state.all(Image).values()) if one.creation_time > since}
    found |= {one.key for one in list(state.all(Volume).values()) if one.create_time > since}
    found |= {one.key for one in list(state.all(Instance).values()) if one.creation_time > since}
    return found | {one.key for one in list(state.all(ImportTask).values()) if one.start_time > since}


def seal(state: State, fault: Fault, call: str, answer: Answer, mentioned: Callable[[], Iterable[str]]) -> None:
    """Decide, durably, what becomes of the resource that a call has just made or finished."""
    prefix = MAKES.get(call)
    if prefix is None:
        return
    pattern = re.compile(rf"\b(?:{prefix})-[0-9a-f]{{8,17}}\b")
    made = set(pattern.findall(answer.body.decode(errors="replace")))
    made = made or {name for name in mentioned() if pattern.fullmatch(name)}  # CompleteSnapshot answers without the id
    with state.lock:
        for resource in sorted(made):
            if fault.effect == "stuck":
                state.put(Stuck(resource=resource))
            else:
                _fail(state, resource, fault.reason or _WHY)


def doom(machines: Machines, seconds: float, answer: Answer, mentioned: Iterable[str]) -> None:
    """Have the machines of all instances that the call or its answer names lost after so many seconds.

    A restart of the sandbox forgets it: it has ended them all by then.
    """
    doomed = {*_INSTANCE.findall(answer.body.decode(errors="replace")), *filter(_INSTANCE.fullmatch, mentioned)}

    def kill() -> None:
        time.sleep(seconds)
        for instance_id in doomed:
            machines.kill(instance_id)

    pool.Background(kill)


def _fail(state: State, resource: str, why: str) -> None:
    if (snapshot := state.all(Snapshot).get(resource)) is not None:
        state.put(replace(snapshot, failure=why))
    if (image := state.all(Image).get(resource)) is not None:
        state.put(replace(image, failure=why))
    if (volume := state.all(Volume).get(resource)) is not None:
        state.put(replace(volume, failure=why))
    if (task := state.all(ImportTask).get(resource)) is not None:
        made = state.all(Snapshot).get(task.snapshot_id or "")  # a small import may have ended already
        ended = replace(task, failure=why, end_time=task.end_time or time.time(), snapshot_id=None)
        state.change(put=[ended], remove=[made] if made is not None else [])
