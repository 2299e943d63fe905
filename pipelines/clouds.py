"""`clouds.yaml`: the clouds that a user names for emi, beside what is configured for other tools already.

It lies in XDG_CONFIG_HOME/emi (~/.config/emi), is read with the same care as a recipe, and every problem is shown with
its line; but never the line itself when the file holds a secret. docs/clouds.md describes the keys.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from builder.cloud.config import ini
from builder.cloud.config.found import Configured, Found, endpoints, of_domain, unverified
from builder.cloud.eucalyptus import REGION, query_dialect, s3_dialect
from builder.cloud.identity import Said, Sources
from builder.cloud.releases import Release
from builder.cloud.settings import Settings
from builder.errors import UsageError
from pipelines.recipe.compose import compose
from pipelines.recipe.nodes import ListNode, MapNode, Node, ScalarNode, is_null, noun
from pipelines.recipe.problems import Problem, RecipeError, any_of, closest, quoted
from pipelines.recipe.source import Findings, Span, TooMany
from pipelines.recipe.source import read as read_text
from pipelines.recipe.words import Subject, say

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
RESERVED = ("aws", "sandbox", "eucarc", "euca")  # the first words of names that mean something already
# No name and password before the host: requests are signed with keys, and a URL is shown and kept in journals.
_URL = r"^https?://[^@]+$"
_USER = re.compile(r"//\S*@")
SECRETS = ("secret_key", "session_token")
_HINT = "docs/clouds.md describes the file; `emi clouds` shows what is found."


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    access_key: str | None = Field(default=None, min_length=1, description="the access key's id")
    secret_key: SecretStr | None = Field(default=None, description="its secret; better kept in a profile")
    session_token: SecretStr | None = Field(default=None, description="of credentials that expire")
    profile: str | None = Field(default=None, min_length=1, description="the AWS profile that has the keys instead")
    ca_file: str | None = Field(default=None, description="certificate authorities to trust in place of the system's")
    account: str | None = Field(
        default=None, pattern=r"^([0-9]{12}|[0-9]{4}-[0-9]{4}-[0-9]{4})$", description="the account's number"
    )
    user_certificate: str | None = Field(default=None, description="the user's X.509 certificate (PEM) for bundles")
    private_key: str | None = Field(default=None, description="the private key (PEM) that belongs to it")
    cloud_certificate: str | None = Field(default=None, description="the cloud's certificate (PEM) for bundles")
    location: str | None = Field(default=None, description="the LocationConstraint of buckets that are made")

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("`access_key` and `secret_key` belong together")
        if self.profile and self.access_key:
            raise ValueError("`profile` and `access_key` exclude each other: there is one set of keys")
        return self


class AwsEntry(_Entry):
    """A cloud that answers as AWS does."""

    kind: Literal["aws"]
    region: str | None = Field(default=None, min_length=1, description="the region; the profile's when left out")
    endpoint: str | None = Field(default=None, pattern=_URL, description="one URL of all services; AWS's own")


class Endpoints(BaseModel):
    """The URLs of the services, by the names that AWS has for them; `bootstrap` is Eucalyptus' Empyrean."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    ec2: str = Field(pattern=_URL, description="compute")
    s3: str | None = Field(default=None, pattern=_URL, description="object storage, or Walrus")
    iam: str | None = Field(default=None, pattern=_URL, description="Euare")
    sts: str | None = Field(default=None, pattern=_URL, description="Tokens")
    bootstrap: str | None = Field(default=None, pattern=_URL, description="Empyrean")


class EucalyptusEntry(_Entry):
    """A Eucalyptus cloud."""

    kind: Literal["eucalyptus"]
    domain: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9.-]+$", description="its DNS domain: services are https://NAME.DOMAIN:8773/"
    )
    endpoints: Endpoints | None = Field(default=None, description="the services' URLs, in the place of `domain`")
    region: str = Field(default=REGION, min_length=1, description="its region's name")
    release: str | None = Field(
        default=None, pattern=r"^v?[0-9]{1,3}(\.[0-9]{1,3}){0,3}$", description="such as '4.4' or '5.1.0'"
    )
    user: str | None = Field(
        default=None, min_length=1, description="the [user NAME] of euca2ools' files that has keys and certificates"
    )
    verify: bool = Field(default=True, description="whether to verify certificates; leave it be")

    @model_validator(mode="after")
    def _places(self) -> Self:
        if (self.domain is None) == (self.endpoints is None):
            raise ValueError("it needs `domain` or `endpoints`, one of both")
        if not self.access_key and not self.profile and not self.user:
            raise ValueError("it needs `access_key` and `secret_key`, `profile` or `user`")
        if self.user and (self.access_key or self.profile):
            raise ValueError("`user` excludes `profile` and `access_key`: there is one set of keys")
        return self


