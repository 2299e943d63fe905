"""Bundles out of the sandbox's S3: fetched once, checked as they come, and never anything where it should not be."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import secrets
import subprocess  # noqa: TID251 - a fetch that is killed is a process of its own
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import pool
from builder.bundle import manifest
from builder.cloud.fetch_bundle import fetch_bundle
from builder.cloud.s3 import S3
from builder.cloud.settings import Settings
from builder.errors import BundleRefused, BusyError, CloudNotFound, HostError, InputError
from builder.sandbox.faults import client

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "fixtures/bundles/euca2ools-3.4"
NAMES = json.loads((BUNDLE / "expected.json").read_text())["parts"]
MANIFEST = json.loads((BUNDLE / "expected.json").read_text())["manifest"]


class Place:
    """A bucket with a bundle, and what was asked of it; `before[n]` is called before the n-th GetObject."""

    def __init__(self, settings, bucket: str = "") -> None:
        self.calls = pool.Tally()
        self.before: dict[int, Callable[[], object]] = {}
        self.s3 = S3(settings, on_call=self._notice)
        self.bucket = bucket or f"emi-{secrets.token_hex(6)}"
        if not bucket:
            self.s3.ensure_bucket(self.bucket)

    def put(self, key: str, data: bytes) -> None:
        self.s3.put(self.bucket, key, data)

    def store(self, *, prefix: str = "images/", parts: str | None = None) -> str:
        """Have the bundle lie there, its parts under another prefix if one is given; return the manifest's key."""
        for name in NAMES:
            self.put((prefix if parts is None else parts) + name, (BUNDLE / name).read_bytes())
        self.put(prefix + MANIFEST, (BUNDLE / MANIFEST).read_bytes())
        return prefix + MANIFEST

    def fetch(self, into: Path, *, key: str = f"images/{MANIFEST}", **options):
        self.calls.clear()
        return fetch_bundle(self.s3, self.bucket, key, into, **options)

    def _notice(self, call) -> None:
        nth = self.calls.count(call.action)
        if call.action == "GetObject":
            self.before.pop(nth, lambda: None)()


@pytest.fixture
def place(sandbox) -> Place:
    return Place(sandbox.settings)


@pytest.fixture(scope="module")
def filled(running) -> str:
    """A bucket with the bundle, for the tests that only read it."""
    keys = {"access_key": running.access_key, "secret_key": running.secret_key}
    made = Place(Settings(region=running.region, endpoint_url=running.url, ca_file=running.ca_file, **keys))
    made.store()
    return made.bucket


@pytest.fixture
def stored(sandbox, filled) -> Place:
    """A bucket with the bundle, which the test must leave as it is."""
    return Place(sandbox.settings, filled)


def is_whole(directory: Path, *more: str) -> bool:
    names = {path.name for path in directory.iterdir()}
    return names == {MANIFEST, *NAMES, *more} and all(
        (directory / name).read_bytes() == (BUNDLE / name).read_bytes() for name in (MANIFEST, *NAMES)
    )


@pytest.mark.parametrize("prefix", ["", "a/b c/\N{GREEK SMALL LETTER MU}/"])
def test_a_bundle_arrives(place, tmp_path, prefix):
    key = place.store(prefix=prefix)
    found = place.fetch(tmp_path / "new" / "here", key=key)
    assert is_whole(tmp_path / "new" / "here")
    assert found.path == tmp_path / "new" / "here" / MANIFEST
    assert [path.name for path in found.parts] == NAMES
    assert found.manifest == manifest.read((BUNDLE / MANIFEST).read_bytes(), where="fixture")
    assert found.kept == 0
    assert place.calls == {"HeadObject": 1, "GetObject": 1 + len(NAMES)}


def test_parts_at_the_buckets_root(place, tmp_path):
    place.store(parts="")
    place.fetch(tmp_path, workers=1)
    assert is_whole(tmp_path)
    assert place.calls["GetObject"] == 1 + 1 + len(NAMES)  # the first part is looked for at both places


def test_what_is_here_is_not_fetched_again(stored, tmp_path):
    stored.fetch(tmp_path)
    (tmp_path / NAMES[0]).write_bytes(b"damaged since")
    (tmp_path / NAMES[2]).unlink()
    found = stored.fetch(tmp_path)
    assert is_whole(tmp_path)
    assert found.kept == len(NAMES) - 2
    assert stored.calls["GetObject"] == 1 + 2


