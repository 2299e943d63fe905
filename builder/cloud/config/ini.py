"""euca2ools' configuration: ini files with regions and users, whose names may be wildcards and refer to each other.

Source: "Client configuration" of the facts, which were read in euca2ools 3.4.1 and requestbuilder 0.7.1. Beyond those a
plain `[region *]` works here, as its comments say it should, and an option that `use` sends in a circle is an error.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from builder.cloud.config.found import PATHS, Configured, endpoints, unverified
from builder.cloud.eucalyptus import REGION, query_dialect, s3_dialect
from builder.cloud.identity import Said, Sources, said_in
from builder.cloud.releases import Release
from builder.cloud.settings import Settings
from builder.errors import UsageError

_PATHS = ("/etc/euca2ools/euca2ools.ini", "/etc/euca2ools/conf.d/*.ini", "~/.euca/*.ini")  # the last one wins
_LARGEST = 1 << 20  # bytes
_SECTION = re.compile(r"\[([^]]+)\]")
_OPTION = re.compile(r"([^:=\s][^:=]*?)\s*[:=]\s*(.*)")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_ENVIRONMENT_REGIONS = ("EUCA_DEFAULT_REGION", "AWS_DEFAULT_REGION")

Options = dict[str, Said]


@dataclass(frozen=True, kw_only=True)
class Ini:
    """All files together: the options of `[global]`, of each `[region NAME]` and of each `[user NAME]`."""

    globals: Options = field(default_factory=dict)
    regions: dict[str, Options] = field(default_factory=dict)
    users: dict[str, Options] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def option(self, kind: str, section: str, option: str) -> Said | None:
        """Return what is said of an option for a region or a user, by its name or one that it matches.

        `kind` is `region` or `user`. Raises UsageError for a name that several sections fit equally, and a circle.
        """
        sections = self.regions if kind == "region" else self.users
        return _Search(kind, sections, self.files).find(section, option, {})


def files(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files in the order they are read in: euca2ools' own, or those of EUCA_CONFIG_PATH."""
    chosen = environment.get("EUCA_CONFIG_PATH")
    patterns = chosen.split(":") if chosen is not None else _PATHS
    expanded = (os.path.expanduser(os.path.expandvars(pattern)) for pattern in patterns)  # noqa: PTH111 - a glob
    return tuple(Path(found) for pattern in expanded for found in sorted(glob.glob(pattern)))  # noqa: PTH207


def read(paths: Sequence[Path]) -> Ini:
    """Return what the files say, the last one last. Raises UsageError with file and line."""
    ini = Ini(files=tuple(paths))
    for path in paths:
        for where, section, name, said in _lines(path):
            kind, _, rest = section.partition(" ")
            if section == "global":
                ini.globals[name] = said
            elif kind in ("region", "user"):
                sections = ini.regions if kind == "region" else ini.users
                options = sections.setdefault(_section_name(kind, rest, where), {})
                if name:
                    options[name] = said
    return ini


def configured(ini: Ini, wanted: str, environment: Mapping[str, str]) -> Configured:
    """Return the cloud that `USER@REGION`, `USER@`, `REGION` or nothing names. Raises UsageError."""
    user, region = choose(ini, wanted, environment)
    urls = {
        service: said for service in PATHS if (said := ini.option("region", region, f"{service}-url")) and said.value
    }
    if "ec2" not in urls:
        known = ", ".join(sorted(name for name, options in ini.regions.items() if "ec2-url" in options))
        among = ", ".join(map(str, ini.files)) or "no file"
        raise UsageError(
            f"no `ec2-url` is configured for the region {region} ({among})",
            hint=f"Regions that have one: {known or 'none'}.",
        )
    access, secret = keys(ini, user, environment)
    release = Release()  # the files do not say; what every release takes is used, unless s3-force-sigv4 says more
    verify = _boolean(ini.option("region", region, "verify-ssl"))
    dialect = s3_dialect(Release((4, 4)) if _boolean(ini.option("region", region, "s3-force-sigv4")) else release)
    location = ini.option("region", region, "s3-location-constraint")
    name = ini.option("region", region, "name")
    settings = Settings(
        region=name.value if name else region.rpartition(":")[2] or REGION,
        endpoints=endpoints(urls),
        access_key=access.value,
        secret_key=secret.value,
        verify=verify,
        location=location.value if location else "",
        s3=dialect,
        query=query_dialect(release),
    )
    where = f"`verify-ssl` of the region {region}, false by default"
    return Configured(
        kind="eucalyptus",
        settings=settings,
        release=release,
        sources=_sources(ini, user, region, environment),
        warnings=() if verify else unverified(settings.endpoints, where),
    )


