"""The table of faults in force: kept in the state, matched against every call, and counted.

The table is one record, so that replacing it is one transaction. How often each fault was met and has acted is in
`faults-TABLE.counts`, 16 bytes each, written through a mapping: that survives kill -9, so that a restart neither
repeats nor forgets a fault, and costs no transaction for a block.
"""

from __future__ import annotations

import json
import mmap
import random
import secrets
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import durable, pool
from builder.sandbox.faults.model import Fault
from builder.sandbox.records.faults import FaultTable, Stuck
from builder.sandbox.state import State

_COUNTS = struct.Struct("<QQ")  # of one fault: calls met, times acted
_KEY = "faults"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault with how many calls it was about and how often it acted."""

    fault: Fault
    met: int
    acted: int


class _Loaded:
    """A table that is in force: its faults and their counts."""

    def __init__(self, record: FaultTable, directory: Path) -> None:
        self.record = record
        self.faults = [Fault.model_validate(entry) for entry in json.loads(record.faults)]
        path = directory / f"faults-{record.table_id}.counts"
        size = _COUNTS.size * len(self.faults)
        if not path.exists() or path.stat().st_size != size:
            durable.write_file(path, bytes(size))
        with open(path, "r+b") as file:
            self._counts = mmap.mmap(file.fileno(), size)

    def counts(self, number: int) -> tuple[int, int]:
        """Return how many calls the fault was about, and how often it acted."""
        met, acted = _COUNTS.unpack_from(self._counts, number * _COUNTS.size)
        return int(met), int(acted)

    def count(self, number: int, met: int, acted: int) -> None:
        """Remember both."""
        _COUNTS.pack_into(self._counts, number * _COUNTS.size, met, acted)


class Table:
    """All faults of one sandbox directory; safe to use from several threads at once."""

    def __init__(self, state: State, directory: Path) -> None:
        self._state, self._directory = state, directory
        self._lock = pool.Lock()
        self._loaded: _Loaded | None = None
        with self._lock:
            self._sweep()

    def replace(self, faults: Sequence[Fault]) -> None:
        """Put these faults in the place of all others, with counts of zero; durable when it returns.

        What was stuck goes on. A crash before the transaction leaves the old table.
        """
        with self._state.lock:
            old = [*self._state.all(FaultTable).values(), *self._state.all(Stuck).values()]
            record = FaultTable(
                table_id=secrets.token_hex(8),
                faults=json.dumps([fault.model_dump(exclude_unset=True) for fault in faults]),
            )
            if faults:
                stuck = [one for one in old if isinstance(one, Stuck)]
                self._state.change(put=[record], remove=stuck)
            else:
                self._state.change(remove=old)
        with self._lock:
            self._sweep()

    def rows(self) -> list[Row]:
        """Return every fault with its counts."""
        with self._lock:
            table = self._current()
            if table is None:
                return []
            numbered = enumerate(table.faults)
            return [Row(fault=fault, met=table.counts(n)[0], acted=table.counts(n)[1]) for n, fault in numbered]

    def acting(self, concerns: Callable[[Fault], bool]) -> list[tuple[int, Fault]]:
        """Count a call for every fault that it concerns; return those that act on it, with their numbers from 1."""
        if not self._state.all(FaultTable):
            return []
        with self._lock:
            table = self._current()
            return list(self._decide(table, concerns)) if table is not None else []

    def _decide(self, table: _Loaded, concerns: Callable[[Fault], bool]) -> Iterable[tuple[int, Fault]]:
        for number, fault in enumerate(table.faults):
            if concerns(fault):
                met, acted = table.counts(number)
                acts = _acts(fault, met + 1, acted)
                table.count(number, met + 1, acted + acts)
                if acts:
                    yield number + 1, fault

    def _current(self) -> _Loaded | None:
        """Return the table that the state holds; another one may have been put there meanwhile."""
        record = self._state.all(FaultTable).get(_KEY)
        if record is None:
            return None
        if self._loaded is None or self._loaded.record is not record:
            self._loaded = _Loaded(record, self._directory)
        return self._loaded

    def _sweep(self) -> None:
        """Remove the counts of tables that are in force no more."""
        record = self._state.all(FaultTable).get(_KEY)
        for path in self._directory.glob("faults-*.counts"):
            if record is None or path.name != f"faults-{record.table_id}.counts":
                path.unlink(missing_ok=True)


def _acts(fault: Fault, met: int, acted: int) -> bool:
    """Say whether the fault acts on the `met`-th call that it concerns (from 1)."""
    if met <= fault.after or (met - fault.after) % fault.every:
        return False
    if fault.first is not None and acted >= fault.first:
        return False
    # Drawn by the call's number alone: neither a restart nor another fault's draws change it.
    return fault.probability == 1 or random.Random(f"{fault.seed}/{met}").random() < fault.probability  # noqa: S311
