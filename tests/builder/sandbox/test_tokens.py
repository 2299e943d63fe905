"""Tokens: each opens one thing, until it expires, and none can be made up."""

from __future__ import annotations

import time

import pytest

from builder.sandbox.tokens import Tokens

TOKENS = Tokens(b"k" * 32)
SOON = 4_102_444_800  # the year 2100


def test_a_block_token_reads_its_block_until_it_expires():
    assert TOKENS.reads(TOKENS.for_block("snap-1", 5, SOON), "snap-1", 5)
    assert not TOKENS.reads(TOKENS.for_block("snap-1", 5, int(time.time()) - 1), "snap-1", 5)


@pytest.mark.parametrize(("snapshot_id", "index"), [("snap-2", 5), ("snap-1", 6)])
def test_a_block_token_reads_nothing_else(snapshot_id, index):
    assert not TOKENS.reads(TOKENS.for_block("snap-1", 5, SOON), snapshot_id, index)


@pytest.mark.parametrize("token", ["", "AAAA", "not base64!", "A" * 32, Tokens(b"x").for_block("snap-1", 5, SOON)])
def test_a_token_of_others_is_refused(token):
    assert not TOKENS.reads(token, "snap-1", 5)
    assert TOKENS.page(token, "scope") is None


def test_a_page_token_keeps_its_position_and_scope():
    token = TOKENS.for_page("scope", 12345)
    assert TOKENS.page(token, "scope") == 12345
    assert TOKENS.page(token, "other") is None
    assert TOKENS.page(TOKENS.for_block("snap-1", 5, SOON), "scope") is None
    assert len(token) <= 256  # the model's limit for both kinds
