"""The step `bootstrap`: what it is keyed by, what it refuses before anything is downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from builder.errors import HostError, InputError, ToolMissing, UsageError
from builder.progress import SILENT
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.bootstrap import Bootstrap, BootstrapOptions
from pipelines.store import FileStore

INDEX = """\
Date: Sat, 10 May 2025 09:18:28 UTC
SHA256:
 {main} 1234 main/binary-amd64/Packages
"""
DATE = 1746868708


def options(**given: Any) -> BootstrapOptions:
    return BootstrapOptions(**{"suite": "bookworm", **given})


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(recipe_directory=tmp_path, cache=tmp_path / "cache", store=FileStore(tmp_path / "objects"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The index of an archive on this machine."""
    index = tmp_path / "archive" / "dists" / "bookworm" / "InRelease"
    index.parent.mkdir(parents=True)
    index.write_text(INDEX.format(main="a" * 64))
    return index


@pytest.fixture
def mirror(archive: Path) -> str:
    return f"file://{archive.parents[2]}"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"size": "100 MiB"}, "size must be whole MiB, at least 512 MiB"),
        ({"size": (1 << 30) + 1}, "size must be whole MiB, at least 512 MiB"),
        ({"mirror": "ftp://archive"}, "mirror 'ftp://archive' is no http, https or file URL"),
        ({"mirror": "file://relative"}, "mirror 'file://relative' is no http, https or file URL"),
        ({"drivers": ("virtio", "a b")}, "'a b' is no name of a kernel module, nor one of virtio, nvme"),
        ({"sources": ("http://a b c",)}, "'http://a b c' is no line for apt. Write it like: deb URL SUITE COMPONENT"),
    ],
)
def test_what_check_finds(given, problem):
    (found,) = Bootstrap().check(options(**given))
    assert problem in found


@pytest.mark.parametrize(
    "given",
    [
        {"packages": ("vim", "grub-pc=2.06-13+deb12u1", "curl/bookworm-backports", "nano-", "libstdc++6")},
        {"mirror": "https://near.example/debian", "components": ("main", "non-free-firmware")},
        {"mirror": "copy:///srv/debian", "sources": ("deb [trusted=yes] file:///srv/ours ./",)},
        {"kernel_arguments": "net.ifnames=0 module_blacklist=floppy quiet", "label": "cloudimg-rootfs"},
        {
            "drivers": ("virtio", "xen-blkfront", "megaraid_sas"),
            "exclude": ("/usr/share/man/*", "!/usr/share/man/man1"),
        },
    ],
)
def test_what_is_allowed(given):
    assert Bootstrap().check(options(**given)) == []


@pytest.mark.parametrize(
    "given",
    [
        {"packages": ("--help",)},
        {"packages": ("vim,curl",)},
        {"packages": ("./local.deb",)},
        {"packages": ("?essential",)},
        {"packages": ("a b",)},
        {"packages": ("Vim",)},
        {"suite": "--simulate"},
        {"suite": "book worm"},
        {"components": ()},
        {"hostname": "two words"},
        {"hostname": "-x"},
        {"label": "seventeen-letters"},
        {"label": 'a"b'},
        {"kernel_arguments": 'quiet"; reboot'},
        {"kernel_arguments": "$(reboot)"},
        {"kernel_arguments": "a\nmenuentry"},
        {"variant": "buildd"},
        {"distribution": "fedora"},
        {"keyrings": "x"},
        {"exclude": ("usr/share/man/*",)},
        {"exclude": ("/usr/share/man\nforce-all",)},
        {"exclude": ("!",)},
    ],
)
def test_what_is_refused_by_type(given):
    with pytest.raises(ValidationError):
        options(**given)


def test_the_archive_and_its_date_are_pinned(outside, mirror):
    pins = Bootstrap().pin(options(mirror=mirror), outside)
    assert pins == {
        "sources": [f"deb {mirror} bookworm main"],
        "lists": {f"{mirror} bookworm main": "a" * 64},
        "epoch": DATE,
    }


def test_a_date_from_outside_wins(outside, mirror):
    then = Outside(recipe_directory=outside.recipe_directory, cache=outside.cache, store=outside.store, epoch=0)
    assert Bootstrap().pin(options(mirror=mirror), then)["epoch"] == 0


def test_a_changed_archive_changes_the_pins_and_nothing_else_does(outside, archive, mirror):
    first = Bootstrap().pin(options(mirror=mirror), outside)
    archive.write_text(f"Hash: SHA256\n\n{INDEX.format(main='a' * 64)}\nsigned anew")
    assert Bootstrap().pin(options(mirror=mirror), outside) == first
    archive.write_text(INDEX.format(main="b" * 64))
    assert Bootstrap().pin(options(mirror=mirror), outside) != first


def test_the_keyring_is_pinned_by_its_bytes(outside, mirror):
    key = outside.recipe_directory / "archive.gpg"
    key.write_bytes(b"one")
    first = Bootstrap().pin(options(mirror=mirror, keyring="archive.gpg"), outside)["keyring"]
    key.write_bytes(b"two")
    assert Bootstrap().pin(options(mirror=mirror, keyring=str(key)), outside)["keyring"] != first


def test_a_missing_keyring_is_named(outside, mirror):
    with pytest.raises(UsageError, match=r"keyring 'no\.gpg': there is no file"):
        Bootstrap().pin(options(mirror=mirror, keyring="no.gpg"), outside)


def test_a_missing_tool_is_named_before_anything_is_fetched(outside, tmp_path, monkeypatch):
    monkeypatch.setattr("builder.bootstrap.install.TOOLS", ("mmdebstrap", "mke3fs"))
    with pytest.raises(ToolMissing, match="mke3fs is not installed") as caught:
        Bootstrap().pin(options(mirror="https://never.asked.invalid/"), outside)
    assert caught.value.hint == "sudo apt-get install mke3fs"


def test_a_user_without_subordinate_ids_is_told_so(outside, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("LOGNAME", "nobody-has-this-name")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(
        HostError, match="nobody-has-this-name has no range of subordinate ids in /etc/subuid"
    ) as caught:
        Bootstrap().pin(options(mirror="https://never.asked.invalid/"), outside)
    assert "sudo usermod --add-subuids" in (caught.value.hint or "")


def test_an_archive_that_changed_since_is_refused_before_the_work(outside, archive, mirror, tmp_path):
    pins = Bootstrap().pin(options(mirror=mirror), outside)
    archive.write_text(INDEX.format(main="b" * 64))
    work = Work(scratch=tmp_path / "scratch", outside=outside, pins=pins, progress=SILENT)
    with pytest.raises(InputError, match="bookworm main changed after this run began"):
        Bootstrap().build(options(mirror=mirror), Inputs(), work)
    assert not (tmp_path / "scratch").exists()


def test_more_packages_are_expected_to_be_more_bytes():
    some, more = options(packages=("a1",)), options(packages=("a1", "b1"), variant="standard")
    assert 0 < (Bootstrap().expect(some, {}) or 0) < (Bootstrap().expect(more, {}) or 0)
