"""The step `migrate-manifest`, on bundles of old tools, from one account and cloud to others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.bundle import check, keys, manifest
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.records import Manifest
from builder.errors import BundleRefused, UsageError
from pipelines.artifact import Bundle, MachineImage
from pipelines.kinds import load
from pipelines.step import Foreseen, ForeseenBundle

STEP = load("migrate-manifest")
KEYS = Path(__file__).parents[3] / "fixtures/bundles/keys"
# Those that differ in what a step sees; tests/builder/bundle/ has all of them.
NAMES = ("2007-08-29", "ec2-ami-tools-1.5", "euca2ools-2.1", "euca2ools-3.4-unsigned-kernel", "v3")
SIGNED, UNSIGNED = "ec2-ami-tools-1.5", "euca2ools-3.4-unsigned-kernel"


def read(scene: Any, bundle: Bundle) -> Manifest:
    return manifest.read(scene.store.path(bundle.manifest).read_bytes(), where=bundle.manifest.name)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_moves_to_another_cloud_and_account(name: str, scene: Any) -> None:
    bundle = scene.fetch(name)
    before = read(scene, bundle)
    tables = {"kernels": {before.kernel_id or "": "eki-1"}, "ramdisks": {before.ramdisk_id or "": "eri-1"}}
    moved = scene.run("migrate-manifest", bundle, **scene.whose(name), **tables)
    assert moved == bundle.model_copy(update={"manifest": moved.manifest})  # the parts stay
    assert moved.manifest.name == bundle.manifest.name
    after = read(scene, moved)
    if before.type == "machine":
        assert after.kernel_id == ("eki-1" if before.kernel_id else None)
        assert after.ramdisk_id == ("eri-1" if before.ramdisk_id else None)
    assert (after.user, after.tar_sha1, after.parts) == (scene.here.account, before.tar_sha1, before.parts)
    assert set(after.mappings) == set(before.mappings)
    certificate = Certificate.load(scene.here.user_certificate, "here")
    check.require_signature(scene.store.path(moved.manifest).read_bytes(), certificate, where="after")
    other = PrivateKey.load((KEYS / "other.key").read_bytes(), "other")
    assert keys.opened(after.for_user, other) == keys.opened(after.for_cloud, other) is not None


def test_what_moved_is_opened_by_the_account_here(scene: Any) -> None:
    bundle = scene.fetch(SIGNED)
    before = read(scene, bundle)
    tables = {"kernels": {before.kernel_id: None}, "ramdisks": {before.ramdisk_id or "": None}}
    moved = scene.run("migrate-manifest", bundle, cloud="old", **tables)
    assert (read(scene, moved).kernel_id, read(scene, moved).ramdisk_id) == (None, None)
    scene.require_image(scene.run("unbundle", moved), SIGNED)


@pytest.mark.parametrize(
    ("name", "told", "error", "says"),
    [
        pytest.param(SIGNED, {}, BundleRefused, "signed by somebody else", id="another account's"),
        pytest.param(UNSIGNED, {"cloud": "old"}, BundleRefused, "not signed", id="nobody signed it"),
        pytest.param(SIGNED, {"cloud": "keyless"}, UsageError, "private key of account 123456789012", id="no key"),
        pytest.param(
            "euca2ools-2.1",
            {"cloud": "old", "kernels": {"aki-00000001": "eki-1"}, "ramdisks": {}},
            UsageError,
            "is not in the table",
            id="a kernel that the table lacks",
        ),
    ],
)
def test_what_is_not_right_is_refused(name: str, told: Any, error: Any, says: str, scene: Any) -> None:
    bundle = scene.fetch(name)
    with pytest.raises(error, match=says):
        scene.run("migrate-manifest", bundle, **told)


def test_a_kernel_that_a_step_registered_takes_the_place(scene: Any) -> None:
    bundle = scene.fetch("euca2ools-2.1")
    named = {
        role: MachineImage(image_id=id_, name=role, region="r")
        for role, id_ in (("kernel", "eki-0badcafe"), ("ramdisk", "eri-0badcafe"))
    }
    moved = scene.run("migrate-manifest", bundle, cloud="old", kernel="a", ramdisk="b", named=named)
    assert read(scene, bundle).kernel_id
    assert read(scene, moved).kernel_id == "eki-0badcafe"
    assert read(scene, moved).ramdisk_id == ("eri-0badcafe" if read(scene, bundle).ramdisk_id else None)


def test_a_kernel_is_said_once() -> None:
    (said,) = STEP.check(STEP.options(kernel="a", kernels={}))
    assert said == "`kernel` and `kernels` each say which kernel to boot with; give one of them"


def test_for_whom_it_is_made_is_part_of_the_key(scene: Any) -> None:
    pins = STEP.pin(STEP.options(), scene.outside)
    assert pins == {
        "account": scene.here.account,
        "cloud_certificate": Certificate.load(scene.here.cloud_certificate, "x").sha256,
        "user_certificate": Certificate.load(scene.here.user_certificate, "x").sha256,
    }


def test_what_can_be_told_of_the_bundle_goes_on() -> None:
    source = Foreseen(bundle=ForeseenBundle(name="x", type="machine", architecture="i386"))
    assert STEP.foresee(STEP.options(), source) == Foreseen(bundle=source.bundle)
