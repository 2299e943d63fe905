"""When an image is deprecated, and taking one out of use for a while: Enable- and DisableImage."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import images
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.wire import Caller, Refusal

_LONGEST = timedelta(days=10 * 365).total_seconds()  # EnableImageDeprecation, DeprecateAt


def _enable_deprecation(cloud: Cloud, caller: Caller, values: Values) -> Values:
    wanted: datetime = values["DeprecateAt"]
    at = round(wanted.timestamp() / 60) * 60.0  # "rounds the seconds to the nearest minute"
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        now = time.time()
        if wanted.timestamp() < now:
            raise Refusal("InvalidParameterValue", "Value for parameter deprecateAt is invalid: it is in the past.")
        if at > now + _LONGEST:
            message = "Value for parameter deprecateAt is invalid: it is more than 10 years from now."
            raise Refusal("InvalidParameterValue", message)
        latest = images.latest_deprecation(image)
        if latest is not None and at > latest:
            message = "A public image is deprecated 2 years after its creation at the latest."
            raise Refusal("InvalidParameterValue", message)
        cloud.state.put(replace(image, deprecation_time=at))
    return {"Return": True}


def _disable_deprecation(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        cloud.state.put(replace(image, deprecation_time=None))
    return {"Return": True}


def _disable_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        if (state := cloud.image_state(image)) not in ("available", "disabled"):
            raise Refusal("IncorrectState", f"The image '{image.image_id}' is '{state}', not 'available'.")
        cloud.state.put(replace(image, disabled=True, launch_permissions=()))
    return {"Return": True}


def _enable_image(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        image = images.require(cloud, caller, values["ImageId"])
        cloud.state.put(replace(image, disabled=False))
    return {"Return": True}


ACTIONS: dict[str, Handler] = {
    "DisableImage": _disable_image,
    "DisableImageDeprecation": _disable_deprecation,
    "EnableImage": _enable_image,
    "EnableImageDeprecation": _enable_deprecation,
}
