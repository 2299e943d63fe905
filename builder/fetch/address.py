"""What a recipe's URL says, what is read instead, and how both may be shown."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from builder.errors import UsageError

_SCHEMES = ("http", "https", "file")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A URL as the recipe has it, and what is read for it; as a string it is fit for a message: no password in it."""

    url: str
    actual: str

    def __str__(self) -> str:
        if self.url == self.actual:
            return shown(self.url)
        return f"{shown(self.url)} (read from {shown(self.actual)})"

    @property
    def name(self) -> str:
        """What the publisher calls the file: the last part of the URL's path, or '' if it has none."""
        return posixpath.basename(unquote(urlsplit(self.url).path))

    @property
    def local(self) -> Path | None:
        """The file on this machine, if that is what is read."""
        parts = urlsplit(self.actual)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


def resolve(url: str, mirrors: Sequence[tuple[str, str]] = ()) -> Address:
    """Return where to read `url`: the mirror with the longest matching prefix replaces that prefix.

    Raises UsageError for what is no absolute http, https or file URL.
    """
    matching = [(prefix, instead) for prefix, instead in mirrors if url.startswith(prefix)]
    actual = url
    if matching:
        prefix, instead = max(matching, key=lambda pair: len(pair[0]))
        actual = instead + url[len(prefix) :]
    for candidate in (url, actual):
        _require_fetchable(candidate)
    return Address(url=url, actual=actual)


def shown(url: str) -> str:
    """Return `url` without the user and password that may stand in it."""
    parts = _split(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def origin(url: str) -> tuple[str, str, int | None]:
    """Return (scheme, host, port): credentials given for one URL go to no other origin."""
    parts = _split(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _require_fetchable(url: str) -> None:
    parts = _split(url)
    if parts.scheme not in _SCHEMES:
        what = f"the scheme {parts.scheme}:" if parts.scheme else "no scheme"
        raise UsageError(f"{shown(url)!r} has {what}", hint="Use a URL with http:, https: or file:///absolute/path.")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise UsageError(f"{shown(url)!r} names no file on this machine", hint="Write file:///absolute/path.")
    elif not parts.hostname:
        raise UsageError(f"{shown(url)!r} names no host", hint="Write https://host/path.")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError as error:
        # The reason never quotes the user and password, only the host's and port's faults.
        raise UsageError(f"a URL cannot be read: {error}", hint="Write https://host/path.") from None
    return parts
