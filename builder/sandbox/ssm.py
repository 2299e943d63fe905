"""The service `ssm`: parameters, over the JSON protocol.

Source: botocore's model of `ssm` 2014-11-06 and its documentation strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from builder.sandbox import ssm_changes, ssm_reads
from builder.sandbox.cloud import Cloud
from builder.sandbox.protocols import rest_json, validate
from builder.sandbox.records import Parameter
from builder.sandbox.records.ssm import parameter_arn, parameter_key
from builder.sandbox.ssm_action import Handler, bare_name
from builder.sandbox.wire import Answer, Caller, Need, Refusal, Request

ACTIONS: dict[str, Handler] = {**ssm_changes.ACTIONS, **ssm_reads.ACTIONS}
_TYPE = {"Content-Type": "application/x-amz-json-1.1"}
_TARGET = "AmazonSSM."


class Ssm:
    """SSM's JSON protocol over the table."""

    service = "ssm"
    actions = frozenset(ACTIONS)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def action(self, request: Request) -> str:
        """Return the name of the call."""
        return (request.header("X-Amz-Target") or "").removeprefix(_TARGET)

    def permissions(self, action: str, request: Request, caller: Caller) -> Iterable[Need]:
        """Return what the caller must be allowed: the call, on each parameter that it names."""
        values = rest_json.parse(request.body)
        tags = {f"aws:RequestTag/{tag.get('Key')}": str(tag.get("Value")) for tag in _list(values, "Tags")}
        names = [values[key] for key in ("Name", "Path", "ResourceId") if isinstance(values.get(key), str)]
        names += [name for name in _list(values, "Names") if isinstance(name, str)]
        if not names:
            yield Need(action=f"ssm:{action}", resources=(f"arn:aws:ssm:{caller.region}:{caller.account}:*",))
        for name in map(bare_name, names):
            arn = parameter_arn(caller.account, caller.region, name)
            found = self._cloud.state.all(Parameter).get(parameter_key(caller.account, caller.region, name))
            own = {f"aws:ResourceTag/{key}": value for key, value in found.tags.items()} if found else {}
            more = {"ssm:Overwrite": str(bool(values.get("Overwrite"))).lower()} if action == "PutParameter" else {}
            yield Need(action=f"ssm:{action}", resources=(arn,), context={**own, **tags, **more})
            if tags and action == "PutParameter":
                yield Need(action="ssm:AddTagsToResource", resources=(arn,), context={**own, **tags})

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""
        model = validate.model("ssm")
        if action not in model.operation_names:
            raise Refusal("UnknownOperationException", f"There is no operation {action}.")
        if action not in ACTIONS:
            raise Refusal("UnsupportedOperation", f"The sandbox does not support {action}.")
        values = rest_json.parse(request.body)
        shape = model.operation_model(action).input_shape
        validate.check(shape, values, code="ValidationException")
        known = {name: value for name, value in values.items() if name in shape.members and value is not None}
        result = ACTIONS[action](self._cloud, caller, known)
        return Answer(headers=_TYPE, body=rest_json.answer(result).body)

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as SSM words it."""
        return rest_json.refuse_json(refusal, request)


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    found = values.get(name)
    return found if isinstance(found, list) else []
