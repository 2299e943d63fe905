"""What a sandbox directory is told once and keeps: keys, region, the ports it had last. And how it is reached."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from builder import durable

SETTINGS = "settings.json"  # kept for good
ENDPOINT = "endpoint.json"  # written by the running server
SERVING = "serving.lock"  # flocked by the running server for as long as it lives
STARTING = "starting.lock"  # flocked by whoever is starting or stopping one
LOG = "server.log"
CA = "ca.pem"
PAIR = "server.pem"  # key and certificate, for the server only
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The directory's own facts.

    `key` (hex) signs block and page tokens; `settle` is how many seconds a sealed snapshot and a registered image stay
    pending; `session_life` is how many a session of STS lives at most, whatever it asks for (None: as it asks). `port`
    and `tls_port` are the ones it had last (0: none yet), `tls` is whether it served TLS last.
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


def load(directory: Path) -> Settings:
    """Return the directory's settings, made up and written down the first time."""
    file = directory / SETTINGS
    if file.exists():
        return Settings(**json.loads(file.read_text()))
    settings = Settings(
        access_key="AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
        secret_key=secrets.token_urlsafe(30),
        region=DEFAULT_REGION,
        key=secrets.token_hex(32),
    )
    save(directory, settings)
    return settings


def remember_ports(directory: Path, settings: Settings, port: int, tls_port: int | None) -> None:
    """Write down which ports the directory is served on, so that the next start asks for them again."""
    now = replace(settings, port=port, tls_port=tls_port or settings.tls_port, tls=tls_port is not None)
    if now != settings:
        save(directory, now)


def save(directory: Path, settings: Settings) -> None:
    """Write the settings down; a server that runs reads them at its next start."""
    durable.write_file(directory / SETTINGS, json.dumps(asdict(settings), indent=1).encode())
