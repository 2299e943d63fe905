import pytest

from builder.guest.facts import KnownFacts
from builder.guest.installed import apk, dpkg, installed, is_satisfied, pacman

STATUS = """\
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b13
Description: shell
 Package: not-a-field
 .
 Status: install ok installed

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: half
Status: install ok half-configured
Architecture: amd64
Version: 1.0

Package: held
Status: hold ok installed
Architecture: all
Version: 1:2.0~rc1
Provides: virtual, other (= 3)

"""


def test_dpkg():
    assert dpkg(STATUS) == {
        "bash": "5.2.15-2+b13",
        "bash:amd64": "5.2.15-2+b13",
        "held": "1:2.0~rc1",
        "held:all": "1:2.0~rc1",
        "virtual": "",
        "other": "",
    }


def test_apk():
    text = "C:Q1abc=\nP:busybox\nV:1.36.1-r5\np:cmd:sh=1.36 /bin/sh\n\nC:x\nP:zlib\nV:1.3-r0\n"
    assert apk(text) == {"busybox": "1.36.1-r5", "zlib": "1.3-r0", "cmd:sh": "", "/bin/sh": ""}


def test_pacman():
    names = ["gcc-libs-13.2.1-3", "linux-6.6.7.arch1-1", "ALPM_DB_VERSION", "xorg-server-xwayland-1:2-1"]
    assert pacman(names) == {"gcc-libs": "13.2.1-3", "linux": "6.6.7.arch1-1", "xorg-server-xwayland": "1:2-1"}


@pytest.mark.parametrize("garbage", ["", "\n\n\n", "Package\n\nStatus: x", "\ufffd" * 50])
def test_garbage_is_no_package(garbage):
    assert dpkg(garbage) == apk(garbage) == {}


@pytest.mark.parametrize(
    ("manager", "expected"),
    [
        ("apt", {"a": "1", "a:all": "1"}),
        ("apk", {"b": "2"}),
        ("pacman", {"c": "3-1"}),
        ("dnf", None),
        ("yum", None),
        ("zypper", None),
    ],
)
def test_each_manager_has_its_own_place(manager, expected):
    status = b"Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
    files = {
        "/var/lib/dpkg/status": status,
        "/lib/apk/db/installed": b"P:b\nV:2\n",
        "/var/lib/pacman/local/c-3-1/desc": b"",
    }
    assert installed(KnownFacts(files=files), manager) == expected


def test_no_database_is_no_package():
    assert installed(KnownFacts(), "apt") == {}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bash", True),
        ("bash:amd64", True),
        ("bash:i386", False),
        ("bash=5.2.15-2+b13", True),
        ("bash=5.3", False),
        ("bash/bookworm-backports", True),
        ("virtual", True),
        ("virtual=1", False),
        ("gone", False),
        ("half", False),
    ],
)
def test_what_is_there(wanted, expected):
    assert is_satisfied(dpkg(STATUS), wanted) is expected
