"""What steps are tested with, KnownFacts, and what they meet, a Guest, give the same answers for the same tree."""

import posixpath
import stat

import pytest

from builder.errors import GuestError
from builder.guest.facts import KnownFacts
from builder.guest.look import layer_of, look

TREE: dict[str, bytes | str] = {
    "/etc/os-release": "../usr/lib/os-release",
    "/usr/lib/os-release": b"ID=debian\n",
    "/etc/.hidden": b"",
    "/etc/a.conf": b"a",
    "/etc/b.conf": "/etc/a.conf",
    "/etc/c.conf.d/x{y}": b"braces\n",
    "/etc/binary": bytes(range(256)),
    "/etc/empty": b"",
    "/bin": "usr/bin",
    "/usr/bin/sh": "dash",
    "/usr/bin/dash": b"\x7fELF",
    "/lib": "/usr/lib",
    "/usr/lib/modules/6.1.0-2/vmlinuz": b"two",
    "/usr/lib/modules/6.1.0-10/vmlinuz": b"ten",
    "/usr/lib/modules/6.1.0-2/build": "/usr/src/gone",
    "/var/run": "/run",
    "/run/up": "../srv",
    "/srv/out": "../../../../../../etc/a.conf",
    "/srv/self": "self",
    "/srv/etc": "/etc",
    "/srv/new\nline": b"newline",
    "/srv/caf\udce9": b"latin",
    "/srv/\udcff\udcfe/inner": b"deep",
    "/srv/to-latin": "caf\udce9",
    "/srv/uml\u00e4ut": b"utf-8",
}
PATHS = sorted(
    {
        *TREE,
        *(posixpath.dirname(path) for path in TREE),
        "/",
        "/etc/",
        "/absent",
        "/absent/deeper/still",
        "/etc/a.conf/below",
        "/bin/sh",
        "/bin/sh/below",
        "/lib/modules/6.1.0-2/build/deeper",
        "/lib/modules/6.1.0-10/vmlinuz",
        "/var/run/up/out",
        "/srv/self/x",
        "/srv/etc/a.conf",
        "/srv/etc/../../etc/a.conf",
        "/srv/absent\udce9",
        "/usr/../usr/bin/./sh",
    }
)
GLOBS = (
    "/*",
    "/etc/*",
    "/etc/.*n",
    "/etc/*.conf",
    "/etc/[ab].conf",
    "/etc/[!a].conf",
    "/etc/[^a].conf",
    "/etc/a.conf",
    "/etc/absent",
    "/etc/?.conf",
    "/etc/{a,b}.conf",
    "/etc/c.conf.d/x{y}",
    "/bin/*",
    "/lib/modules/*/vmlinuz",
    "/usr/*/modules/*",
    "/absent/*",
    "/etc/a.conf/*",
    "/srv/*",
    "/srv/*/inner",
    "/srv/\udcff*/inner",
    "/srv/self/*",
    "/srv/etc/*.conf",
    "/var/run/up/*out*",
    "/*/*",
)


@pytest.fixture(scope="module")
def known() -> KnownFacts:
    return KnownFacts(root="/dev/sda", files=TREE)


@pytest.fixture(scope="module")
def guest(tmp_path_factory, module_disks, part):
    path = tmp_path_factory.mktemp("facts") / "image.raw"
    files = {name[1:]: content for name, content in TREE.items()}
    module_disks.filesystem(path, part(type="ext4", size=16, files=files))
    with look(layer_of(path)) as opened:
        yield opened


def test_the_same_is_read(known, guest):
    assert [guest.read(path) for path in PATHS] == [known.read(path) for path in PATHS]
    assert sum(known.read(path) is not None for path in PATHS) > 20


def test_the_same_text(known, guest):
    assert guest.text("/etc/binary") == known.text("/etc/binary")
    assert guest.text("/etc/binary").encode("utf-8", "surrogateescape") == bytes(range(256))


def test_links_point_to_the_same(known, guest):
    found = [guest.link(path) for path in PATHS]
    assert found == [known.link(path) for path in PATHS]
    assert "caf\udce9" in found


def test_the_same_is_there(known, guest):
    assert [guest.exists(path) for path in PATHS] == [known.exists(path) for path in PATHS]
    kinds = [(each and stat.S_IFMT(each.mode)) for each in map(guest.stat, PATHS)]
    assert kinds == [(each and stat.S_IFMT(each.mode)) for each in map(known.stat, PATHS)]
    regular = [path for path, kind in zip(PATHS, kinds, strict=True) if kind == stat.S_IFREG]
    assert [guest.stat(path) for path in regular] == [known.stat(path) for path in regular]


@pytest.mark.parametrize("pattern", GLOBS, ids=ascii)
def test_the_same_names_match(known, guest, pattern):
    found = set(guest.names(pattern)) - {"/lost+found"}
    assert found == set(known.names(pattern))
    assert guest.names(pattern) == tuple(sorted(guest.names(pattern)))


def test_every_glob_that_is_meant_to_match_does(known):
    assert [pattern for pattern in GLOBS if not known.names(pattern)] == [
        "/etc/absent",
        "/etc/{a,b}.conf",
        "/absent/*",
        "/etc/a.conf/*",
        "/srv/self/*",
    ]


def test_a_file_that_is_too_large_is_refused(guest):
    with pytest.raises(GuestError, match="larger than 0 MiB"):
        guest.read("/usr/./lib/modules/6.1.0-2/vmlinuz", limit=2)  # by another name: not asked before
