"""Every cloud that is configured on this machine, by the name that --cloud takes; the sandboxes are not among them.

NAME                     of clouds.yaml (clouds.py)
aws                      the default AWS profile or the environment, its region
aws:PROFILE@REGION       that profile, that region; one of both may be left out
euca:USER@REGION         as euca2ools are configured; either may be left out where the files say the rest
eucarc                   the eucarc's variables in the environment, else ~/.euca/eucarc, ~/.eucarc
eucarc:FILE              that file
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from builder.cloud.config import eucarc, ini
from builder.cloud.config.found import Configured, Found
from builder.cloud.identity import Said, Sources, said_in
from builder.cloud.settings import Settings
from builder.errors import UsageError
from pipelines import clouds

# What ec2-ami-tools installs beside themselves: EC2's own certificate, by region where it is another one.
_AMITOOLS = "etc/ec2/amitools/cert-ec2{}.pem"
_AMITOOLS_REGIONS = {"us-gov-west-1": "-gov", "cn-north-1": "-cn-north-1"}
_EUCARCS = ("~/.euca/eucarc", "~/.eucarc", "/etc/euca2ools/eucarc")
_HINT = "`emi clouds` lists the clouds that are configured; docs/clouds.md says how to configure one."


def find(name: str, environment: Mapping[str, str] = os.environ) -> Found:
    """Return the cloud of that name; what it says is read when it is loaded. Raises UsageError for no such cloud."""
    kind, _, rest = name.partition(":")
    match kind:
        case "aws":
            return Found(name=name, origin="the AWS configuration", load=partial(_aws, rest, environment))
        case "euca":
            files = ini.files(environment)
            where = ", ".join(map(str, files)) or "no file of euca2ools"
            return Found(name=name, origin=where, load=lambda: ini.configured(ini.read(files), rest, environment))
        case "eucarc":
            return _eucarc(name, rest, environment)
        case _:
            for found in clouds.read(clouds.place(environment)):
                if found.name == name:
                    return found
            raise UsageError(f"no cloud named `{name}`", hint=_HINT)


def everything(environment: Mapping[str, str] = os.environ) -> Iterator[Found]:
    """Yield what is configured, each cloud once by its shortest name; a file that cannot be read is one that fails."""
    place = clouds.place(environment)
    yield from _or_failure("clouds.yaml", str(place), lambda: clouds.read(place))
    yield from _or_failure("aws", "the AWS configuration", lambda: _profiles(environment))
    files = ini.files(environment)
    yield from _or_failure("euca", ", ".join(map(str, files)), lambda: _regions(ini.read(files), environment))
    if "EC2_URL" in environment or _eucarc_file() is not None:
        yield _eucarc("eucarc", "", environment)


def _or_failure(name: str, origin: str, read: Callable[[], Iterable[Found]]) -> Iterator[Found]:
    try:
        yield from read()
    except UsageError as error:
        yield Found(name=name, origin=origin, load=partial(_fail, error))


def _fail(error: UsageError) -> Configured:
    raise error


def _aws(rest: str, environment: Mapping[str, str]) -> Configured:
    profile, _, region = rest.partition("@")
    settings = Settings.of_profile(profile or None, region or None)
    said = said_in(environment)
    said.pop("cloud_certificate", None)  # an eucarc's: of another cloud
    tools = environment.get("EC2_AMITOOL_HOME")
    if tools:
        file = Path(tools) / _AMITOOLS.format(_AMITOOLS_REGIONS.get(settings.region, ""))
        said["cloud_certificate"] = Said(str(file), "EC2_AMITOOL_HOME")
    where = "EC2_AMITOOL_HOME (ec2-ami-tools have it), or `cloud_certificate` of a cloud in clouds.yaml"
    settable = {"cloud_certificate": where}
    return Configured(kind="aws", settings=settings, sources=Sources(**said, settable=settable))


def _profiles(environment: Mapping[str, str]) -> Iterator[Found]:
    from builder.cloud.session import configured_profiles  # botocore costs 0.15 s that `emi --help` does not owe

    names = configured_profiles()
    keys = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN") if environment.get(name)]
    if keys or "default" in names:
        origin = keys[0] if keys else "the AWS profile default"
        yield Found(name="aws", origin=origin, load=partial(_aws, "", environment))
    for name in names:
        if name != "default":
            yield Found(name=f"aws:{name}", origin=f"the AWS profile {name}", load=partial(_aws, name, environment))


def _regions(read: ini.Ini, environment: Mapping[str, str]) -> Iterator[Found]:
    """Yield each region of euca2ools' files that has a URL of its own."""
    for region, options in sorted(read.regions.items()):
        if "*" not in region and "ec2-url" in options:
            load = partial(ini.configured, read, region, environment)
            yield Found(name=f"euca:{region}", origin=options["ec2-url"].where, load=load)


def _eucarc(name: str, file: str, environment: Mapping[str, str]) -> Found:
    path = Path(file).expanduser().absolute() if file else None
    if path is None and "EC2_URL" in environment:
        found = eucarc.in_environment(environment)
        return Found(name=name, origin="EC2_URL", load=lambda: eucarc.configured(found, "the environment"))
    path = path or _eucarc_file()
    if path is None:
        raise UsageError(
            f"there is no eucarc: EC2_URL is not set, and there is none of {', '.join(_EUCARCS)}",
            hint="Name it: --cloud eucarc:FILE.",
        )
    return Found(name=name, origin=str(path), load=lambda: eucarc.configured(eucarc.variables(path), str(path)))


def _eucarc_file() -> Path | None:
    paths = (Path(name).expanduser() for name in _EUCARCS)
    return next((path for path in paths if path.is_file()), None)
