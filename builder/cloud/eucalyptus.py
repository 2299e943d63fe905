"""Eucalyptus, release by release: the api.Cloud of its compute, object storage, tokens and bootstrap services.

Its services answer at paths of their own, refuse every parameter that they do not know, and have defaults that are not
EC2's, so that nothing is left to a default here. Sources: "Eucalyptus API" of the facts, section 2, which names the
files of Eucalyptus that each rule was read in.

RegisterImage takes no tags, so an image is there for a moment before it carries its claim. A crash in that moment is
made good by the next `register_image` of the same claim: the name is taken, by an untagged image of exactly the bundle
or snapshot that was to be registered, which is ours because those are; it is tagged and returned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

from builder.bundle.limits import LARGEST_IMAGE_EUCALYPTUS
from builder.cloud import images, records, registration
from builder.cloud.api import Call, Capabilities, ImageSpec, Lack, Rule
from builder.cloud.claims import TAG, Claim, taken_by
from builder.cloud.ec2 import Ec2
from builder.cloud.releases import Release
from builder.cloud.settings import QueryDialect, S3Dialect, Settings
from builder.errors import CloudConflict, CloudDenied, CloudError, CloudNotFound, UsageError
from builder.progress import SILENT, Progress

REGION = "eucalyptus"  # its own name for the only region; what is signed for it is not checked

_NO_DIRECT = Lack(
    why="Eucalyptus has no EBS direct APIs, by which emi writes snapshots.",
    instead="Make an instance-store image: the steps `bundle`, `upload` and `register` in the place of `snapshot`.",
)
_EMPTY = Lack(
    why="Eucalyptus answers this call with success and does nothing.",
    instead="Upload the image to this cloud itself: the steps `bundle`, `upload` and `register`.",
)
_NO_OBJECT_TAGS = Lack(
    why="Eucalyptus has no tags of objects and would take the call for one that reads or replaces the object.",
    instead="Say it in the object's metadata, which is set with its bytes.",
)
_AS_A_FILE = "Give the cloud's certificate as a file (EUCALYPTUS_CERT, or `cloud_certificate` in clouds.yaml)."
_TOO_OLD = "this release of Eucalyptus is older than the call"
# xvd names pass its validation and are not rewritten when a volume is attached ("Guest device names" of the facts).
_DEVICE = Rule(pattern=r"/dev/([svh]d[a-z]|sda1)", words="/dev/sda, /dev/sdb, /dev/vdb, …, never /dev/xvda")
_NAME = Rule(pattern=r"[A-Za-z0-9()./_-]{3,128}", words="3 to 128 letters, digits and ( ) . / _ -")
_ROOT = "/dev/sda"
_FIELDS = frozenset(
    {
        "Architecture",
        "BlockDeviceMappings",
        "Description",
        "ImageLocation",
        "KernelId",
        "Name",
        "Platform",
        "RamdiskId",
        "RootDeviceName",
        "SriovNetSupport",
        "VirtualizationType",
    }
)


def capabilities(release: Release) -> Capabilities:
    """Return what a release can do; one that is not known is taken for the least able."""
    lacks = {Call("ebs", action): _NO_DIRECT for action in _DIRECT}
    lacks |= {Call("ec2", action): _EMPTY for action in ("CopyImage", "CopySnapshot", "ImportImage", "ImportSnapshot")}
    tagging = ("GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging")
    lacks |= {Call("s3", action): _NO_OBJECT_TAGS for action in tagging}
    if not release.at_least(5, 0):
        instead = "List with ListObjects; or say in clouds.yaml which `release` it is, if it is 5.0 or later."
        lacks[Call("s3", "ListObjectsV2")] = Lack(why=f"{_TOO_OLD}, which came with 5.0.", instead=instead)
    if release.before(4, 2):
        asked = Call("bootstrap", "DescribeServiceCertificates")
        lacks[asked] = Lack(why=f"{_TOO_OLD}, which came with 4.2.", instead=_AS_A_FILE)
    tagged = ("CreateSnapshot", "CreateVolume", "RunInstances") if release.at_least(5, 0) else ()
    return Capabilities(
        lacks=lacks,
        tags_at_once=frozenset(Call("ec2", action) for action in tagged),
        register_fields=_FIELDS,
        architectures=frozenset({"i386", "x86_64"}),
        image_name=_NAME,
        device_name=_DEVICE,
        root_device=_ROOT,
        # 4.0 to 4.4.1 look for parts at the root of the bucket; at the root all releases find them (EUCA-13409).
        bucket_root=not (release.at_least(4, 4, 2) or release.before(4, 0)),
        largest_bundle=LARGEST_IMAGE_EUCALYPTUS,
        ebs_in_bundles=False,
        most_ephemeral=1,
        paravirtual_needs=frozenset({"KernelId", "RamdiskId"}),
        client_tokens=frozenset({Call("ec2", "RunInstances")}),
    )


_DIRECT = (
    "StartSnapshot",
    "PutSnapshotBlock",
    "CompleteSnapshot",
    "ListSnapshotBlocks",
    "ListChangedBlocks",
    "GetSnapshotBlock",
)


def s3_dialect(release: Release) -> S3Dialect:
    """Return how object storage wants to be spoken to: signatures of version 4 came with 4.4, those of 2 stayed."""
    signature: Literal["s3v4", "s3"] = "s3v4" if release.at_least(4, 4) else "s3"
    return S3Dialect(addressing="path", checksums="when_required", signature=signature, drops_conditions=True)


def query_dialect(release: Release) -> QueryDialect:
    """Return how compute and the other query services want to be spoken to."""
    return QueryDialect(
        signature="v2" if release.before(3, 3) else "v4",
        drops={"CreateVolume": ("ClientToken",)},
        adds={"RegisterImage": ("Platform",)},
    )


class Eucalyptus(Ec2):
    """One account of one cloud. Nothing is loaded, looked up or connected before the first call.

    `settings` say where it answers; how it wants to be spoken to follows from the `release`. `account` is the number of
    the account where that is known, so that the cloud need not be asked.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        release: Release | None = None,
        account: str = "",
        on_call: Callable[[Call], None] = lambda _: None,
        progress: Progress = SILENT,
        retry: float | None = None,
    ) -> None:
        super().__init__(settings, on_call=on_call, progress=progress, retry=retry)
        self._release = release or Release()
        self._capabilities = capabilities(self._release)
        self._account = account

    @property
    def capabilities(self) -> Capabilities:
        """What this cloud can do. Nothing is asked of it."""
        return self._capabilities

    def bundling_certificate(self) -> bytes:
        """Return the certificate (PEM) for which the content key of a bundle must be encrypted, asked of the cloud.

        Raises UsageError where the release cannot be asked or has none to show; what the cloud raises else.
        """
        asked = Call("bootstrap", "DescribeServiceCertificates")
        self._capabilities.require(asked)
        try:
            answer = self._call(asked.service, asked.action, Format="pem", FingerprintDigest="SHA-256")
        except CloudError as error:
            if error.retryable or isinstance(error, CloudDenied):
                raise
            raise UsageError(
                f"the cloud's certificate cannot be asked for: {error.message}", hint=_AS_A_FILE
            ) from error
        for found in answer.get("serviceCertificates", ()):
            if (found.get("serviceType"), found.get("certificateUsage")) == ("compute", "image-bundling"):
                return str(found.get("certificate", "")).strip().encode() + b"\n"
        raise UsageError("the cloud shows no certificate for bundles", hint=_AS_A_FILE)

    def register_image(self, claim: Claim, spec: ImageSpec) -> str:
        """Register and return the image id; the claim's tag is set right after, by a second call.

        A taken name is an adoption when that image carries the claim, or when it carries none and is of exactly the
        bundle or snapshot of the spec: then a crash came between the two calls, and it is tagged now. Else raises
        CloudConflict naming the image. Raises UsageError for what this cloud takes no parameter for.
        """
        request = self._registration(claim, spec)
        uses = [device.snapshot_id for device in spec.block_devices if device.snapshot_id]
        try:
            image_id = str(self._call("ec2", "RegisterImage", uses, **request)["ImageId"])
        except CloudConflict as error:
            holder = self._holder(spec.name, error)
            if holder.tags.get(TAG) == claim.token:
                return holder.image_id
            if TAG in holder.tags or not images.made_of(holder, spec):
                raise taken_by(holder) from error
            image_id = holder.image_id
        self._know(image_id)
        tags = records.tag_list({**spec.tags, TAG: claim.token})
        self._call("ec2", "CreateTags", (image_id,), Resources=[image_id], Tags=tags)
        return image_id

    # Snapshots, by APIs that it does not have: each raises UsageError, which says what to do instead.
    def start_snapshot(self, *_: object, **__: object) -> NoReturn:
        """Raise UsageError."""
        self._lacking("StartSnapshot")

    def put_block(self, *_: object, **__: object) -> NoReturn:
        """Raise UsageError."""
        self._lacking("PutSnapshotBlock")

    def complete_snapshot(self, *_: object, **__: object) -> NoReturn:
        """Raise UsageError."""
        self._lacking("CompleteSnapshot")

    def list_blocks(self, *_: object, **__: object) -> NoReturn:
        """Raise UsageError."""
        self._lacking("ListSnapshotBlocks")

    def get_block(self, *_: object, **__: object) -> NoReturn:
        """Raise UsageError."""
        self._lacking("GetSnapshotBlock")

    def _lacking(self, action: str) -> NoReturn:
        self._capabilities.require(Call("ebs", action))
        raise AssertionError(f"ebs:{action} is among what Eucalyptus lacks")

    def _meant(self, error: CloudError) -> CloudError:
        for words, hint in _CAUSES if error.message.startswith("ec2:") else ():
            if re.search(words, error.message, re.IGNORECASE):
                meant = (CloudError if error.retryable else type(error))(error.message, hint=hint)
                meant.code = error.code
                return meant
        return error

    def _ask_account(self) -> str:
        """Return the account's number, by whichever call this release and these credentials allow."""

        def by_token() -> str:
            return super(Eucalyptus, self)._ask_account()  # since 4.4, and allowed to everybody

        def by_user() -> str:
            return str(self._call("iam", "GetUser")["User"]["Arn"]).split(":")[4]

        first, second = (by_token, by_user) if self._release.at_least(4, 4) else (by_user, by_token)
        try:
            return first()
        except (CloudDenied, UsageError, CloudNotFound) as error:
            try:
                return second()
            except (CloudError, UsageError) as later:
                if isinstance(error, UsageError):  # it was not even asked
                    raise
                raise error from later

    def _registration(self, claim: Claim, spec: ImageSpec) -> Mapping[str, Any]:
        """Return the request of RegisterImage, with every default of Eucalyptus' that is not EC2's overruled.

        What it does not know is left out: tags, and hints to EC2's hardware; what would decide something is refused.
        """
        registration.require(spec, self._capabilities)
        request = records.registration(claim, spec)
        if spec.image_location is None:
            request.setdefault("RootDeviceName", _ROOT)
            request.setdefault("Architecture", "x86_64")  # it would say i386
            request.setdefault("VirtualizationType", "hvm")  # it would say paravirtual, and want a kernel
        return {name: value for name, value in request.items() if name in _FIELDS}


# Sentences of Eucalyptus' ImageManager, Images and binding. It throws them without a code of their own, so that most
# come as InternalFailure with status 500, which elsewhere would be worth another attempt.
_WRONG = (
    "Invalid image location|Unknown virtualization-type|No enum constant|Invalid request|Device name|"
    "block device mapping|Volume size for|ephemeral device|assigned multiple times"
)
_CAUSES: Sequence[tuple[str, str]] = (
    ("Manifest is not accessible", "The manifest's <user> must be the account of these credentials: bundle it anew."),
    (
        "Failed to read manifest",
        "The manifest and its parts need the ACL aws-exec-read; the step `upload` and `emi upload` set it.",
    ),
    ("Only administrators can register", "Use an administrator's keys, or a kernel and ramdisk that are there."),
    ("Failed to bind the following fields", "This release does not take that parameter; please report it."),
    (_WRONG, "Correct the step `register`, then `emi resume`."),
)
