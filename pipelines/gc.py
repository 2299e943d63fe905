"""What of ours in an account is in use, and what is litter: the sight of the cloud held against the journal.

docs/gc.md has the rules. Whatever is in doubt stays: only what this journal itself began and did not finish goes
unasked. What is taken away is looked at twice, the second time under the locks of its recipes, so that no run of this
home works with it; age is the only guard against runs of other homes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from builder.cloud import litter
from builder.cloud.litter import Sight, Thing
from builder.errors import BusyError, CloudError, UsageError
from pipelines import locks
from pipelines.artifact import BundleLocation, MachineImage, Snapshot
from pipelines.home import Home
from pipelines.journal import Journal, Known, Run
from pipelines.targets import Target
from pipelines.words import Abandon, Effect, Result

Verdict = Literal["in use", "in progress", "too young", "unclear", "litter"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person asks to be removed: litter; with `all_` also what is unclear; with `ids` those alone.

    `older_than` is in seconds; what is younger, or of an age that the cloud does not tell, stays unless it is 0.
    """

    older_than: float
    all_: bool = False
    ids: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One thing, what is thought of it and why; `named`: it goes only when its id is given; `goes`: it is to go now.

    `recipes` are those whose runs may work with it, by its own marks and by the journal.
    """

    thing: Thing
    verdict: Verdict
    why: str
    run: str = ""
    recipes: frozenset[str] = frozenset()
    named: bool = False
    goes: bool = False

    @property
    def recipe(self) -> str:
        """Return the recipe that made it: by its own mark, or where there is none (key pairs) by the journal."""
        return self.thing.recipe or ", ".join(sorted(self.recipes))


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Everything of ours, in the order in which it would go, and where nobody could look."""

    judged: Sequence[Judged]
    unseen: Sequence[str]


