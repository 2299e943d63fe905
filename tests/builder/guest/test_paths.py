import pytest

from builder.guest.paths import follow, literal, matches

LINKS = {
    "/bin": "usr/bin",
    "/var/run": "/run",
    "/run/up": "../srv/./deep//",
    "/srv/out": "../../../../etc/passwd",
    "/loop": "loop",
    "/a": "/b",
    "/b": "/a",
    "/usr/bin/awk": "/etc/alternatives/awk",
    "/new\nline": "/caf\udce9",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/etc/fstab", "/etc/fstab"),
        ("//etc/./fstab/", "/etc/fstab"),
        ("/etc/../../..", "/"),
        ("/bin/sh", "/usr/bin/sh"),
        ("/bin/awk", "/etc/alternatives/awk"),
        ("/bin/../x", "/usr/x"),
        ("/var/run/up/file", "/srv/deep/file"),
        ("/srv/out", "/etc/passwd"),
        ("/loop", "/loop"),
        ("/loop/x", "/loop/x"),
        ("/a/x", "/a/x"),
        ("/new\nline/x", "/caf\udce9/x"),
    ],
)
def test_a_path_leads_where_the_kernel_goes(path, expected):
    assert follow(path, lambda name: LINKS.get(name, "")) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/etc/*.conf", "/etc"),
        ("/lib/modules/*/kernel", "/lib/modules"),
        ("/*", "/"),
        ("/etc/fstab", "/etc/fstab"),
        ("/bo[o]t/x", "/"),
        ("/a/b?/c*", "/a"),
    ],
)
def test_what_a_glob_can_match_lies_there(pattern, expected):
    assert literal(pattern) == expected


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("a.conf", "*.conf", True),
        (".hidden", "*", False),
        (".hidden", "?hidden", False),
        (".hidden", "[.]hidden", False),
        (".hidden", ".h*", True),
        ("b", "[^a]", True),
        ("a", "[^a]", False),
        ("a", "[!a]", False),
        ("A", "a", False),
        ("a\nb", "a*", True),
        ("caf\udce9", "caf?", True),
    ],
)
def test_a_name_matches_as_glob_says(name, pattern, expected):
    assert matches(name, pattern) is expected
