"""What is in the volumes of the test, and what is attached to what: files, as no cloud call of these tests reads bytes.

It refuses what a real one would: to write into what is not attached, to remove what something is attached to.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from builder.errors import CloudConflict, RemoteFailed


def place() -> Path:
    """Return where it all lies."""
    return Path(os.environ["LEASING_WORLD"])


def next_zone() -> str:
    """Return the zone that the cloud chooses next: what the test says, else the first."""
    said = place() / "zone"
    return said.read_text() if said.exists() else "us-east-1a"


def beside(token: str) -> Path:
    """Return what stands for a key pair of the claim with that token."""
    return place() / f"{token}.beside"


def log(text: str) -> None:
    """Remember what was done."""
    with open(place() / "log", "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def attach(volume: str, machine: str) -> None:
    """Attach a volume to a machine."""
    (place() / f"{volume}.at").write_text(machine)
    log("attach")


def detach(volume: str) -> None:
    """Detach it; fine when it is not attached."""
    if (place() / f"{volume}.at").exists():
        (place() / f"{volume}.at").unlink()
        log("detach")


def require_free(machine: str) -> None:
    """Raise CloudConflict when something is attached to the machine."""
    at = [path.name for path in place().glob("*.at") if path.read_text() == machine]
    if at:
        raise CloudConflict(f"{machine} goes, and {at[0]} is still attached to it")


def write(volume: str, machine: str, text: str) -> str:
    """Write through the machine and return the digest. Raises RemoteFailed where it is not attached there."""
    at = place() / f"{volume}.at"
    if not at.exists() or at.read_text() != machine:
        raise RemoteFailed(f"{volume} is not attached to {machine}")
    (place() / f"{volume}.data").write_text(text)
    return digest(text)


def read(volume: str) -> str:
    """Return the digest of what is in it."""
    return digest((place() / f"{volume}.data").read_text())


def digest(text: str) -> str:
    """Return it as a `blocks:` digest looks."""
    return f"blocks:{sha256(text.encode()).hexdigest()}"
