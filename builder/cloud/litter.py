"""What emi made in an account, whether it still serves or was left: found by its marks, removed one by one.

No journal is read here, and nothing is judged: pipelines/gc.py says what is litter. Marks are the tag `emi:claim` with
the token of a claim, exactly so, on a resource that the account owns; of key pairs and security groups the name that is
made of a token (access.py), for clouds that tag them late or never; and of an object the metadata that a bundle's
upload writes (bundles.py), under a key that fits the manifest which they name: a copy elsewhere is not ours. An
unfinished multipart upload has no marks; it is shown where it goes to a place that the journal knows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from builder import pool
from builder.bundle import manifest
from builder.bundle.limits import LARGEST_MANIFEST
from builder.cloud import cleanup
from builder.cloud.access import token_in
from builder.cloud.api import Cloud
from builder.cloud.bundles import CLAIM, MANIFEST, RECIPE, RUN, SUFFIX
from builder.cloud.claims import RECIPE_TAG, TAG
from builder.cloud.holdings import KINDS, Holding
from builder.cloud.s3 import S3, ObjectRecord, UploadRecord
from builder.cloud.wait import Patience, wait_until
from builder.errors import BundleRefused, CloudConflict, CloudDenied, CloudError, CloudTrouble

# What stands on something goes before it: a killed removal then leaves nothing that names what is gone.
ORDER = ("instance", "image", "volume", "key pair", "security group", "snapshot", "upload", "manifest", "part")

_TOKEN = re.compile(r"[0-9a-f]{64}")  # of Claim.token; anything else in the tag is not by us
_PART = re.compile(r"(.*)\.part\.[0-9]+")
_LOOKS = 8  # objects that are looked at in parallel
_ENDS_SOON = Patience(deadline=300, settle=0)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing that carries a claim. `id` is the cloud's, or `s3://BUCKET/KEY` (of an upload with `?uploadId=ID`).

    `bundle` is the manifest, as `s3://BUCKET/KEY`, that an object belongs to. `uses` as in Holding; of a manifest they
    are its parts. `created` is seconds since the epoch, None where the cloud does not tell. `claim` is "" of what has
    no mark and may be ours all the same.
    """

    kind: str
    id: str
    claim: str
    recipe: str = ""
    run: str = ""
    name: str = ""
    state: str = ""
    created: float | None = None
    uses: frozenset[str] = frozenset()
    bundle: str = ""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What there is of ours; `users` is what there is of others, by id, with the ids that it stands on.

    `unseen` says, a sentence each, where nobody could look.
    """

    things: tuple[Thing, ...]
    users: Mapping[str, frozenset[str]]
    unseen: tuple[str, ...] = ()


@dataclass
class _Gathered:
    things: list[Thing] = field(default_factory=list)
    users: dict[str, frozenset[str]] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)


def look(cloud: Cloud, places: Collection[str]) -> Sight:
    """Return everything in the account that carries a claim; `places` are the manifests that the journal knows.

    Only reads. Raises what the listings of EC2 raise: without them nothing could be said of what is in use. A bucket
    that may not be listed is `unseen`.
    """
    found = _Gathered()
    unmarked: list[Holding] = []
    for kind in KINDS:
        for holding in cloud.holdings(kind):
            if thing := _marked(holding):
                found.things.append(thing)
            else:
                unmarked.append(holding)
                found.users[holding.id] = holding.uses
    known = {place.removeprefix("s3://").partition("/")[0] for place in places}
    for bucket in sorted(cloud.s3.buckets()):
        try:
            _look_into(cloud.s3, bucket, found)
            if bucket in known:
                found.things += _uploads(cloud.s3, bucket, places)
        except CloudTrouble:
            raise
        except CloudError as error:
            found.unseen.append(f"the bucket {bucket} cannot be looked into: {error.message}")
    if not cloud.capabilities.tag_on_register:
        found.things += _untagged(unmarked, {thing.id for thing in found.things})
    return Sight(things=tuple(found.things), users=found.users, unseen=tuple(found.unseen))


def remove(cloud: Cloud, thing: Thing) -> None:
    """Remove it and return when that is done; fine when it is gone already.

    Raises CloudConflict when something uses it, or when an object was written anew by others meanwhile.
    """
    bucket, _, key = thing.id.removeprefix("s3://").partition("/")
    match thing.kind:
        case "image":
            cleanup.deregister(cloud, thing.id, snapshots=False)
        case "instance":
            cloud.drop(Holding(kind=thing.kind, id=thing.id))
            _wait_for_end(cloud, thing)
        case "manifest" | "part":
            there = cloud.s3.head(bucket, key)
            if there is not None and there.metadata.get(CLAIM) != thing.claim:
                raise CloudConflict(f"{thing.id} was written anew meanwhile: it carries another claim")
            if there is not None:
                cloud.s3.delete(bucket, key)
        case "upload":
            key, _, upload_id = key.rpartition("?uploadId=")
            cloud.s3.abort(UploadRecord(bucket=bucket, key=key, upload_id=upload_id))
        case _:
            cloud.drop(Holding(kind=thing.kind, id=thing.id))


def _wait_for_end(cloud: Cloud, thing: Thing) -> None:
    """Return when the instance is terminated: its volumes are free then."""
    wait_until(
        lambda: [one for one in cloud.holdings("instance") if one.id == thing.id],
        lambda left: not left,
        what=f"the end of instance {thing.id}",
        patience=_ENDS_SOON,
    )


def _marked(holding: Holding) -> Thing | None:
    return _thing(holding) if _TOKEN.fullmatch(_claim(holding)) else None


def _claim(holding: Holding) -> str:
    """Return what it carries as a claim's token: its tag, or where it has none the token in its name."""
    if TAG in holding.tags:
        return holding.tags[TAG]
    match holding.kind:
        case "key pair":
            return token_in(holding.id)
        case "security group":
            return token_in(holding.name)
        case _:
            return ""