@dataclass(kw_only=True)
class Removal:
    """What was removed, and what was refused, each with its cause."""

    removed: list[Judged] = field(default_factory=list)
    refused: list[tuple[Judged, CloudError]] = field(default_factory=list)
    kept: list[tuple[Judged, str]] = field(default_factory=list)
    unseen: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Looks at the account of one target with the journal of one home."""

    home: Home
    journal: Journal
    target: Target

    def inspect(self, asked: Asked, *, ours: Collection[Path] = ()) -> Inspection:
        """Return what there is and what would go; `ours` are locks that the caller holds. Only reads.

        Raises UsageError for an id that is asked for and may not go, or is not there.
        """
        claims = self.journal.claims()
        runs = {run.run: run for run in self.journal.runs(limit=1_000_000)}
        sight = litter.look(self.target.cloud, _places(claims))
        book = _Book(claims=claims, runs=runs, busy=lambda recipe: self._is_busy(recipe, ours))
        judged = _choose(_used(sight, [book.judge(thing) for thing in sight.things], claims), sight, asked)
        _check(asked, judged)
        return Inspection(judged=sorted(judged, key=_order), unseen=sight.unseen)

    def remove(self, asked: Asked, tell: Callable[[str], None]) -> Removal:
        """Remove what goes, and return when all of it was tried; one refusal does not stop the others.

        `tell` hears of each removal. A crash leaves what was not removed yet, still marked. Raises as `inspect` does.
        """
        recipes = {name for one in self.inspect(asked).judged if one.goes for name in one.recipes}
        with ExitStack() as held:
            ours = {path for name in sorted(recipes) if (path := self._hold(name, held))}
            found = self.inspect(asked, ours=ours)
            done = Removal(unseen=found.unseen)
            for one in found.judged:
                if one.goes and all(self._lock(name) in ours for name in one.recipes):
                    self._remove(one, done, tell)
        return done

    def _remove(self, one: Judged, done: Removal, tell: Callable[[str], None]) -> None:
        left = [other for other, _ in (*done.refused, *done.kept) if one.thing.id in other.thing.uses]
        if left:
            done.kept.append((one, f"{left[0].thing.id}, which stands on it, is still there"))
            return
        try:
            litter.remove(self.target.cloud, one.thing)
        except CloudError as error:
            done.refused.append((one, error))
            return
        done.removed.append(one)
        tell(one.thing.id)

    def _lock(self, recipe: str) -> Path:
        return self.home.recipe_lock(recipe, self.target.identity)

    def _hold(self, recipe: str, held: ExitStack) -> Path | None:
        path = self._lock(recipe)
        try:
            sign = held.enter_context(locks.hold(path, what=f"recipe `{recipe}`", wait=False))
        except BusyError:
            return None
        sign("(emi gc)")
        return path

    def _is_busy(self, recipe: str, ours: Collection[Path]) -> str:
        path = self._lock(recipe)
        # A signature may be of a process whose id is another's now; one that is not there needs no lock tried.
        busy = path not in ours and locks.is_held(path) and locks.is_taken(path)
        return locks.holder(path) if busy else ""


@dataclass(frozen=True, kw_only=True)
class _Book:
    """What this home knows: claims by token, runs by id, and who works on a recipe now (in words, or nothing)."""

    claims: Mapping[str, Known]
    runs: Mapping[str, Run]
    busy: Callable[[str], str]

    def judge(self, thing: Thing) -> Judged:
        """Return what is thought of it for itself, whoever stands on it."""
        known = self.claims.get(thing.claim)
        run = thing.run or self._run_of(known)
        recipes = {self.runs[name].recipe for name in (known.runs if known else ()) if name in self.runs}
        recipes |= {thing.recipe} if thing.recipe else set()
        one = Judged(thing=thing, verdict="unclear", why="", run=run, recipes=frozenset(recipes))
        if holder := next(filter(None, map(self.busy, sorted(recipes))), ""):
            return replace(one, verdict="in progress", why=holder)
        if not thing.claim:
            return replace(one, why=_UNMARKED[thing.kind], named=True)
        if known is None:
            whole = thing.kind == "manifest" or (thing.kind == "image" and thing.state != "failed")
            return replace(one, why="the journal here does not know its claim", named=whole)
        if (other := _other(thing, known)) is not None:
            return replace(one, why=f"carries the claim of {other}: a copy?", named=True)
        return self._known(one, known)

    def _known(self, one: Judged, known: Known) -> Judged:
        finished = any(isinstance(word, Result) for word in known.words)
        match known.words[-1]:
            case Result() if one.thing.kind == "image" or self._served(known):
                return replace(one, verdict="in use", why="a result")
            case Result():
                return replace(one, why="finished, but its run never ended: `emi resume` would use it")
            case Abandon(why=why) if finished:
                return replace(one, why=f"finished, then given up: {why}", named=one.thing.kind == "image")
            case Abandon(why=why):
                return replace(one, verdict="litter", why=f"given up: {why}")
            case _ if known.newest:
                return replace(one, verdict="litter", why="begun and never finished")
            case _:
                return replace(one, verdict="litter", why="superseded by another attempt")

    def _served(self, known: Known) -> bool:
        return any(self.runs[run].status == "ok" for run in known.runs if run in self.runs)

    def _run_of(self, known: Known | None) -> str:
        """Return the last run that had to do with a claim: ids begin with the time."""
        return max(known.runs, default="") if known else ""


_UNMARKED = {
    "upload": "unfinished, to where a bundle of ours goes; nothing says who began it",
    "image": "of our bundle or snapshot, without a claim: killed before it was tagged, or somebody else's",
}


def _places(claims: Mapping[str, Known]) -> frozenset[str]:
    """Return every place of a manifest that the journal names."""
    words = [word for known in claims.values() for word in known.words]
    begun = {word.resource for word in words if isinstance(word, Effect) and word.resource.startswith("s3://")}
    results = (word.artifact for word in words if isinstance(word, Result))
    return frozenset(begun | {f"s3://{one.location}" for one in results if isinstance(one, BundleLocation)})


# What is made with an instance, under its claim; the journal has the instance's id.
_WITH_AN_INSTANCE = frozenset({"key pair", "security group", "volume"})


def _other(thing: Thing, known: Known) -> str | None:
    """Return the id that the journal has for the claim, when it is not this thing's: tags and objects can be copied."""
    begun = [word.resource for word in known.words if isinstance(word, Effect)]
    if begun and begun[-1].startswith("i-") and thing.kind in _WITH_AN_INSTANCE:
        return None
    return begun[-1] if begun and begun[-1] not in (thing.id, thing.bundle) else None


