"""What the step decides, by a guest's own package database; what managers are told stands with them."""

from __future__ import annotations

import hashlib
import platform
import struct

import pytest

from builder.errors import EmiError, GuestError
from builder.guest.edits import Command, CopyIn, Remove, Unchanged, WriteFile
from builder.guest.facts import KnownFacts
from pipelines.steps.packages import Packages, PackagesOptions

STEP = Packages()
HTTP = "http://mirror.example/debian"
STATUS = b"""Package: apt
Status: install ok installed
Architecture: amd64
Version: 2.6.2

Package: curl
Status: install ok installed
Architecture: amd64
Version: 7.88.1-10+deb12u5

"""


def program(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(44)


OWN = {"x86_64": 62, "aarch64": 183}.get(platform.machine(), 0)
DEBIAN = {
    "/etc/os-release": b'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
    "/usr/bin/apt-get": b"",
    "/usr/bin/true": program(OWN),
    "/var/lib/dpkg/status": STATUS,
}
CURL = "installed already: curl 7.88.1-10+deb12u5"
FEDORA = {"/etc/os-release": b"ID=fedora\nVERSION_ID=40\n", "/usr/bin/dnf": b"", "/usr/bin/true": program(OWN)}


def decided(guest=DEBIAN, pins=(), **options):
    return STEP.edits(PackagesOptions(**options), KnownFacts(files=guest), {"files": dict(pins)})


def test_a_package_from_a_mirror_with_its_key():
    edits = decided(install=("curl", "nano"), mirror=HTTP, key="keys/a.asc", pins={"keys/a.asc": "00"})
    key = "/usr/share/keyrings/emi-recipe.asc"
    assert CopyIn(path=key, source="keys/a.asc", sha256="00", mode=0o644) in edits
    (line,) = [edit for edit in edits if isinstance(edit, WriteFile)]
    assert line.path == "/etc/apt/sources.list.d/emi-recipe.list"
    assert line.data == f"deb [signed-by={key}] {HTTP} bookworm main\n".encode()
    (command,) = [edit for edit in edits if isinstance(edit, Command)]
    assert command.why == f"apt: installed nano from {HTTP}"  # curl is there
    assert command.network
    assert command.shown
    assert ("DEBIAN_FRONTEND", "noninteractive") in command.environment
    assert edits[-1] == Remove(paths=("/var/tmp/emi-packages", key, line.path))


def test_what_an_earlier_step_was_told_to_keep_stays():
    wish = {"install": ("nano",), "repository": f"deb {HTTP} bookworm main", "key": "a.gpg"}
    pins = {"a.gpg": hashlib.sha256(b"key").hexdigest()}
    kept = {edit.path: edit for edit in decided(**wish, keep=True, pins=pins) if hasattr(edit, "path")}
    line, key = "/etc/apt/sources.list.d/emi-recipe.list", "/usr/share/keyrings/emi-recipe.gpg"
    guest = DEBIAN | {line: kept[line].data, key: b"key"}
    assert decided(guest, **wish, pins=pins)[-1] == Remove(paths=("/var/tmp/emi-packages",))
    for path in (line, key):
        with pytest.raises(GuestError, match="in the guest is another one, and stays"):
            decided(guest | {path: b"of another"}, **wish, pins=pins)


def test_what_is_kept_stays():
    edits = decided(install=("nano",), mirror=HTTP, keep=True)
    assert edits[-1].paths == ("/var/tmp/emi-packages",)
    (line,) = decided(install=("curl",), mirror=HTTP, keep=True)  # curl is there, the mirror is not
    again = decided(DEBIAN | {line.path: line.data}, install=("curl",), mirror=HTTP, keep=True)
    assert again == Unchanged(why=CURL)


def test_files_need_no_network_and_go_in_by_their_digest():
    edits = decided(files=("debs/a_1%3a2_all.deb",), pins={"debs/a_1%3a2_all.deb": "11"}, limit=60)
    place = "/var/tmp/emi-packages/a_1%3a2_all.deb"
    assert CopyIn(path=place, source="debs/a_1%3a2_all.deb", sha256="11") in edits
    (command,) = [edit for edit in edits if isinstance(edit, Command)]
    assert f"install '{place}'".replace("'", "") in command.script.decode().replace("'", "")
    assert (command.network, command.limit) == (False, 60)
    assert not [edit for edit in edits if isinstance(edit, WriteFile)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"install": ("curl",), "network": True}, CURL),
        ({"install": ("curl=7.88.1-10+deb12u5",), "network": True}, CURL),
        ({"remove": ("nano", "vim")}, "not installed: nano, vim"),
        ({"install": ("curl",), "remove": ("nano",), "network": True}, f"{CURL}; not installed: nano"),
    ],
)  # fmt: skip
def test_what_is_as_it_should_be_is_left(options, why):
    assert decided(**options) == Unchanged(why=why)


def test_rpm_is_asked_by_the_command():
    (command,) = [edit for edit in decided(FEDORA, install=("curl",), mirror=HTTP) if isinstance(edit, Command)]
    assert b"for name in curl; do" in command.script


