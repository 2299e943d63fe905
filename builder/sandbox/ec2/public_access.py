"""Whether an account's images may be made public at all, by region."""

from __future__ import annotations

from dataclasses import replace

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.records import ImageSettings, image_settings_key
from builder.sandbox.wire import Caller, Refusal

_BLOCKED, _UNBLOCKED = "block-new-sharing", "unblocked"


def settings(cloud: Cloud, account: str, region: str) -> ImageSettings:
    """Return what the account has set for its images in the region."""
    found = cloud.state.all(ImageSettings).get(image_settings_key(account, region))
    return found or ImageSettings(account=account, region=region)


def _set(cloud: Cloud, caller: Caller, state: str) -> Values:
    with cloud.state.lock:
        cloud.state.put(replace(settings(cloud, caller.account, caller.region), block_public_access=state))
    return {"ImageBlockPublicAccessState": state}


def _enable(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if (state := values["ImageBlockPublicAccessState"]) != _BLOCKED:
        message = f"Value ({state}) for parameter imageBlockPublicAccessState is invalid."
        raise Refusal("InvalidParameterValue", message)
    return _set(cloud, caller, _BLOCKED)


def _disable(cloud: Cloud, caller: Caller, _: Values) -> Values:
    return _set(cloud, caller, _UNBLOCKED)


def _get(cloud: Cloud, caller: Caller, _: Values) -> Values:
    state = settings(cloud, caller.account, caller.region).block_public_access
    return {"ImageBlockPublicAccessState": state, "ManagedBy": "account"}


ACTIONS: dict[str, Handler] = {
    "DisableImageBlockPublicAccess": _disable,
    "EnableImageBlockPublicAccess": _enable,
    "GetImageBlockPublicAccessState": _get,
}
