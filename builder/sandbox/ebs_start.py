"""StartSnapshot: its parameters, its client token, and the disk it makes."""

from __future__ import annotations

import errno
import json
import time
from dataclasses import dataclass, field
from typing import Any

from builder import pool
from builder.digest import BLOCK
from builder.sandbox.cloud import Cloud, blocks_of, new_id
from builder.sandbox.ec2 import encryption
from builder.sandbox.protocols import rest_json
from builder.sandbox.records import ClientToken, Snapshot, token_key
from builder.sandbox.wire import Answer, Caller, Refusal, Request

_ACTION = "StartSnapshot"
_KNOWN = {
    "VolumeSize", "ParentSnapshotId", "Tags", "Description", "ClientToken", "Encrypted", "KmsKeyArn", "Timeout",
}  # fmt: skip
_LARGEST = 65536  # GiB
_MOST_TAGS = 50
_TIMEOUTS = (10, 4320)  # minutes


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """A StartSnapshot request, checked."""

    volume_size: int
    parent_id: str | None
    description: str
    tags: dict[str, str] = field(default_factory=dict)
    timeout: int
    token: str | None
    encrypted: bool | None
    kms_key: str | None

    @property
    def fingerprint(self) -> str:
        """The parameters that a second request under the same client token must repeat."""
        told = [self.volume_size, self.parent_id, self.description, self.tags, self.timeout]
        # Only when it was asked for: what earlier versions wrote down knows nothing of it.
        told += [self.encrypted, self.kms_key] if self.encrypted is not None else []
        return json.dumps(told, sort_keys=True)


