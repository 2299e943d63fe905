"""The step kind `locate-bundle`."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Sequence

from pydantic import Field

from builder.bundle import manifest
from builder.bundle.limits import LARGEST_MANIFEST
from builder.bundle.records import Manifest
from builder.cloud import bundles
from builder.cloud.api import Call, Cloud
from builder.cloud.claims import Claim
from builder.errors import BundleRefused, CloudNotFound
from pipelines.artifact import AnyArtifact, BundleLocation
from pipelines.step import Before, CloudStep, Inputs, Options, Work

_NOTHING = Before()


class LocateBundleOptions(Options):
    """Where the bundle lies."""

    manifest: str = Field(description="`BUCKET/KEY` of the manifest")


class LocateBundle(CloudStep[LocateBundleOptions]):
    """Take a bundle that lies in a bucket already, so that it can be registered.

    What was uploaded by `emi upload` or by another tool. That all its parts lie there is looked at by listing the
    bucket; what is in them is not: `fetch-bundle` and `unbundle` would tell.
    """

    options = LocateBundleOptions
    returns = BundleLocation

    def check(self, options: LocateBundleOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        return [] if all(_place(options)) else [f"`manifest` is BUCKET/KEY, not {options.manifest!r}"]

    def calls(self, options: LocateBundleOptions) -> Sequence[Call]:
        """Return every kind of API call that the step may make."""
        return tuple(Call("s3", action) for action in ("GetObject", "HeadObject", "ListObjects"))

    def preflight(
        self, options: LocateBundleOptions, cloud: Cloud, may_be_ours: Callable[[str], bool], before: Before = _NOTHING
    ) -> None:
        """Raise CloudNotFound when nothing lies there."""
        if cloud.s3.head(*_place(options)) is None:
            raise _absent(options)

    def find(self, options: LocateBundleOptions, inputs: Inputs, claim: Claim, cloud: Cloud) -> str | None:
        """Return None: nothing is made by this step, so there is nothing that could carry a claim."""
        return None

    def start(self, options: LocateBundleOptions, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Return where the manifest lies. Raises CloudNotFound."""
        if cloud.s3.head(*_place(options)) is None:
            raise _absent(options)
        return options.manifest

    def finish(
        self, options: LocateBundleOptions, inputs: Inputs, effect: str, cloud: Cloud, work: Work
    ) -> BundleLocation:
        """Read the manifest and look for the parts."""
        bucket, key = _place(options)
        data = cloud.s3.read(bucket, key, most=LARGEST_MANIFEST)
        says = manifest.read(data, where=f"s3://{bucket}/{key}")
        return BundleLocation(
            bucket=bucket,
            manifest_key=key,
            region=cloud.region,
            type=says.type,
            architecture=says.architecture,
            manifest_sha256=hashlib.sha256(data).hexdigest(),
            keys=_parts(bucket, key, says, cloud),
        )

    def present(self, artifact: AnyArtifact, cloud: Cloud) -> bool:
        """Say whether the manifest lies there, unchanged, and its parts are listed."""
        assert isinstance(artifact, BundleLocation)
        return bundles.is_present(
            cloud.s3, artifact.bucket, artifact.manifest_key, artifact.manifest_sha256, artifact.keys
        )


def _place(options: LocateBundleOptions) -> tuple[str, str]:
    bucket, _, key = options.manifest.removeprefix("s3://").lstrip("/").partition("/")
    return bucket, key


def _absent(options: LocateBundleOptions) -> CloudNotFound:
    return CloudNotFound(
        f"s3://{'/'.join(_place(options))} does not exist, says the cloud", hint="Correct `manifest`: BUCKET/KEY."
    )


def _parts(bucket: str, key: str, says: Manifest, cloud: Cloud) -> tuple[str, ...]:
    """Return the parts' keys, beside the manifest or at the bucket's root. Raises BundleRefused for one that lacks."""
    names = [part.filename for part in says.parts]
    lacks: list[str] = []
    for folder in dict.fromkeys((posixpath.dirname(key), "")):
        wanted = [posixpath.join(folder, name) for name in names]
        common = os.path.commonprefix(wanted)  # noqa: RUF071 - of keys, which are no paths
        sizes = {found.key: found.size for found in cloud.s3.objects(bucket, common)}
        missing = [one for one in wanted if one not in sizes]
        if not missing and sum(sizes[one] for one in wanted) == says.bundled_size:
            return tuple(wanted)
        lacks += [f"{missing[0]} is not there" if missing else "the parts' sizes are not those of the manifest"]
    raise BundleRefused(
        f"s3://{bucket}/{key}: {lacks[0]}", hint="Upload the bundle again; parts that are there are not sent twice."
    )
