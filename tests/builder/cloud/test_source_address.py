"""From where a cloud sees us: what can be known here, and what must be said."""

from __future__ import annotations

import pytest

from builder.cloud.source_address import network, seen_as, source_of
from builder.errors import UsageError


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("127.0.0.1", "127.0.0.1"),  # the sandbox
        ("10.0.0.5", "10.9.0.1"),  # one network of a building
        ("192.168.1.5", "172.16.0.1"),
        ("8.8.4.4", "52.94.1.1"),  # nothing translates a public address
        ("8.8.4.4", "10.9.0.1"),
    ],
)
def test_an_address_that_is_seen_as_it_is(ours, theirs) -> None:
    assert seen_as(ours, theirs) == f"{ours}/32"


@pytest.mark.parametrize("ours", ["10.0.0.5", "192.168.1.5", "172.31.0.9", "100.64.0.7", "169.254.1.1"])
def test_behind_a_translation_it_must_be_said(ours) -> None:
    with pytest.raises(UsageError, match=f"{ours}, a private address") as caught:
        seen_as(ours, "52.94.1.1")
    assert "ssh_from" in caught.value.hint


def test_the_way_to_a_cloud_says_it() -> None:
    assert source_of("http://127.0.0.1:8773/services/compute") == "127.0.0.1/32"
    with pytest.raises(UsageError, match="cannot be known") as caught:
        source_of("https://nowhere.invalid/")
    assert "ssh_from" in caught.value.hint


def test_a_network_that_is_said() -> None:
    assert network("198.51.100.7") == "198.51.100.7/32"
    assert network("198.51.100.0/24") == "198.51.100.0/24"
    for text in ("198.51.100.7/24", "me", "", "::1/128", "198.51.100.7/33"):
        with pytest.raises(UsageError, match="no network of IPv4"):
            network(text)
