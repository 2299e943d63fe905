"""The sandbox's records, durable: every change is one SQLite transaction, committed before it is acknowledged.

Write order and crash windows are in docs/design/sandbox.md. Records are also held in memory, where describe calls
read them without a lock; whoever checks and then changes does both under `lock`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from builder import pool
from builder.sandbox.records import ClientToken, Image, Record, Snapshot, from_json, key_of, to_json

_SCHEMA = """
create table if not exists record (
    sequence integer primary key autoincrement,  -- order of creation: the order in which describe calls list
    kind text not null,
    key text not null,
    body text not null,
    unique (kind, key)
);
"""


class State:
    """All records of one sandbox directory."""

    def __init__(self, file: Path) -> None:
        self.lock = pool.Lock()
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        # FULL: an acknowledged record outlives a power cut as well as kill -9.
        self._database.executescript(f"pragma journal_mode=wal; pragma synchronous=full; {_SCHEMA}")
        self._snapshots: dict[str, Snapshot] = {}
        self._images: dict[str, Image] = {}
        rows = self._database.execute("select kind, body from record where kind != 'ClientToken' order by sequence")
        for kind, body in rows:
            self._remember(from_json(kind, body))

    @property
    def snapshots(self) -> Mapping[str, Snapshot]:
        """Every snapshot by id, in order of creation."""
        return self._snapshots

    @property
    def images(self) -> Mapping[str, Image]:
        """Every image by id, in order of creation, deregistered ones included."""
        return self._images

    def token(self, key: str) -> ClientToken | None:
        """Return what the client token of that key (records.token_key) was used for. Call it under `lock`."""
        row = self._database.execute(
            "select body from record where kind = 'ClientToken' and key = ?", (key,)
        ).fetchone()
        return cast(ClientToken, from_json("ClientToken", row[0])) if row else None

    def put(self, *records: Record) -> None:
        """Add or replace the records, all or none; on the disk when this returns. Call it under `lock`."""
        rows = [(type(record).__name__, key_of(record), to_json(record)) for record in records]
        self._commit(
            "insert into record (kind, key, body) values (?, ?, ?)"
            " on conflict (kind, key) do update set body = excluded.body",
            rows,
        )
        for record in records:
            self._remember(record)

    def remove(self, snapshot: Snapshot) -> None:
        """Forget the snapshot, durably. Call it under `lock`."""
        self._commit("delete from record where kind = ? and key = ?", [("Snapshot", snapshot.snapshot_id)])
        del self._snapshots[snapshot.snapshot_id]

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        self._database.close()

    def _commit(self, statement: str, rows: Iterable[tuple[str, ...]]) -> None:
        self._database.execute("begin immediate")
        try:
            self._database.executemany(statement, rows)
            self._database.execute("commit")
        except BaseException:
            self._database.execute("rollback")
            raise

    def _remember(self, record: Record) -> None:
        match record:
            case Snapshot():
                self._snapshots[record.snapshot_id] = record
            case Image():
                self._images[record.image_id] = record
            case ClientToken():
                pass  # looked up in the file: they only grow
