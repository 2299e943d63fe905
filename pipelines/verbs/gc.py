"""What `emi gc` does: show what emi made in an account, why it is in use or not, and remove what is litter."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from builder.errors import CloudError, UsageError
from pipelines import ui
from pipelines.gc import Asked, Collector, Inspection, Judged, Removal
from pipelines.home import home
from pipelines.journal import Journal
from pipelines.targets import choose, open_target

_AGE = re.compile(r"(\d+)\s*([smhdw]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_COLUMNS = ("what", "is", "type", "age", "recipe", "run", "why")


def collect(ids: Sequence[str], *, cloud: str | None, older_than: str, all_: bool, yes: bool, as_json: bool) -> None:
    """List everything of ours, and with `yes` remove what is to go.

    Raises UsageError for an id that may not go, and with the exit code of CloudError when something was refused; all
    else was removed then.
    """
    asked = Asked(older_than=seconds(older_than), all_=all_, ids=frozenset(ids))
    where = home().make()
    target = open_target(choose(cloud), where, warn=ui.warn)
    collector = Collector(home=where, journal=Journal(where.journal), target=target)
    if not yes:
        _show(collector.inspect(asked), as_json=as_json)
        return
    done = collector.remove(asked, (lambda _: None) if as_json else lambda one: ui.say(f"removed {one}"))
    _tell(done, as_json=as_json)
    if done.refused:
        causes = "\n".join(f"{one.thing.id}: {error.message}" for one, error in done.refused)
        raise CloudError(
            f"{len(done.refused)} of {len(done.refused) + len(done.removed)} could not be removed\n{causes}",
            hint="Correct the causes in the cloud's own words above, then say `emi gc --yes` again.",
        )


def seconds(age: str) -> float:
    """Return what an age such as `1d`, `12h`, `30m` or `0` means. Raises UsageError."""
    found = _AGE.fullmatch(age.strip())
    if not found:
        raise UsageError(f"--older-than {age}: no age", hint="Write it like 1d, 12h, 30m or 0.")
    return float(int(found[1]) * _SECONDS[found[2]])


def _show(found: Inspection, *, as_json: bool) -> None:
    if as_json:
        ui.say_json({"things": [_told(one) for one in found.judged], "unseen": list(found.unseen)})
        return
    _warn(found.unseen)
    going = sum(one.goes for one in found.judged)
    if found.judged:
        ui.table(_COLUMNS, map(_row, _gathered(found.judged)))
    else:
        ui.say("nothing here carries a claim of emi")
    if going:
        ui.say(f"{going} would be removed: say it again with --yes")
    elif found.judged:
        ui.say("nothing would be removed")


def _tell(done: Removal, *, as_json: bool) -> None:
    if as_json:
        ui.say_json(
            {
                "removed": [_told(one) for one in done.removed],
                "refused": [{**_told(one), "cause": error.message} for one, error in done.refused],
                "kept": [{**_told(one), "cause": why} for one, why in done.kept],
                "unseen": list(done.unseen),
            }
        )
        return
    _warn(done.unseen)
    for one, why in done.kept:
        ui.warn(f"kept {one.thing.id}: {why}")
    ui.say(f"{len(done.removed)} removed" if done.removed else "nothing was removed")


def _warn(unseen: Sequence[str]) -> None:
    for problem in unseen:
        ui.warn(problem)


def _gathered(judged: Sequence[Judged]) -> list[tuple[Judged, int]]:
    """Return what a line each is shown of, with how many: parts of one bundle that are judged alike are one line."""
    alike: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], Judged] = {}
    for one in judged:
        thing = one.thing
        which = thing.bundle if thing.kind == "part" else thing.id
        key = (thing.kind, which, one.verdict, one.why, one.run, str(one.goes))
        alike[key] += 1
        first.setdefault(key, one)
    return [(one, alike[key]) for key, one in first.items()]


def _row(line: tuple[Judged, int]) -> tuple[str, ...]:
    one, count = line
    thing = one.thing
    what = thing.id if count == 1 else f"{thing.id.rpartition('.')[0]}.* ({count})"
    verdict = f"{one.verdict}, goes" if one.goes else one.verdict
    return (what, verdict, thing.kind, _age(thing.created), one.recipe, one.run, one.why)


def _age(created: float | None) -> str:
    """Return an age for a person: the largest unit that is reached."""
    if created is None:
        return "?"
    age = max(0, int(time.time() - created))
    unit = next((name for name in ("d", "h", "m") if age >= _SECONDS[name]), "s")
    return f"{age // _SECONDS[unit]}{unit}"


def _told(one: Judged) -> dict[str, Any]:
    thing = one.thing
    return {
        "id": thing.id,
        "type": thing.kind,
        "verdict": one.verdict,
        "why": one.why,
        "goes": one.goes,
        "only_by_id": one.named,
        "recipe": one.recipe,
        "run": one.run,
        "name": thing.name,
        "state": thing.state,
        "created": thing.created,
        "claim": thing.claim,
        "stands_on": sorted(thing.uses),
    }
