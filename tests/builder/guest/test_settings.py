"""YAML that an image brings: read within bounds, or refused."""

from __future__ import annotations

import pytest

from builder.errors import GuestError
from builder.guest import cloudinit
from builder.guest.facts import KnownFacts
from builder.guest.settings import LIMIT, load_yaml

DOUBLED = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


def test_what_people_write_is_read():
    assert load_yaml(b"a: &x {b: [1, 2]}\nc: *x\n", "/x") == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}
    assert load_yaml("", "/x") is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [\n", "while parsing"),
        ("\x00", "special characters"),
        ("[" * 20_000, "nested deeper"),
        ("{" * 20_000, "nested deeper"),
        ("- " * 20_000, "nested deeper"),
        (DOUBLED, "more than 16 of them"),
        ("a: &a {b: *a}\n", "an alias within itself"),
        ("x" * (LIMIT + 1), "more than 256 KiB"),
        ("9" * 5000, "Exceeds the limit"),
    ],
)
def test_what_would_keep_a_reader_busy_is_refused(text, why):
    with pytest.raises(GuestError, match=f"/x in the guest is not YAML: .*{why}") as caught:
        load_yaml(text, "/x")
    assert caught.value.hint


def test_settings_in_many_files_are_bounded_together():
    comment = b"#" * (LIMIT // 8)
    few = {f"{cloudinit.DIRECTORY}/{number}.cfg": comment + b"\na: 1\n" for number in range(7)}
    assert cloudinit.settings(KnownFacts(files=few)) == {"a": 1}
    many = {f"{cloudinit.DIRECTORY}/{number}.cfg": comment for number in range(9)}
    with pytest.raises(GuestError, match=r"more than 256 KiB of settings up to /etc/cloud/cloud.cfg.d/8.cfg"):
        cloudinit.settings(KnownFacts(files=many))
