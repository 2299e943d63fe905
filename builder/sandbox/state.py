"""The sandbox's records, durable: every change is one SQLite transaction, committed before it is acknowledged.

Write order and crash windows are in docs/design/sandbox.md. Records are also held in memory, where describe calls
read them without a lock; whoever checks and then changes does both under `lock`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from builder import pool
from builder.sandbox.records import Record, from_json, to_json

Kind = TypeVar("Kind", bound=Record)

_SCHEMA = """
create table if not exists record (
    sequence integer primary key autoincrement,  -- order of creation: the order in which describe calls list
    kind text not null,
    key text not null,
    body text not null,
    unique (kind, key)
);
"""
_PUT = (
    "insert into record (kind, key, body) values (?, ?, ?) on conflict (kind, key) do update set body = excluded.body"
)
_SCAN = "select body from record where kind = ? and key >= ? and key < ? order by key limit ?"
_REMOVE = "delete from record where kind = ? and key = ?"


class State:
    """All records of one sandbox directory."""

    def __init__(self, file: Path) -> None:
        self.lock = pool.Lock()
        self._here = pool.Local()
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        # FULL: an acknowledged record outlives a power cut as well as kill -9.
        self._database.executescript(f"pragma journal_mode=wal; pragma synchronous=full; {_SCHEMA}")
        self._kinds: dict[type[Record], dict[str, Record]] = {}
        for (kind,) in self._database.execute("select distinct kind from record").fetchall():
            if Record.kind(kind).in_memory:
                rows = self._database.execute("select body from record where kind = ? order by sequence", (kind,))
                for (body,) in rows:
                    self._remember(from_json(kind, body))

    def all(self, kind: type[Kind]) -> Mapping[str, Kind]:
        """Return every record of a kind by its key, in order of creation: a view that changes with the state.

        Iterate over a copy, `list(...)`, unless under `lock`.
        """
        found = self._kinds.setdefault(kind, {})
        if hidden := getattr(self._here, "hidden", None):
            found = {key: record for key, record in list(found.items()) if key not in hidden}
        return cast("Mapping[str, Kind]", found)

    def hide(self, keys: Collection[str]) -> None:
        """Let `all` and `find` leave these records out in this thread until told otherwise: a describe that lags."""
        self._here.hidden = keys

    def find(self, kind: type[Kind], key: str) -> Kind | None:
        """Return a record, or None. Call it under `lock` for a kind that is not held in memory."""
        if kind.in_memory:
            return self.all(kind).get(key)
        row = self._database.execute(
            "select body from record where kind = ? and key = ?", (kind.__name__, key)
        ).fetchone()
        return cast(Kind, from_json(kind.__name__, row[0])) if row else None

    def scan(self, kind: type[Kind], start: str, stop: str, limit: int) -> list[Kind]:
        """Return up to `limit` records with start <= key < stop, in the order of their keys' UTF-8 bytes.

        For kinds that are not held in memory: the index over (kind, key) is the list. Call it under `lock`.
        """
        rows = self._database.execute(_SCAN, (kind.__name__, start, stop, limit)).fetchall()
        return [cast(Kind, from_json(kind.__name__, body)) for (body,) in rows]

    def bodies(self, kind: type[Record]) -> Iterator[str]:
        """Yield every record of a kind as the JSON it is kept as. Call it under `lock`, or before anybody serves."""
        for (body,) in self._database.execute("select body from record where kind = ?", (kind.__name__,)):
            yield body

    def put(self, *records: Record) -> None:
        """Add or replace the records, all or none; on the disk when this returns. Call it under `lock`."""
        self.change(put=records)

    def remove(self, *records: Record) -> None:
        """Forget the records, all or none, durably; fine for those that are gone. Call it under `lock`."""
        self.change(remove=records)

    def change(self, *, put: Iterable[Record] = (), remove: Iterable[Record] = ()) -> None:
        """Add or replace some records and forget others, in one transaction. Call it under `lock`."""
        put, remove = list(put), list(remove)
        self._commit(
            (_PUT, [(type(record).__name__, record.key, to_json(record)) for record in put]),
            (_REMOVE, [(type(record).__name__, record.key) for record in remove]),
        )
        for record in put:
            self._remember(record)
        for record in remove:
            self._kinds.get(type(record), {}).pop(record.key, None)

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        self._database.close()

    def _commit(self, *statements: tuple[str, list[Any]]) -> None:
        self._database.execute("begin immediate")
        try:
            for statement, rows in statements:
                self._database.executemany(statement, rows)
            self._database.execute("commit")
        except BaseException:
            self._database.execute("rollback")
            raise

    def _remember(self, record: Record) -> None:
        if record.in_memory:
            self._kinds.setdefault(type(record), {})[record.key] = record
