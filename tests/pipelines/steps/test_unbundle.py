"""The steps `unbundle` and `migrate-manifest`, on bundles of old tools, with keys of two accounts and clouds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.bundle import check, keys, manifest
from builder.bundle.certificates import Certificate, PrivateKey
from builder.cloud.aws import Aws, Settings
from builder.cloud.identity import BundlingIdentity
from builder.errors import BundleRefused, UsageError
from builder.progress import SILENT
from pipelines.artifact import Bundle, ImageFile, MachineImage
from pipelines.kinds import load
from pipelines.step import Inputs, Outside, Work
from pipelines.store import FileStore
from pipelines.targets import Target

BUNDLES = Path(__file__).parents[3] / "fixtures/bundles"
KEYS = BUNDLES / "keys"
# Those that differ in what a step sees; tests/builder/bundle/ has all of them.
NAMES = ("2007-08-29", "ec2-ami-tools-1.5", "euca2ools-2.1", "euca2ools-3.4-unsigned-kernel", "v3")
DIALECTS = [BUNDLES / name for name in NAMES]
ANY = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda path: path.name)


def identity(user: str, cloud: str, account: str) -> BundlingIdentity:
    return BundlingIdentity(
        account=account,
        user_certificate=(KEYS / f"{user}.crt").read_bytes(),
        private_key=(KEYS / f"{user}.key").read_bytes(),
        cloud_certificate=(KEYS / f"{cloud}.crt").read_bytes(),
    )


OLD = identity("user", "cloud", "123456789012")
ITS = identity("cloud", "cloud", "123456789012")
NEW = identity("other", "other", "210987654321")


class Scene:
    """A store, and two clouds: the one that the bundles were made for, `old`, and the run's."""

    def __init__(self, folder: Path) -> None:
        self.store = FileStore(folder / "objects")
        self._folder = folder
        self._sites = {
            name: Target(
                name=str(name), identity=str(name), cloud=Aws(Settings(region="r")), bundling=lambda who=who: who
            )
            for name, who in (
                (None, NEW),
                ("old", OLD),
                ("keyless", replace(OLD, private_key=None)),
                ("the cloud itself", ITS),
            )
        }

    def run(self, kind: str, source: Bundle | None, *, named: Mapping[str, Any] | None = None, **told: Any) -> Any:
        step = load(kind)
        options = step.options(**told)
        assert list(step.check(options)) == []
        scratch = self._folder / f"{kind}-{len(list(self._folder.iterdir()))}"
        scratch.mkdir()
        outside = Outside(
            recipe_directory=self._folder, cache=self._folder, store=self.store, site=lambda name: self._sites[name]
        )
        work = Work(scratch=scratch, outside=outside, pins=step.pin(options, outside), progress=SILENT)
        return step.build(options, Inputs(source=source, named=named or {}), work)

    def fetch(self, dialect: Path) -> Bundle:
        expected = json.loads((dialect / "expected.json").read_text())
        return self.run("fetch-bundle", None, manifest=(dialect / expected["manifest"]).as_uri())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def require_image(scene: Scene, made: ImageFile, dialect: Path) -> None:
    """Hold the image against what the fixture says is in it."""
    inside = json.loads((dialect / "expected.json").read_text())["image"]
    path = scene.store.path(made)
    assert path.stat().st_size == made.virtual_size == inside["size"]
    with open(path, "rb") as file:  # of up to 9 GiB, nearly all of it holes
        for extent in inside["data"]:
            file.seek(extent["offset"])
            assert hashlib.sha256(file.read(extent["length"])).hexdigest() == extent["sha256"]
    assert path.stat().st_blocks * 512 <= sum(extent["length"] + 8192 for extent in inside["data"])


def is_signed(dialect: Path) -> bool:
    return bool(json.loads((dialect / "expected.json").read_text())["signature"])


def opener(dialect: Path) -> str:
    """Return the site whose key opens the bundle: that of its maker, or of the cloud where it has nobody else's."""
    return "old" if "user" in json.loads((dialect / "expected.json").read_text())["opened_by"] else "the cloud itself"


@ANY
def test_a_bundle_gives_its_image(dialect: Path, scene: Scene) -> None:
    bundle = scene.fetch(dialect)
    made = scene.run("unbundle", bundle, cloud=opener(dialect), unsigned=not is_signed(dialect))
    assert (made.format, made.window, made.backing) == ("raw", None, None)
    require_image(scene, made, dialect)


