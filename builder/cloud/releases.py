"""Releases of Eucalyptus, as numbers that can be compared; and one that is not known."""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.errors import UsageError


@dataclass(frozen=True)
class Release:
    """A release such as 4.4.6; without numbers it is not known, and then neither before nor after any other."""

    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Release:
        """Return the release of `4.4`, `v4.4.6` or `5`. Raises UsageError."""
        if not re.fullmatch(r"v?[0-9]{1,3}(\.[0-9]{1,3}){0,3}", text):
            raise UsageError(f"{text!r} is no release of Eucalyptus; write it as 4.4 or 5.1.0")
        return cls(tuple(map(int, text.removeprefix("v").split("."))))

    def at_least(self, *numbers: int) -> bool:
        """Say whether it is known to be that release or a later one; `4.4` is every 4.4, and taken for its first."""
        return bool(self.numbers) and _padded(self.numbers) >= _padded(numbers)

    def before(self, *numbers: int) -> bool:
        """Say whether it is known to be older than that release."""
        return bool(self.numbers) and _padded(self.numbers) < _padded(numbers)

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers)) or "not known"


def _padded(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return (*numbers, 0, 0, 0, 0)[:4]