Entry = Annotated[AwsEntry | EucalyptusEntry, Field(discriminator="kind")]
_ENTRY: TypeAdapter[AwsEntry | EucalyptusEntry] = TypeAdapter(Entry)
_MODELS: Mapping[str, type[_Entry]] = {"aws": AwsEntry, "eucalyptus": EucalyptusEntry}


def place(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the file is looked for."""
    return Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "emi" / "clouds.yaml"


def read(path: Path) -> list[Found]:
    """Return the clouds of the file, in its order; none when there is no file.

    Raises UsageError that shows all that is wrong with it, by line and column.
    """
    if not path.exists():
        return []
    try:
        return _read(path)
    except RecipeError as error:
        raise UsageError(error.message, hint=_HINT) from error


def _read(path: Path) -> list[Found]:
    source = read_text(path, noun="clouds.yaml")
    findings = Findings(source)
    found: list[Found] = []
    root: Node | None = None
    with suppress(TooMany):
        root = compose(source, findings)
        if root is not None and not is_null(root):
            found = [
                entry
                for name, node, at in _entries(root, findings)
                if (entry := _entry(path, name, node, at, findings))
            ]
    if findings.problems:
        secrets = _secrets(root) if root else []
        hide = any(word in source.text for word in SECRETS) or _USER.search(source.text) is not None
        raise RecipeError([_told(problem, secrets, hide=hide) for problem in findings.problems])
    return found


def _entries(root: Node, findings: Findings) -> list[tuple[str, Node, Span]]:
    """Return name, value and place of each cloud of the document."""
    if not isinstance(root, MapNode):
        findings.add(root.span, f"the file is a mapping with the key `clouds`, not {noun(root)}")
        return []
    for key, entry in root.entries.items():
        if key != "clouds":
            findings.add(entry.key, f"unknown key {quoted(key)}; there is only `clouds`")
    clouds = root.get("clouds")
    if clouds is None or is_null(clouds):
        return []
    if not isinstance(clouds, MapNode):
        findings.add(clouds.span, f"`clouds` is a mapping of names to clouds, not {noun(clouds)}")
        return []
    return [(name, entry.value, entry.key) for name, entry in clouds.entries.items()]


def _entry(path: Path, name: str, node: Node, at: Span, findings: Findings) -> Found | None:
    if not re.fullmatch(NAME, name):
        findings.add(at, f"{quoted(name)} cannot name a cloud; use letters, digits, `.`, `_` and `-`")
    elif name in RESERVED:
        findings.add(at, f"`{name}` means something already; give the cloud another name")
    if not isinstance(node, MapNode):
        findings.add(node.span, f"the cloud `{name}` is a mapping that begins with `kind`, not {noun(node)}")
        return None
    try:
        entry = _ENTRY.validate_json(json.dumps(_plain(node)))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            _report(detail, name, node, at, findings)
        return None
    origin = f"{path}:{at.line + 1}"
    return Found(name=name, origin=origin, load=lambda: _configured(entry, path, name, origin))


def _plain(node: Node) -> Any:
    match node:
        case MapNode():
            return {key: _plain(entry.value) for key, entry in node.entries.items()}
        case ListNode():
            return [_plain(item) for item in node.items]
        case ScalarNode():
            return node.value
        case _:
            return None


def _report(error: ErrorDetails, name: str, node: MapNode, at: Span, findings: Findings) -> None:
    """Report one of pydantic's verdicts on an entry at the place that it is about."""
    kind = node.get("kind")
    model = _MODELS.get(str(kind.value)) if isinstance(kind, ScalarNode) else None
    path = [part for part in error["loc"] if part != getattr(kind, "value", None)]
    where = ".".join(map(str, ("clouds", name, *path)))
    inner: Node = node
    key, owner = at, f"cloud `{name}`"
    for part in path:
        if not isinstance(inner, MapNode) or part not in inner.entries:
            break
        key, inner = inner.entries[str(part)].key, inner.entries[str(part)].value
    fields: Mapping[str, Any] = (
        Endpoints.model_fields if path[:1] == ["endpoints"] else getattr(model, "model_fields", {})
    )
    last = str(path[-1]) if path else ""
    match error["type"]:
        case "extra_forbidden":
            near = closest(last, fields)
            rest = "" if near else f"; it has {any_of((f'`{known}`' for known in fields), 'and')}"
            word = f" {quoted(last)}" if near or re.fullmatch("[a-z_]{1,30}", last) else ""  # else it may be a secret
            findings.add(key, f"unknown key{word} of {owner}{rest}", where=where, suggestion=near)
        case "missing":
            findings.add(key, f"{owner} needs `{last}`: {fields[last].description}", where=where)
        case "union_tag_not_found" | "union_tag_invalid":
            given = f", not {quoted(kind.text)}" if isinstance(kind, ScalarNode) else ""
            message = f"{owner} needs `kind`: `aws` or `eucalyptus`{given}"
            findings.add(kind.span if kind else key, message, where=where)
        case _ if last in SECRETS:
            findings.add(inner.span, f"`{last}` needs text; write it in quotes", where=where)
        case _ if not path:
            findings.add(key, f"{owner}: {error.get('ctx', {}).get('error', error['msg'])!s}", where=where)
        case _:
            value = inner.value if isinstance(inner, ScalarNode) else None
            findings.add(inner.span, say(error, Subject(name=last, node=inner, value=value)), where=where)


def _secrets(node: Node) -> list[str]:
    """Return every text of the document that is a secret."""
    if isinstance(node, ListNode):
        return [text for item in node.items for text in _secrets(item)]
    if not isinstance(node, MapNode):
        return []
    own = [
        entry.value.text
        for key, entry in node.entries.items()
        if isinstance(entry.value, ScalarNode) and (key in SECRETS or _USER.search(str(entry.value.value)))
    ]
    return [text for text in own if text] + [text for entry in node.entries.values() for text in _secrets(entry.value)]


def _told(problem: Problem, secrets: list[str], *, hide: bool) -> Problem:
    """Return the problem as it may be shown: without the user's own line where the file holds a secret."""
    message = problem.message
    for secret in secrets:
        message = message.replace(secret, "…")
    excerpt = "" if hide else problem.excerpt
    return Problem(
        path=problem.path,
        line=problem.line,
        column=problem.column,
        message=message,
        suggestion=problem.suggestion,
        where=problem.where,
        excerpt=excerpt,
        width=problem.width,
    )


def _configured(entry: AwsEntry | EucalyptusEntry, path: Path, name: str, origin: str) -> Configured:
    common: dict[str, Any] = {
        "access_key": entry.access_key,
        "secret_key": entry.secret_key.get_secret_value() if entry.secret_key else None,
        "session_token": entry.session_token.get_secret_value() if entry.session_token else None,
        "profile": entry.profile,
        "ca_file": _file(entry.ca_file, path) if entry.ca_file else None,
    }
    warnings = _loose(path) if entry.secret_key else ()
    sources = _sources(entry, path, name, origin)
    match entry:
        case AwsEntry():
            region = entry.region or Settings.of_profile(entry.profile, None).region
            settings = Settings(region=region, endpoint_url=entry.endpoint, location=entry.location, **common)
            return Configured(kind="aws", settings=settings, sources=sources, warnings=warnings)
        case EucalyptusEntry():
            if entry.user:
                files = ini.read(ini.files(os.environ))
                common["access_key"], common["secret_key"] = (said.value for said in ini.keys(files, entry.user, {}))
                sources = _sources(entry, path, name, origin, ini.of_user(files, entry.user))
            release = Release.parse(entry.release) if entry.release else Release()
            settings = Settings(
                region=entry.region,
                endpoints=_endpoints(entry, origin),
                verify=entry.verify,
                location=entry.location or "",
                s3=s3_dialect(release),
                query=query_dialect(release),
                **common,
            )
            if not entry.verify:
                warnings += unverified(settings.endpoints, f"`verify: false` of {origin}")
            return Configured(kind="eucalyptus", settings=settings, release=release, sources=sources, warnings=warnings)


def _endpoints(entry: EucalyptusEntry, origin: str) -> dict[str, str]:
    if entry.endpoints is None:
        return of_domain(entry.domain or "")
    given = entry.endpoints.model_dump(exclude_none=True)
    return endpoints({service: Said(url, origin) for service, url in given.items()})


def _sources(entry: _Entry, path: Path, name: str, origin: str, beside: Mapping[str, Said] | None = None) -> Sources:
    """Return what the entry says of bundles, and `beside` it where it says nothing."""
    said = dict(beside or {}) | {
        key: Said(str(_file(value, path)), f"`{key}` of {origin}")
        for key in ("user_certificate", "private_key", "cloud_certificate")
        if (value := getattr(entry, key))
    }
    if entry.account:
        said["account"] = Said(entry.account, f"`account` of {origin}")
    settable = {key: f"`{key}` of the cloud {name} in {path}" for key in ("account", "cloud_certificate")}
    return Sources(**said, settable=settable)


def _file(value: str, path: Path) -> Path:
    """Return the file that a value names: one that is not absolute lies beside clouds.yaml."""
    return path.parent / Path(value).expanduser()


def _loose(path: Path) -> tuple[str, ...]:
    with suppress(OSError):
        if path.stat().st_mode & 0o077:
            return (f"{path} holds a secret and others may read it: chmod 600 {path}",)
    return ()
