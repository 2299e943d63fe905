"""The calls of EC2 that Eucalyptus answers in its own way, and the ones that it answers without doing anything.

Source: ImageManager.copyImage and its like, which return an empty reply.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.eucalyptus import parameters, register
from builder.sandbox.wire import Caller, Refusal


def _nothing(_cloud: Cloud, _caller: Caller, _values: Values) -> Values:
    """Say that all is well."""
    return {}


ACTIONS: dict[str, Handler] = {
    **dict.fromkeys(("CopyImage", "CopySnapshot", "ImportImage", "ImportSnapshot"), _nothing),
    **register.ACTIONS,
}
# Parameters that botocore's model lacks, by call: they are handed on as they come.
_BEYOND_THE_MODEL = {"RegisterImage": ("Platform", "AmiId")}


def bound(cloud: Cloud, action: str, form: Mapping[str, str]) -> tuple[Mapping[str, str], dict[str, str]]:
    """Return the call's parameters that the model knows, and the others. Raises Refusal for what does not exist."""
    if not parameters.has(action, cloud.personality):
        raise Refusal("400 Bad Request", f"Failed to construct message of type {action}")
    parameters.check(action, form, cloud.personality)
    beyond = _BEYOND_THE_MODEL.get(action, ())
    known = {name: value for name, value in form.items() if name not in beyond}
    return known, {name: form[name] for name in beyond if name in form}
