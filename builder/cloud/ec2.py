"""What AWS and Eucalyptus have in common: the calls of EC2, STS and S3, retried, counted and framed.

botocore makes every call here. Every attempt is reported through `on_call` and framed by the crash points
`before SERVICE:ACTION` and `after SERVICE:ACTION`. Every call here may be repeated: it only reads, names its end state,
carries a client token, or creates under a name that is taken by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from builder import pool
from builder.cloud import records
from builder.cloud.api import Call, ImageRecord, SnapshotRecord
from builder.cloud.claims import TAG, Claim
from builder.cloud.holdings import KINDS, Holding, entries, holding
from builder.cloud.limits import limits
from builder.cloud.s3 import S3
from builder.cloud.settings import Settings
from builder.cloud.wait import Patience, wait_until
from builder.crashpoint import reach
from builder.errors import CloudConflict, CloudError, CloudNotFound, CloudTrouble
from builder.progress import SILENT, Progress, Sparing
from builder.retry import retrying

if TYPE_CHECKING:
    from builder.cloud.session import Session

Answer = TypeVar("Answer")

_NAME_SETTLE = Patience(deadline=120, settle=60)
_ATTEMPTS = 1000  # the limit in time comes first


class Ec2:
    """One account in one region. Nothing is loaded, looked up or connected before the first call.

    `retry` is how long a call is repeated that fails for a reason that may pass, in seconds; None: as limits.py says.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_call: Callable[[Call], None] = lambda _: None,
        progress: Progress = SILENT,
        retry: float | None = None,
    ) -> None:
        self._settings = settings
        self._retry = retry
        self._on_call, self._progress = on_call, Sparing(progress)
        self._s3 = S3(settings, on_call=on_call, progress=progress)
        self._lock = pool.Lock()
        self._session_made: Session | None = None
        self._account = ""
        self._known: dict[str, float] = {}  # resource id -> when we first heard of it

    @property
    def region(self) -> str:
        """The region's name."""
        return self._settings.region

    @property
    def s3(self) -> S3:
        """Its object store, with the same credentials. Nothing is connected before the first call."""
        return self._s3

    def account(self) -> str:
        """Return the account id of the credentials (asked once, then remembered)."""
        if not self._account:
            self._account = self._ask_account()
        return self._account

    def answer(self) -> str:
        """Return the account id of the credentials, asked now by a call that changes nothing: whether it answers."""
        return self._ask_account()

    def _ask_account(self) -> str:
        return str(self._call("sts", "GetCallerIdentity")["Account"])

    # What is there, whoever made it
    def holdings(self, kind: str) -> Sequence[Holding]:
        """Return what the account has of a type (a name of holdings.KINDS), without what is about to be gone.

        Of types that may be asked for so (`Kind.filtered`) only what carries a tag named as a claim's.
        """
        row = KINDS[kind]
        request = {**row.owned, **({"Filters": filters("tag-key", TAG)} if row.filtered else {})}
        found = [holding(kind, item) for item in entries(kind, self._pages(row.listed, row.member, **request))]
        own = self.account()
        return [one for one in found if one.state not in row.over and one.owner in ("", own)]

    def drop(self, holding: Holding) -> None:
        """Remove it; fine when it is gone already. Raises CloudConflict when something uses it."""
        row = KINDS[holding.kind]
        what: Any = [holding.id] if row.parameter.endswith("s") else holding.id
        try:
            self._call("ec2", row.removed, **{row.parameter: what})
        except CloudNotFound:
            return

    # Snapshots, by EC2
    def find_snapshots(self, claim: Claim) -> Sequence[SnapshotRecord]:
        """Return our own snapshots that carry the claim's tag, whatever their status."""
        found = self._pages(
            "DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=filters(f"tag:{TAG}", claim.token)
        )
        return [records.snapshot(item) for item in found]

    def describe_snapshot(self, snapshot_id: str) -> SnapshotRecord | None:
        """Return the snapshot, or None when the cloud says it does not exist."""
        self._know(snapshot_id)
        try:
            found = self._pages("DescribeSnapshots", "Snapshots", SnapshotIds=[snapshot_id])
        except CloudNotFound:
            return None
        return records.snapshot(found[0]) if found else None

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete it; fine when it is gone already. Raises CloudConflict when an image uses it."""
        try:
            self._call("ec2", "DeleteSnapshot", SnapshotId=snapshot_id)
        except CloudNotFound:
            return

    # Images
    def find_images(self, claim: Claim) -> Sequence[ImageRecord]:
        """Return our own images that carry the claim's tag."""
        return self._images(Owners=["self"], Filters=filters(f"tag:{TAG}", claim.token))

    def image_by_name(self, name: str) -> ImageRecord | None:
        """Return our account's image of that name, or None."""
        return next(iter(self._images(Owners=["self"], Filters=filters("name", name))), None)

    def describe_image(self, image_id: str) -> ImageRecord | None:
        """Return the image, or None when the cloud says it does not exist."""
        try:
            return next(iter(self._images(ImageIds=[image_id])), None)
        except CloudNotFound:
            return None

    def images_of(self, owner: str, image_type: str) -> Sequence[ImageRecord]:
        """Return the images of an account (an id, or EC2's words `amazon`, `self`) of a type that we may use."""
        return self._images(Owners=[owner], Filters=filters("image-type", image_type))

    def deregister_image(self, image_id: str) -> None:
        """Deregister it; fine when it is gone already."""
        try:
            self._call("ec2", "DeregisterImage", ImageId=image_id)
        except CloudNotFound:
            return

    def _holder(self, name: str, error: CloudConflict) -> ImageRecord:
        """Return the image that holds a name which RegisterImage just called taken; a describe may lag behind it."""
        try:
            return wait_until(
                lambda: self.image_by_name(name),
                lambda _: True,
                what=f"the image named {name!r}",
                patience=_NAME_SETTLE,
            )
        except CloudNotFound:
            raise CloudConflict(
                f"{error.message}; but no describe shows the image {name!r}",
                hint="It may be disabled, or deregistered moments ago: wait a little or choose another name.",
            ) from error

    def _images(self, **request: Any) -> Sequence[ImageRecord]:
        return [records.image(item) for item in self._pages("DescribeImages", "Images", **request)]

    def _pages(self, action: str, member: str, **request: Any) -> list[Mapping[str, Any]]:
        answer = self._call("ec2", action, **request)
        found = list(answer.get(member, ()))
        while answer.get("NextToken"):
            answer = self._call("ec2", action, **request, NextToken=answer["NextToken"])
            found += answer.get(member, ())
        return found

    def _call(self, service: str, action: str, uses: Sequence[str] = (), /, **request: Any) -> Mapping[str, Any]:
        session = self._session()

        def once() -> Mapping[str, Any]:
            return session.control(service, action, request, limit=limits().answer)

        return self._attempts(Call(service, action), once, uses=uses)

    def _attempts(self, call: Call, once: Callable[[], Answer], *, uses: Sequence[str] = ()) -> Answer:
        """Return what `once` does, repeated while that may help; `uses` are resources that must exist for it."""
        before, after = f"before {call}", f"after {call}"

        def attempt() -> Answer:
            self._on_call(call)
            reach(before)
            try:
                answer = once()
            except CloudNotFound as error:
                if self._settles(uses):
                    raise CloudTrouble(f"{error.message}, perhaps not yet: it is new to us") from error
                raise
            except CloudError as error:
                meant = self._meant(error)
                if meant is error:
                    raise
                raise meant from error
            reach(after)
            return answer

        deadline = limits().retry if self._retry is None else self._retry
        return retrying(attempt, deadline=deadline, attempts=_ATTEMPTS, progress=self._progress)

    def _meant(self, error: CloudError) -> CloudError:
        """Return what a refusal means, where this cloud says it otherwise than AWS does."""
        return error

    def _know(self, resource: str) -> None:
        self._known.setdefault(resource, time.monotonic())

    def _settles(self, resources: Sequence[str]) -> bool:
        """Say whether one of them is so new that the cloud may not know it everywhere yet (awslabs/coldsnap#43)."""
        since = time.monotonic() - limits().settle
        return any(self._known.get(resource, since) > since for resource in resources)

    def _session(self) -> Session:
        with self._lock:
            if self._session_made is None:
                from builder.cloud.session import Session  # botocore costs 0.15 s that `emi --help` does not owe

                self._session_made = Session(self._settings)
            return self._session_made


def filters(name: str, value: str) -> list[dict[str, Any]]:
    """Return one filter as a request holds it."""
    return [{"Name": name, "Values": [value]}]