def _stood_on(known: Known) -> frozenset[str]:
    """Return what the result of a claim consists of and stands on."""
    last = known.words[-1]
    match last.artifact if isinstance(last, Result) else None:
        case MachineImage(image_id=image_id, snapshot_ids=snapshots):
            return frozenset({image_id, *snapshots})
        case Snapshot(snapshot_id=snapshot_id):
            return frozenset({snapshot_id})
        case BundleLocation(bucket=bucket, manifest_key=key, keys=keys):
            return frozenset(f"s3://{bucket}/{one}" for one in (key, *keys))
        case _:
            return frozenset()


def _used(sight: Sight, judged: Sequence[Judged], claims: Mapping[str, Known]) -> list[Judged]:
    """Return all with those in use that something in use, or something of others, stands on."""
    stands = {one.thing.id: one.thing.uses for one in judged}
    for one in judged:
        if one.verdict == "in use" and (known := claims.get(one.thing.claim)):
            stands[one.thing.id] |= _stood_on(known)
    needed = {needs: user for user, uses in sight.users.items() for needs in uses}
    needed |= {needs: one.thing.id for one in judged if one.verdict == "in use" for needs in stands[one.thing.id]}
    waiting = list(needed)
    while waiting:
        user = waiting.pop()
        for needs in stands.get(user, ()):
            if needs not in needed:
                needed[needs] = user
                waiting.append(needs)
    return [_in_use(one, needed[one.thing.id]) if one.thing.id in needed else one for one in judged]


def _in_use(one: Judged, user: str) -> Judged:
    if one.verdict == "in use":
        return one
    return replace(one, verdict="in use", why=f"{user} stands on it", named=False)


def _choose(judged: Sequence[Judged], sight: Sight, asked: Asked) -> list[Judged]:
    """Return all with what is to go marked so: old enough, asked for, and nothing stands on it that stays."""
    aged = [_aged(one, asked.older_than) for one in judged]
    wanted = _with_what_they_use(asked.ids, sight)

    def may(one: Judged) -> bool:
        if asked.ids and one.thing.id not in wanted:
            return False
        if one.verdict == "unclear":
            return one.thing.id in wanted or (asked.all_ and not one.named)
        return one.verdict == "litter"

    going = {one.thing.id for one in aged if may(one)}
    held: dict[str, str] = {}
    while stay := {
        needs: one.thing.id for one in aged if one.thing.id not in going for needs in one.thing.uses & going
    }:
        going -= stay.keys()
        held |= stay
    return [
        replace(one, verdict="in use", why=f"{held[one.thing.id]} stands on it, and stays")
        if one.thing.id in held
        else replace(one, goes=one.thing.id in going)
        for one in aged
    ]


def _aged(one: Judged, limit: float) -> Judged:
    if one.verdict not in ("litter", "unclear") or not limit:
        return one
    created = one.thing.created
    if created is not None and time.time() - created >= limit:
        return one
    return replace(one, verdict="too young", why=one.why if created is not None else f"{one.why}; its age is not known")


def _with_what_they_use(ids: Collection[str], sight: Sight) -> frozenset[str]:
    """Return the ids with those of everything that only exists for them: who names an image means its snapshots too."""
    stands, wanted, waiting = {thing.id: thing.uses for thing in sight.things}, set(ids), list(ids)
    while waiting:
        new = stands.get(waiting.pop(), frozenset()) - wanted
        wanted |= new
        waiting += new
    return frozenset(wanted)


def _check(asked: Asked, judged: Sequence[Judged]) -> None:
    """Raise UsageError for the first id that may not go."""
    by_id = {one.thing.id: one for one in judged}
    for name in sorted(asked.ids):
        one = by_id.get(name)
        if one is None:
            raise UsageError(
                f"{name}: nothing of that id carries a claim of emi here", hint="`emi gc` lists what does."
            )
        if not one.goes:
            raise UsageError(f"{name} is {one.verdict}: {one.why}. Nothing was removed.", hint=_HINTS[one.verdict])


_HINTS: Mapping[Verdict, str] = {
    "in use": "emi gc never removes what is in use; remove first what stands on it.",
    "in progress": "Wait until that run has ended.",
    "too young": "Say --older-than 0 if no other host may be working with it.",
    "unclear": "Name what stands on it as well.",
    "litter": "Name what stands on it as well.",
}


def _order(one: Judged) -> tuple[int, str]:
    return litter.ORDER.index(one.thing.kind), one.thing.id
