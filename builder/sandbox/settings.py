"""What a sandbox directory is told once and keeps: keys, region, which cloud it is like, the ports it had last.

And how it is reached.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

from builder import durable
from builder.errors import UsageError

SETTINGS = "settings.json"  # kept for good
ENDPOINT = "endpoint.json"  # written by the running server
SERVING = "serving.lock"  # flocked by the running server for as long as it lives
STARTING = "starting.lock"  # flocked by whoever is starting or stopping one
LOG = "server.log"
CA = "ca.pem"
MACHINES = "machines"  # the running machines' own files
INSTANCE_STORE = "instance-store"  # the disks of instances that are no volumes
PAIR = "server.pem"  # key and certificate, for the server only
# The cloud's pair for bundles and the first account's; like settings.json they stay when the state is emptied.
CLOUD_CERTIFICATE, CLOUD_KEY = "cloud.pem", "cloud-key.pem"
ACCOUNT_CERTIFICATE, ACCOUNT_KEY = "account.pem", "account-key.pem"
ACCOUNTS = "accounts"  # a directory with those of the other accounts: NUMBER.pem, NUMBER-key.pem
BUNDLING = (CLOUD_CERTIFICATE, CLOUD_KEY, ACCOUNT_CERTIFICATE, ACCOUNT_KEY)
AWS, EUCALYPTUS = "aws", "eucalyptus"
REGIONS = {AWS: "us-east-1", EUCALYPTUS: "eucalyptus"}  # the default of each personality, of the two that there are
DEFAULT_REGION = REGIONS[AWS]
DEFAULT_RELEASE = "5.1"
DRIVERS = ("none", "light", "qemu")  # what may run behind instances; with `none` they are records alone
_RELEASE = re.compile(r"[45]\.\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The directory's own facts.

    `key` (hex) signs block and page tokens; `settle` is how many seconds a sealed snapshot and a registered image stay
    pending; `session_life` is how many a session of STS lives at most, whatever it asks for (None: as it asks). `port`
    and `tls_port` are the ones it had last (0: none yet), `tls` is whether it served TLS last. `personality` is the
    cloud that it is like, `aws` or `eucalyptus`, for good; `release` that of Eucalyptus, such as 4.4.2, else "".
    `machines` is what runs behind its instances: one of DRIVERS.
    """

    access_key: str
    secret_key: str
    region: str
    key: str
    port: int = 0
    tls_port: int = 0
    tls: bool = False
    settle: float = 0.3
    session_life: float | None = None
    personality: str = AWS
    release: str = ""
    machines: str = "none"


class Like(TypedDict, total=False):
    """What a start may say that a directory is to be like; None and absent mean: as it is.

    `personality` (at first `aws`) cannot be changed, `release` (at first the last one) and `machines` (at first `none`)
    can, at any start.
    """

    personality: str | None
    release: str | None
    machines: str | None


def load(directory: Path, **like: Unpack[Like]) -> Settings:
    """Return the directory's settings, made up and written down the first time.

    What `like` says is written down too. Raises UsageError as `check` does.
    """
    check(directory, **like)
    release, machines = like.get("release"), like.get("machines")
    settings = _kept(directory)
    if settings is not None:
        now = replace(settings, release=release or settings.release, machines=machines or settings.machines)
        if now != settings:
            save(directory, now)
        return now
    chosen = like.get("personality") or AWS
    settings = Settings(
        access_key="AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
        secret_key=secrets.token_urlsafe(30),
        region=REGIONS[chosen],
        key=secrets.token_hex(32),
        personality=chosen,
        release=(release or DEFAULT_RELEASE) if chosen == EUCALYPTUS else "",
        machines=machines or "none",
    )
    save(directory, settings)
    return settings


def _kept(directory: Path) -> Settings | None:
    try:
        return Settings(**json.loads((directory / SETTINGS).read_text()))
    except FileNotFoundError:
        return None


def check(directory: Path, **like: Unpack[Like]) -> None:
    """Raise UsageError unless the directory is, or can become, a cloud like that."""
    personality, release, machines = like.get("personality"), like.get("release"), like.get("machines")
    if machines is not None and machines not in DRIVERS:
        raise UsageError(f"no machines `{machines}`", hint=f"There are {', '.join(DRIVERS)}.")
    if personality is not None and personality not in REGIONS:
        raise UsageError(f"no personality `{personality}`", hint=f"There are {' and '.join(REGIONS)}.")
    kept = _kept(directory)
    found = kept.personality if kept is not None else personality or AWS
    if personality not in (None, found):
        message = f"the sandbox in {directory} has the personality {found} for good, not {personality}"
        raise UsageError(message, hint="Choose another --directory, or leave --personality out.")
    if release is not None and found != EUCALYPTUS:
        raise UsageError("only the personality eucalyptus has releases", hint="Leave --release out.")
    if release is not None and not _RELEASE.fullmatch(release):
        raise UsageError(f"no release `{release}` of Eucalyptus", hint="Name one such as 4.0, 4.4.2 or 5.1.")


def remember_ports(directory: Path, settings: Settings, port: int, tls_port: int | None) -> None:
    """Write down which ports the directory is served on, so that the next start asks for them again."""
    now = replace(settings, port=port, tls_port=tls_port or settings.tls_port, tls=tls_port is not None)
    if now != settings:
        save(directory, now)


def save(directory: Path, settings: Settings) -> None:
    """Write the settings down, for their owner's eyes; a server that runs reads them at its next start."""
    durable.write_file(directory / SETTINGS, json.dumps(asdict(settings), indent=1).encode(), private=True)
