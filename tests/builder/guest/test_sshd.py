"""sshd's settings: which value holds."""

from __future__ import annotations

import pytest

from builder.guest.facts import KnownFacts
from builder.guest.sshd import sshd_settings

MAIN = "/etc/ssh/sshd_config"
DROP_INS = "/etc/ssh/sshd_config.d"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({MAIN: b"PermitRootLogin no\nPermitRootLogin yes\n"}, ("no", MAIN, 1)),
        ({MAIN: b"# PermitRootLogin no\n  permitrootlogin = yes\n"}, ("yes", MAIN, 2)),
        ({MAIN: b'PermitRootLogin "yes"\n'}, ("yes", MAIN, 1)),
        (
            {
                MAIN: b"Include sshd_config.d/*.conf\nPermitRootLogin yes\n",
                f"{DROP_INS}/50.conf": b"PermitRootLogin no\n",
            },
            ("no", f"{DROP_INS}/50.conf", 1),
        ),
        (
            {
                MAIN: b"PermitRootLogin yes\nInclude /etc/ssh/sshd_config.d/*.conf\n",
                f"{DROP_INS}/50.conf": b"PermitRootLogin no",
            },
            ("yes", MAIN, 1),
        ),
        ({MAIN: b"Match User git\n  PermitRootLogin yes\n"}, None),
        ({MAIN: b"Include /etc/ssh/sshd_config\nPermitRootLogin no\n"}, ("no", MAIN, 2)),
        ({"/usr/etc/ssh/sshd_config": b"PermitRootLogin no\n"}, ("no", "/usr/etc/ssh/sshd_config", 1)),
        ({MAIN: b"\xff\xfe\nPermitRootLogin\n"}, None),
        ({}, None),
    ],
)
def test_the_value_that_holds(files, expected):
    found = sshd_settings(KnownFacts(files=files)).get("permitrootlogin")
    assert (found and (found.value, found.path, found.line)) == expected


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "Include sshd_config\n" * 5000,
        "Include sshd_config.d/*.conf\n" * 50,
        "A x" + " " * 1_000_000 + "y\n",
        "A" + " " * 1_000_000 + "y\n",
    ],
    ids=["itself", "each other", "blanks in a value", "blanks before one"],
)
def test_a_hostile_file_does_not_take_for_ever(text):
    drop_ins = {f"{DROP_INS}/{number}.conf": text.encode() for number in range(20)}
    found = sshd_settings(KnownFacts(files={MAIN: text.encode() + b"PermitRootLogin no\n", **drop_ins}))
    assert found["permitrootlogin"].value == "no"
