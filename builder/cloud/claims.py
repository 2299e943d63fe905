"""A claim: how we recognise, after any crash, the one thing that a step made in a cloud."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import CloudConflict

if TYPE_CHECKING:
    from builder.cloud.api import ImageRecord

TAG = "emi:claim"  # the tag that carries the token of a claim
RECIPE_TAG = "emi:recipe"  # the tag that says to people which recipe made this
_MOST_TAGS = 48


@dataclass(frozen=True)
class Claim:
    """The key of a step and the generation of its attempt.

    A token outlives the resource it made (a deleted snapshot's client token is still taken), hence the generation:
    after an Abandon the next attempt claims under the next number.
    """

    key: str
    generation: int = 0

    @property
    def token(self) -> str:
        """64 hex digits: what ClientToken admits (at most 64 ASCII characters), and the value of the tag."""
        return hashlib.sha256(f"{self.key}/{self.generation}".encode()).hexdigest()


def only(claim: Claim, ids: Sequence[str], noun: str) -> str | None:
    """Return the one resource that carries the claim, or None.

    Raises CloudConflict naming all when there are several: which of them is right cannot be known, nor guessed.
    """
    if len(ids) > 1:
        raise CloudConflict(
            f"{len(ids)} {noun}s carry the claim {claim.token[:12]}…: {', '.join(sorted(ids))}",
            hint=f"Look which one is right, remove the tag {TAG} from the others (or delete them), then `emi resume`.",
        )
    return ids[0] if ids else None


def tag_problems(tags: Mapping[str, str]) -> list[str]:
    """Return what is wrong with tags that a user wants on a resource, a sentence each.

    Limits: the EBS direct service model's (keys 127, values 255 characters), the narrower ones of EC2's two, and EC2's
    50 tags a resource, of which emi needs two.
    """
    wrong = []
    if len(tags) > _MOST_TAGS:
        wrong.append(f"{len(tags)} tags are too many: a resource may have 50, of which emi sets 2")
    for key, value in tags.items():
        if key.startswith(("aws:", "emi:", "euca:")):
            wrong.append(f"the tag {key!r} begins with a prefix that is reserved")
        if not 1 <= len(key) <= 127 or len(value) > 255:
            wrong.append(f"the tag {key[:40]!r} is too long: a key may have 127 characters, a value 255")
    return wrong


def taken_by(holder: ImageRecord) -> CloudConflict:
    """Return the error that says which image has the name that a step wants."""
    maker = "another step or an older recipe of emi" if TAG in holder.tags else "something else than emi"
    return CloudConflict(
        f"the image name {holder.name!r} is taken by {holder.image_id} of account {holder.owner_id},"
        f" which {maker} registered"
    )
