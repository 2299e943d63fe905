"""apt and dpkg of a real Debian, in the appliance, with an archive that a server on 127.0.0.1 has for them.

The packages are made here: a library, and a service that needs it and that its maintainer script starts.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import pool, proc
from builder.digest import file_sha256
from builder.guest.edit import Outcome, Plan, edit_image
from builder.guest.edits import Command
from builder.guest.guest import Exchange
from builder.guest.overlay import Layer
from pipelines.steps.packages import Packages, PackagesOptions

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(1800)]

STEP = Packages()
POSTINST = '#!/bin/sh\nset -e\nsh /usr/sbin/policy-rc.d || echo "policy says $?"\ninvoke-rc.d emi-hello start\n'
SERVICE = """#!/bin/sh
### BEGIN INIT INFO
# Provides: emi-hello
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop:
### END INIT INFO
touch /started
"""
LOOK = b"""
for path in /started /usr/sbin/policy-rc.d /etc/apt/sources.list.d/emi-recipe.list /var/tmp/emi-packages \
        /usr/share/keyrings/emi-recipe.asc; do
    [ ! -e $path ] || echo "left: $path"
done
dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' emi-lib emi-hello nano 2>/dev/null
echo "lists: $(find /var/lib/apt/lists -type f -size +0 | wc -l)"
echo "archives: $(find /var/cache/apt -name '*.deb' | wc -l)"
dpkg --audit
"""


def package(place: Path, name: str, version: str, control: str = "", scripts: dict[str, str] | None = None) -> Path:
    tree = place / f"tree-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: t <t@example.org>\n"
        f"Description: test\n{control}"
    )
    for path, text in (scripts or {}).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
        (tree / path).chmod(0o755)
    deb = place / f"{name}_{version}_all.deb"
    proc.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb])
    return deb


def sign(place: Path, release: Path) -> None:
    """Sign the archive with a key made for it, and put that key into `key.asc`."""
    home = place / "gnupg"
    home.mkdir(mode=0o700)
    gpg = functools.partial(proc.run, environment={"GNUPGHOME": str(home)})
    gpg(["gpg", "--batch", "--passphrase", "", "--quick-gen-key", "t <t@example.org>", "ed25519", "sign", "never"])
    (place / "key.asc").write_bytes(gpg(["gpg", "--armor", "--export"]).stdout)
    gpg(["gpg", "--batch", "--clearsign", "-o", release.with_name("InRelease"), release])
    gpg(["gpgconf", "--kill", "all"])


@pytest.fixture
def recipe(tmp_path) -> Path:
    """The recipe's directory: packages, a key, and below `www` the archive signed with it."""
    service = {"DEBIAN/postinst": POSTINST, "etc/init.d/emi-hello": SERVICE}
    debs = [
        package(tmp_path, "emi-lib", "1.0"),
        package(tmp_path, "emi-hello", "2.1-1", "Depends: emi-lib\n", service),
        package(tmp_path, "emi-file", "0.5"),
    ]
    index = tmp_path / "www" / "dists" / "bookworm" / "main" / "binary-amd64" / "Packages"
    index.parent.mkdir(parents=True)
    text = ""
    for deb in debs[:2]:
        control = proc.run(["dpkg-deb", "--field", deb]).stdout.decode().strip()
        sha256 = file_sha256(deb).removeprefix("sha256:")
        text += f"{control}\nFilename: {deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256}\n\n"
        (tmp_path / "www" / deb.name).write_bytes(deb.read_bytes())
    index.write_text(text)
    release = tmp_path / "www" / "dists" / "bookworm" / "Release"
    digest = hashlib.sha256(text.encode()).hexdigest()
    release.write_text(
        "Suite: bookworm\nCodename: bookworm\nComponents: main\nArchitectures: amd64\n"
        f"Date: Sat, 10 May 2025 09:18:28 UTC\nSHA256:\n {digest} {len(text)} main/binary-amd64/Packages\n"
    )
    sign(tmp_path, release)
    return tmp_path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format, *args): ...  # noqa: A002 - its name for it


@pytest.fixture
def mirror(recipe) -> Iterator[str]:
    """The archive's URL, as the appliance reaches this host's 127.0.0.1."""
    handler = functools.partial(Quiet, directory=str(recipe / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = pool.Background(lambda: server.serve_forever(0.02))
        yield f"http://169.254.2.2:{server.server_port}"
        server.shutdown()
        serving.result(10)


def plan(recipe: Path, **options) -> Plan:
    class Outside:
        recipe_directory = recipe

    wanted = PackagesOptions(**options)
    assert not STEP.check(wanted)
    pins = STEP.pin(wanted, Outside)
    return Plan(decide=lambda facts: STEP.edits(wanted, facts, pins), network=STEP.network(wanted))


def look(_):
    return (Command(script=LOOK, why="look", shown=True),)


def test_packages_come_from_a_mirror_and_go_again(demo, recipe, mirror, tmp_path):
    signed = {"mirror": mirror, "key": "key.asc"}
    plans = [
        plan(recipe, install=("emi-hello", "nano"), **signed),
        plan(recipe, install=("emi-hello", "emi-lib=1.0"), **signed),
        plan(recipe, remove=("nano", "never-there")),
        plan(recipe, remove=("nano",)),
        plan(recipe, files=("emi-file_0.5_all.deb",)),
        Plan(decide=look),
    ]
    outcomes = edit_image(
        Layer(path=demo.disk, format="raw"),
        tmp_path / "overlay.qcow2",
        plans,
        backing_name="disk",
        exchange=Exchange(sources=recipe),
    )
    first, again, removed, gone, file, seen = outcomes
    assert f"apt: installed emi-hello from {mirror}" in str(first)
    assert "Setting up emi-lib (1.0)" in first.output
    assert "policy says 101" in first.output
    assert again == Outcome(why="installed already: emi-hello 2.1-1, emi-lib 1.0")
    assert "apt: removed nano" in str(removed)
    assert gone == Outcome(why="not installed: nano")
    assert "Setting up emi-file (0.5)" in file.output
    lines = seen.output.splitlines()
    assert [line for line in lines if line.startswith("emi-")] == ["emi-hello 2.1-1 installed", "emi-lib 1.0 installed"]
    assert not [line for line in lines if line.startswith("left:")]
    assert [line.split()[-1] for line in lines if line.startswith("nano")] == ["config-files"]
    assert {"lists: 0", "archives: 0"} <= set(lines)
