"""AWS, or anything that answers as AWS does: the api.Cloud of EC2, STS, S3 and the EBS direct APIs.

botocore makes every call but the two that move blocks; those go through blocks.py.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from builder.bundle.limits import LARGEST_IMAGE_EC2
from builder.cloud import records
from builder.cloud.api import BlockRef, Call, Capabilities, ImageSpec, Lack, Rule, SnapshotRecord
from builder.cloud.blocks import BlockClient
from builder.cloud.claims import TAG, Claim, taken_by
from builder.cloud.ec2 import Ec2
from builder.cloud.pacer import Pacer
from builder.cloud.settings import Settings
from builder.cloud.sigv4 import Signer
from builder.errors import CloudConflict
from builder.progress import SILENT, Progress

__all__ = ["Aws", "Settings"]

BLOCKS_A_SECOND = 1000  # the quota of a snapshot, which AWS does not raise (L-1774F84A)
# Minutes without a put after which AWS drops a pending snapshot. Its default of 60 would lose an upload that was killed
# in the evening and is resumed in the morning.
_START_TIMEOUT = 1440

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
    tags_at_once=frozenset(
        Call("ec2", action)
        for action in (
            "CreateSecurityGroup",
            "CreateSnapshot",
            "CreateVolume",
            "ImportKeyPair",
            "RegisterImage",
            "RunInstances",
        )
    )
    | {Call("ebs", "StartSnapshot")},
    client_tokens=frozenset({Call("ec2", "CreateVolume"), Call("ec2", "RunInstances"), Call("ebs", "StartSnapshot")}),
    architectures=frozenset({"arm64", "i386", "x86_64"}),
    image_name=Rule(
        pattern=r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}", words="3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _"
    ),
    device_name=Rule(pattern=r"/dev/(sd|xvd)[a-z]{1,2}[0-9]{0,2}", words="/dev/sda1, /dev/xvda, …"),
    root_device="/dev/xvda",
    largest_bundle=LARGEST_IMAGE_EC2,
    kernels=Lack(
        why="AWS lets nobody but itself and chosen vendors register kernels and ramdisks.",
        instead="Use an hvm image, or the `kernel_id` of a PV-GRUB that boots the kernel inside the image.",
    ),
    volume_fields=frozenset({"Encrypted", "KmsKeyId", "VolumeType"}),
    key_kinds=frozenset({"rsa", "ed25519"}),
    metadata_options=True,
    latest_console=True,
    instance_types={"x86_64": "t3.small", "arm64": "t4g.small"},
)


class Aws(Ec2):
    """One account in one region. Nothing is loaded, looked up or connected before the first call."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_call: Callable[[Call], None] = lambda _: None,
        progress: Progress = SILENT,
        blocks_a_second: float = BLOCKS_A_SECOND,
        retry: float | None = None,
    ) -> None:
        super().__init__(settings, on_call=on_call, progress=progress, retry=retry)
        self._rate = blocks_a_second
        self._blocks_made: BlockClient | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What this cloud can do. Nothing is asked of it."""
        return CAPABILITIES

    def close(self) -> None:
        """Close the connections that carried blocks; the next call opens new ones."""
        if self._blocks_made:
            self._blocks_made.close()
            self._blocks_made = None

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
