"""The step `fetch-bundle` from this machine and from a web server: what it pins, keeps and refuses.

From a bucket it is run in test_instance_store.py, and what it calls in tests/builder/cloud/test_fetch_bundle.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from builder.errors import BundleRefused, ChecksumMismatch, EmiError, InputError
from builder.progress import SILENT
from pipelines.artifact import Bundle
from pipelines.kinds import load
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.fetch_bundle import FetchBundleOptions
from pipelines.store import FileStore

STEP = load("fetch-bundle")
BUNDLES = Path(__file__).parents[3] / "fixtures/bundles"
DIALECTS = [path for path in sorted(BUNDLES.glob("*")) if (path / "expected.json").exists()]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "objects")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a bundle of two parts, to do harm to; its manifest."""
    place = tmp_path / "there"
    shutil.copytree(BUNDLES / "ec2-ami-tools-1.5-large", place)
    return next(place.glob("*.manifest.xml"))


def work(store: FileStore, folder: Path, options: FetchBundleOptions, **changes) -> Work:
    (folder / "scratch").mkdir(exist_ok=True)
    outside = Outside(recipe_directory=folder, cache=folder / "cache", store=store, **changes)
    return Work(scratch=folder / "scratch", outside=outside, pins=STEP.pin(options, outside), progress=SILENT)


def fetch(store: FileStore, folder: Path, url: str, **changes) -> Bundle:
    options = FetchBundleOptions(manifest=url)
    made = STEP.build(options, Inputs(), work(store, folder, options, **changes))
    assert isinstance(made, Bundle)
    return made


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda path: path.name)
def test_every_dialect_comes_into_the_store_as_it_lies_there(dialect: Path, store: FileStore, tmp_path: Path) -> None:
    expected = json.loads((dialect / "expected.json").read_text())
    made = fetch(store, tmp_path, (dialect / expected["manifest"]).as_uri())
    assert made.manifest.name == expected["manifest"]
    assert store.path(made.manifest).read_bytes() == (dialect / expected["manifest"]).read_bytes()
    assert [part.name for part in made.parts] == expected["parts"]
    for part in made.parts:
        assert store.path(part).read_bytes() == (dialect / part.name).read_bytes()
    assert (made.type, made.architecture) == (expected["says"]["type"], expected["says"]["architecture"])
    assert made.size == expected["says"]["size"]
    assert not list(store.damaged())


def test_there_are_dialects() -> None:
    assert len(DIALECTS) > 8


def test_the_manifest_is_pinned(store: FileStore, bundle: Path, tmp_path: Path) -> None:
    options = FetchBundleOptions(manifest=bundle.as_uri())
    where = work(store, tmp_path, options)
    assert where.pins["manifest"] == f"sha256:{hashlib.sha256(bundle.read_bytes()).hexdigest()}"
    assert STEP.expect(options, where.pins) == sum(path.stat().st_size for path in bundle.parent.glob("*.part.*"))
    bundle.write_text(bundle.read_text().replace("<signature>", "<signature >"))
    with pytest.raises(InputError, match="changed after this run began"):
        STEP.build(options, Inputs(), where)


def test_after_a_kill_only_what_is_missing_is_fetched(store: FileStore, bundle: Path, tmp_path: Path) -> None:
    parts = sorted(bundle.parent.glob("*.part.*"))
    damaged = parts[-1].read_bytes()
    parts[-1].unlink()
    with pytest.raises(EmiError):
        fetch(store, tmp_path, bundle.as_uri())
    kept = sorted(path.name for path in (tmp_path / "scratch" / "bundle").iterdir())
    assert kept == [path.name for path in parts[:-1]]
    for path in parts[:-1]:
        path.write_bytes(b"never read again")
    parts[-1].write_bytes(damaged)
    assert [part.name for part in fetch(store, tmp_path, bundle.as_uri()).parts] == [path.name for path in parts]


def test_part_names_that_mean_something_in_urls(store: FileStore, bundle: Path, tmp_path: Path) -> None:
    text, names = bundle.read_text(), []
    for number, path in enumerate(sorted(bundle.parent.glob("*.part.*"))):
        names.append(f"a?b#c%41 &;:{number}é.part.{number}")
        text = text.replace(f"<filename>{path.name}<", f"<filename>{names[-1].replace('&', '&amp;')}<")
        path.rename(path.with_name(names[-1]))
    bundle.write_text(text)
    assert [part.name for part in fetch(store, tmp_path, bundle.as_uri()).parts] == names


def test_parts_that_the_store_has_are_not_fetched(store: FileStore, bundle: Path, tmp_path: Path) -> None:
    made = fetch(store, tmp_path, bundle.as_uri())
    for path in bundle.parent.glob("*.part.*"):
        path.unlink()
    assert fetch(store, tmp_path, bundle.as_uri()) == made
    assert not list(store.damaged())


@pytest.mark.parametrize(
    ("harm", "error", "says"),
    [
        ("a part is damaged", ChecksumMismatch, "sha1 is"),
        ("a part is missing", InputError, "part"),
        ("no manifest", BundleRefused, "disk.raw.manifest.xml"),
    ],
)
def test_what_is_not_right_is_refused(harm, error, says, store: FileStore, bundle: Path, tmp_path: Path) -> None:
    part = sorted(bundle.parent.glob("*.part.*"))[1]
    match harm:
        case "a part is damaged":
            os.truncate(part, part.stat().st_size - 1)
        case "a part is missing":
            part.unlink()
        case _:
            bundle = bundle.rename(bundle.with_name("disk.raw.manifest.xml"))
            bundle.write_bytes(b"not a manifest")
    with pytest.raises(error, match=says):
        fetch(store, tmp_path, bundle.as_uri())
    assert not list((tmp_path / "objects").glob("*/sha256-*"))


def test_mirrors_are_for_bundles_too(store: FileStore, bundle: Path, tmp_path: Path) -> None:
    mirrors = (("https://images.example/", f"{bundle.parent.as_uri()}/"),)
    made = fetch(store, tmp_path, f"https://images.example/{bundle.name}", mirrors=mirrors)
    assert len(made.parts) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"manifest": "bucket"}, "`manifest` is BUCKET/KEY or a URL, not 'bucket'"),
        ({"manifest": "ftp://x/y.manifest.xml"}, "ftp"),
        ({"manifest": "file:///y.manifest.xml", "cloud": "aws"}, "`cloud` is for buckets"),
        ({"manifest": "bucket/a/b.manifest.xml", "cloud": "aws"}, ""),
        ({"manifest": "s3://bucket/b.manifest.xml"}, ""),
    ],
)
def test_where_it_lies_is_checked_with_the_recipe(options, says) -> None:
    assert says in "".join(STEP.check(FetchBundleOptions(**options)))
    assert bool(says) is bool(STEP.check(FetchBundleOptions(**options)))
