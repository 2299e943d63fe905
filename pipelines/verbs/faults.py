"""What `emi sandbox faults` does: put a table of faults into the sandbox, show what it did, clear it."""

from __future__ import annotations

from pathlib import Path

from builder.errors import UsageError
from builder.sandbox import lifecycle
from builder.sandbox.faults import client
from builder.sandbox.faults.reader import read
from builder.sandbox.faults.table import Row
from pipelines import ui
from pipelines.home import home


def faults(file: Path | None, directory: Path | None, *, clear: bool, as_json: bool) -> None:
    """Replace, clear or show the faults of the sandbox, which is started if it does not run."""
    if file is not None and clear:
        raise UsageError("a file of faults and --clear exclude each other", hint="A new table replaces the old one.")
    endpoint = lifecycle.start(directory or home().make().sandbox)
    if clear:
        client.clear(endpoint)
    elif file is not None:
        client.put(endpoint, read(file, client.actions(endpoint)))
    rows = client.rows(endpoint)
    if as_json:
        ui.say_json([{**row.fault.model_dump(exclude_unset=True), "met": row.met, "acted": row.acted} for row in rows])
    elif rows:
        ui.table(("fault", "calls", "when", "met", "acted"), [_row(n, row) for n, row in enumerate(rows, 1)])
    else:
        ui.say("The sandbox has no faults.")


def _row(number: int, row: Row) -> tuple[str, ...]:
    given = row.fault.model_dump(exclude_unset=True)
    effect = given.pop("effect")
    calls = f"{given.pop('service', '*')}:{given.pop('call', '*')}"
    where = [f"{name}={given.pop(name)}" for name in ("account", "region", "resource") if name in given]
    chosen = ("first", "every", "after", "probability", "seed")
    when = [f"{name}={given.pop(name)}" for name in chosen if name in given]
    what = " ".join([f"{number}:{effect}", *(f"{name}={value}" for name, value in given.items())])
    return what, " ".join([calls, *where]), " ".join(when) or "always", str(row.met), str(row.acted)
