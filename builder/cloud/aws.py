"""AWS, or anything that answers as AWS does: the api.Cloud of EC2, STS and the EBS direct APIs.

botocore makes every call but the two that move blocks; those go through blocks.py. Every attempt is reported through
`on_call` and framed by the crash points `before SERVICE:ACTION` and `after SERVICE:ACTION`. Every call here may be
repeated: it only reads, names its end state, carries a client token, or creates under a name that is taken by then.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from builder import pool
from builder.bundle.limits import LARGEST_IMAGE_EC2
from builder.cloud import records
from builder.cloud.api import BlockRef, Call, Capabilities, ImageRecord, ImageSpec, Rule, SnapshotRecord
from builder.cloud.blocks import BlockClient
from builder.cloud.claims import TAG, Claim, taken_by
from builder.cloud.limits import limits
from builder.cloud.pacer import Pacer
from builder.cloud.s3 import S3
from builder.cloud.settings import Settings
from builder.cloud.sigv4 import Signer
from builder.cloud.wait import Patience, wait_until
from builder.crashpoint import reach
from builder.errors import CloudConflict, CloudNotFound, CloudTrouble
from builder.progress import SILENT, Progress, Sparing
from builder.retry import retrying

if TYPE_CHECKING:
    from builder.cloud.session import Session

__all__ = ["Aws", "Settings"]

Answer = TypeVar("Answer")

BLOCKS_A_SECOND = 1000  # the quota of a snapshot, which AWS does not raise (L-1774F84A)
# Minutes without a put after which AWS drops a pending snapshot. Its default of 60 would lose an upload that was killed
# in the evening and is resumed in the morning.
_START_TIMEOUT = 1440
_NAME_SETTLE = Patience(deadline=120, settle=60)
_ATTEMPTS = 1000  # the limit in time comes first

# RegisterImage of the EC2 API reference: its parameters, and the characters that its Name takes.
CAPABILITIES = Capabilities(
    register_fields=frozenset(
        {
            "Architecture",
            "BlockDeviceMappings",
            "BootMode",
            "Description",
            "EnaSupport",
            "ImageLocation",
            "ImdsSupport",
            "KernelId",
            "Name",
            "RamdiskId",
            "RootDeviceName",
            "SriovNetSupport",
            "TagSpecifications",
            "TpmSupport",
            "VirtualizationType",
        }
    ),
    tag_on_register=True,
    architectures=frozenset({"arm64", "i386", "x86_64"}),
    image_name=Rule(
        pattern=r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}", words="3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _"
    ),
    device_name=Rule(pattern=r"/dev/(sd|xvd)[a-z]{1,2}[0-9]{0,2}", words="/dev/sda1, /dev/xvda, …"),
    root_device="/dev/xvda",
    largest_bundle=LARGEST_IMAGE_EC2,
)


class Aws:
    """One account in one region. Nothing is loaded, looked up or connected before the first call."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_call: Callable[[Call], None] = lambda _: None,
        progress: Progress = SILENT,
        blocks_a_second: float = BLOCKS_A_SECOND,
    ) -> None:
        self._settings = settings
        self._on_call, self._progress = on_call, Sparing(progress)
        self._rate = blocks_a_second
        self._s3 = S3(settings, on_call=on_call, progress=progress)
        self._lock = pool.Lock()
        self._session_made: Session | None = None
        self._blocks_made: BlockClient | None = None
        self._account = ""
        self._known: dict[str, float] = {}  # resource id -> when we first heard of it

    @property
    def region(self) -> str:
        """The region's name."""
        return self._settings.region

    @property
    def capabilities(self) -> Capabilities:
        """What this cloud can do. Nothing is asked of it."""
        return CAPABILITIES

    @property
    def s3(self) -> S3:
        """Its object store, with the same credentials. Nothing is connected before the first call."""
        return self._s3

    def close(self) -> None:
        """Close the connections that carried blocks; the next call opens new ones."""
        if self._blocks_made:
            self._blocks_made.close()
            self._blocks_made = None

    def account(self) -> str:
        """Return the account id of the credentials (asked once, then remembered)."""
        if not self._account:
            self._account = str(self._call("sts", "GetCallerIdentity")["Account"])
        return self._account

    # Snapshots, by EC2
    def find_snapshots(self, claim: Claim) -> Sequence[SnapshotRecord]:
        """Return our own snapshots that carry the claim's tag, whatever their status."""
        found = self._pages(
            "DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=_filters(f"tag:{TAG}", claim.token)
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

    # Snapshots, by the EBS direct APIs
    def start_snapshot(
        self, claim: Claim, *, volume_size: int, description: str, tags: Mapping[str, str], parent: str | None
    ) -> SnapshotRecord:
        """Start a snapshot of `volume_size` GiB under the claim's token: the same call twice makes one snapshot."""
        request: dict[str, Any] = {
            "VolumeSize": volume_size,
            "ClientToken": claim.token,
            "Tags": records.tag_list({**tags, TAG: claim.token}),
            "Timeout": _START_TIMEOUT,
        }
        if description:
            request["Description"] = description
        if parent:
            request["ParentSnapshotId"] = parent
        answer = self._call("ebs", "StartSnapshot", **request)
        self._know(answer["SnapshotId"])
        return SnapshotRecord(
            snapshot_id=answer["SnapshotId"],
            status=answer.get("Status", "pending"),
            volume_size=int(answer.get("VolumeSize", volume_size)),
            description=answer.get("Description", ""),
            tags=records.tags(answer),
        )

    def put_block(self, snapshot_id: str, index: int, data: bytes, sha256: bytes) -> None:
        """Put 512 KiB at block `index`; return when the cloud has accepted and acknowledged its checksum."""
        client = self._blocks()
        self._attempts(_PUT, lambda: client.put(snapshot_id, index, data, sha256), uses=(snapshot_id,))

    def complete_snapshot(self, snapshot_id: str, *, changed_blocks: int, checksum: bytes | None) -> None:
        """Seal it: `checksum` is the SHA-256 over the SHA-256s of the blocks that were put, in order (LINEAR)."""
        request: dict[str, Any] = {"SnapshotId": snapshot_id, "ChangedBlocksCount": changed_blocks}
        if checksum is not None:
            request |= {
                "Checksum": base64.b64encode(checksum).decode(),
                "ChecksumAlgorithm": "SHA256",
                "ChecksumAggregationMethod": "LINEAR",
            }
        self._call("ebs", "CompleteSnapshot", (snapshot_id,), **request)

    def list_blocks(self, snapshot_id: str) -> Iterator[BlockRef]:
        """Yield every block that holds data, ascending."""
        page: dict[str, Any] = {}
        while True:
            asked = {"SnapshotId": snapshot_id, "MaxResults": 10000, **page}
            answer = self._call("ebs", "ListSnapshotBlocks", (snapshot_id,), **asked)
            for block in answer.get("Blocks", ()):
                yield BlockRef(index=int(block["BlockIndex"]), token=block["BlockToken"])
            if not answer.get("NextToken"):
                return
            page = {"NextToken": answer["NextToken"]}

    def get_block(self, snapshot_id: str, block: BlockRef) -> bytes:
        """Return the block's 512 KiB, its checksum verified."""
        client = self._blocks()
        return self._attempts(_GET, lambda: client.get(snapshot_id, block), uses=(snapshot_id,))

    # Images
    def find_images(self, claim: Claim) -> Sequence[ImageRecord]:
        """Return our own images that carry the claim's tag."""
        return self._images(Owners=["self"], Filters=_filters(f"tag:{TAG}", claim.token))

    def image_by_name(self, name: str) -> ImageRecord | None:
        """Return our account's image of that name, or None."""
        return next(iter(self._images(Owners=["self"], Filters=_filters("name", name))), None)

    def describe_image(self, image_id: str) -> ImageRecord | None:
        """Return the image, or None when the cloud says it does not exist."""
        try:
            return next(iter(self._images(ImageIds=[image_id])), None)
        except CloudNotFound:
            return None

    def register_image(self, claim: Claim, spec: ImageSpec) -> str:
        """Register and return the image id; the claim's tag is set in the call itself.

        A taken name is an adoption when that image carries the claim; else raises CloudConflict naming the image.
        """
        uses = [device.snapshot_id for device in spec.block_devices if device.snapshot_id]
        try:
            return str(self._call("ec2", "RegisterImage", uses, **records.registration(claim, spec))["ImageId"])
        except CloudConflict as error:
            taken = self._holder(spec.name, error)
            if taken.tags.get(TAG) == claim.token:
                return taken.image_id
            raise taken_by(taken) from error

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
            reach(after)
            return answer

        return retrying(attempt, deadline=limits().retry, attempts=_ATTEMPTS, progress=self._progress)

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

    def _blocks(self) -> BlockClient:
        if self._blocks_made is None:
            session = self._session()
            url, ca_file = session.url("ebs"), self._settings.ca_file
            signer = Signer(host=urlsplit(url).netloc, region=self.region, service="ebs", keys=session.keys)
            with self._lock:
                if self._blocks_made is None:
                    self._blocks_made = BlockClient(url, signer, pacer=Pacer(self._rate), ca_file=ca_file)
        return self._blocks_made


_PUT = Call("ebs", "PutSnapshotBlock")
_GET = Call("ebs", "GetSnapshotBlock")


def _filters(name: str, value: str) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [value]}]
