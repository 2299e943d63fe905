"""The appliance that launches ahead: lent for a look, kept for the same image, and shown no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import GuestError
from pipelines.artifact import ImageFile
from pipelines.plan import Node, arrange
from pipelines.realise import Ahead
from pipelines.recipe import load

DISK = ImageFile(digest="blocks:" + "1" * 64, format="raw", virtual_size=1 << 30)
PART = DISK.part(1 << 20, 1 << 20)
LAYER = ImageFile(digest="sha256:" + "2" * 64, format="qcow2", virtual_size=1 << 30, backing=DISK)
OTHER = ImageFile(digest="blocks:" + "3" * 64, format="raw", virtual_size=1 << 30)


@pytest.fixture
def ahead(tmp_path: Path) -> Callable[[], Ahead]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text('name: a\nsteps:\n  - download: {url: "file:///x.raw"}\n  - label: {label: new}\n')
    (node,) = [node for node in arrange(load(recipe)) if node.kind == "label"]
    assert isinstance(node, Node)
    return lambda: Ahead(node, cache=tmp_path)


def test_a_session_that_was_lent_serves_the_same_disk_and_no_other(ahead: Callable[[], Ahead]) -> None:
    for image in (PART, LAYER):
        with ahead() as launching:
            with launching.lend(DISK) as session:
                assert session is not None
                assert launching.take(DISK) is None  # it is lent
            assert launching.take(image) is session
            assert launching.take(image) is None
            session.close()
    with ahead() as launching:
        with launching.lend(LAYER) as session:
            pass
        assert session is not None
        assert launching.take(DISK) is None  # of the layer's own bytes DISK knows nothing
        with pytest.raises(GuestError, match="was closed"):
            session.launched()


def test_a_session_whose_borrower_failed_is_ended(ahead: Callable[[], Ahead]) -> None:
    with ahead() as launching:
        with pytest.raises(GuestError, match="as it went"), launching.lend(DISK) as session:
            raise GuestError("as it went")
        assert launching.take(DISK) is None
        assert session is not None
        with pytest.raises(GuestError, match="was closed"):
            session.launched()


def test_what_nobody_took_is_ended_with_the_block(ahead: Callable[[], Ahead]) -> None:
    with ahead() as launching, launching.lend(OTHER) as session:
        pass
    assert session is not None
    with pytest.raises(GuestError, match="was closed"):
        session.launched()


def test_without_guest_steps_there_is_none_to_lend(tmp_path: Path) -> None:
    with Ahead(None, cache=tmp_path) as none, none.lend(DISK) as session:
        assert session is None
