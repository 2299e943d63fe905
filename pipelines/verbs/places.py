"""What the verbs on emi's own store do."""

from __future__ import annotations

import shutil
from collections.abc import Collection

from builder.errors import BusyError, InputError
from builder.units import format_size
from pipelines import locks, ui
from pipelines.home import Home, home
from pipelines.journal import Journal, Run
from pipelines.store import FileStore


def store_prune() -> None:
    """Remove files that nothing needs."""
    where = home().make()
    where.free_reserve()
    journal, store = Journal(where.journal), FileStore(where.objects)

    def is_alive(run: Run) -> bool:
        return locks.is_held(where.recipe_lock(run.recipe, run.target))

    done = store.prune(journal.kept_digests, sealed_before=lambda: journal.oldest_running(is_alive))
    left = _prune_scratch(where, {key[:32] for key in journal.kept_keys()})
    where.make()
    ui.say(f"removed {left} directories of begun work that nothing continues")
    ui.say(f"removed {done.removed} files, {format_size(done.freed)} freed")
    ui.say(f"kept {done.kept} files, {format_size(done.kept_size)}")


def _prune_scratch(where: Home, wanted: Collection[str]) -> int:
    """Remove begun work whose key no kept run uses and nobody holds; return how many directories went."""
    removed = 0
    for place in sorted(where.scratch.iterdir()):
        key = place.name.partition(".")[0]
        if key in wanted:
            continue
        try:
            with locks.hold(where.key_lock(key), what=f"step {key}", wait=False):
                shutil.rmtree(place)
        except BusyError:
            continue
        removed += 1
    return removed


def store_verify() -> None:
    """Hold every file against its digest; what is damaged is removed, and made again by the next run that needs it.

    Raises InputError when something was.
    """
    where = home().make()
    damaged = list(FileStore(where.objects).damaged())
    for path in damaged:
        path.unlink()
        ui.say(f"damaged, removed: {path}")
    if damaged:
        raise InputError(
            f"{len(damaged)} files of the store did not hold the bytes they are named by",
            hint="Check the disk. `emi run` makes them again; a snapshot made from one lately is in doubt.",
        )
    store_status()
    ui.say("every one holds the bytes it is named by")


def store_status() -> None:
    """Show the store's size."""
    where = home().make()
    paths = list(where.objects.glob("*/*"))
    size = sum(path.stat().st_blocks * 512 for path in paths)
    ui.say(f"{len(paths)} files, {format_size(size)} in {where.objects}")
