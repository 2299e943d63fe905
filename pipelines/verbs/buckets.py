"""What the verbs do that carry bundles between this machine and a bucket: upload, fetch-bundle.

There is no journal here, and none is needed: an upload is known again by what it says of itself. The claim that its
objects carry is made of the manifest and the place, so the same command finds what a killed one left, and sends only
what is missing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from builder.bundle import check, manifest
from builder.bundle.folder import parts_in
from builder.cloud.bundles import SUFFIX, Delivery, Destination, Item, Marks, place_problems
from builder.cloud.fetch_bundle import fetch_bundle
from builder.errors import BundleRefused, UsageError
from pipelines import locks, ui
from pipelines.home import home
from pipelines.verbs.bundles import read_manifest, watched
from pipelines.verbs.identity import target_of

_RECIPE = "emi-upload"  # in the place of a recipe's name, in what the objects say of who put them there


def upload(
    path: Path,
    to: str,
    *,
    source: Path | None,
    acl: str | None,
    location: str | None,
    cloud: str | None,
    as_json: bool,
) -> None:
    """Put a bundle into a bucket, one at a time into the same place.

    Raises UsageError, BundleRefused for parts that are not those of the manifest, and CloudError.
    """
    bucket, _, prefix = to.removeprefix("s3://").rstrip("/").partition("/")
    if wrong := place_problems(bucket, prefix):
        raise UsageError(f"{to}: {'; '.join(wrong)}", hint="Give BUCKET or BUCKET/PREFIX.")
    if not path.name.endswith(SUFFIX):
        raise UsageError(f"{path} is not called NAME{SUFFIX}", hint="Clouds know a manifest by that; rename the file.")
    data = read_manifest(path)
    progress = watched("upload", as_json=as_json)
    parts = _parts(data, path, source or path.parent)
    target = target_of(cloud)
    able = target.cloud.capabilities
    place = Destination(bucket=bucket, prefix=f"{prefix}/" if prefix else "", manifest=path.name, root=able.bucket_root)
    where = f"\n{target.identity}\n{place}".encode()
    claim = hashlib.sha256(data + where).hexdigest()
    marks = Marks(claim=claim, recipe=_RECIPE, run="")
    delivery = Delivery(target.cloud.s3, place, marks, acl=acl or able.bundle_acl, progress=progress)
    own = Item(name=path.name, path=path, size=len(data), digest=f"sha256:{hashlib.sha256(data).hexdigest()}")
    lock = home().key_lock(hashlib.sha256(where).hexdigest())
    # Of two at once the second finds the bundle. What the upload of another bundle left there is not replaced: nobody
    # knows whether it goes on.
    with locks.hold(lock, what=f"the upload to {place}", wait=True, tell=ui.warn):
        delivery.begin(location)
        delivery.manifest({claim})
        sent = delivery.send_all(parts)
        delivery.commit(own, {claim})
        delivery.check(parts)
    if as_json:
        ui.say_json({"location": f"{bucket}/{place.manifest_key}", "parts": len(parts), "sent": sent})
        return
    ui.say(f"{bucket}/{place.manifest_key}: {len(parts)} parts, of which {sent} were sent now")


def fetch(location: str, directory: Path, *, cloud: str | None, as_json: bool) -> None:
    """Get a bundle out of a bucket into a directory; what is there already with the right digest stays."""
    bucket, _, key = location.removeprefix("s3://").partition("/")
    if not (bucket and key):
        raise UsageError(f"{location} is not BUCKET/MANIFEST", hint="As in images/web.manifest.xml.")
    target = target_of(cloud)
    progress = watched("fetch-bundle", as_json=as_json)
    got = fetch_bundle(target.cloud.s3, bucket, key, directory, progress=progress)
    if as_json:
        ui.say_json({"manifest": str(got.path), "parts": [str(part) for part in got.parts], "kept": got.kept})
        return
    ui.say(f"{got.path}: {len(got.parts)} parts, every digest is right; {got.kept} were here already")
    ui.say(f"next: emi unbundle {got.path}   emi bundle-info {got.path}")


def _parts(data: bytes, path: Path, directory: Path) -> list[Item]:
    """Return the parts, each held against the manifest."""
    says = manifest.read(data, where=str(path))
    found = check.inspect(data, where=str(path), open_part=parts_in(directory, says))
    wrong = [part.problem for part in found.parts if part.problem]
    if wrong:
        raise BundleRefused(f"{path}: {'; '.join(wrong[:3])}", hint="Nothing was sent. Make the bundle again.")
    return [
        Item(
            name=part.filename,
            path=directory / part.filename,
            size=(directory / part.filename).stat().st_size,
            digest=f"sha1:{part.sha1}",
        )
        for part in says.parts
    ]
