"""The host names by which clients reach S3: `s3.…` with the bucket before it or not, and with the region or not."""

from __future__ import annotations

import re

from builder.sandbox.wire import Request

_S3 = re.compile(
    r"(?:(?P<bucket>[^:]+)\.)?s3(?:[.-](?P<region>[a-z]{2,}(?:-[a-z]+)+-\d))?"
    r"\.(?:localhost(?:\.localdomain)?|amazonaws\.com)(?::\d+)?"
)


def of_s3(request: Request) -> tuple[str, str | None]:
    """Return the bucket that the Host header names, "" for none (path style), and the region, if it says one.

    Where the path says the service, there is only path style.
    """
    if request.service:
        return "", None
    host = _S3.fullmatch((request.header("Host") or "").lower())
    return ("", None) if host is None else (host["bucket"] or "", host["region"])