@ANY
def test_a_bundle_moves_to_another_cloud_and_account(dialect: Path, scene: Scene) -> None:
    bundle = scene.fetch(dialect)
    before = manifest.read(scene.store.path(bundle.manifest).read_bytes(), where="before")
    tables = {"kernels": {before.kernel_id or "": "eki-1"}, "ramdisks": {before.ramdisk_id or "": "eri-1"}}
    moved = scene.run("migrate-manifest", bundle, cloud=opener(dialect), unsigned=not is_signed(dialect), **tables)
    assert (moved.parts, moved.type, moved.size) == (bundle.parts, bundle.type, bundle.size)
    assert moved.manifest.name == bundle.manifest.name
    data = scene.store.path(moved.manifest).read_bytes()
    after = manifest.read(data, where="after")
    if before.type == "machine":
        assert after.kernel_id == ("eki-1" if before.kernel_id else None)
        assert after.ramdisk_id == ("eri-1" if before.ramdisk_id else None)
    assert (after.user, by_name(after.mappings), after.tar_sha1) == (
        NEW.account,
        by_name(before.mappings),
        before.tar_sha1,
    )
    assert NEW.user_certificate
    check.require_signature(data, Certificate.load(NEW.user_certificate, "new"), where="after")
    other = PrivateKey.load((KEYS / "other.key").read_bytes(), "other")
    assert keys.opened(after.for_user, other) is not None
    assert keys.opened(after.for_cloud, other) is not None
    if dialect == SIGNED:
        require_image(scene, scene.run("unbundle", moved), dialect)


def by_name(mappings: Any) -> set[tuple[str, str]]:
    return {(one.virtual, one.device) for one in mappings}


def test_there_are_signed_and_unsigned_ones() -> None:
    assert {is_signed(dialect) for dialect in DIALECTS} == {True, False}


SIGNED = BUNDLES / "ec2-ami-tools-1.5"
UNSIGNED = BUNDLES / "euca2ools-3.4-unsigned-kernel"
WITH_KERNEL = next(
    path for path in DIALECTS if (said := json.loads((path / "expected.json").read_text())["says"])["kernel_id"]
    and said["type"] == "machine" and is_signed(path)
)  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "told", "error", "says"),
    [
        pytest.param(SIGNED, {}, BundleRefused, "signed by somebody else", id="another account's"),
        pytest.param(SIGNED, {"unsigned": True}, BundleRefused, "does not open", id="another account's key"),
        pytest.param(UNSIGNED, {"cloud": "old"}, BundleRefused, "is not signed", id="nobody signed it"),
        pytest.param(SIGNED, {"cloud": "keyless"}, UsageError, "private key of account 123456789012", id="no key"),
        pytest.param(SIGNED, {"cloud": "old", "max_size": 4096}, BundleRefused, "beyond the limit", id="too large"),
    ],
)
def test_unbundle_refuses(dialect: Path, told: Any, error: Any, says: str, scene: Scene) -> None:
    bundle = scene.fetch(dialect)
    with pytest.raises(error, match=says):
        scene.run("unbundle", bundle, **told)


@pytest.mark.parametrize(
    ("dialect", "told", "error", "says"),
    [
        pytest.param(SIGNED, {}, BundleRefused, "signed by somebody else", id="another account's"),
        pytest.param(UNSIGNED, {"cloud": "old"}, BundleRefused, "not signed", id="nobody signed it"),
        pytest.param(SIGNED, {"cloud": "keyless"}, UsageError, "private key of account 123456789012", id="no key"),
        pytest.param(
            WITH_KERNEL,
            {"cloud": "old", "kernels": {"aki-00000001": "eki-1"}, "ramdisks": {}},
            UsageError,
            "is not in the table",
            id="a kernel that the table lacks",
        ),
    ],
)
def test_migrate_manifest_refuses(dialect: Path, told: Any, error: Any, says: str, scene: Scene) -> None:
    bundle = scene.fetch(dialect)
    with pytest.raises(error, match=says):
        scene.run("migrate-manifest", bundle, **told)


def test_a_kernel_that_a_step_registered_takes_the_place(scene: Scene) -> None:
    bundle = scene.fetch(WITH_KERNEL)
    named = {
        role: MachineImage(image_id=id_, name=role, region="r")
        for role, id_ in (("kernel", "eki-0badcafe"), ("ramdisk", "eri-0badcafe"))
    }
    moved = scene.run("migrate-manifest", bundle, cloud="old", kernel="a", ramdisk="b", named=named)
    before, after = (manifest.read(scene.store.path(one.manifest).read_bytes(), where="x") for one in (bundle, moved))
    assert after.kernel_id == "eki-0badcafe"
    assert after.ramdisk_id == ("eri-0badcafe" if before.ramdisk_id else None)


def test_a_kernel_is_said_once() -> None:
    step = load("migrate-manifest")
    (said,) = step.check(step.options(kernel="a", kernels={}))
    assert said == "`kernel` and `kernels` each say which kernel to boot with; give one of them"


def test_for_whom_it_is_made_is_part_of_the_key(scene: Scene, tmp_path: Path) -> None:
    step = load("migrate-manifest")
    outside = Outside(
        recipe_directory=tmp_path, cache=tmp_path, store=scene.store, site=lambda name: scene._sites[name]
    )
    pins = step.pin(step.options(), outside)
    assert pins["account"] == NEW.account
    assert pins["cloud_certificate"] == Certificate.load(NEW.cloud_certificate, "x").sha256
