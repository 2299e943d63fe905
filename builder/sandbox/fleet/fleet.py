"""All machines of a sandbox: a keeper for each instance that is to run, or is on its way to its end."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from builder import pool
from builder.sandbox import settings
from builder.sandbox.cloud import Cloud
from builder.sandbox.fleet import specs
from builder.sandbox.fleet.keeper import Keeper
from builder.sandbox.fleet.store import InstanceStore
from builder.sandbox.machines.machine import Driver, Forward, MachineSpec
from builder.sandbox.records import Instance, Volume
from builder.sandbox.running import NONE, Health


def forget(directory: Path) -> None:
    """Remove what machines of an earlier server left in the sandbox's directory, where there are to be none now."""
    for name in (settings.MACHINES, settings.INSTANCE_STORE):
        shutil.rmtree(directory / name, ignore_errors=True)


class Fleet:
    """What a cloud's `machines` are where instances are more than records.

    `directory` is the sandbox's; nobody else may use the driver's directory in it, nor the instance store. What an
    earlier server left there is removed; the records must have been recovered before.
    """

    def __init__(self, cloud: Cloud, driver: Driver, name: str, directory: Path) -> None:
        self.driver = name
        self._forwards = {int(cloud.address.rpartition(":")[2])}
        self._cloud = cloud
        self._machines = driver
        self._directory = directory / settings.MACHINES
        self._store = InstanceStore(directory / settings.INSTANCE_STORE)
        self._keepers: dict[str, Keeper] = {}
        self._consoles: dict[str, bytes] = {}
        self._lock = pool.Lock()
        driver.sweep()
        self._store.sweep()

    def nudge(self, instance_id: str, /) -> None:
        """Have an instance's records looked at; one that its records send anywhere gets a keeper, if it has none."""
        with self._lock:
            keeper = self._keepers.get(instance_id)
            if keeper is None and self._is_on_its_way(instance_id):
                keeper = self._keepers[instance_id] = Keeper(
                    self._cloud, instance_id, start=self._machines.start, spec=self._spec, over=self._over
                )
        if keeper is not None:
            keeper.nudge()

    def awaits(self, instance_id: str, /) -> bool:
        """Say whether the instance has a machine, or is to have one."""
        return instance_id in self._keepers

    def holds(self, instance_id: str, volume_id: str, /) -> bool:
        """Say whether the instance's machine may still write to the volume."""
        keeper = self._keepers.get(instance_id)
        return keeper is not None and volume_id in keeper.held

    def health(self, instance_id: str, /) -> Health:
        """Return how the instance's machine is."""
        keeper = self._keepers.get(instance_id)
        return keeper.health if keeper is not None else "ok"

    def console(self, instance_id: str, /) -> bytes | None:
        """Return what the instance has said at last; None when it has never run in this server."""
        keeper = self._keepers.get(instance_id)
        said = keeper.console() if keeper is not None else None
        return said if said is not None else self._consoles.get(instance_id)

    def reset(self, instance_id: str, /) -> None:
        """Start the instance's guest anew."""
        keeper = self._keepers.get(instance_id)
        if keeper is not None and (machine := keeper.machine) is not None:
            machine.reset()

    def kill(self, instance_id: str, /) -> None:
        """Have the instance's machine lost."""
        keeper = self._keepers.get(instance_id)
        if keeper is not None:
            keeper.kill()

    def flush(self, volume: Volume, /) -> None:
        """Have what a guest has synced to the volume in its file."""
        keeper = self._keepers.get(volume.attachment.instance_id) if volume.attachment is not None else None
        if keeper is not None and (machine := keeper.machine) is not None:
            machine.flush()

    def at_rest(self, instance_id: str, /) -> AbstractContextManager[None]:
        """Have the instance's guest shut down within the block, and started again after it."""
        keeper = self._keepers.get(instance_id)
        return keeper.at_rest() if keeper is not None else nullcontext()

    def running(self) -> dict[str, str]:
        """Return the address of every machine that runs, by its instance's id."""
        found = ((name, keeper.machine) for name, keeper in list(self._keepers.items()))
        return {name: machine.address for name, machine in found if machine is not None}

    def forward(self, port: int, /) -> None:
        """Let guests that are started from now on reach a port of this host, as 169.254.169.251:PORT."""
        self._forwards = self._forwards | {port}

    def _is_on_its_way(self, instance_id: str) -> bool:
        instance = self._cloud.state.all(Instance).get(instance_id)
        return instance is not None and instance.driver != NONE and instance.arrived is None

    def _spec(self, instance: Instance) -> MachineSpec:
        forwards = [Forward(to_port=port) for port in sorted(self._forwards)]
        return specs.of(self._cloud, instance, self._directory, store=self._store, forwards=forwards)

    def _over(self, instance_id: str) -> None:
        """Let a keeper go whose instance is stopped or terminated, and look once more: it may be to start again."""
        with self._lock:
            keeper = self._keepers.pop(instance_id)
            if (said := keeper.console()) is not None:
                self._consoles[instance_id] = said
        instance = self._cloud.state.all(Instance).get(instance_id)
        if instance is None or instance.goal == "terminated":
            self._store.remove(instance_id)
        self.nudge(instance_id)
