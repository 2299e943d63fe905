"""What all of S3's calls work on: buckets and objects as records, their bytes in the store, and who may what."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from builder.sandbox.access.gate import Gate
from builder.sandbox.cloud import Cloud
from builder.sandbox.eucalyptus import objectstorage
from builder.sandbox.protocols import rest_xml
from builder.sandbox.protocols.rest_xml import S3Refusal, Values
from builder.sandbox.records import Bucket, Layout, Record, S3Object, Stored
from builder.sandbox.s3 import permissions, receive
from builder.sandbox.s3.address import Address
from builder.sandbox.s3.conditions import WriteCondition
from builder.sandbox.s3.store import Store
from builder.sandbox.wire import Answer, Caller, Refusal, Request

_LAYOUTS = 4  # kept in memory: ranges of one object are read one after the other, and ten thousand parts take 0.1 s
_LARGEST_XML = 8 << 20  # bytes: ten thousand parts with their checksums, or a thousand long keys


@dataclass(frozen=True, kw_only=True)
class Held:
    """An object and its extents, which stay readable until the store releases its `data`."""

    one: S3Object
    extents: Sequence[Stored]
    layout: Layout | None


@dataclass(frozen=True)
class Call:
    """One call of S3: what it is about, who makes it, and what it says."""

    action: str
    request: Request
    caller: Caller
    address: Address

    @property
    def key(self) -> str:
        """The object's key."""
        return self.address.key

    @cached_property
    def values(self) -> Values:
        """What the query and the headers say, by the names of the model. Raises Refusal."""
        values = rest_xml.model().parameters(self.action, self.request)
        return objectstorage.known(self.action, values) if self.request.service else values

    @cached_property
    def body(self) -> Values:
        """What the XML body says, read and held against its checksum now. Raises Refusal."""
        return rest_xml.model().body(self.action, self.data)[1]

    @cached_property
    def data(self) -> bytes:
        """The whole body of a call that is not about an object's bytes. Raises Refusal."""
        names = self.request.header_names
        named = any(name == "content-md5" or name.startswith("x-amz-checksum-") for name in names)
        if rest_xml.model().checksum_required(self.action) and not (named or "x-amz-trailer" in names):
            message = "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
            raise Refusal("InvalidRequest", message)
        return receive.read_all(self.request, _LARGEST_XML, about_object=self.action == "CompleteMultipartUpload")

    def answer(self, *, root: str = "", **result: Any) -> Answer:
        """Return the result as the model words it."""
        return rest_xml.model().answer(self.action, result, root=root)


class Depot:
    """The buckets and objects of one sandbox."""

    def __init__(self, cloud: Cloud, gate: Gate, store: Store) -> None:
        self.cloud = cloud
        self.state = cloud.state
        self.gate = gate
        self.store = store
        self._layouts: dict[str, Layout] = {}

    # Looking up

    def bucket(self, name: str) -> Bucket:
        """Return the bucket of that name. Raises Refusal (NoSuchBucket)."""
        found = self.state.all(Bucket).get(name)
        if found is None:
            raise S3Refusal("NoSuchBucket", "The specified bucket does not exist", status=404, BucketName=name)
        return found

    def find(self, bucket: str, key: str) -> S3Object | None:
        """Return an object's record, or None."""
        with self.state.lock:
            return self.state.find(S3Object, f"{bucket}/{key}")

    @contextmanager
    def holding(self, bucket: str, key: str) -> Iterator[Held]:
        """Give the object and keep its bytes readable within the block, whoever replaces or deletes it meanwhile.

        Raises Refusal (NoSuchKey).
        """
        held = self.hold(bucket, key)
        try:
            yield held
        finally:
            self.store.release(held.one.data)

    def hold(self, bucket: str, key: str) -> Held:
        """Return the object; its bytes stay until `store.release(data)`. Raises Refusal (NoSuchKey)."""
        with self.state.lock:
            one = self.state.find(S3Object, f"{bucket}/{key}")
            if one is None:
                raise no_such_key(key)
            layout = self._layout(one)
            self.store.hold(one.data)
        return Held(one=one, extents=extents_of(one, layout), layout=layout)

    def _layout(self, one: S3Object) -> Layout | None:
        """Return where a scattered object's bytes lie. Call it under the state's lock."""
        if not one.scattered:
            return None
        found = self._layouts.pop(one.data, None) or self.state.find(Layout, one.data)
        if found is not None:
            self._layouts[one.data] = found  # the last one is the most recently used
            if len(self._layouts) > _LAYOUTS:
                del self._layouts[next(iter(self._layouts))]
        return found

    def policy(self, bucket: Bucket, caller: Caller) -> str | None:
        """Return what the bucket's policy and ACL say to the caller, as one policy document."""
        return permissions.policy(bucket, None, caller)

    # Changing

    def put(
        self,
        one: S3Object,
        condition: WriteCondition,
        *,
        layout: Layout | None = None,
        also_remove: Iterable[Record] = (),
        unless: Callable[[], None] | None = None,
    ) -> S3Object:
        """Make `one` the object of its key, in one transaction: the commit point. Its bytes are on the disk already.

        `unless` may still refuse, where nobody can write in between. Raises Refusal; then nothing has changed, and the
        new bytes are the caller's to remove. Returns it with its time.
        """
        with self.state.lock:
            self.bucket(one.bucket)
            if unless is not None:
                unless()
            old = self.state.find(S3Object, one.key)
            condition.check(old, one.name)
            old_layout = self._layout(old) if old is not None else None
            one = replace(one, last_modified=max(time.time(), old.last_modified if old is not None else 0))
            removed: list[Record] = [*also_remove, *([old_layout] if old_layout is not None else [])]
            self.state.change(put=[one, *([layout] if layout is not None else [])], remove=removed)
        if old is not None:
            self.store.remove(old.data, extents_of(old, old_layout))
        return one

    def delete(self, bucket: str, key: str, condition: Callable[[S3Object | None], None]) -> None:
        """Remove the object if there is one and `condition` does not refuse it: the record first, then its bytes."""
        with self.state.lock:
            one = self.state.find(S3Object, f"{bucket}/{key}")
            condition(one)
            if one is None:
                return
            layout = self._layout(one)
            self.state.remove(one, *([layout] if layout is not None else []))
        self.store.remove(one.data, extents_of(one, layout))

    def change_bucket(self, name: str, **fields: Any) -> None:
        """Change a bucket's settings."""
        with self.state.lock:
            self.state.put(replace(self.bucket(name), **fields))

    def change_object(self, bucket: str, key: str, change: Callable[[S3Object], S3Object]) -> None:
        """Change what an object's record says beside its bytes. Raises Refusal (NoSuchKey)."""
        with self.state.lock:
            one = self.state.find(S3Object, f"{bucket}/{key}")
            if one is None:
                raise no_such_key(key)
            self.state.put(change(one))


def extents_of(one: S3Object, layout: Layout | None) -> list[Stored]:
    """Return where an object's bytes lie, in order."""
    if layout is None:
        return list(one.extents)
    return [extent for piece in layout.pieces for extent in piece.extents]


def no_such_key(key: str) -> S3Refusal:
    """Return S3's refusal of a key that has no object."""
    return S3Refusal("NoSuchKey", "The specified key does not exist.", status=404, Key=key)


def host_id(request: Request) -> str:
    """Return what S3 sends as x-amz-id-2 and HostId: of no meaning, but there."""
    return base64.b64encode(hashlib.sha512(request.id.encode()).digest()).decode()
