"""What EC2's calls need of machines, in between so that neither knows the other; and a sandbox without any.

Records say what is wanted: a handler changes one and calls `nudge`. Whoever runs the machines does what the records
say, and writes into them what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

from builder.sandbox.records import Volume

NONE = "none"  # the name of the driver that runs no machine
Health = Literal["ok", "impaired"]


class Machines(Protocol):
    """The machines behind the instances of a cloud."""

    @property
    def driver(self) -> str:
        """What runs them: qemu, light, or none."""

    def nudge(self, instance_id: str, /) -> None:
        """Have an instance's records looked at, now that they have changed; return at once."""

    def awaits(self, instance_id: str, /) -> bool:
        """Say whether a machine runs behind the instance, so that its volumes are attached only once it has them."""

    def holds(self, instance_id: str, volume_id: str, /) -> bool:
        """Say whether the instance's machine may still write to the volume."""

    def health(self, instance_id: str, /) -> Health:
        """Return how the instance's machine is, `impaired` when its kernel has given up."""

    def console(self, instance_id: str, /) -> bytes | None:
        """Return the last 64 KiB of what the instance has said, also when it is over; None for nothing known."""

    def reset(self, instance_id: str, /) -> None:
        """Start the instance's guest anew, as the reset button does."""

    def kill(self, instance_id: str, /) -> None:
        """Have the instance's machine lost, as with the host that it runs on; now, or as soon as there is one."""

    def flush(self, volume: Volume, /) -> None:
        """Have what a guest has synced to the volume in its file."""

    def running(self) -> Mapping[str, str]:
        """Return the address of every machine that runs, by its instance's id."""

    def forward(self, port: int, /) -> None:
        """Let guests that are started from now on reach a TCP port of this host's 127.0.0.1."""

    def at_rest(self, instance_id: str, /) -> AbstractContextManager[None]:
        """Have the instance's guest shut down within the block, and started again after it, its state being running."""


class NoMachines:
    """Instances are records alone: nothing runs, nothing is waited for."""

    driver = NONE

    def nudge(self, _: str, /) -> None:
        """Do nothing."""

    def awaits(self, _: str, /) -> bool:
        """Say no."""
        return False

    def holds(self, _: str, __: str, /) -> bool:
        """Say no."""
        return False

    def health(self, _: str, /) -> Health:
        """Say that all is well."""
        return "ok"

    def console(self, _: str, /) -> bytes | None:
        """Return nothing."""
        return None

    def reset(self, _: str, /) -> None:
        """Do nothing."""

    def kill(self, _: str, /) -> None:
        """Do nothing."""

    def flush(self, _: Volume, /) -> None:
        """Do nothing."""

    def running(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def forward(self, _: int, /) -> None:
        """Do nothing."""

    def at_rest(self, _: str, /) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()
