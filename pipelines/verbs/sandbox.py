"""What the verbs on the embedded cloud do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import urlencode

from builder.errors import BusyError, UsageError
from builder.sandbox import archive, lifecycle, replacing, settings
from builder.sandbox.tables import Column, Table
from builder.units import format_size
from pipelines import locks, targets, ui
from pipelines.home import home
from pipelines.journal import Journal

_PLACES = ("account", "region", "zone")


def start(
    directory: Path | None,
    *,
    port: int,
    tls: bool | None,
    tls_port: int,
    as_json: bool,
    **like: Unpack[settings.Like],
) -> None:
    """Start the embedded cloud, or say that it runs."""
    place = directory or home().make().sandbox
    end = lifecycle.start(place, port=port, tls=tls, tls_port=tls_port, **like)
    if as_json:
        ui.say_json({**asdict(end), "directory": str(end.directory), "ca_file": str(end.ca_file or "")})
        return
    ports = " and ".join(filter(None, [end.plain_url, end.tls_url]))
    ui.say(f"The sandbox runs at {ports} (process {end.pid}), region {end.region}{_like(end)}.")
    other = any(like.get(name) not in (None, getattr(end, name)) for name in ("release", "machines"))
    if other or (tls and end.tls_url is None) or (port and not end.plain_url.endswith(f":{port}")):
        ui.warn("It was running already, as it is: `emi sandbox stop` first to start it otherwise.")
    ui.say(f"What is in it: `emi sandbox status`, or {end.plain_url}/ in a browser. Its state is in {end.directory}.")
    ui.say("To point other tools at it:")
    if end.personality == settings.EUCALYPTUS:
        urls = {"EC2": "ec2", "S3": "s3", "AWS_IAM": "iam", "TOKEN": "sts", "EUCA_BOOTSTRAP": "bootstrap"}
        ui.say("  export " + " ".join(f"{name}_URL={end.service(service)}" for name, service in urls.items()))
        ui.say(f"  export AWS_ENDPOINT_URL_EC2={end.service('ec2')} AWS_ENDPOINT_URL_S3={end.service('s3')}")
        ui.say(f"  export AWS_DEFAULT_REGION={end.region}")
    else:
        ui.say(f"  export AWS_ENDPOINT_URL={end.url} AWS_DEFAULT_REGION={end.region}")
    ui.say(f"  export AWS_ACCESS_KEY_ID={end.access_key} AWS_SECRET_ACCESS_KEY={end.secret_key}")
    if end.ca_file:
        ui.say(f"  export AWS_CA_BUNDLE={end.ca_file}")


def _like(end: lifecycle.Endpoint) -> str:
    """Say which cloud it is like, where that is not AWS, and what runs behind its instances, where that is anything."""
    like = f", personality {end.personality} {end.release}" if end.personality == settings.EUCALYPTUS else ""
    return like + (f", machines {end.machines}" if end.machines != "none" else "")


def stop(directory: Path | None) -> None:
    """Stop the embedded cloud."""
    stopped = lifecycle.stop(directory or home().sandbox)
    ui.say("The sandbox is stopped." if stopped else "The sandbox was not running.")


def status(directory: Path | None, *, as_json: bool) -> None:
    """Show what the embedded cloud holds."""
    found = lifecycle.status(directory or home().sandbox)
    if found is None:
        if as_json:
            ui.say_json(None)
        else:
            ui.say("The sandbox is not running. `emi sandbox start` starts it; a run does so by itself.")
        return
    end = found.endpoint
    tables = [_table(values) for values in lifecycle.ask(end, "/_sandbox/contents")["tables"]]
    if as_json:
        where = {name: value for name, value in asdict(end).items() if "key" not in name}
        where |= {"directory": str(end.directory), "ca_file": str(end.ca_file or "")}
        counts = {"images": found.images, "snapshots": found.snapshots}
        ui.say_json({**where, **counts, "tables": {table.name: _plain(table) for table in tables}})
        return
    ui.say(f"The sandbox runs at {end.url}{_like(end)}: {found.images} images, {found.snapshots} snapshots.")
    ui.say(f"Its state is in {end.directory}; the same in a browser: {end.plain_url}/")
    for table in tables:
        if table.rows:
            _show(table)
    empty = [table.name for table in tables if not table.rows]
    if empty:
        ui.say(f"\nNone: {', '.join(empty)}.")


def _table(values: Mapping[str, Any]) -> Table:
    columns = [Column(**column) for column in values["columns"]]
    return Table(**{**values, "columns": columns})


def _plain(table: Table) -> Mapping[str, Any]:
    """Return the table for programs: a mapping for each row, times in seconds since the epoch, sizes in bytes."""
    names = [column.name.replace(" ", "_") for column in table.columns]
    rows = [dict(zip(names, row, strict=True)) for row in table.rows]
    return {"total": table.total, "size": table.size, "rows": rows}


def _show(table: Table) -> None:
    """Print a table with a heading; columns that are empty are left out, and where a thing is, if all are there."""
    rows, names = table.shown(), [column.name for column in table.columns]
    values = {number: {row[number] for row in rows} for number in range(len(names))}
    same = [number for number, found in values.items() if names[number] in _PLACES and len(found) == 1]
    where = ", ".join(f"{names[number]} {rows[0][number]}" for number in same)
    kept = [number for number, found in values.items() if any(found) and number not in same]
    ui.say(f"\n{table.name}: {table.about}{f' ({where})' if where else ''}")
    ui.table([names[number] for number in kept], [[row[number] for number in kept] for row in rows])


def account(name: str, directory: Path | None, *, as_json: bool) -> None:
    """Make another account in the embedded cloud and show the keys of its root."""
    end = lifecycle.start(directory or home().make().sandbox)
    made = lifecycle.ask(end, f"/_sandbox/accounts?{urlencode({'name': name})}", method="PUT")
    if as_json:
        ui.say_json(made)
        return
    ui.say(f"The account {made['account']} ({name}) is there. Its root's keys:")
    ui.say(f"  export AWS_ACCESS_KEY_ID={made['access_key']} AWS_SECRET_ACCESS_KEY={made['secret_key']}")


def reset(directory: Path | None, *, yes: bool) -> None:
    """Empty the embedded cloud: keys and ports stay. Raises BusyError while a run uses it."""
    place = _for_change(directory)
    if not yes and not ui.confirm(f"Remove everything in the sandbox in {place}?"):
        ui.say("Nothing was changed.")
        return
    with lifecycle.at_rest(place):
        _require_idle(place)
        replacing.prepare(place)
        replacing.commit(place)
    ui.say(f"The sandbox in {place} is empty.")


def export(file: Path, directory: Path | None, *, yes: bool) -> None:
    """Write the whole state of the embedded cloud to a file."""
    place = directory or home().sandbox
    if not place.is_dir():
        raise UsageError(f"there is no sandbox in {place}", hint="`emi sandbox start` makes one.")
    if file.exists() and not yes and not ui.confirm(f"{file} exists. Replace it?"):
        ui.say("Nothing was written.")
        return
    with lifecycle.still(place) as check:
        archive.write(place, file.absolute(), check)
    size = format_size(file.stat().st_size)
    ui.say(f"The sandbox in {place} is in {file}, {size}; `emi sandbox import FILE` makes it another's state.")
    ui.say("It holds the sandbox's keys, which are good for nothing else, and everything that was put into it.")


def import_(file: Path, directory: Path | None, *, yes: bool) -> None:
    """Make the state in a file that of the embedded cloud. Raises ArchiveRefused, BusyError."""
    place = _for_change(directory)
    place.mkdir(parents=True, exist_ok=True)
    asked = yes or not replacing.state_entries(place)
    if not asked and not ui.confirm(f"Replace everything in the sandbox in {place}?"):
        ui.say("Nothing was changed.")
        return
    with lifecycle.at_rest(place):
        _require_idle(place)
        archive.read(file, place)
    ui.say(f"The sandbox in {place} holds what {file} held. `emi sandbox start` tells its keys.")


def _for_change(directory: Path | None) -> Path:
    place = (directory or home().make().sandbox).absolute()
    _require_idle(place)
    return place


def _require_idle(place: Path) -> None:
    """Raise BusyError while a run works against the sandbox in `place`."""
    where = home()
    # By how targets.py begins their identities.
    ours = {
        where.sandbox.resolve(): targets.SANDBOX,
        where.sandbox_eucalyptus.resolve(): f"{targets.SANDBOX}-eucalyptus",
    }
    used = ours.get(place.resolve())
    if used is None or not where.journal.exists():
        return
    for run in Journal(where.journal).runs():
        held = run.status == "running" and locks.is_held(where.recipe_lock(run.recipe, run.target))
        if held and run.target.partition("/")[0] == used:
            message = f"the run {run.run} of {run.recipe} uses the sandbox in {place}"
            raise BusyError(message, hint="Wait for it, or interrupt it; then try again.")
