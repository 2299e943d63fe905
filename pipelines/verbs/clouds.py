"""What the verb `clouds` does: show the clouds that are configured here, and whether they answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from builder import pool
from builder.cloud.config.found import Found
from builder.errors import CloudTrouble, EmiError, InternalError
from builder.sandbox import lifecycle
from pipelines import configured, targets, ui
from pipelines.home import Home, home


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cloud as it is shown; nothing of it is a secret. `answers` is None for one that was not asked."""

    name: str
    kind: str = ""
    place: str = ""  # where it answers: a URL, or a region of AWS
    origin: str
    answers: bool | None = None
    account: str = ""
    problem: str = ""
    fix: str = ""
    warnings: tuple[str, ...] = ()


def clouds(*, check: bool, timeout: float, as_json: bool) -> None:
    """Show all clouds; with `check` each is asked once, all at the same time, and `timeout` seconds waited at most."""
    found = list(configured.everything())
    rows = [*_sandboxes(home()), *(ask(found, timeout) if check else map(_unasked, found))]
    if as_json:
        ui.say_json([asdict(row) for row in rows])
        return
    ui.table(("name", "answers", "at", "from"), [(row.name, _words(row), row.place, row.origin) for row in rows])
    for row in rows:
        more = len(row.problem.splitlines()) > 1
        for warning in (*([row.problem] if more else []), *row.warnings):
            ui.warn(f"{row.name}: {warning}")


def ask(found: Sequence[Found], timeout: float) -> list[Row]:
    """Return what each cloud says, in the order given, after at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    asked = [(one, pool.Background(partial(_asked, one))) for one in found]
    return [_in_time(one, answer, max(0.0, deadline - time.monotonic()), timeout) for one, answer in asked]


def _in_time(found: Found, answer: pool.Background[Row], left: float, timeout: float) -> Row:
    try:
        return answer.result(left)
    except TimeoutError:
        return Row(name=found.name, origin=found.origin, answers=False, problem=f"no answer within {timeout:g} s")


def _asked(found: Found) -> Row:
    row = _unasked(found)
    if row.problem:
        return row
    try:
        account = targets.cloud(found.load(), retry=0).answer()
    except InternalError:
        raise
    except CloudTrouble as error:
        return replace(row, answers=False, problem=error.message, fix="Check the URL, and that the cloud runs.")
    except EmiError as error:
        return replace(row, answers=False, problem=error.message, fix=error.hint)
    return replace(row, answers=True, account=account)


def _unasked(found: Found) -> Row:
    row = Row(name=found.name, origin=found.origin)
    try:
        said = found.load()
    except EmiError as error:
        return replace(row, answers=False, problem=error.message, fix=error.hint)
    settings = said.settings
    place = settings.endpoints.get("ec2") or settings.endpoint_url or settings.region
    return replace(row, kind=said.kind, place=place, warnings=said.warnings)


def _sandboxes(where: Home) -> list[Row]:
    """Return the two sandboxes; none is started to be looked at."""
    rows = []
    for name, directory in ((targets.SANDBOX, where.sandbox), ("sandbox:eucalyptus", where.sandbox_eucalyptus)):
        status = lifecycle.status(directory)
        kind = "eucalyptus" if name != targets.SANDBOX else "aws"
        place = status.endpoint.url if status else "not running: starts when it is used"
        rows.append(Row(name=name, kind=kind, place=place, origin=str(directory), answers=True if status else None))
    return rows


def _words(row: Row) -> str:
    if row.problem:
        first, *more = row.problem.splitlines()
        return f"no: {first}{' …' if more else ''}"
    if row.answers is None:
        return "not asked"
    return f"account {row.account}" if row.account else "yes"
