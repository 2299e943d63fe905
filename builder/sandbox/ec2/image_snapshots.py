"""What CopyImage and CreateImage share: snapshots that are made as a part of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Values
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import Snapshot
from builder.sandbox.wire import Refusal

_KINDS = ("image", "snapshot")


def tags(values: Values) -> Mapping[str, Mapping[str, str]]:
    """Return the tags that the call gives to its image and to its snapshots, by kind. Raises Refusal."""
    given = values.get("TagSpecifications", ())
    for one in given:
        if (kind := one.get("ResourceType")) not in _KINDS:
            message = f"'{kind}' is not a valid taggable resource type for this operation."
            raise Refusal("InvalidParameterValue", message)
    return {kind: specified([one for one in given if one["ResourceType"] == kind], kind) for kind in _KINDS}


@contextmanager
def kept_or_removed(cloud: Cloud) -> Iterator[list[Snapshot]]:
    """Give a list for new snapshots, to be kept by the caller: their work is begun then, or their bytes are removed.

    A crash before they are kept leaves orphan disks for the next start to sweep away.
    """
    made: list[Snapshot] = []
    try:
        yield made
    except BaseException:
        for snapshot in made:
            cloud.disks.remove(snapshot.snapshot_id)
        raise
    for snapshot in made:
        cloud.begin(snapshot)
