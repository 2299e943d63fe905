"""The journal: what was intended, begun, finished or given up, durable before the next thing happens.

The only reader and writer of `journal.sqlite`. SQLite in WAL mode with synchronous=FULL: a word that `write` returned
from survives kill -9 and a power cut. For one key and generation the words come in this order:

    Intent  >  Effect (cloud steps: the id of what was started)  >  Result    or    Abandon, after any of them

A lease has no Result: it is held from its Effect to its Abandon. Its Effect is said again before what lies in it is
changed, so that what was said of its content before holds no more.

docs/design/journal.md has one sentence for each crash window between them.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from weakref import finalize

import sqlalchemy as sql  # noqa: TID251 - this is the door

from builder.cloud.claims import Claim
from builder.crashpoint import reach
from builder.errors import DiskFull, HostError
from pipelines.artifact import ARTIFACT
from pipelines.words import Effect, Intent, Word, body_of, word_of

Status = Literal["running", "ok", "failed", "interrupted"]

# Of the tables and words, in SQLite's user_version: raise it with every change that an older emi would misread.
_VERSION = 2
_READS = (0, 1, _VERSION)  # 0: new or empty; 1: from before there were leases

_tables = sql.MetaData()
_words = sql.Table(
    "words",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("key", sql.String, nullable=False, index=True),
    sql.Column("generation", sql.Integer, nullable=False),
    sql.Column("word", sql.String, nullable=False),
    sql.Column("body", sql.JSON, nullable=False),
    sql.Column("run", sql.String, nullable=False),
    sql.Column("at", sql.Float, nullable=False),
)
_ingredients = sql.Table(
    "ingredients",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("recipe", sql.String, nullable=False),
    sql.Column("step", sql.String, nullable=False),
    sql.Column("key", sql.String, nullable=False),
    sql.Column("body", sql.JSON, nullable=False),
    sql.UniqueConstraint("recipe", "step", "key"),
)
_runs = sql.Table(
    "runs",
    _tables,
    sql.Column("run", sql.String, primary_key=True),
    sql.Column("recipe", sql.String, nullable=False),
    sql.Column("target", sql.String, nullable=False),
    sql.Column("request", sql.JSON, nullable=False),
    sql.Column("pins", sql.JSON),
    sql.Column("status", sql.String, nullable=False),
    sql.Column("error", sql.String),
    sql.Column("outputs", sql.JSON),
    sql.Column("started", sql.Float, nullable=False),
    sql.Column("finished", sql.Float),
)
_uses = sql.Table(
    "uses",
    _tables,
    sql.Column("run", sql.String, primary_key=True),
    sql.Column("key", sql.String, primary_key=True),
)


@dataclass(frozen=True, kw_only=True)
class Last:
    """The last word about a key, and the generation it was said under; `place` grows with every word of any key."""

    generation: int
    word: Word
    place: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a lease holds: its generation, when it was first intended, and its id, if that was ever known.

    `place` is that of the last Effect: what was said of its content before that holds no more.
    """

    generation: int
    intended: float  # seconds since the epoch
    resource: str | None
    place: int


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was said of one claim, in order; `newest`: its key was not claimed anew; `runs` said so or relied on it."""

    words: Sequence[Word]
    newest: bool
    runs: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: what was asked for, what the outside world was pinned to, and how it ended."""

    run: str
    recipe: str
    target: str
    request: Mapping[str, Any]
    pins: Mapping[str, Any] | None
    status: Status
    error: str | None
    outputs: Mapping[str, Any] | None
    started: float
    finished: float | None