def _thing(holding: Holding) -> Thing:
    return Thing(
        kind=holding.kind,
        id=holding.id,
        claim=_claim(holding),
        recipe=holding.tags.get(RECIPE_TAG, ""),
        name=holding.name,
        state=holding.state,
        created=holding.created,
        uses=holding.uses,
    )


def _untagged(unmarked: Sequence[Holding], ours: Collection[str]) -> Iterator[Thing]:
    """Yield the images without a claim that consist of ours: a kill between RegisterImage and CreateTags leaves one."""
    for one in unmarked:
        if one.kind == "image" and TAG not in one.tags and one.uses & frozenset(ours):
            yield _thing(one)


def _look_into(s3: S3, bucket: str, found: _Gathered) -> None:
    """Gather the bundles' objects of a bucket; only those are looked at whose names are a bundle's."""
    fitting = [one for one in s3.objects(bucket) if one.key.endswith(SUFFIX) or _PART.fullmatch(one.key)]
    if not fitting:
        return
    seen = list(pool.in_order(lambda one: (one, _head(s3, bucket, one.key)), fitting, workers=_LOOKS))
    ours = {one.key: thing for one, full in seen if full and (thing := _object(bucket, one, full))}
    parts = {thing.id for thing in ours.values() if thing.kind == "part"}
    for one in fitting if ours else ():
        thing = ours.get(one.key)
        uses = _named_by(s3, bucket, one, parts) if one.key.endswith(SUFFIX) else frozenset()
        if thing:
            found.things.append(replace(thing, uses=uses))
        elif uses:
            found.users[f"s3://{bucket}/{one.key}"] = uses


def _head(s3: S3, bucket: str, key: str) -> ObjectRecord | None:
    try:
        return s3.head(bucket, key)
    except CloudDenied:  # another's, in a bucket that others may write to
        return None


def _object(bucket: str, listed: ObjectRecord, full: ObjectRecord) -> Thing | None:
    """Return the object as ours, if it carries all marks of an upload and lies where that upload would put it."""
    token, marked = full.metadata.get(CLAIM, ""), full.metadata.get(MANIFEST, "")
    key = unquote(marked)
    if not _TOKEN.fullmatch(token) or not key.endswith(SUFFIX) or full.key not in (key, *_stems(key, full.key)):
        return None
    modified = listed.modified or full.modified
    return Thing(
        kind="manifest" if full.key == key else "part",
        id=f"s3://{bucket}/{full.key}",
        claim=token,
        recipe=unquote(full.metadata.get(RECIPE, "")),
        run=unquote(full.metadata.get(RUN, "")),
        created=modified.timestamp() if modified else None,
        bundle=f"s3://{bucket}/{key}",
    )


def _stems(manifest_key: str, key: str) -> Iterator[str]:
    """Yield the key when it is that of a part of the manifest: beside it, or at the bucket's root."""
    part = _PART.fullmatch(key)
    stem = manifest_key.removesuffix(SUFFIX)
    if part and part[1] in (stem, stem.rpartition("/")[2]):
        yield key


def _named_by(s3: S3, bucket: str, listed: ObjectRecord, parts: Collection[str]) -> frozenset[str]:
    """Return which of the parts a manifest names; where it cannot be read, those that are called after it."""
    prefix = listed.key[: listed.key.rfind("/") + 1]
    try:
        says = manifest.read(s3.read(bucket, listed.key, most=LARGEST_MANIFEST), where=f"s3://{bucket}/{listed.key}")
        keys = {key for part in says.parts for key in (f"{prefix}{part.filename}", part.filename)}
    except CloudTrouble:
        raise
    except (BundleRefused, CloudError):
        named = (part.removeprefix(f"s3://{bucket}/") for part in parts)
        keys = {key for key in named if any(_stems(listed.key, key))}
    return frozenset(f"s3://{bucket}/{key}" for key in keys) & frozenset(parts)


def _uploads(s3: S3, bucket: str, places: Collection[str]) -> Iterator[Thing]:
    """Yield the unfinished uploads to where a bundle of the journal lies, or was to lie."""
    for upload in s3.uploads(bucket):
        place = f"s3://{bucket}/{upload.key}"
        for known in places:
            own, _, key = known.removeprefix("s3://").partition("/")
            if own == bucket and (place == known or any(_stems(key, upload.key))):
                yield Thing(
                    kind="upload",
                    id=f"{place}?uploadId={upload.upload_id}",
                    claim="",
                    created=upload.initiated.timestamp() if upload.initiated else None,
                    bundle=known,
                )
                break
