"""Putting another state into a sandbox's directory, an empty one or an imported one: the old state or the new, whole.

The new state is prepared in `incoming.new` and takes the old one's place in steps, each of them a rename:

    incoming.new -> incoming    the commit point: from here on the state is the new one
    every entry of the old state -> outgoing/
    incoming -> arriving        the old state is out of the way
    every entry of arriving/ -> the directory
    outgoing is removed

`finish` carries on from wherever a crash left it; the server calls it before it reads anything. What belongs to the
directory and not to its state (`KEPT`) stays: locks, log, certificates, and unless the new state brings its own, the
settings and the pairs for bundles.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from builder import durable
from builder.sandbox import settings

NEW, INCOMING, ARRIVING, OUTGOING = "incoming.new", "incoming", "arriving", "outgoing"
KEPT = frozenset(
    {
        settings.SETTINGS,
        settings.ENDPOINT,
        settings.SERVING,
        settings.STARTING,
        settings.LOG,
        settings.CA,
        settings.PAIR,
        settings.MACHINES,
        settings.INSTANCE_STORE,
        *settings.BUNDLING,
        NEW,
        INCOMING,
        ARRIVING,
        OUTGOING,
    }
)


def prepare(directory: Path) -> Path:
    """Return an empty place for the new state, beside the old one, which stays as it is. Call it at rest."""
    finish(directory)
    place = directory / NEW
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def commit(directory: Path) -> None:
    """Make what was prepared the state. A crash before this leaves the old state, one within it the new."""
    place = directory / NEW
    for path in [*place.rglob("*"), place]:
        durable.fsync_directory(path) if path.is_dir() else durable.fsync_file(path)
    durable.commit(place, directory / INCOMING)
    finish(directory)


def finish(directory: Path) -> None:
    """Carry a replacement on that a crash cut off; do nothing when there is none. Nobody may be serving meanwhile."""
    incoming, arriving, outgoing = (directory / name for name in (INCOMING, ARRIVING, OUTGOING))
    if incoming.exists():
        outgoing.mkdir(exist_ok=True)
        for entry in state_entries(directory):
            entry.rename(outgoing / entry.name)
        durable.fsync_directory(directory)
        durable.commit(incoming, arriving)
    if arriving.exists():
        for entry in sorted(arriving.iterdir()):
            os.replace(entry, directory / entry.name)  # noqa: PTH105 - as rename, but says that it replaces
        durable.fsync_directory(directory)
        arriving.rmdir()
    shutil.rmtree(outgoing, ignore_errors=True)
    shutil.rmtree(directory / NEW, ignore_errors=True)


def state_entries(directory: Path) -> list[Path]:
    """Return the entries of the directory that are its state: all but those that belong to the directory."""
    return sorted(entry for entry in directory.iterdir() if entry.name not in KEPT and entry.name[0] != ".")