def choose(ini: Ini, wanted: str, environment: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the user, if any, and the region that are meant. Raises UsageError when no region is."""
    user: str | None = None
    region: str | None = None
    variables = (environment.get(variable, "") for variable in _ENVIRONMENT_REGIONS)
    for text in (wanted, next(filter(None, variables), "")):
        one, at, other = text.partition("@")
        user = user or (one if at else None)
        region = region or ((other if at else one) or None)
    if region is None and "default-region" in ini.globals:
        region = ini.globals["default-region"].value
    if region is None:
        raise UsageError(
            f"no region is named by `{wanted}`",
            hint="Use --cloud euca:USER@REGION, EUCA_DEFAULT_REGION, or `default-region` of [global].",
        )
    if user is None and (said := ini.option("region", region, "user")):
        user = said.value
    return user, region


def keys(ini: Ini, user: str | None, environment: Mapping[str, str]) -> tuple[Said, Said]:
    """Return the access key and its secret: the user's own, or the environment's; never one of each."""
    if user is not None:
        access, secret = ini.option("user", user, "key-id"), ini.option("user", user, "secret-key")
        if access and secret:
            return access, secret
    names = (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_ACCESS_KEY", "AWS_SECRET_KEY"))
    for one, other in names:
        if environment.get(one) and environment.get(other):
            return Said(environment[one], one), Said(environment[other], other)
    who = f"the user {user}" if user is not None else "anybody: neither the name nor the region names a user"
    raise UsageError(
        f"no `key-id` and `secret-key` are configured for {who}",
        hint=f"Say them in [user {user or 'NAME'}] of ~/.euca/NAME.ini, or set AWS_ACCESS_KEY_ID and its secret.",
    )


def _sources(ini: Ini, user: str | None, region: str, environment: Mapping[str, str]) -> Sources:
    given = of_user(ini, user) if user is not None else {}
    if certificate := ini.option("region", region, "certificate"):
        given["cloud_certificate"] = _expanded(certificate)
    given |= {name: said if name == "account" else _expanded(said) for name, said in said_in(environment).items()}
    settable = {
        "account": f"EC2_USER_ID, or `account-id` of [user {user or 'NAME'}]",
        "cloud_certificate": f"EUCALYPTUS_CERT, or `certificate` of [region {region}]",
    }
    return Sources(**given, settable=settable)


def of_user(ini: Ini, user: str) -> dict[str, Said]:
    """Return what the files say of a user's bundles, by the fields of Sources."""
    found = {}
    if account := ini.option("user", user, "account-id"):
        found["account"] = account
    for name, option in (("user_certificate", "certificate"), ("private_key", "private-key")):
        if said := ini.option("user", user, option):
            found[name] = _expanded(said)
    return found


def _expanded(said: Said) -> Said:
    return Said(os.path.expanduser(os.path.expandvars(said.value)), said.where)  # noqa: PTH111 - variables as well


def _boolean(said: Said | None) -> bool:
    if said is None:
        return False
    if said.value.lower() not in _TRUE + _FALSE:
        raise UsageError(f"{said.where}: {said.value!r} is neither true nor false")
    return said.value.lower() in _TRUE


@dataclass(frozen=True)
class _Search:
    """One look-up among the sections of one kind."""

    kind: str
    sections: Mapping[str, Options]
    files: Sequence[Path]

    def find(self, section: str, option: str, seen: Mapping[tuple[str, str], Said]) -> Said | None:
        """Return what is said; `seen` are the look-ups that led here, each with what sent it on."""
        for name in _matching(section):
            if said := self.sections.get(name, {}).get(option):
                return self._followed(said, section, option, seen)
        longer = self._longer(section)
        if longer is not None:
            return self.find(longer, option, seen)
        if said := self.sections.get("*", {}).get(option):
            return self._followed(said, section, option, seen)
        return None

    def _followed(self, said: Said, section: str, option: str, seen: Mapping[tuple[str, str], Said]) -> Said | None:
        """Return the value, or that of the option which `use SECTION [OPTION]` names."""
        words = said.value.split()
        if said.value != "use" and not said.value.startswith("use "):
            return said
        if not 2 <= len(words) <= 3:
            raise UsageError(f"{said.where}: `use` needs a {self.kind} and may have an option's name behind it")
        if (section, option) in seen:
            raise UsageError(f"{said.where}: `use` leads back to `{option}` of the {self.kind} {section}")
        return self.find(words[1], words[2] if len(words) == 3 else option, {**seen, (section, option): said})

    def _longer(self, section: str) -> str | None:
        """Return the section whose name ends in this one, the shortest of such: `aws:us-east-1` for `us-east-1`."""
        bits = section.split(":")
        ending = [name for name in self.sections if _ends_in(name.split(":"), bits)]
        shortest = min((name.count(":") for name in ending), default=0)
        nearest = [name for name in ending if name.count(":") == shortest]
        if len(nearest) > 1:
            raise UsageError(
                f"the {self.kind} {section} is ambiguous: it may be {' or '.join(sorted(nearest))}",
                hint=f"Write the whole name; it was looked for in {', '.join(map(str, self.files))}.",
            )
        return nearest[0] if nearest else None


def _matching(section: str) -> Iterator[str]:
    """Yield the names of sections that fit, the most specific first; not `*`, which comes after all else."""
    bits = section.split(":")
    for kept in itertools.product((True, False), repeat=len(bits)):
        if any(kept) or len(bits) > 1:
            yield ":".join(bit if keep else "*" for bit, keep in zip(bits, kept, strict=True))


def _ends_in(name: Sequence[str], bits: Sequence[str]) -> bool:
    return len(name) > len(bits) and list(name[-len(bits) :]) == list(bits)


def _section_name(kind: str, text: str, where: str) -> str:
    name = (text.split() or [""])[0]
    if not all(name.split(":")) or "@" in name:
        raise UsageError(
            f"{where}: {name!r} cannot name a {kind}", hint="No part between colons may be empty, and no @."
        )
    return name


def _lines(path: Path) -> Iterator[tuple[str, str, str, Said]]:
    """Yield (place, section, option, value) for each option, and a nameless one for each section's beginning."""
    section, name, said = "", "", Said("", "")
    for number, raw in enumerate(_text(path).splitlines(), 1):
        where = f"{path}:{number}"
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if raw[0] in " \t" and name:  # it goes on in the next line
            said = Said(f"{said.value}\n{line}", said.where)
            yield where, section, name, said
        elif found := _SECTION.match(line):
            section, name = found.group(1).strip(), ""
            yield where, section, "", Said("", where)
        elif (found := _OPTION.match(line)) and section:
            name = found.group(1).lower()
            said = Said(re.split(r"\s;", found.group(2))[0].strip(), where)
            yield where, section, name, said
        else:
            raise UsageError(f"{where}: this line is neither a section nor an option of one")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="Or leave it out: EUCA_CONFIG_PATH."
        ) from error
    if len(data) > _LARGEST:
        raise UsageError(f"{path} is larger than 1 MiB, so it is no configuration")
    return data.decode(errors="replace")
