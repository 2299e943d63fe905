"""Where a sparsify has work; what it gives back is measured in tests/builder/guest/test_sparsify.py."""

import pytest

from builder.guest.edits import GiveBack, Unchanged
from builder.guest.facts import Filesystem, KnownFacts
from pipelines.steps.sparsify import Sparsify, SparsifyOptions

STEP = Sparsify()


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["ext4", "ntfs"], (GiveBack(),)),
        (["swap"], (GiveBack(),)),
        (["crypto_LUKS", "ntfs"], Unchanged(why="none of crypto_LUKS, ntfs can be trimmed")),
    ],
)
def test_where_nothing_can_be_given_back_it_says_so(types, expected):
    filesystems = [Filesystem(device=f"/dev/sda{number}", type=kind) for number, kind in enumerate(types)]
    assert STEP.edits(SparsifyOptions(), KnownFacts(filesystems=filesystems), {}) == expected