def test_a_part_that_arrives_damaged_is_fetched_once_more(place, tmp_path):
    key = place.store()
    good = (BUNDLE / NAMES[0]).read_bytes()
    place.put(f"images/{NAMES[0]}", good[::-1])
    place.before[3] = lambda: place.put(f"images/{NAMES[0]}", good)  # after the manifest and the first attempt
    place.fetch(tmp_path, key=key, workers=1)
    assert is_whole(tmp_path)
    assert place.calls["GetObject"] == 1 + 1 + len(NAMES)


def test_a_part_that_is_damaged_where_it_lies(place, tmp_path):
    place.store()
    place.put(f"images/{NAMES[2]}", b"other")
    with pytest.raises(BundleRefused) as refused:
        place.fetch(tmp_path, workers=1)
    says = manifest.read((BUNDLE / MANIFEST).read_bytes(), where="fixture")
    assert refused.value.message == (
        f"s3://{place.bucket}/images/{NAMES[2]}, {NAMES[2]} (index 2 of 3 parts), arrived twice with the SHA-1 "
        f"{hashlib.sha1(b'other').hexdigest()}, the manifest says {says.parts[2].sha1}"
    )
    assert {path.name for path in tmp_path.iterdir()} == set(NAMES[:2])  # no manifest: it is not complete


def test_a_part_that_is_missing(place, tmp_path):
    place.store()
    place.s3.delete(place.bucket, f"images/{NAMES[2]}")
    with pytest.raises(BundleRefused) as refused:
        place.fetch(tmp_path)
    assert refused.value.message == (
        f"a part of the bundle is missing: s3://{place.bucket}/images/{NAMES[2]} and s3://{place.bucket}/{NAMES[2]} "
        "do not exist"
    )
    assert not (tmp_path / MANIFEST).exists()


def test_something_huge_under_a_parts_key_is_not_written(place, tmp_path):
    place.store()
    place.put(f"images/{NAMES[0]}", bytes(1 << 20))
    with pytest.raises(BundleRefused, match=f"{NAMES[0]} has 1048576 bytes, all parts of the bundle have"):
        place.fetch(tmp_path, workers=1)
    assert {path.name for path in tmp_path.iterdir()} <= set(NAMES[1:])


def test_a_manifest_that_was_read_before_is_what_counts(place, tmp_path):
    place.store()
    place.put(f"images/{MANIFEST}", b"replaced since")
    place.fetch(tmp_path, data=(BUNDLE / MANIFEST).read_bytes())
    assert is_whole(tmp_path)
    assert place.calls == {"GetObject": len(NAMES)}


def test_no_such_manifest(stored, tmp_path):
    with pytest.raises(CloudNotFound):
        stored.fetch(tmp_path / "here", key="images/none.manifest.xml")
    assert not (tmp_path / "here").exists()


def test_a_manifest_that_is_none(place, tmp_path):
    place.put("images/x", b"<html>")
    with pytest.raises(BundleRefused, match=f"^s3://{place.bucket}/images/x: "):
        place.fetch(tmp_path / "here", key="images/x")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    "name", ["../escaped", "/etc/escaped", "..", MANIFEST, ".hidden", ".centos-6.part.00.arriving"]
)
def test_names_that_lead_elsewhere(place, tmp_path, name):
    data = (BUNDLE / MANIFEST).read_bytes().replace(NAMES[0].encode(), name.encode(), 1)
    place.put(f"images/{MANIFEST}", data)
    with pytest.raises(BundleRefused, match="file name"):
        place.fetch(tmp_path / "here")
    assert list(tmp_path.rglob("*")) == []


def test_what_is_no_part_is_not_replaced_by_one(place, tmp_path):
    place.store()
    data = (BUNDLE / MANIFEST).read_bytes().replace(NAMES[0].encode(), b"Makefile", 1)
    place.put(f"images/{MANIFEST}", data)
    place.put("images/Makefile", (BUNDLE / NAMES[0]).read_bytes())
    (tmp_path / "Makefile").write_bytes(b"mine")
    with pytest.raises(InputError, match="Makefile is there already, no part of the bundle"):
        place.fetch(tmp_path)
    assert (tmp_path / "Makefile").read_bytes() == b"mine"
    (tmp_path / "Makefile").unlink()
    place.fetch(tmp_path)
    assert place.fetch(tmp_path).kept == len(NAMES)


