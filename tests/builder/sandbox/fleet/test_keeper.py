"""What a keeper does with its machine, shown with machines that only count."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from fleets import until

from builder.sandbox.cloud import Cloud
from builder.sandbox.disks import Disks
from builder.sandbox.fleet.keeper import Keeper
from builder.sandbox.records import Instance
from builder.sandbox.state import State

INSTANCE = Instance(
    instance_id="i-01", account="123456789012", region="us-east-1", zone="us-east-1a", reservation_id="r-01",
    creation_time=1000, launch_time=1000, image_id="ami-01", instance_type="t3.micro", architecture="x86_64",
    virtualization_type="hvm", root_device_name="/dev/xvda", since=1000, driver="light",
)  # fmt: skip


class Obedient:
    """A machine that is off as soon as its button is pressed."""

    address = "127.0.0.9"

    def __init__(self):
        self.told = "running"

    def state(self):
        return self.told

    def power_down(self):
        self.told = "off"

    def attached(self):
        return frozenset()

    def console(self):
        return b""

    def stop(self):
        self.told = "off"

    destroy = stop


@pytest.fixture
def keeper(tmp_path):
    cloud = Cloud(State(tmp_path / "state.sqlite"), Disks(tmp_path / "disks"), settle=0, address="127.0.0.1:1")
    cloud.state.put(INSTANCE)
    made = Keeper(cloud, "i-01", start=lambda _: Obedient(), spec=lambda _: None, over=lambda _: None)
    until(lambda: made.machine)
    yield made
    with cloud.state.lock:
        cloud.state.remove(cloud.state.all(Instance)["i-01"])
    until(lambda: made.machine is None)


def test_a_guest_rests_until_the_last_of_those_who_want_it_is_done(keeper):
    first = ExitStack()
    first.enter_context(keeper.at_rest())
    with keeper.at_rest():
        first.close()
        time.sleep(1)  # four looks of the keeper's
        assert keeper.machine is None
    until(lambda: keeper.machine)
    with keeper.at_rest():
        assert keeper.machine is None
