"""The same system is the same bytes: built twice, from the network's packages or the cache's, by root and by a user.

The packages are those the demo fetched, served to apt as an archive on this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import proc
from builder.digest import file_sha256

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(1800)]

BUILD = """\
import json, sys
from pathlib import Path
from builder.bootstrap.archive import Source
from builder.bootstrap.build import build
from builder.bootstrap.install import Supply
from builder.bootstrap.system import System
from builder.progress import SILENT
given = json.loads(sys.argv[1])
place = Path(given["place"])
system = System(distribution="debian", suite="bookworm", sources=[Source.parse(given["source"])], variant="important",
                packages=given["packages"], size=4 << 30, epoch=1_700_000_000)
supply = Supply(cache=place / "cache" if given["cached"] else None)
build(system, supply, place / "disk.raw", scratch=place / "scratch", progress=SILENT)
"""

# Runs a command as an ordinary user with subordinate ids, whom only this mount namespace knows.
AS_USER = """\
set -e
for name in passwd group subuid subgid; do
    touch "/etc/$name"
    cp "/etc/$name" "$1/$name"
done
for name in passwd group; do echo "emi-test:x:4711:4711::/:/bin/sh" >>"$1/$name"; done
for name in subuid subgid; do echo "emi-test:200000:65536" >>"$1/$name"; done
for name in passwd group subuid subgid; do mount --bind "$1/$name" "/etc/$name"; done
shift
exec setpriv --reuid 4711 --regid 4711 --clear-groups -- "$@"
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A directory that other users may pass through, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="emi-test-", dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.fixture(scope="module")
def archive(demo, shared) -> str:
    """The demo's packages as an archive for apt; returns its line for sources.list."""
    place = shared / "archive"
    place.mkdir()
    lists = []
    for deb in sorted((demo.emi.home / "cache" / "packages").glob("*.deb")):
        (place / deb.name).write_bytes(deb.read_bytes())
        control = proc.run(["dpkg-deb", "--field", deb]).stdout.decode().strip()
        sha256 = file_sha256(deb).removeprefix("sha256:")
        lists.append(f"{control}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256}\n")
    assert len(lists) > 200
    text = "\n".join(lists).encode()
    (place / "Packages").write_bytes(text)
    (place / "Release").write_text(
        "Suite: bookworm\nCodename: bookworm\nDate: Sat, 10 May 2025 09:18:28 UTC\nSHA256:\n"
        f" {hashlib.sha256(text).hexdigest()} {len(text)} Packages\n"
    )
    return f"deb [trusted=yes] copy://{place} ./"


@pytest.fixture
def build(archive, shared):
    """Build in a fresh process, by root or by a user, with a cache or without; return the image's SHA-256."""

    def build(name, *, by_user=False, cached=True):
        place = shared / name
        place.mkdir(mode=0o700)  # as a home directory may be
        given = {"place": str(place), "source": archive, "packages": ["man-db", "python3"], "cached": cached}
        command = [sys.executable, "-c", BUILD, json.dumps(given)]
        if by_user and os.geteuid() == 0:
            os.chown(place, 4711, 4711)
            tables = shared / f"tables-{name}"
            tables.mkdir()
            command = ["unshare", "--mount", "sh", "-c", AS_USER, "sh", str(tables), *command]
        root = str(Path(__file__).parents[3])
        proc.run(command, environment={"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}, directory=Path("/"))
        assert not (place / "scratch").exists()
        return file_sha256(place / "disk.raw")

    return build


def test_twice_the_same_and_for_a_user_too(build, shared):
    first = build("first")
    assert list((shared / "first" / "cache").glob("*.deb"))
    assert build("second", cached=False) == first
    assert build("third", by_user=True) == first
