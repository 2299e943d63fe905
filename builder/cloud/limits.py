"""How long emi waits for a cloud at most, so that no run hangs: four times, which a user may set.

`EMI_CLOUD_LIMITS=wait=7200,retry=60` (seconds; what is not named keeps its default). All waiting is shown meanwhile.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import lru_cache

from builder.errors import UsageError

VARIABLE = "EMI_CLOUD_LIMITS"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """All in seconds.

    `retry`: how long a call is repeated that fails for a reason that may pass. `answer`: how long an answer may take
    from the call to its last byte. `settle`: how long the cloud may not know yet what it has just made. `wait`: how
    long a snapshot or an image may be pending.
    """

    retry: float = 120
    answer: float = 120
    settle: float = 120
    wait: float = 3600


def limits() -> Limits:
    """Return the limits in force. Raises UsageError for a setting that cannot be read."""
    return _parsed(os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=8)
def _parsed(text: str) -> Limits:
    known = [field.name for field in fields(Limits)]
    found: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = entry.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = -1
        if name.strip() not in known or not 0 < found[name.strip()] < float("inf"):
            raise UsageError(
                f"{VARIABLE}: `{entry}` is no limit", hint=f"For example {VARIABLE}=wait=7200; also {', '.join(known)}."
            )
    return Limits(**found)