class Starter:
    """Starts snapshots, one at a time: a client token seen twice at once must make one snapshot."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._one = pool.Lock()

    def start(self, request: Request, caller: Caller) -> Answer:
        """Start a snapshot, or answer as the first time when the client token is known. Raises Refusal."""
        wish = _parse(request.body)
        with self._one:
            if wish.token:
                key = token_key(caller.account, caller.region, _ACTION, wish.token)
                with self._cloud.state.lock:
                    used = self._cloud.state.find(ClientToken, key)
                if used is not None:
                    return _again(used, wish)
            return self._create(caller, wish)

    def _create(self, caller: Caller, wish: _Wish) -> Answer:
        parent = self._parent(caller, wish)
        encrypted, kms_key = self._encryption(caller, wish, parent)
        snapshot_id = new_id("snap")
        # The disk first, its record last: a crash in between leaves an orphan that the next start sweeps away.
        self._make_disk(snapshot_id, wish, parent)
        snapshot = Snapshot(
            snapshot_id=snapshot_id,
            account=caller.account,
            region=caller.region,
            volume_size=wish.volume_size,
            start_time=time.time(),
            lineage=parent.lineage if parent is not None else snapshot_id,
            parent_id=wish.parent_id,
            description=wish.description,
            tags=wish.tags,
            timeout=wish.timeout,
            encrypted=encrypted,
            kms_key_id=kms_key,
        )
        answer = _describe(snapshot)
        records: list[Snapshot | ClientToken] = [snapshot]
        if wish.token:
            records.append(
                ClientToken(
                    account=caller.account,
                    region=caller.region,
                    action=_ACTION,
                    token=wish.token,
                    request=wish.fingerprint,
                    answer=json.dumps(answer),
                )
            )
        with self._cloud.state.lock:
            self._cloud.state.put(*records)
        return rest_json.answer(answer, status=201)

    def _encryption(self, caller: Caller, wish: _Wish, parent: Snapshot | None) -> tuple[bool, str | None]:
        values = {"Encrypted": wish.encrypted, "KmsKeyId": wish.kms_key}
        try:
            return encryption.decide(self._cloud, caller, values, inherited=parent)
        except Refusal as refusal:
            raise _invalid(refusal.message, "INVALID_CUSTOMER_KEY") from refusal

    def _make_disk(self, snapshot_id: str, wish: _Wish, parent: Snapshot | None) -> None:
        source = self._cloud.disk(parent) if parent is not None else None
        try:
            self._cloud.disks.create(snapshot_id, blocks_of(wish.volume_size), source)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            message = f"The sandbox's filesystem holds no file of {wish.volume_size} GiB."
            raise _invalid(message, "INVALID_VOLUME_SIZE") from error

    def _parent(self, caller: Caller, wish: _Wish) -> Snapshot | None:
        if wish.parent_id is None:
            return None
        parent = self._cloud.snapshot(caller, wish.parent_id)
        if parent is None:
            message = f"The snapshot '{wish.parent_id}' does not exist."
            raise Refusal("ResourceNotFoundException", message, status=404, reason="SNAPSHOT_NOT_FOUND")
        if self._cloud.status(parent) != "completed":
            raise _invalid(f"The parent '{wish.parent_id}' is not completed.", "INVALID_SNAPSHOT_ID")
        if parent.volume_size > wish.volume_size:
            raise _invalid(f"VolumeSize is below the parent's {parent.volume_size} GiB.", "INVALID_VOLUME_SIZE")
        return parent


def request_tags(body: bytes) -> dict[str, str]:
    """Return the tags that a StartSnapshot brings. Raises Refusal."""
    return _tags(rest_json.parse(body).get("Tags") or [])


def _again(used: ClientToken, wish: _Wish) -> Answer:
    if used.request != wish.fingerprint:
        message = "The request uses the same client token as a previous, but non-identical request."
        raise Refusal("ConflictException", message, status=409)
    return rest_json.answer(json.loads(used.answer), status=201)


def _describe(snapshot: Snapshot) -> dict[str, object]:
    answer: dict[str, object] = {
        "SnapshotId": snapshot.snapshot_id,
        "OwnerId": snapshot.account,
        "Status": "pending",
        "StartTime": round(snapshot.start_time, 3),
        "VolumeSize": snapshot.volume_size,
        "BlockSize": BLOCK,
        "Tags": [{"Key": key, "Value": value} for key, value in snapshot.tags.items()],
    }
    if snapshot.description:
        answer["Description"] = snapshot.description
    if snapshot.parent_id:
        answer["ParentSnapshotId"] = snapshot.parent_id
    if snapshot.kms_key_id:
        answer["KmsKeyArn"] = snapshot.kms_key_id
    return answer


def _invalid(message: str, reason: str = "INVALID_PARAMETER_VALUE") -> Refusal:
    return Refusal("ValidationException", message, reason=reason)


def _parse(body: bytes) -> _Wish:
    values = rest_json.parse(body)
    if unknown := sorted(set(values) - _KNOWN):
        raise _invalid(f"Unknown parameters: {', '.join(unknown)}.")
    if values.get("Encrypted") is not None and values.get("ParentSnapshotId") is not None:
        raise _invalid("Encrypted and ParentSnapshotId cannot both be given.")
    if values.get("Encrypted") not in (None, True, False):
        raise _invalid("Encrypted must be true or false.")
    return _Wish(
        volume_size=_size(values.get("VolumeSize")),
        parent_id=_text(values, "ParentSnapshotId", 64),
        description=_text(values, "Description", 255) or "",
        tags=_tags(values.get("Tags") or []),
        timeout=_timeout(values.get("Timeout")),
        token=_text(values, "ClientToken", 255),
        encrypted=values.get("Encrypted"),
        kms_key=_text(values, "KmsKeyArn", 2048),
    )


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise _invalid(f"VolumeSize must be a number of GiB, between 1 and {_LARGEST}.", "INVALID_VOLUME_SIZE")
    return value


def _timeout(value: Any) -> int:
    if value is None:
        return 60
    if not isinstance(value, int) or isinstance(value, bool) or not _TIMEOUTS[0] <= value <= _TIMEOUTS[1]:
        raise _invalid(f"Timeout must be a number of minutes, between {_TIMEOUTS[0]} and {_TIMEOUTS[1]}.")
    return value


def _text(values: dict[str, Any], name: str, longest: int) -> str | None:
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise _invalid(f"{name} must be 1 to {longest} characters.")
    return value


def _tags(entries: Any) -> dict[str, str]:
    tags: dict[str, str] = {}
    for entry in entries if isinstance(entries, list) else [None]:
        key, value = (entry.get("Key"), entry.get("Value", "")) if isinstance(entry, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(value, str) or not 1 <= len(key) <= 127 or len(value) > 255:
            raise _invalid("A tag has a Key of 1 to 127 characters and a Value of at most 255.", "INVALID_TAG")
        if key.lower().startswith("aws:") or key in tags:
            raise _invalid(f"The tag key {key!r} is reserved or given twice.", "INVALID_TAG")
        tags[key] = value
    if len(tags) > _MOST_TAGS:
        raise _invalid(f"At most {_MOST_TAGS} tags.", "INVALID_TAG")
    return tags
