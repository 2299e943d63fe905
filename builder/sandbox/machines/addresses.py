"""Addresses of machines: one of 127/8 each, never the same for two, whichever process hands them out.

An address is held by a name in the abstract socket namespace, which belongs to the network namespace, as loopback does,
and which the kernel gives back however its holder ends. No file says anything.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from typing import Self

from builder.errors import HostError
from builder.sandbox.machines.machine import SSH

_TRIES = 64
_PORTS = "sudo sysctl net.ipv4.ip_unprivileged_port_start=22, or start the sandbox as root."
_OTHER = "Have the sshd of this host listen on its own addresses (ListenAddress in sshd_config), not on all."


class Address:
    """One address, held until `release` or until this process ends."""

    def __init__(self, text: str) -> None:
        """Take it. Raises OSError with EADDRINUSE when it is taken, or when its port 22 is."""
        self.text = text
        self._held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._held.bind(f"\0emi-machine-{text}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((text, SSH))
        except OSError:
            self._held.close()
            raise

    @classmethod
    def take(cls, wanted: str | None = None) -> Self:
        """Return the address `wanted` if it is free, else any. Raises HostError, saying why none can be had."""
        for text in _candidates(wanted):
            try:
                return cls(text)
            except PermissionError as error:
                message = f"this user may not listen on port {SSH}, where machines of the sandbox are reached"
                raise HostError(message, hint=_PORTS) from error
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise HostError(f"{text} cannot be an address of a machine: {error.strerror}") from error
        raise HostError(f"port {SSH} is taken on every address of 127/8 that was tried", hint=_OTHER)

    def release(self) -> None:
        """Give it back; safe to repeat."""
        self._held.close()


def _candidates(wanted: str | None) -> Iterator[str]:
    if wanted is not None:
        yield wanted
    for _ in range(_TRIES):
        yield f"127.77.{random.randrange(1, 255)}.{random.randrange(1, 255)}"  # noqa: S311 - no secret
