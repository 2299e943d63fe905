"""A cloud that is configured somewhere, whoever's format that is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from builder.cloud.identity import Said, Sources
from builder.cloud.releases import Release
from builder.cloud.settings import Settings
from builder.errors import UsageError

Kind = Literal["aws", "eucalyptus"]


@dataclass(frozen=True, kw_only=True)
class Configured:
    """All that is said about one cloud. `warnings` are sentences that whoever opens it should see."""

    kind: Kind
    settings: Settings
    release: Release = field(default_factory=Release)
    sources: Sources = field(default_factory=Sources)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """A cloud as --cloud names it, where it was found, and how to read the rest, which may raise UsageError."""

    name: str
    origin: str
    load: Callable[[], Configured] = field(repr=False)  # it may hold an environment, with secrets in it


# The services' names in the paths of Eucalyptus ("Endpoints and signing" of the facts), by botocore's and ours.
PATHS: Mapping[str, str] = {
    "ec2": "compute",
    "s3": "objectstorage",
    "iam": "Euare",
    "sts": "Tokens",
    "bootstrap": "Empyrean",
}
PORT = 8773


def endpoints(given: Mapping[str, Said]) -> dict[str, str]:
    """Return the URLs of a Eucalyptus cloud: those given, and beside compute's those that no one gave.

    Services that answer at /services/NAME of one host are found there by their names. Raises UsageError for a URL that
    is none, or when there is none for compute.
    """
    for said in given.values():
        _require_url(said)
    if "ec2" not in given:
        known = ", ".join(said.where for said in given.values()) or "nowhere"
        raise UsageError(f"no URL is given for compute (ec2), which is needed; others: {known}")
    parts = urlsplit(given["ec2"].value)
    head, services, _ = parts.path.partition("/services/")
    beside = {}
    if services:
        beside = {
            service: urlunsplit((parts.scheme, parts.netloc, f"{head}/services/{path}", "", ""))
            for service, path in PATHS.items()
        }
    return beside | {service: said.value for service, said in given.items()}


def _require_url(said: Said) -> None:
    if "@" in said.value:  # not shown: a password may stand before it
        raise UsageError(
            f"{said.where} names a user in the URL of a service, which asks for keys instead",
            hint="Take what stands before the @ out of the URL, and out of logs where another tool wrote it.",
        )
    try:
        parts = urlsplit(said.value)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, brackets that do not match
        known = False
    if not known:
        raise UsageError(f"{said.where}: {said.value!r} is no URL of a service", hint="Write http:// or https://.")


def of_domain(domain: str) -> dict[str, str]:
    """Return the URLs of a cloud whose services have names in its DNS domain, as releases 4.2 and later do."""
    return {service: f"https://{service}.{domain}:{PORT}/" for service in PATHS}


def unverified(urls: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Return the warning that certificates are not verified; none where there is no TLS at all."""
    if not any(url.startswith("https:") for url in urls.values()):
        return ()
    return (f"{where}: certificates are not verified, so anybody on the way can read and change what is sent",)
