"""The machines that a driver has started, whatever their kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from builder.sandbox.machines.machine import Machine

M = TypeVar("M", bound=Machine)


class Kept(Generic[M]):
    """Machines by their instance's id, until they are destroyed."""

    def __init__(self) -> None:
        self._machines: dict[str, M] = {}

    def begin(self, machine: M, begin: Callable[[], None]) -> M:
        """Begin a machine and keep it; of one that does not begin nothing is left."""
        try:
            begin()
        except BaseException:
            machine.destroy()
            raise
        for instance_id, one in list(self._machines.items()):
            if not one.spec.directory.exists():  # destroyed
                self._machines.pop(instance_id, None)
        self._machines[machine.spec.instance_id] = machine
        return machine

    def close(self) -> None:
        """Destroy every machine."""
        for machine in list(self._machines.values()):
            machine.destroy()
        self._machines.clear()
