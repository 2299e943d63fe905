"""The times in signatures."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from builder.sandbox.wire import Denied

SKEW = 15 * 60  # seconds that a client's clock may be off
_STAMP = "%Y%m%dT%H%M%SZ"


@lru_cache(maxsize=64)
def moment(stamp: str) -> tuple[str, float]:
    """Return an X-Amz-Date or a Date header as 20260131T235959Z, and as seconds since the epoch. Raises Denied."""
    for read in (_iso, parsedate_to_datetime):
        try:
            found = read(stamp)
        except (ValueError, TypeError):
            continue
        if found.tzinfo is None:  # a Date that ends in -0000
            found = found.replace(tzinfo=UTC)
        return found.astimezone(UTC).strftime(_STAMP), found.timestamp()
    raise Denied("malformed", f"The time of signing, {stamp!r}, is not YYYYMMDD'T'HHMMSS'Z'.")


def _iso(stamp: str) -> datetime:
    return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)


def text(time: float) -> str:
    """Return seconds since the epoch as 20260131T235959Z."""
    return datetime.fromtimestamp(time, UTC).strftime(_STAMP)
