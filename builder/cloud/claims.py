"""A claim: how we recognise, after any crash, the one thing that a step made in a cloud."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TAG = "emi:claim"  # the tag that carries the token of a claim
RECIPE_TAG = "emi:recipe"  # the tag that says to people which recipe made this


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
