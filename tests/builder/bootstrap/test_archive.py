"""Where packages come from, and when that counts as changed."""

from __future__ import annotations

import pytest

from builder.bootstrap.archive import Source, sources, state
from builder.errors import HostError, InputError, NetworkError, UsageError
from builder.fetch import Web

LINES = [
    "deb http://a.example/debian bookworm main",
    "deb [signed-by=/usr/share/keyrings/x.gpg arch=amd64] https://a.example/x stable main contrib",
    "deb file:///srv/repo ./",
]
INDEX = """\
-----BEGIN PGP SIGNED MESSAGE-----

Date: {date}
SHA256:
 {main} 1234 main/binary-amd64/Packages
 {extra} 1234 contrib/binary-amd64/Packages
 {arm} 1234 main/binary-arm64/Packages
-----BEGIN PGP SIGNATURE-----
{signature}
"""
DEFAULTS = {
    "date": "Sat, 10 May 2025 09:18:28 UTC",
    "main": "a" * 64,
    "extra": "b" * 64,
    "arm": "c" * 64,
    "signature": "x",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_survives(line):
    assert str(Source.parse(line)) == line


@pytest.mark.parametrize("line", ["", "deb", "deb http://a.example", "deb-src http://a bookworm main", "deb a b c\nd"])
def test_what_is_no_line_is_refused(line):
    with pytest.raises(UsageError, match="is no line for apt"):
        Source.parse(line)


@pytest.mark.parametrize(
    ("line", "index"),
    [
        (LINES[0], "http://a.example/debian/dists/bookworm/InRelease"),
        (LINES[2], "file:///srv/repo/./InRelease"),
        ("deb copy:///srv/repo/ bookworm main", "file:///srv/repo/dists/bookworm/InRelease"),
    ],
)
def test_where_the_index_is(line, index):
    assert Source.parse(line).index == index


def test_a_mirror_stands_in_for_a_prefix():
    source = Source.parse(LINES[0]).through([("http://a.example/", "file:///mirror/")])
    assert str(source) == "deb file:///mirror/debian bookworm main"
    assert str(Source.parse(LINES[2]).through([("http://a.example/", "file:///mirror/")])) == LINES[2]


@pytest.fixture
def archive(tmp_path):
    """An archive on this machine whose index is written with the given values; returns its state."""

    def write(text=None, **values):
        index = tmp_path / "dists" / "bookworm" / "InRelease"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(text if text is not None else INDEX.format(**{**DEFAULTS, **values}))
        return state([Source.parse(f"deb file://{tmp_path} bookworm main")], Web())

    return write


def test_the_state_is_that_of_the_lists_in_use(archive, tmp_path):
    found = archive()
    assert found.lists == {f"file://{tmp_path} bookworm main": "a" * 64}
    assert found.date == 1746868708


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"main": "d" * 64}, False),
        ({"extra": "d" * 64}, True),  # a component that is not used
        ({"arm": "d" * 64}, True),
        ({"signature": "signed anew"}, True),
        ({"date": "Sun, 11 May 2025 09:18:28 UTC"}, True),
    ],
)
def test_only_a_changed_list_in_use_is_a_change(archive, change, same):
    assert (archive().lists == archive(**change).lists) is same


def test_an_index_without_sums_counts_as_a_whole(archive):
    one, two = archive("Date: Sat, 10 May 2025 09:18:28 UTC\n"), archive("Date: Sat, 10 May 2025 09:18:29 UTC\n")
    assert one.lists != two.lists


def test_what_is_no_index_is_refused(archive):
    with pytest.raises(InputError, match="InRelease is no index of a package archive: it has no Date"):
        archive("<html>Not here</html>")


def test_a_missing_suite_is_named(tmp_path):
    with pytest.raises((NetworkError, InputError), match="dists/bookwrom/InRelease"):
        state([Source.parse(f"deb file://{tmp_path} bookwrom main")], Web())


def test_mmdebstrap_is_asked_once_for_its_own_choice(tmp_path):
    def ask(suite="bookworm", distribution="debian", components=("main", "contrib")):
        return sources(distribution, suite, mirror=None, components=components, further=LINES[:1], cache=tmp_path)

    found = ask()
    assert [source.suite for source in found] == ["bookworm", "bookworm-updates", "bookworm-security", "bookworm"]
    assert all(source.components == ("main", "contrib") for source in found[:-1])
    (answer,) = tmp_path.iterdir()
    answer.write_text("deb http://remembered.example/debian bookworm main\n")
    assert ask()[0].uri == "http://remembered.example/debian"
    with pytest.raises(UsageError, match="noble is no suite of debian that mmdebstrap knows"):
        ask(suite="noble")


def test_an_archive_without_a_key_is_refused_before_it_is_asked(tmp_path):
    with pytest.raises(HostError, match="this machine has no key of debian's archive") as caught:
        sources("debian", "bookworm", mirror=None, components=("main",), cache=tmp_path, keys=tmp_path)
    assert caught.value.hint.startswith("sudo apt-get install debian-archive-keyring")


def test_a_mirror_of_ones_own_is_all_there_is(tmp_path):
    found = sources("debian", "x", mirror="file:///srv/d", components=("main",), further=(), cache=tmp_path)
    assert [str(source) for source in found] == ["deb file:///srv/d x main"]
