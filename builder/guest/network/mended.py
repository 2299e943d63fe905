"""What comes of one configuration file when it is freed of MAC addresses and fixed addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mended:
    """The file's new text, what was done to it, and the fixed addresses that are still in it."""

    text: str
    changes: Sequence[str] = ()
    static: Sequence[str] = ()


def lines(text: str) -> list[str]:
    """Return the lines with their ends; joined they are the text again, whatever it holds."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)