def test_another_manifest_is_not_replaced(stored, tmp_path):
    stored.fetch(tmp_path)
    migrated = (BUNDLE / MANIFEST).read_bytes().replace(b"x86_64", b"i386")
    (tmp_path / MANIFEST).write_bytes(migrated)
    (tmp_path / NAMES[0]).unlink()
    with pytest.raises(InputError, match=r"manifest\.xml is there already, another manifest"):
        stored.fetch(tmp_path)
    assert (tmp_path / MANIFEST).read_bytes() == migrated
    assert not (tmp_path / NAMES[0]).exists()


def test_links_in_the_directory_are_not_followed(stored, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    here = tmp_path / "here"
    here.mkdir()
    (here / NAMES[0]).symlink_to(precious)
    (here / MANIFEST).symlink_to(precious)
    stored.fetch(here)
    assert is_whole(here)
    assert precious.read_bytes() == b"precious"
    (here / NAMES[1]).unlink()
    (here / f".{NAMES[1]}.arriving").symlink_to(precious)
    with pytest.raises(HostError, match="cannot be written"):
        stored.fetch(here)
    assert precious.read_bytes() == b"precious"


def test_two_at_once_do_not_mix(stored, tmp_path):
    told = []

    def meanwhile() -> None:
        with pytest.raises(BusyError) as busy:
            fetch_bundle(stored.s3, stored.bucket, f"images/{MANIFEST}", tmp_path, workers=1)
        told.append(busy.value.message)

    stored.before[2] = meanwhile
    stored.fetch(tmp_path, workers=1)
    assert told == [f"another process is fetching {tmp_path}/{NAMES[0]}"]
    assert is_whole(tmp_path)


def test_a_killed_fetch_is_gone_on_with(stored, sandbox, tmp_path):
    script = f"""
import pickle, sys
from pathlib import Path
from builder.cloud.fetch_bundle import fetch_bundle
from builder.cloud.s3 import S3
s3 = S3(pickle.load(sys.stdin.buffer))
fetch_bundle(s3, {stored.bucket!r}, "images/{MANIFEST}", Path({str(tmp_path)!r}), workers=1)
"""
    environment = {**os.environ, "EMI_CRASH_AT": "after s3:GetObject@3", "PYTHONPATH": str(ROOT)}
    settings = pickle.dumps(sandbox.settings)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, input=settings, capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {NAMES[0], f".{NAMES[1]}.arriving"}
    found = stored.fetch(tmp_path)
    assert found.kept == 1
    assert is_whole(tmp_path)


def test_parts_of_another_length_than_the_manifest_says(place, tmp_path):
    place.store()
    data = (BUNDLE / MANIFEST).read_bytes()
    begin = data.index(b"<bundled_size>")
    end = data.index(b"</bundled_size>")
    place.put(f"images/{MANIFEST}", data[:begin] + b"<bundled_size>999999" + data[end:])
    with pytest.raises(BundleRefused, match="but the manifest's bundled_size is 999999"):
        place.fetch(tmp_path)
    assert not (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize("name", [NAMES[1], MANIFEST])
def test_a_directory_where_a_file_belongs(stored, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(HostError) as error:
        stored.fetch(tmp_path)
    assert error.value.message == f"{tmp_path}/{name} cannot be written: Is a directory"


def test_a_directory_that_cannot_be_made(stored, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="file/here cannot be made: Not a directory"):
        stored.fetch(tmp_path / "file" / "here")


@pytest.fixture
def faults(running):
    """Put a table of faults into the sandbox; it is cleared afterwards, and each must have acted."""
    yield lambda *table: client.put(running, [{"service": "s3", "call": "GetObject", **fault} for fault in table])
    acted = [row.acted for row in client.rows(running)]
    client.clear(running)
    assert acted
    assert all(acted)


@pytest.mark.parametrize(
    "fault",
    [
        {"effect": "reset"},
        {"effect": "reset-body"},
        {"effect": "corrupt"},
        {"effect": "internal-error"},
        {"effect": "throttle"},
    ],
)
def test_what_fails_on_the_way_is_asked_for_again(stored, faults, tmp_path, fault):
    faults({**fault, "after": 1, "first": 1})  # the manifest passes
    stored.fetch(tmp_path, workers=1)
    assert is_whole(tmp_path)
    assert stored.calls["GetObject"] == 1 + 1 + len(NAMES)


def test_damaged_on_the_way_each_time(stored, faults, tmp_path):
    faults({"effect": "corrupt", "after": 1})
    with pytest.raises(BundleRefused, match="arrived twice with the SHA-1"):
        stored.fetch(tmp_path, workers=1)
    assert list(tmp_path.iterdir()) == []
