"""The step kind `upload`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

from pydantic import Field

from builder.cloud import bundles
from builder.cloud.api import Call, Cloud
from builder.cloud.bundles import Delivery, Destination, Item, Marks
from builder.cloud.claims import RECIPE_TAG, Claim
from builder.errors import CloudError, UsageError
from builder.units import format_size
from pipelines.artifact import AnyArtifact, Bundle, BundleLocation, File
from pipelines.step import Before, CloudStep, Foreseen, Inputs, Options, Work
from pipelines.values import Size

_NOTHING = Before()
_WITHOUT_ACLS = ("private", "bucket-owner-full-control")  # what a bucket without ACLs takes or needs none for
_CALLS = (
    "CreateBucket",
    "GetBucketOwnershipControls",
    "GetObject",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListObjects",
    "PutObject",
    "PutObjectAcl",
)


class UploadOptions(Options):
    """Where the bundle goes and who may read it there."""

    bucket: str = Field(description="the bucket; it is made, taking ACLs, when it is not there")
    prefix: str = Field(default="", description="what stands before the objects' names in the bucket, as `images/2026`")
    location: str | None = Field(
        default=None, description="where a bucket that is made lies (LocationConstraint); by default the cloud's region"
    )
    acl: Literal[
        "aws-exec-read",
        "authenticated-read",
        "bucket-owner-full-control",
        "bucket-owner-read",
        "private",
        "public-read",
    ] = Field(default="aws-exec-read", description="who may read the objects; the cloud itself must be among them")
    layout: Literal["auto", "beside", "root"] = Field(
        default="auto",
        description="where the parts lie: `beside` the manifest, or at the bucket's `root`, where Eucalyptus 4.0 to"
        " 4.4.1 look for them; `auto` as the cloud needs it",
    )
    max_size: Size | None = Field(
        default=None,
        exclude=True,
        description="the most that the image inside may measure; the cloud's own limit when left out",
    )
    connections: int = Field(
        default=bundles.WORKERS, ge=1, le=64, exclude=True, description="parts that are sent at the same time"
    )


class Upload(CloudStep[UploadOptions]):
    """Upload a bundle to a bucket: the parts in parallel, and last the manifest, with which it counts as there.

    A part that lies there already, by its digest, is not sent again: after a crash nothing that was acknowledged is.
    Where this step directly follows `bundle`, parts are sent while later ones are still being made. Each object's
    metadata names the recipe, the run and the claim it belongs to. What another put there is never replaced.
    """

    options = UploadOptions
    accepts = (Bundle,)
    returns = BundleLocation

    def check(self, options: UploadOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        return bundles.place_problems(options.bucket, options.prefix)

    def foresee(self, options: UploadOptions, source: Foreseen) -> Foreseen:
        """Return what can be told of the bundle."""
        return Foreseen(bundle=source.bundle)

    def calls(self, options: UploadOptions) -> Sequence[Call]:
        """Return every kind of API call that the step may make, while the bundle is being made included."""
        return tuple(Call("s3", action) for action in _CALLS)

    def preflight(
        self, options: UploadOptions, cloud: Cloud, may_be_ours: Callable[[str], bool], before: Before = _NOTHING
    ) -> None:
        """Raise CloudDenied for another's bucket, CloudError for one without ACLs, CloudConflict for a taken place."""
        bundle, there = before.source.bundle, before.source.result
        if isinstance(there, Bundle):
            _require_fitting(options, there, cloud)
        name = f"{bundle.name}{bundles.SUFFIX}" if bundle else _manifest_of(there)
        if cloud.s3.has_bucket(options.bucket) and options.acl not in _WITHOUT_ACLS:
            _require_acls(options, cloud)
        if name:
            to = _destination(options, name, cloud)
            found = cloud.s3.head(to.bucket, to.manifest_key)
            if found is not None and not may_be_ours(found.metadata.get(bundles.CLAIM, "")):
                raise bundles.taken(to, found)

    def forerunner(self, options: UploadOptions, manifest: str, cloud: Cloud, work: Work) -> Forerunning:
        """Return what sends parts before the bundle is whole."""
        return Forerunning(options, _destination(options, manifest, cloud), cloud, work)

    def find(self, options: UploadOptions, inputs: Inputs, claim: Claim, cloud: Cloud) -> str | None:
        """Return where the manifest lies, when it carries the claim: then all is there."""
        to = _destination(options, _bundle(inputs).manifest.name, cloud)
        found = cloud.s3.head(to.bucket, to.manifest_key)
        return str(to) if found is not None and found.metadata.get(bundles.CLAIM) == claim.token else None

    def start(self, options: UploadOptions, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Have the bucket be there and the manifest's place be free, and return where the bundle will lie."""
        bundle = _bundle(inputs)
        _require_fitting(options, bundle, cloud)
        to = _destination(options, bundle.manifest.name, cloud)
        delivery = _delivery(options, to, cloud, work)
        delivery.begin(options.location)
        delivery.manifest(_ours(claim))
        return str(to)

    def finish(self, options: UploadOptions, inputs: Inputs, effect: str, cloud: Cloud, work: Work) -> BundleLocation:
        """Send the parts that are not there, then the manifest, then look at all of it once more."""
        bundle = _bundle(inputs)
        assert work.claim
        to = _destination(options, bundle.manifest.name, cloud)
        delivery = _delivery(options, to, cloud, work)
        parts = [_item(part, work) for part in bundle.parts]
        delivery.manifest(_ours(work.claim))
        sent = delivery.send_all(parts, workers=options.connections)
        work.progress.note(f"{sent} of {len(parts)} parts were sent now, {len(parts) - sent} were there")
        delivery.commit(_item(bundle.manifest, work), _ours(work.claim))
        delivery.check(parts)
        return BundleLocation(
            bucket=to.bucket,
            manifest_key=to.manifest_key,
            region=cloud.region,
            type=bundle.type,
            architecture=bundle.architecture,
            manifest_sha256=bundle.manifest.digest.removeprefix("sha256:"),
            keys=tuple(to.part_key(part.name) for part in bundle.parts),
        )

    def discard(self, effect: str, cloud: Cloud, work: Work) -> None:
        """Delete what was put there, the manifest first."""
        bucket, _, key = effect.removeprefix("s3://").partition("/")
        prefix, slash, name = key.rpartition("/")
        to = Destination(bucket=bucket, prefix=f"{prefix}{slash}", manifest=name)
        bundles.discard(cloud.s3, to, _marks(work))

    def present(self, artifact: AnyArtifact, cloud: Cloud) -> bool:
        """Say whether the manifest lies there, unchanged, and its parts are listed."""
        assert isinstance(artifact, BundleLocation)
        return bundles.is_present(
            cloud.s3, artifact.bucket, artifact.manifest_key, artifact.manifest_sha256, artifact.keys
        )


class Forerunning:
    """Sends parts of a bundle whose manifest there is not yet; replaces nothing."""

    def __init__(self, options: UploadOptions, to: Destination, cloud: Cloud, work: Work) -> None:
        self._location, self._to = options.location, to
        self._delivery = _delivery(options, to, cloud, work)
        self._work = work

    def begin(self) -> str:
        """Have the bucket be there. Raises CloudConflict when a manifest is: `start` will say whose."""
        self._delivery.begin(self._location)
        self._delivery.manifest(())
        self._delivery.list()
        return str(self._to)

    def take(self, part: File) -> None:
        """Send one part."""
        self._delivery.send(_item(part, self._work), replace=False)


def _bundle(inputs: Inputs) -> Bundle:
    assert isinstance(inputs.source, Bundle)
    return inputs.source


def _manifest_of(result: AnyArtifact | None) -> str:
    return result.manifest.name if isinstance(result, Bundle) else ""


def _destination(options: UploadOptions, manifest: str, cloud: Cloud) -> Destination:
    at_root = cloud.capabilities.bucket_root if options.layout == "auto" else options.layout == "root"
    prefix = f"{options.prefix}/" if options.prefix else ""
    return Destination(bucket=options.bucket, prefix=prefix, manifest=manifest, root=at_root)


def _marks(work: Work) -> Marks:
    assert work.claim
    recipe = work.labels.get(RECIPE_TAG, "")
    return Marks(claim=work.claim.token, recipe=recipe, run=work.run, is_over=work.is_over)


def _delivery(options: UploadOptions, to: Destination, cloud: Cloud, work: Work) -> Delivery:
    return Delivery(cloud.s3, to, _marks(work), acl=options.acl, progress=work.progress)


def _ours(claim: Claim) -> Collection[str]:
    """Return the tokens of this claim and of those before it under the same key, which were given up."""
    return {Claim(claim.key, generation).token for generation in range(claim.generation + 1)}


def _item(file: File, work: Work) -> Item:
    return Item(name=file.name, path=work.store.path(file), size=file.size, digest=file.digest)


def _require_acls(options: UploadOptions, cloud: Cloud) -> None:
    if cloud.s3.refuses_acls(options.bucket):
        raise CloudError(
            f"the bucket {options.bucket} has ACLs switched off, and the cloud reads a bundle by its ACL {options.acl}",
            hint="Use a bucket that emi makes, or let this one take ACLs: its Object Ownership must be"
            " BucketOwnerPreferred. Then `emi resume`.",
        )


def _require_fitting(options: UploadOptions, bundle: Bundle, cloud: Cloud) -> None:
    """Raise UsageError for what the cloud would refuse to register or to run."""
    able = cloud.capabilities
    largest = options.max_size or able.largest_bundle
    if bundle.size > largest:
        raise UsageError(
            f"{bundle.manifest.name} holds an image of {format_size(bundle.size)}; this cloud takes at most"
            f" {format_size(largest)} in its instance store",
            hint="A `resize` step makes the image smaller; `max_size` raises the limit, for a cloud whose own was"
            " raised.",
        )
    if bundle.architecture not in able.architectures:
        raise UsageError(
            f"{bundle.manifest.name} is for {bundle.architecture}; this cloud has"
            f" {', '.join(sorted(able.architectures))}",
            hint="Set `architecture` of the `bundle` step to what the image's kernel is for.",
        )
