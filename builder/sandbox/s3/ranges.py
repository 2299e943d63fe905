"""The Range header: which bytes of an object are asked for. Source: RFC 7233; S3 answers one range, and only bytes."""

from __future__ import annotations

import re

from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.wire import Refusal

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*")
_COPIED = re.compile(r"bytes=(\d+)-(\d+)")


def of(header: str | None, size: int) -> tuple[int, int] | None:
    """Return (first, last) inclusive, or None for the whole: what is no single range of bytes is ignored, as S3 does.

    Raises Refusal (InvalidRange) when none of these bytes exists.
    """
    match = _RANGE.fullmatch(header) if header is not None else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first and last and int(first) > int(last):
        return None
    if not first:  # the last N bytes
        start, end = max(0, size - int(last)), size - 1
        valid = int(last) > 0 and size > 0
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        valid = start < size
    if not valid:
        raise S3Refusal(
            "InvalidRange",
            "The requested range is not satisfiable",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
            RangeRequested=header,
            ActualObjectSize=size,
        )
    return start, end


def of_copy(header: str, size: int) -> tuple[int, int]:
    """Return (first, last) of x-amz-copy-source-range, which must lie within the source. Raises Refusal."""
    match = _COPIED.fullmatch(header)
    if match is None or int(match[1]) > int(match[2]):
        message = (
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy"
        )
        raise S3Refusal("InvalidArgument", message, ArgumentName="x-amz-copy-source-range", ArgumentValue=header)
    first, last = int(match[1]), int(match[2])
    if last >= size:
        raise Refusal("InvalidArgument", f"Range specified is not valid for source object of size: {size}")
    return first, last
