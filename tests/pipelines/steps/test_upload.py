"""The step `upload`: where a bundle goes, what is adopted, what is refused before anything is sent."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from pathlib import Path

import pytest

from builder.cloud.aws import Aws, Settings
from builder.cloud.claims import RECIPE_TAG, Claim
from builder.cloud.eucalyptus import Eucalyptus
from builder.cloud.releases import Release
from builder.errors import CloudConflict, CloudError, CloudFailed, UsageError
from builder.progress import SILENT
from builder.sandbox import lifecycle
from pipelines.artifact import Bundle, BundleLocation
from pipelines.kinds import load
from pipelines.step import Before, Foreseen, ForeseenBundle, Inputs, Outside, Work
from pipelines.steps.upload import UploadOptions, _destination
from pipelines.store import FileStore

STEP = load("upload")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sandbox")
    yield lifecycle.start(directory)
    lifecycle.stop(directory)


@pytest.fixture
def calls() -> Counter[str]:
    return Counter()


@pytest.fixture
def cloud(endpoint, calls) -> Aws:
    keys = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key}
    settings = Settings(region=endpoint.region, endpoint_url=endpoint.url, **keys)
    return Aws(settings, on_call=lambda call: calls.update([str(call)]))


@pytest.fixture
def store(tmp_path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture
def bundle(store, tmp_path) -> Bundle:
    return bundled(store, tmp_path, seed=1)


@pytest.fixture
def options() -> UploadOptions:
    return UploadOptions(bucket=f"emi-{secrets.token_hex(6)}", prefix="images/1")


def bundled(store: FileStore, place: Path, *, seed: int) -> Bundle:
    """Something that is named like a bundle; what is in it nobody looks at here."""
    numbers = random.Random(seed)
    parts = []
    for index in range(4):
        path = place / "part"
        path.write_bytes(numbers.randbytes(3000))
        sha1 = numbers.randbytes(20).hex()
        parts.append(store.seal_part(path, name=f"x.part.{index:02}", sha1=sha1))
    path = place / "manifest"
    path.write_bytes(b"<manifest>%d</manifest>" % seed)
    manifest = store.seal_file(path, name="x.manifest.xml")
    return Bundle(manifest=manifest, parts=tuple(parts), type="machine", architecture="x86_64", size=1 << 20)


def work(store: FileStore, claim: Claim, *, recipe: str = "test") -> Work:
    outside = Outside(recipe_directory=Path("/"), cache=Path("/"), store=store)
    return Work(
        scratch=Path("/"), outside=outside, pins={}, progress=SILENT, labels={RECIPE_TAG: recipe}, claim=claim, run="r"
    )


def make(options: UploadOptions, source: Bundle, claim: Claim, cloud: Aws, store: FileStore) -> BundleLocation:
    """Run the step as the runner does."""
    inputs, where = Inputs(source=source), work(store, claim)
    effect = STEP.find(options, inputs, claim, cloud) or STEP.start(options, inputs, claim, cloud, where)
    made = STEP.finish(options, inputs, effect, cloud, where)
    assert isinstance(made, BundleLocation)
    return made


def test_a_bundle_goes_into_a_bucket_by_the_announced_calls_and_is_adopted_after_that(
    options, bundle, cloud, calls, store
):
    claim = Claim("first")
    made = make(options, bundle, claim, cloud, store)
    assert made == BundleLocation(
        bucket=options.bucket,
        manifest_key="images/1/x.manifest.xml",
        region="us-east-1",
        type="machine",
        architecture="x86_64",
        manifest_sha256=bundle.manifest.digest.removeprefix("sha256:"),
        keys=tuple(f"images/1/{part.name}" for part in bundle.parts),
    )
    assert made.location == f"{options.bucket}/images/1/x.manifest.xml"
    assert STEP.present(made, cloud)
    assert set(calls) <= {str(call) for call in STEP.calls(options)}
    assert calls["s3:PutObject"] == 5
    assert STEP.find(options, Inputs(source=bundle), claim, cloud) == f"s3://{made.location}"
    assert make(options, bundle, claim, cloud, store) == made
    assert calls["s3:PutObject"] == 5


def test_parts_sent_early_are_not_sent_again(options, bundle, cloud, calls, store):
    early = STEP.forerunner(options, bundle.manifest.name, cloud, work(store, Claim("early")))
    assert early.begin() == f"s3://{options.bucket}/images/1/x.manifest.xml"
    for part in bundle.parts[:3]:
        early.take(part)
    make(options, bundle, Claim("late"), cloud, store)
    assert calls["s3:PutObject"] == 5


def test_nothing_is_sent_early_where_a_manifest_lies(options, bundle, cloud, calls, store, tmp_path):
    make(options, bundle, Claim("first"), cloud, store)
    early = STEP.forerunner(options, bundle.manifest.name, cloud, work(store, Claim("early")))
    with pytest.raises(CloudConflict, match="the manifest of another bundle, which the recipe test put there in run r"):
        early.begin()
    other = bundled(store, tmp_path, seed=2)
    with pytest.raises(CloudConflict, match="the manifest of another bundle"):
        make(options, other, Claim("second"), cloud, store)
    assert calls["s3:PutObject"] == 5


def test_what_is_gone_is_sent_again_under_the_next_generation(options, bundle, cloud, calls, store):
    made = make(options, bundle, Claim("k", 0), cloud, store)
    cloud.s3.delete(made.bucket, made.keys[2])
    assert not STEP.present(made, cloud)
    assert make(options, bundle, Claim("k", 1), cloud, store) == made
    assert STEP.present(made, cloud)
    assert calls["s3:PutObject"] == 5 + 2  # the part, and the manifest under its new claim


def test_what_another_changed_at_the_last_moment_fails_and_is_discarded(options, bundle, store, endpoint):
    keys = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key}
    settings = Settings(region=endpoint.region, endpoint_url=endpoint.url, **keys)
    other, counted = Aws(settings), Counter()

    def meddle(call) -> None:
        counted.update([str(call)])
        if str(call) == "s3:PutObject" and counted["s3:PutObject"] == 5:  # the manifest
            other.s3.put(options.bucket, "images/1/x.part.01", b"meddled")

    cloud, claim = Aws(settings, on_call=meddle), Claim("meddled")
    with pytest.raises(CloudFailed, match=r"x\.part\.01 holds other bytes: something else wrote there"):
        make(options, bundle, claim, cloud, store)
    effect = STEP.find(options, Inputs(source=bundle), claim, cloud)
    assert effect
    STEP.discard(effect, cloud, work(store, claim))
    assert [found.key for found in other.s3.objects(options.bucket)] == ["images/1/x.part.01"]  # not ours


def test_preflight_refuses_a_taken_place_and_what_the_cloud_does_not_take(options, bundle, cloud, calls, store):
    known = Before(source=Foreseen(bundle=ForeseenBundle(name="x", type="machine", architecture="x86_64")))
    STEP.preflight(options, cloud, bool, known)
    assert calls == {"s3:HeadBucket": 1, "s3:HeadObject": 1}
    make(options, bundle, Claim("first"), cloud, store)
    for before in (known, Before(source=Foreseen(result=bundle))):
        STEP.preflight(options, cloud, bool, before)  # it carries a claim: perhaps ours
        with pytest.raises(CloudConflict, match="the manifest of another bundle"):
            STEP.preflight(options, cloud, lambda _: False, before)
    for changes, words in (
        ({"size": (10 << 30) + 1}, "takes at most 10 GiB in its instance store"),
        ({"architecture": "ppc64"}, "is for ppc64; this cloud has arm64, i386, x86_64"),
    ):
        with pytest.raises(UsageError, match=words):
            STEP.preflight(options, cloud, bool, Before(source=Foreseen(result=bundle.model_copy(update=changes))))
    large = Before(source=Foreseen(result=bundle.model_copy(update={"size": 20 << 30})))
    STEP.preflight(options.model_copy(update={"max_size": 20 << 30}), cloud, bool, large)


def test_a_bucket_that_takes_no_acls_is_refused_before_the_image_is_made(options, cloud, calls):
    cloud.s3.ensure_bucket(options.bucket)  # as AWS makes them
    known = Before(source=Foreseen(bundle=ForeseenBundle(name="x", type="machine", architecture="x86_64")))
    with pytest.raises(
        CloudError, match="has ACLs switched off, and the cloud reads a bundle by its ACL aws-exec-read"
    ):
        STEP.preflight(options, cloud, bool, known)
    STEP.preflight(options.model_copy(update={"acl": "private"}), cloud, bool, known)
    cloud.s3.call("DeleteBucketOwnershipControls", Bucket=options.bucket)
    STEP.preflight(options, cloud, bool, known)
    assert set(calls) - {"s3:DeleteBucketOwnershipControls"} <= {str(call) for call in STEP.calls(options)}


@pytest.mark.parametrize(
    ("layout", "release", "where"),
    [
        ("auto", "4.0", ""),
        ("auto", "4.4.1", ""),
        ("auto", "4.4.2", "p/"),
        ("auto", "5.1", "p/"),
        ("beside", "4.0", "p/"),
        ("root", "5.1", ""),
    ],
)
def test_parts_lie_where_the_release_looks_for_them(layout, release, where):
    cloud = Eucalyptus(Settings(region="eucalyptus"), release=Release.parse(release))
    to = _destination(UploadOptions(bucket="b-1", prefix="p", layout=layout), "x.manifest.xml", cloud)
    assert to.manifest_key == "p/x.manifest.xml"
    assert to.part_key("x.part.00") == f"{where}x.part.00"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bucket": "b"}, "cannot be a bucket's name"),
        ({"bucket": "has space"}, "cannot be a bucket's name"),
        ({"bucket": "a/b"}, "cannot be a bucket's name"),
        ({"bucket": "a..b"}, "cannot be a bucket's name"),
        ({"prefix": "/a"}, "cannot be a prefix"),
        ({"prefix": "a/"}, "cannot be a prefix"),
        ({"prefix": "a/../b"}, "cannot be a prefix"),
        ({"prefix": "ä"}, "cannot be a prefix"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(options, words):
    (problem,) = STEP.check(UploadOptions(**{"bucket": "good", **options}))
    assert words in problem


def test_good_options_pass():
    assert STEP.check(UploadOptions(bucket="ubuntu-14.04", prefix="a/b.c_d-1")) == []
