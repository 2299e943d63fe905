"""Listings of the EBS direct APIs, page by page."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from builder.digest import BLOCK


@pytest.fixture(scope="module")
def many(sandbox):
    raw = sandbox.raw()
    data = {index: index.to_bytes(4, "big") * (BLOCK // 4) for index in range(0, 700, 3)}
    return raw.snapshot(data), sorted(data)


def pages(raw, path, field, query):
    token, sizes, indexes = None, [], []
    while True:
        extra = {"pageToken": token} if token else {}
        status, _, _, answer = raw.ebs("GET", f"{path}?{urlencode({**query, **extra})}")
        assert status == 200, answer
        sizes.append(len(answer[field]))
        indexes += [entry["BlockIndex"] for entry in answer[field]]
        if (token := answer.get("NextToken")) is None:
            return sizes, indexes


@pytest.mark.behaviour("EBS direct", "ListSnapshotBlocks, ListChangedBlocks", "pages hold every block once, from the "
                       "starting index on")  # fmt: skip
@pytest.mark.parametrize(("listing", "field"), [("blocks", "Blocks"), ("changedblocks", "ChangedBlocks")])
def test_pages_hold_everything_once(raw, many, listing, field):
    snapshot_id, indexes = many
    path = f"/snapshots/{snapshot_id}/{listing}"
    assert pages(raw, path, field, {"maxResults": 100}) == ([100, 100, 34], indexes)
    assert pages(raw, path, field, {}) == ([234], indexes)
    assert pages(raw, path, field, {"maxResults": 100, "startingBlockIndex": 301}) == (
        [100, 33],
        [index for index in indexes if index >= 301],
    )


@pytest.mark.behaviour("EBS direct", "ListSnapshotBlocks", "page sizes, start indexes and page tokens that are none "
                       "are refused")  # fmt: skip
@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("maxResults=99", "INVALID_PARAMETER_VALUE"),
        ("maxResults=10001", "INVALID_PARAMETER_VALUE"),
        ("maxResults=x", "INVALID_PARAMETER_VALUE"),
        ("startingBlockIndex=-1", "INVALID_PARAMETER_VALUE"),
        ("pageToken=AAAA", "INVALID_PAGE_TOKEN"),
        ("pageToken=%25", "INVALID_PAGE_TOKEN"),
    ],
)
def test_a_page_that_is_refused(raw, many, query, reason):
    answer = raw.ebs("GET", f"/snapshots/{many[0]}/blocks?{query}")
    assert answer[:3] == (400, "ValidationException", reason)


@pytest.mark.behaviour("EBS direct", "ListSnapshotBlocks, ListChangedBlocks", "a page token belongs to one listing "
                       "of one snapshot")  # fmt: skip
def test_a_page_token_belongs_to_its_listing(raw, many, completed):
    token = raw.ebs("GET", f"/snapshots/{many[0]}/blocks?maxResults=100")[3]["NextToken"]
    for path in (f"/snapshots/{completed}/blocks", f"/snapshots/{many[0]}/changedblocks"):
        answer = raw.ebs("GET", f"{path}?{urlencode({'pageToken': token})}")
        assert answer[:3] == (400, "ValidationException", "INVALID_PAGE_TOKEN")


def test_boto3_reads_all_pages(ebs, many):
    answer = ebs.list_snapshot_blocks(SnapshotId=many[0], MaxResults=200)
    rest = ebs.list_snapshot_blocks(SnapshotId=many[0], MaxResults=200, NextToken=answer["NextToken"])
    assert [entry["BlockIndex"] for entry in answer["Blocks"] + rest["Blocks"]] == many[1]
