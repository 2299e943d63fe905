"""What is in the cloud, as tables for a person: `emi sandbox status` and the page in the browser show the same.

Of all accounts and regions.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from builder.sandbox import audit
from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.instance_states import state_of
from builder.sandbox.faults.table import Row
from builder.sandbox.records import (
    GIB,
    Account,
    Bucket,
    Image,
    ImportTask,
    Instance,
    S3Object,
    Snapshot,
    Upload,
    Volume,
    from_json,
)
from builder.sandbox.tables import Cell, Column, Kind, Table
from builder.sandbox.wire import ACCOUNT

SHOWN = 100  # rows of a table; it says how many there are
_CALLS = 30
_TAIL = 256 << 10  # bytes of the list of calls that are looked at


def _columns(**kinds: Kind) -> list[Column]:
    return [Column(name=name.replace("_", " "), kind=kind) for name, kind in kinds.items()]


_PLACE: dict[str, Kind] = {"account": "text", "region": "text"}


def tables(cloud: Cloud, directory: Path, in_force: Iterable[Row]) -> list[Table]:
    """Return every table, empty ones too."""
    makers: list[Callable[[Cloud, Path], Table]] = [
        _images,
        _snapshots,
        _volumes,
        _instances,
        _imports,
        _buckets,
        _objects,
        _uploads,
        _accounts,
    ]
    made = [make(cloud, directory) for make in makers]
    return [*made, faults(in_force), calls(directory, errors=True), calls(directory)]


def _newest(found: Iterable[Any], limit: int = SHOWN) -> list[Any]:
    return list(found)[: -limit - 1 : -1]


def _images(cloud: Cloud, _directory: Path) -> Table:
    found = [one for one in list(cloud.state.all(Image).values()) if not one.deregistered]
    rows = [
        (
            one.image_id,
            one.name,
            cloud.image_state(one),
            ", ".join(device.snapshot_id for device in one.block_devices if device.snapshot_id),
            one.image_location or "",
            one.architecture,
            one.creation_time,
            _tags(one.tags),
            one.account,
            one.region,
        )
        for one in _newest(found)
    ]
    columns = _columns(
        image="text",
        name="text",
        state="state",
        snapshots="text",
        bundle="text",
        arch="text",
        age="time",
        tags="text",
        **_PLACE,
    )
    return Table(name="images", columns=columns, rows=rows, total=len(found))


def _snapshots(cloud: Cloud, _directory: Path) -> Table:
    found = list(cloud.state.all(Snapshot).values())
    rows = [
        (
            one.snapshot_id,
            one.description,
            f"{(state := cloud.status(one))}{f' {cloud.progress(one)}' if state == 'pending' else ''}",
            one.volume_size * GIB,
            cloud.disks.allocated(one.snapshot_id),
            one.start_time,
            _tags(one.tags),
            one.account,
            one.region,
            f"disks/{one.snapshot_id}",
        )
        for one in _newest(found)
    ]
    columns = _columns(
        snapshot="text", description="text", state="state", volume="bytes", stored="bytes", age="time", tags="text",
        **_PLACE, path="text",
    )  # fmt: skip
    size = cloud.disks.allocated_together(one.snapshot_id for one in found)
    return Table(name="snapshots", columns=columns, rows=rows, total=len(found), size=size)


def _volumes(cloud: Cloud, directory: Path) -> Table:
    found = [one for one in list(cloud.state.all(Volume).values()) if one.delete_time is None]
    rows = [
        (
            one.volume_id,
            cloud.volume_state(one),
            one.volume_type,
            one.size * GIB,
            cloud.volumes.allocated(one.volume_id),
            one.snapshot_id,
            one.attachment.instance_id if one.attachment else None,
            one.create_time,
            _tags(one.tags),
            one.account,
            one.zone,
            str(cloud.volumes.path(one.volume_id).relative_to(directory)),
        )
        for one in _newest(found)
    ]
    columns = _columns(
        volume="text", state="state", type="text", size="bytes", stored="bytes", snapshot="text", instance="text",
        age="time", tags="text", account="text", zone="text", path="text",
    )  # fmt: skip
    size = sum(cloud.volumes.allocated(one.volume_id) for one in found)
    return Table(name="volumes", columns=columns, rows=rows, total=len(found), size=size)


def _instances(cloud: Cloud, _directory: Path) -> Table:
    running = cloud.machines.running()
    found = list(cloud.state.all(Instance).values())
    found = [one for one in found if state_of(cloud, one) != "terminated"]
    rows = [
        (
            one.instance_id,
            state_of(cloud, one),
            one.instance_type,
            one.image_id,
            one.driver,
            running.get(one.instance_id),
            one.launch_time,
            _tags(one.tags),
            one.account,
            one.zone,
        )
        for one in _newest(found)
    ]
    columns = _columns(
        instance="text", state="state", type="text", image="text", machine="text", address="text", age="time",
        tags="text", account="text", zone="text",
    )  # fmt: skip
    return Table(name="instances", columns=columns, rows=rows, total=len(found))


def _imports(cloud: Cloud, _directory: Path) -> Table:
    found = list(cloud.state.all(ImportTask).values())
    rows = [
        (
            one.import_task_id,
            "deleted" if one.failure else "completed" if one.end_time else "active",
            one.image_format,
            one.url or f"s3://{one.bucket}/{one.object_key}",
            one.snapshot_id,
            one.failure,
            one.start_time,
            one.account,
            one.region,
        )
        for one in _newest(found)
    ]
    columns = _columns(
        task="text", state="state", format="text", source="text", snapshot="text", failure="text", age="time", **_PLACE
    )
    return Table(name="import tasks", columns=columns, rows=rows, total=len(found))


def _buckets(cloud: Cloud, _directory: Path) -> Table:
    found = list(cloud.state.all(Bucket).values())
    rows = [(one.name, one.creation_time, _tags(one.tags), one.account, one.region) for one in _newest(found)]
    columns = _columns(bucket="text", age="time", tags="text", **_PLACE)
    return Table(name="buckets", columns=columns, rows=rows, total=len(found))


def _objects(_cloud: Cloud, directory: Path) -> Table:
    # Not held in memory; a connection of our own, so that counting a million of them is in nobody's way.
    with closing(sqlite3.connect(f"file:{directory / 'state.sqlite'}?mode=ro", uri=True)) as database:
        kind = (S3Object.__name__,)
        total, size = database.execute(
            "select count(*), coalesce(sum(json_extract(body, '$.size')), 0) from record where kind = ?", kind
        ).fetchone()
        newest = database.execute(
            "select body from record where kind = ? order by sequence desc limit ?", (*kind, SHOWN)
        ).fetchall()
    found = [cast(S3Object, from_json(S3Object.__name__, body)) for (body,) in newest]
    rows = [(one.bucket, one.name, one.size, one.etag, one.last_modified) for one in found]
    columns = _columns(bucket="text", key="text", size="bytes", etag="text", age="time")
    return Table(name="objects", columns=columns, rows=rows, total=total, size=size)


def _uploads(cloud: Cloud, _directory: Path) -> Table:
    found = list(cloud.state.all(Upload).values())
    rows = [(one.bucket, one.name, one.upload_id, one.initiated) for one in _newest(found)]
    columns = _columns(bucket="text", key="text", upload="text", age="time")
    return Table(name="unfinished uploads", columns=columns, rows=rows, total=len(found))


def _accounts(cloud: Cloud, _directory: Path) -> Table:
    places: dict[str, set[str]] = {}
    kinds: Sequence[type[Image | Snapshot | Volume | Instance | Bucket]] = (Image, Snapshot, Volume, Instance, Bucket)
    for kind in kinds:
        for one in list(cloud.state.all(kind).values()):
            places.setdefault(one.account, set()).add(one.region)
    names = {ACCOUNT: "first"} | {one.account: one.name for one in list(cloud.state.all(Account).values())}
    rows = [(account, name, ", ".join(sorted(places.get(account, ())))) for account, name in names.items()]
    columns = _columns(account="text", name="text", regions="text")
    return Table(name="accounts", columns=columns, rows=rows, total=len(rows))


def _tags(tags: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))


def calls(directory: Path, *, errors: bool = False) -> Table:
    """Return the latest calls, or with `errors` those that were refused or failed; alike ones in a row are one row."""
    rows: list[tuple[int, list[Cell]]] = []
    for call in audit.latest_calls(directory, _TAIL):
        if errors and not call.error and call.status < 400:
            continue
        outcome = " ".join(filter(None, [str(call.status), call.error, call.fault]))
        row: list[Cell] = [call.service, call.action, outcome, call.region]
        if rows and rows[-1][1][:-1] == row:
            rows[-1] = (rows[-1][0] + 1, [*row, call.time])
        else:
            rows.append((1, [*row, call.time]))
    shown = [(f"{count} x" if count > 1 else "", *row) for count, row in _newest(rows, _CALLS)]
    columns = _columns(times="text", service="text", call="text", answer="state", region="text", age="time")
    return Table(name="latest errors" if errors else "latest calls", columns=columns, rows=shown, total=len(shown))


def faults(rows: Iterable[Row]) -> Table:
    """Return the faults in force."""
    shown = [(json.dumps(row.fault.model_dump(exclude_unset=True)), str(row.met), str(row.acted)) for row in rows]
    return Table(
        name="faults in force", columns=_columns(fault="text", met="text", acted="text"), rows=shown, total=len(shown)
    )
