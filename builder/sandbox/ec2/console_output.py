"""GetConsoleOutput: what the machine behind an instance has said on its serial port."""

from __future__ import annotations

import base64
import time

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import instance_states
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.wire import Caller


def _get_console_output(cloud: Cloud, caller: Caller, values: Values) -> Values:
    """Return the output as it is now: the real service has it minutes late, unless it is asked for the latest."""
    instance = instance_states.require(cloud, caller, values["InstanceId"])
    said = cloud.machines.console(instance.instance_id)
    shown = {"InstanceId": instance.instance_id, "Timestamp": time.time()}
    return {**shown, "Output": base64.b64encode(said).decode()} if said is not None else shown


ACTIONS: dict[str, Handler] = {"GetConsoleOutput": _get_console_output}