class Journal:
    """The journal in one SQLite file, created when it is not there. Raises HostError when it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        address = sql.URL.create("sqlite", database=str(path))  # built, not parsed: a path may hold `?`
        self._engine = sql.create_engine(address, connect_args={"timeout": 60})
        # At the latest when the process ends: the last to close it folds SQLite's write-ahead log into the file.
        self._closing = finalize(self, self._engine.dispose)
        sql.event.listen(self._engine, "connect", _make_durable)
        with _alone(path), self._durably() as connection:
            self._require_known(connection)
            _tables.create_all(connection)

    def _require_known(self, connection: sql.Connection) -> None:
        """Raise HostError for a journal of a later version, untouched; mark any other with ours."""
        found = connection.scalar(sql.text("PRAGMA user_version"))
        if found not in _READS:
            raise HostError(
                f"the journal {self._path} has version {found}; this emi knows version {_VERSION}",
                hint="Use the emi that wrote it or a later one, or another EMI_HOME.",
            )
        if found != _VERSION:
            connection.execute(sql.text(f"PRAGMA user_version = {_VERSION}"))

    def close(self) -> None:
        """Release the file."""
        self._closing()

    # What happened to a key

    def write(self, key: str, generation: int, word: Word, *, run: str) -> None:
        """Append a word; when this returns it is on the disk."""
        name = type(word).__name__.lower()
        reach(f"before journal:{name}")
        with self._durably() as connection:
            connection.execute(
                _words.insert().values(
                    key=key, generation=generation, word=name, body=body_of(word), run=run, at=time.time()
                )
            )
        reach(f"after journal:{name}")

    def last(self, key: str) -> Last | None:
        """Return the last word about a key, or None when there is none."""
        query = sql.select(_words).where(_words.c.key == key).order_by(_words.c.id.desc()).limit(1)
        with self._looking() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        return Last(generation=row["generation"], word=word_of(row["word"], row["body"]), place=row["id"])

    def held(self, key: str) -> Held | None:
        """Return what the lease of that key holds; None when it was never intended or has been given up."""
        query = sql.select(_words).where(_words.c.key == key).order_by(_words.c.id)
        held: Held | None = None
        with self._looking() as connection:
            for row in connection.execute(query):
                match word_of(row.word, row.body):
                    case Intent(at=at):
                        held = Held(generation=row.generation, intended=at, resource=None, place=row.id)
                    case Effect(resource=resource) if held:
                        held = replace(held, resource=resource, place=row.id)
                    case _:
                        held = None
        return held

    def has_effect(self, run: str) -> bool:
        """Say whether the run began anything in a cloud, that it knows of."""
        query = sql.select(_words.c.id).where(_words.c.run == run, _words.c.word == "effect").limit(1)
        with self._looking() as connection:
            return connection.execute(query).first() is not None

    def begun(self, run: str) -> Sequence[str]:
        """Return the ids of what the run began in a cloud and neither finished nor gave up."""
        query = sql.select(_words.c.key).where(_words.c.run == run, _words.c.word == "effect").distinct()
        with self._looking() as connection:
            found = [self.last(key) for key in connection.execute(query).scalars()]
        # What was begun early and goes on under a key of its own is one thing.
        begun = (last.word.resource for last in found if last and isinstance(last.word, Effect))
        return list(dict.fromkeys(begun))

    def finished_claims(self) -> frozenset[str]:
        """Return the tokens of all claims that came to a Result."""
        query = sql.select(_words.c.key, _words.c.generation).where(_words.c.word == "result").distinct()
        with self._looking() as connection:
            return frozenset(Claim(key, generation).token for key, generation in connection.execute(query))

    def claims(self) -> Mapping[str, Known]:
        """Return everything that was said of every claim, by its token."""
        said: dict[tuple[str, int], list[Word]] = {}
        runs: dict[str, set[str]] = {}
        with self._looking() as connection:
            for row in connection.execute(sql.select(_words).order_by(_words.c.id)):
                said.setdefault((row.key, row.generation), []).append(word_of(row.word, row.body))
                runs.setdefault(row.key, set()).add(row.run)
            for use in connection.execute(sql.select(_uses)):
                runs.setdefault(use.key, set()).add(use.run)
        newest = dict(sorted(said))
        return {
            Claim(key, generation).token: Known(
                words=words, newest=newest[key] == generation, runs=frozenset(runs[key])
            )
            for (key, generation), words in said.items()
        }

    # What a key was made of

    def remember(self, recipe: str, step: str, key: str, ingredients: Mapping[str, Any]) -> None:
        """Keep what the key was computed from, so that a later miss can say what changed."""
        insert = _ingredients.insert().prefix_with("OR IGNORE")
        with self._durably() as connection:
            connection.execute(insert.values(recipe=recipe, step=step, key=key, body=dict(ingredients)))

    def remembered(self, recipe: str, step: str) -> Mapping[str, Any] | None:
        """Return what the newest key of that step was computed from."""
        query = (
            sql.select(_ingredients.c.body)
            .where(_ingredients.c.recipe == recipe, _ingredients.c.step == step)
            .order_by(_ingredients.c.id.desc())
            .limit(1)
        )
        with self._looking() as connection:
            found: Mapping[str, Any] | None = connection.execute(query).scalar()
        return found

    # Runs

    def begin(self, run: str, *, recipe: str, target: str, request: Mapping[str, Any]) -> None:
        """Record that a run begins; whoever says so holds the recipe's lock, so others that say they run are dead."""
        others = _runs.update().where(_runs.c.recipe == recipe, _runs.c.target == target, _runs.c.status == "running")
        with self._durably() as connection:
            connection.execute(others.values(status="interrupted", error="its process was killed"))
            connection.execute(
                _runs.insert().values(
                    run=run, recipe=recipe, target=target, request=dict(request), status="running", started=time.time()
                )
            )

    def pin(self, run: str, pins: Mapping[str, Any]) -> None:
        """Record what the run pinned the outside world to."""
        self._update(run, pins=dict(pins))

    def reopen(self, run: str) -> None:
        """Record that a run that had not finished goes on."""
        self._update(run, status="running", error=None, finished=None)

    def end(
        self, run: str, status: Status, *, error: str | None = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Record how a run ended."""
        reach("before journal:end")
        self._update(run, status=status, error=error, outputs=dict(outputs or {}), finished=time.time())

    def use(self, run: str, key: str) -> None:
        """Record that the run relies on the key's result, so that a prune keeps it."""
        with self._durably() as connection:
            connection.execute(_uses.insert().prefix_with("OR IGNORE").values(run=run, key=key))

    def run(self, run: str) -> Run | None:
        """Return a run by its id."""
        return next(iter(self._select_runs(sql.select(_runs).where(_runs.c.run == run))), None)

    def runs(self, *, recipe: str | None = None, limit: int = 50) -> Sequence[Run]:
        """Return runs, newest first."""
        query = sql.select(_runs).order_by(_runs.c.started.desc()).limit(limit)
        return self._select_runs(query.where(_runs.c.recipe == recipe) if recipe else query)

    def kept_keys(self) -> set[str]:
        """Return the keys used by the newest run of each recipe and target, and by every run that says it runs."""
        with self._looking() as connection:
            return {row.key for row in connection.execute(_kept_keys())}

    def kept_digests(self) -> set[str]:
        """Return the digests that a prune must keep: those of all results under the kept keys."""
        query = sql.select(_words.c.body).where(_words.c.word == "result", _words.c.key.in_(_kept_keys()))
        with self._looking() as connection:
            found = [ARTIFACT.validate_python(body["artifact"]) for body in connection.execute(query).scalars()]
        return {digest for artifact in found for digest in artifact.digests()}

    def oldest_running(self, alive: Callable[[Run], bool]) -> float:
        """Return when the oldest run began that says it is running and is alive; now, without one (epoch seconds)."""
        now = time.time()
        running = self._select_runs(sql.select(_runs).where(_runs.c.status == "running"))
        return min((run.started for run in running if alive(run)), default=now)

    def _select_runs(self, query: sql.Select[Any]) -> Sequence[Run]:
        with self._looking() as connection:
            return [Run(**row) for row in connection.execute(query).mappings()]

    def _update(self, run: str, **values: Any) -> None:
        with self._durably() as connection:
            connection.execute(_runs.update().where(_runs.c.run == run).values(**values))

    @contextmanager
    def _durably(self) -> Iterator[sql.Connection]:
        """A transaction that is on the disk when the block ends, SQLite's errors translated."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except sql.exc.DBAPIError as error:
            raise _translated(error, self._path) from error

    @contextmanager
    def _looking(self) -> Iterator[sql.Connection]:
        """A connection to read with, SQLite's errors translated."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except sql.exc.DBAPIError as error:
            raise _translated(error, self._path) from error


def _translated(error: sql.exc.DBAPIError, path: Path) -> HostError:
    said = str(error.orig)
    if "full" in said or "disk I/O" in said:
        return DiskFull(f"no space left for {path}: {said}")
    if any(damage in said for damage in ("malformed", "not a database", "no such table", "no such column")):
        return HostError(
            f"the journal {path} is damaged, or another version's: {said}",
            hint="Move it away with its -wal and -shm files, then run again: what the cloud has is found by its tags.",
        )
    return HostError(f"cannot use the journal {path}: {said}", hint="Point EMI_HOME at a directory that you can write.")


def _kept_keys() -> sql.Select[Any]:
    newest = sql.select(sql.func.max(_runs.c.started)).group_by(_runs.c.recipe, _runs.c.target)
    wanted = sql.select(_runs.c.run).where((_runs.c.started.in_(newest)) | (_runs.c.status == "running"))
    return sql.select(_uses.c.key).where(_uses.c.run.in_(wanted))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other openers of the journal out for the block: two that make its tables at once get in each other's way.

    The lock is on the directory, so that nothing has to be made for it; it dies with its holder.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield  # SQLite says better what is wrong with the place
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_durable(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
