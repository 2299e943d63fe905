"""What a call of EC2 is here, and what many of them share: filters with wildcards, and pages."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from builder.sandbox.cloud import Cloud
from builder.sandbox.wire import Caller, Refusal

Values = Mapping[str, Any]  # a call's parameters or its result, by their names in botocore's model
Handler = Callable[[Cloud, Caller, Values], Values]
Item = TypeVar("Item")
Traits = Mapping[str, Sequence[str]]  # what filters see of a resource: filter name -> its values

_MOST_FILTER_VALUES = 200


def matches(traits: Traits, tags: Mapping[str, str], filters: Iterable[Values]) -> bool:
    """Say whether a resource passes all filters: each with any of its values, `*` and `?` being wildcards.

    `traits` holds every filter name that the call knows besides the tag filters. Raises Refusal for others.
    """
    for entry in filters:
        name, values = entry.get("Name", ""), entry.get("Values", ())
        if name == "tag-key":
            present: Sequence[str] = tuple(tags)
        elif name.startswith("tag:"):
            present = (tags[key],) if (key := name[4:]) in tags else ()
        else:
            present = traits[name]
        if not any(_pattern(value).fullmatch(text) for value in values for text in present):
            return False
    return True


def check_filters(filters: Sequence[Values], known: Iterable[str], *, tags: bool = True) -> None:
    """Raise Refusal for a filter that the call does not know, or one without values."""
    names = set(known)
    for entry in filters:
        name, values = entry.get("Name", ""), entry.get("Values", ())
        if not (name in names or (tags and (name == "tag-key" or name.startswith("tag:")))):
            raise Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")
        if not values:
            raise Refusal("InvalidParameterValue", f"The filter '{name}' has no value")
        if len(values) > _MOST_FILTER_VALUES:
            raise Refusal("FilterLimitExceeded", f"The maximum number of filter values is {_MOST_FILTER_VALUES}")


@lru_cache(maxsize=256)
def _pattern(value: str) -> re.Pattern[str]:
    """Compile a filter's value; a backslash takes the special meaning from the character after it."""
    parts = []
    for escaped, plain in re.findall(r"\\(.)|(.)", value, re.DOTALL):
        parts.append({"*": ".*", "?": "."}.get(plain) or re.escape(escaped or plain))
    return re.compile("".join(parts), re.DOTALL)


def paged(
    items: Iterable[Item], key: Callable[[Item], str], values: Values, *, least: int = 5, most: int = 1000
) -> tuple[list[Item], str | None]:
    """Return the page that MaxResults and NextToken ask for, in the order of `key`, and the next page's token.

    A token names the last item of its page, so that what is made or deleted meanwhile makes nobody else appear twice
    or not at all.
    """
    last = _last(values["NextToken"]) if values.get("NextToken") else ""
    rest = sorted((item for item in items if key(item) > last), key=key)
    size = values.get("MaxResults")
    if size is None:
        return rest, None
    if size < least:
        raise Refusal("InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid. Expecting a "
                      f"value greater than {least}.")  # fmt: skip
    page = rest[: min(size, most)]
    return page, _token(key(page[-1])) if len(page) < len(rest) else None


def _token(last: str) -> str:
    return base64.b64encode(f"after:{last}".encode()).decode()


def _last(token: str) -> str:
    try:
        prefix, _, last = base64.b64decode(token, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        prefix, last = "", ""
    if prefix != "after":
        raise Refusal("InvalidNextToken", "The token provided is invalid.")
    return last


def boolean(*, value: bool) -> str:
    """Return a truth value as filters name it."""
    return "true" if value else "false"


def maybe(value: str | None) -> list[str]:
    """Return what a filter sees of a value that may be missing."""
    return [value] if value else []


def moment(time: float) -> str:
    """Return a time (seconds since the epoch) as EC2 writes it in strings."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as EC2 lists them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