def test_credentials_of_a_url_are_not_told():
    edits = decided(install=("nano",), mirror="https://user:pass@mirror.example/debian")
    (command,) = [edit for edit in edits if isinstance(edit, Command)]
    assert command.why == "apt: installed nano from https://***@mirror.example/debian"
    assert command.secret == ("user:pass",)


def test_a_kernel_is_warned_of():
    edits = decided(install=("linux-image-amd64",), network=True)
    assert any("is a kernel, whose initramfs takes minutes" in str(edit) for edit in edits)


FOREIGN = 183 if platform.machine() != "aarch64" else 62


@pytest.mark.parametrize(
    ("guest", "options", "expected"),
    [
        (DEBIAN | {"/usr/bin/true": program(FOREIGN)}, {}, "its package manager cannot run here"),
        ({"/etc/os-release": b"ID=flatcar\n"}, {}, "flatcar has no package manager that is known here"),
        (DEBIAN | {"/etc/os-release": b"ID=debian\n"}, {"mirror": HTTP}, "does not say which suite it is"),
        (DEBIAN, {"repository": HTTP}, "apt's repositories are lines"),
        (FEDORA, {"repository": "deb http://x ./"}, "the guest has dnf, whose repositories are URLs"),
        (
            DEBIAN | {"/var/lib/dpkg/status": STATUS.replace(b"2.6.2", b"1.0.9.8")},
            {"mirror": HTTP, "key": "k.asc"},
            "apt 1.0.9.8 cannot be given a key",
        ),
        ({"/etc/os-release": b"ID=arch\n", "/usr/bin/pacman": b""}, {"mirror": HTTP, "key": "k"}, "pacman's keyring"),
    ],
)
def test_what_cannot_be_says_why_and_what_to_do(guest, options, expected):
    with pytest.raises(GuestError, match=expected) as caught:
        decided(guest, install=("nano",), pins={"k.asc": "0", "k": "0"}, **options)
    assert caught.value.hint != GuestError.advice


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "nothing to do"),
        ({"install": ("a",)}, "packages come from somewhere"),
        ({"upgrade": True}, "packages come from somewhere"),
        ({"install": ("--allow-downgrades",), "network": True}, "'--allow-downgrades' is no name of a package"),
        ({"install": ("a b",), "network": True}, "is no name of a package"),
        ({"install": ("a;reboot",), "network": True}, "is no name of a package"),
        ({"install": ("a\n",), "network": True}, "is no name of a package"),
        ({"install": ("é",), "network": True}, "is no name of a package"),
        ({"install": ("vim-",), "network": True}, "'vim-' is no name of a package"),
        ({"remove": ("",)}, "is no name of a package"),
        ({"install": ("a",), "remove": ("a",), "network": True}, "a is to be installed and removed"),
        ({"install": ("a",), "mirror": HTTP, "repository": "deb http://x ./"}, "`mirror` stands for all"),
        ({"remove": ("a",), "keep": True}, "are for a `mirror`"),
        ({"install": ("a",), "mirror": HTTP, "key": "k", "unsigned": True}, "exclude each other"),
        ({"install": ("a",), "mirror": "http://x\ndeb http://y ./"}, "`mirror` must be a URL"),
        ({"install": ("a",), "repository": "deb http://x ./\ndeb http://y ./"}, "`repository` must be"),
        ({"install": ("a",), "mirror": "mirror.example"}, "`mirror` must be a URL"),
        ({"files": ("/etc/a.deb",)}, "is not a path inside"),
        ({"files": ("../a.deb",)}, "is not a path inside"),
        ({"files": ("a/x.deb", "b/x.deb")}, "two of `files` have the same name"),
        ({"files": ("-oa.deb",)}, "is no name of a package or key file"),
        ({"install": ("g++", "libstdc++6", "a=1:2~rc+1", "b:i386", "c/backports"), "mirror": HTTP}, None),
        ({"remove": ("a",), "purge": True}, None),
        ({"files": ("debs/a_1.0~x_all.deb",)}, None),
    ],
)
def test_options_are_checked(options, expected):
    problems = STEP.check(PackagesOptions(**options))
    assert not problems if expected is None else expected in "; ".join(problems)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"remove": ("a",)}, False),
        ({"files": ("a.deb",)}, False),
        ({"install": ("a",), "mirror": HTTP}, True),
        ({"install": ("a",), "network": True}, True),
    ],
)
def test_the_network_is_there_when_it_is_asked_for(options, expected):
    assert STEP.network(PackagesOptions(**options)) is expected


def test_files_are_pinned(tmp_path):
    class Here:
        recipe_directory = tmp_path

    (tmp_path / "a.deb").write_bytes(b"deb")
    (tmp_path / "d").mkdir()
    digest = hashlib.sha256(b"deb").hexdigest()
    assert STEP.pin(PackagesOptions(files=("a.deb",)), Here) == {"files": {"a.deb": digest}}
    assert STEP.pin(PackagesOptions(remove=("a",)), Here) == {}
    for name in ("absent.deb", "d"):
        with pytest.raises(EmiError, match=name):
            STEP.pin(PackagesOptions(files=(name,)), Here)
