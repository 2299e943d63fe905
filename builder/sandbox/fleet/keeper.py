"""One instance's machine, brought to what the records say, and the records to what has become of it.

A thread looks at both a few times a second, and at once when a call has changed a record (`nudge`). The records order
everything; what is known here alone (the machine, which volumes it has) ends with the server, as the machine does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builder import pool
from builder.errors import EmiError
from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.bundle_look import Unfit
from builder.sandbox.ec2.manifests import Unreadable
from builder.sandbox.fleet import outcomes, specs
from builder.sandbox.machines.machine import Machine, MachineSpec
from builder.sandbox.records import Instance, Volume
from builder.sandbox.running import Health

log = logging.getLogger(__name__)
_TICK = 0.25  # seconds between looks
_STOP = 120  # seconds for a guest to shut down in, before its power is cut
_REST = 45  # the same where a call waits for it, whose client may not wait much longer
_AGAIN = 5  # seconds after which what a guest has not heeded is asked again

Start = Callable[[MachineSpec], Machine]
MakeSpec = Callable[[Instance], MachineSpec]


class Keeper:
    """Keeps one instance until it is stopped or terminated; `over` is called once, when that is written down."""

    def __init__(
        self, cloud: Cloud, instance_id: str, *, start: Start, spec: MakeSpec, over: Callable[[str], None]
    ) -> None:
        self.machine: Machine | None = None
        self.held: frozenset[str] = frozenset()
        self.health: Health = "ok"
        self._cloud = cloud
        self._id = instance_id
        self._start, self._spec, self._over = start, spec, over
        self._changed = pool.Condition()
        self._nudged, self._ended, self._killed = False, False, False
        self._resting, self._rested = 0, False  # how many calls want the guest at rest; whether it is
        self._console: bytes | None = None
        self._asked: dict[str, float] = {}  # when a volume was last asked for, or let go
        self._power = _Button()
        pool.Background(self._keep)

    def nudge(self) -> None:
        """Have the records looked at now."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def kill(self) -> None:
        """Have the machine lost."""
        self._killed = True
        self.nudge()

    def console(self) -> bytes | None:
        """Return what the machine has said at last, also once it has ended."""
        machine = self.machine
        return machine.console() if machine is not None else self._console

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Have the guest shut down within the block, and started again after the last of those that are open."""
        with self._changed:
            self._resting += 1
            self._nudged = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._rested or self._ended)
        try:
            yield
        finally:
            with self._changed:
                self._resting -= 1
                self._rested = self._rested and self._resting > 0
                self._nudged = True
                self._changed.notify_all()

    def _keep(self) -> None:
        try:
            while not self._step():
                with self._changed:
                    self._changed.wait_for(lambda: self._nudged, _TICK)
                    self._nudged = False
        except Exception:
            log.exception("%s: its keeper failed", self._id)
            self._give_up()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self._over(self._id)

    def _step(self) -> bool:
        """Do what is to be done now; say whether the instance has ended."""
        instance = self._cloud.state.all(Instance).get(self._id)
        if instance is None:
            self._cut()
            return True
        if instance.goal != "running":
            return self._bring_down(instance)
        if self._resting:
            self._bring_to_rest()
            return False
        if self.machine is None:
            return self._launch(instance)
        state = "lost" if self._killed else self.machine.state()
        if state in ("off", "lost"):
            return self._ended_by_itself(instance, lost=state == "lost")
        self.health = "impaired" if state == "panicked" else "ok"
        self._plug(self.machine)
        return False

    def _launch(self, instance: Instance) -> bool:
        states = {self._cloud.volume_state(volume) for volume, _ in specs.attached(self._cloud, instance)}
        if "error" in states:
            return self._fail(instance, outcomes.VOLUME_FAILED)
        if "creating" in states:
            return False
        try:
            machine = self._start(self._spec(instance))
        except (Unfit, Unreadable) as error:
            return self._fail(instance, f"Client.InternalError: The image cannot be launched: {error}")
        except (EmiError, OSError) as error:
            log.exception("%s", self._id)
            return self._fail(instance, f"Server.InternalError: Internal error on launch: {error}")
        self._power = _Button()
        self._asked = {}
        self.machine, self.held = machine, machine.attached()
        outcomes.reached(self._cloud, instance, address=machine.address)  # if it is to go elsewhere: the next step
        return False

    def _fail(self, instance: Instance, why: str) -> bool:
        self._cut()
        return outcomes.ended(self._cloud, instance, outcomes.of_failure(self._cloud, instance), why)

    def _ended_by_itself(self, instance: Instance, *, lost: bool) -> bool:
        self._cut()
        stays = outcomes.has_root_volume(self._cloud, instance) and (lost or instance.shutdown_behavior == "stop")
        why = outcomes.LOST if lost else outcomes.SHUT_DOWN
        return outcomes.ended(self._cloud, instance, "stopped" if stays else "terminated", why)

    def _bring_down(self, instance: Instance) -> bool:
        """Stop or terminate: the guest shuts down in its time, unless it is forced or has no time to come."""
        if self.machine is not None:
            at_once = instance.forced or instance.goal == "terminated"
            if not at_once and not self._power.off(self.machine, _STOP):
                return False
            self._cut()
        return outcomes.ended(self._cloud, instance, "terminated" if instance.goal == "terminated" else "stopped", "")

    def _bring_to_rest(self) -> None:
        if self.machine is not None:
            if not self._power.off(self.machine, _REST):
                return
            held = self.held
            self._cut()
            self.held = held  # its volumes are still the instance's own, and nobody else's
        with self._changed:
            self._rested = self._resting > 0  # else the last call has left meanwhile
            self._changed.notify_all()

    def _cut(self) -> None:
        """End the machine and keep what it has said."""
        machine, self.machine = self.machine, None
        if machine is not None:
            machine.stop()
            self._console = machine.console()
            machine.destroy()
        self.held, self.health = frozenset(), "ok"

    def _give_up(self) -> None:
        self._cut()
        instance = self._cloud.state.all(Instance).get(self._id)
        if instance is not None:
            goal = outcomes.of_failure(self._cloud, instance)
            if instance.goal == "terminated":
                goal = "terminated"
            outcomes.ended(self._cloud, instance, goal, outcomes.LOST)

    def _plug(self, machine: Machine) -> None:
        """Plug in the volumes that the records attach, and have the guest let go of those they detach."""
        there = machine.attached()
        for volume in list(self._cloud.state.all(Volume).values()):
            to = volume.attachment
            if to is None or to.instance_id != self._id or volume.delete_time is not None:
                continue
            if (to.detach_time is None) == (volume.volume_id in there):
                self._asked.pop(volume.volume_id, None)
            elif to.forced or self._due(volume.volume_id):
                try:
                    self._move(machine, volume)
                except EmiError:
                    log.exception("%s: %s", self._id, volume.volume_id)
                there = machine.attached()
        self.held = there

    def _move(self, machine: Machine, volume: Volume) -> None:
        to = volume.attachment
        assert to is not None
        if to.detach_time is not None:
            machine.detach(volume.volume_id, force=to.forced)
            return
        shown = specs.serial(self._cloud, volume, to, at_boot=False)
        machine.attach(volume.volume_id, self._cloud.volumes.path(volume.volume_id), to.device, shown)

    def _due(self, volume_id: str) -> bool:
        now = time.monotonic()
        if now < self._asked.get(volume_id, 0) + _AGAIN:
            return False
        self._asked[volume_id] = now
        return True


class _Button:
    """The power button, pressed until the guest is off or has had its time."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._next = 0.0

    def off(self, machine: Machine, patience: float) -> bool:
        """Press it if that is due; say whether the machine is off, or has had `patience` seconds since the first."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + patience
        if machine.state() in ("off", "lost") or now >= self._deadline:
            return True
        if now >= self._next:  # one that boots does not hear it
            self._next = now + _AGAIN
            machine.power_down()
        return False
