"""What calls of EC2, the EBS direct APIs and STS need to be allowed, in the words of policies.

Source: "Actions, resources, and condition keys" of each service in the Service Authorization Reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from builder.sandbox.records import InstanceProfile, Record, Role, iam_key
from builder.sandbox.state import State
from builder.sandbox.wire import Caller, Need

Context = Mapping[str, str | tuple[str, ...]]

_ID = re.compile(r"([ae]mi|[ae]ki|[ae]ri|snap|vol|i|import-snap|sg|subnet|vpc)-[0-9a-f]{8,17}")
_KINDS = {  # of an id's prefix; images and snapshots have no account in their ARN
    **dict.fromkeys(("ami", "aki", "ari", "emi", "eki", "eri"), "image"),
    "snap": "snapshot",
    "vol": "volume",
    "i": "instance",
    "sg": "security-group",
    "subnet": "subnet",
    "vpc": "vpc",
    "import-snap": "import-snapshot-task",
}
_UNOWNED = {"image", "snapshot"}
_MADE = {
    "CopyImage": ("image",),
    "CopySnapshot": ("snapshot",),
    "CreateImage": ("image", "snapshot"),
    "CreateSnapshot": ("snapshot",),
    "CreateSecurityGroup": ("security-group",),
    "CreateVolume": ("volume",),
    "ImportSnapshot": ("import-snapshot-task", "snapshot"),
    "RegisterImage": ("image",),
    "RunInstances": ("instance", "volume"),
}
_TAGGED = re.compile(r"(TagSpecification\.\d+)\.Tag\.(\d+)\.Key")


def of_ec2(action: str, form: Mapping[str, str], caller: Caller, state: State) -> Iterator[Need]:
    """Yield what a call of EC2 needs."""
    name, common = f"ec2:{action}", {"ec2:Region": caller.region}
    if action.startswith("Describe") and not action.endswith("Attribute"):
        yield Need(action=name, context=common)
        return
    requested = _request_tags(action, form)
    given = [value for key, value in form.items() if key != "ClientToken" and _ID.fullmatch(value)]
    made = [_arn(kind, "*", caller.region, caller) for kind in _MADE.get(action, ())]
    for arn in made:
        yield Need(action=name, resources=(arn,), context={**common, **_requested(requested.values())})
    own = _requested(requested.values()) if action in {"CreateTags", "DeleteTags"} else {}
    for resource_id in dict.fromkeys(given):
        kind = _KINDS[resource_id.rpartition("-")[0]]
        arn = _arn(kind, resource_id, form.get("SourceRegion", caller.region), caller)
        yield Need(action=name, resources=(arn,), context={**common, **own, **_resource_tags(state, resource_id)})
    if not made and not given:
        yield Need(action=name, context=common)
    yield from _to_pass(form, caller, state)
    if action not in {"CreateTags", "DeleteTags"}:
        for kind, tags in requested.items():
            context = {**common, **_requested([tags]), "ec2:CreateAction": action}
            yield Need(action="ec2:CreateTags", resources=(_arn(kind, "*", caller.region, caller),), context=context)


def _to_pass(form: Mapping[str, str], caller: Caller, state: State) -> Iterator[Need]:
    """Yield what handing a role to a machine needs, when the profile that is named holds one."""
    name = form.get("IamInstanceProfile.Name") or form.get("IamInstanceProfile.Arn", "").rpartition("/")[2]
    profile = state.all(InstanceProfile).get(iam_key(caller.account, name)) if name else None
    role = state.all(Role).get(iam_key(caller.account, profile.role)) if profile is not None and profile.role else None
    if role is not None:
        context = {"iam:PassedToService": "ec2.amazonaws.com"}
        yield Need(action="iam:PassRole", resources=(role.arn,), context=context)


def of_ebs(
    action: str, snapshots: Iterable[str], tags: Mapping[str, str], caller: Caller, state: State
) -> Iterator[Need]:
    """Yield what a call of the EBS direct APIs needs; a snapshot to be is `*`."""
    for snapshot_id in snapshots:
        arn = _arn("snapshot", snapshot_id, caller.region, caller)
        context = {**_resource_tags(state, snapshot_id), **(_requested([tags]) if tags else {})}
        yield Need(action=f"ebs:{action}", resources=(arn,), context=context)
        if tags:
            context = {**_requested([tags]), "ec2:CreateAction": action}
            yield Need(action="ec2:CreateTags", resources=(arn,), context=context)


def _arn(kind: str, name: str, region: str, caller: Caller) -> str:
    return f"arn:aws:ec2:{region}:{'' if kind in _UNOWNED else caller.account}:{kind}/{name}"


def _request_tags(action: str, form: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the tags that the call brings, by the kind of resource they are for."""
    found: dict[str, dict[str, str]] = {}
    for key, value in form.items():
        if match := _TAGGED.fullmatch(key):
            kind = form.get(f"{match[1]}.ResourceType", "")
            found.setdefault(kind, {})[value] = form.get(f"{match[1]}.Tag.{match[2]}.Value", "")
        elif action in {"CreateTags", "DeleteTags"} and (match := re.fullmatch(r"Tag\.(\d+)\.Key", key)):
            found.setdefault("", {})[value] = form.get(f"Tag.{match[1]}.Value", "")
    return found


def _requested(tags: Iterable[Mapping[str, str]]) -> dict[str, str | tuple[str, ...]]:
    merged = {key: value for some in tags for key, value in some.items()}
    if not merged:
        return {}
    return {f"aws:RequestTag/{key}": value for key, value in merged.items()} | {"aws:TagKeys": tuple(merged)}


def _resource_tags(state: State, resource_id: str) -> dict[str, str]:
    """Return the tags of a resource as the condition keys that policies look at."""
    for kind in Record.in_memory_kinds():
        record = state.all(kind).get(resource_id)
        if record is not None:
            tags: Mapping[str, str] = getattr(record, "tags", {})
            return {f"{prefix}:ResourceTag/{key}": value for prefix in ("aws", "ec2") for key, value in tags.items()}
    return {}
