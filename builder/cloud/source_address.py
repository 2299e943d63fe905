"""From which address a cloud sees this machine, as far as that can be known here; nobody outside is asked.

The address that this machine has on the way to the cloud's endpoint is the one that is seen there, unless something on
the way translates addresses. Nothing does where our address is public or loopback. Where both ends are private they are
taken to be in one network (a Eucalyptus in a building; the sandbox). Where ours is private and the cloud's is public, a
translation lies between, and what it makes of our address cannot be known here: then it must be said.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from builder.errors import UsageError

_SAY = "Say in `ssh_from` from which network the instance will see this machine, as 198.51.100.7/32."


def source_of(url: str) -> str:
    """Return the network (`198.51.100.7/32`) from which whoever answers at `url` sees this machine.

    Sends nothing but what finds out the address of the host's name. Raises UsageError when it cannot be known.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)
        theirs = str(found[0][4][0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((theirs, port))  # of a datagram socket: chooses the way, and sends nothing
            ours = way.getsockname()[0]
    except OSError as error:
        raise UsageError(f"this machine's address towards {host} cannot be known: {error}", hint=_SAY) from error
    return seen_as(ours, theirs)


def seen_as(ours: str, theirs: str) -> str:
    """Return the network that holds our address as `theirs` sees it. Raises UsageError when it cannot be known."""
    mine = ipaddress.IPv4Address(ours)
    if mine.is_global or mine.is_loopback or not ipaddress.IPv4Address(theirs).is_global:
        return f"{ours}/32"
    raise UsageError(
        f"this machine is {ours}, a private address, and the cloud at {theirs} sees another in its place", hint=_SAY
    )


def network(text: str) -> str:
    """Return a network of IPv4 as clouds write it; a lone address is itself. Raises UsageError for what is none."""
    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError as error:
        raise UsageError(
            f"`ssh_from` is {text!r}, which is no network of IPv4: {error}", hint="For example 198.51.100.7/32."
        ) from error
