"""Calls that change parameters: put, delete, tags and labels.

A parameter of the data type aws:ec2:image is validated after the call was answered, as the real service does: its new
version counts from `settle` seconds after the call on, and never when no such image is visible to the caller.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import images
from builder.sandbox.records import Parameter
from builder.sandbox.records.ssm import ParameterVersion, parameter_key
from builder.sandbox.ssm_action import Handler, Values, bare_name, find, invalid, peek
from builder.sandbox.wire import Caller, Refusal

IMAGE = "aws:ec2:image"

_NAME = re.compile(r"[a-zA-Z0-9_.\-/]+")
_LABEL = re.compile(r"(?!aws|ssm)[a-zA-Z_.-][a-zA-Z0-9_.-]{0,99}", re.IGNORECASE)
_STANDARD, _ADVANCED = 4096, 8192  # bytes of a value
_MOST_VERSIONS, _MOST_LABELS, _MOST_TAGS, _DEEPEST = 100, 10, 50, 15


def _put(cloud: Cloud, caller: Caller, values: Values) -> Values:
    name = values["Name"].strip()
    _check_name(name)
    if values.get("Policies"):
        raise Refusal("UnsupportedOperation", "The sandbox has no parameter policies.")
    if values.get("Tags") and values.get("Overwrite"):
        raise invalid("Invalid request: tags and overwrite can't be used together. To create a parameter with tags, "
                      "please remove overwrite flag. To update tags for an existing parameter, please use "
                      "AddTagsToResource or RemoveTagsFromResource.")  # fmt: skip
    with cloud.state.lock:
        known = cloud.state.all(Parameter).get(parameter_key(caller.account, caller.region, name))
        if known is not None and not values.get("Overwrite"):
            raise Refusal("ParameterAlreadyExists", "The parameter already exists. To overwrite this value, set the "
                          "overwrite option in the request to true.")  # fmt: skip
        version = _version(cloud, caller, values, known)
        if _is_sound(cloud, caller, version):
            cloud.state.put(_with(caller, name, known, version, _tags(values)))
    return {"Version": version.number, "Tier": version.tier}


def _version(cloud: Cloud, caller: Caller, values: Values, known: Parameter | None) -> ParameterVersion:
    """Return the new version, with what an overwrite does not say taken from the last. Raises Refusal."""
    last = known.versions[-1] if known is not None else None
    kind = values.get("Type") or (last.type if last is not None else None)
    if kind is None:
        raise invalid("A parameter type is required when you create a parameter.")
    if last is not None and kind != last.type:
        raise Refusal("HierarchyTypeMismatchException", "Parameter Store doesn't support changing a parameter type in "
                      "a hierarchy. You must create a new, unique parameter.")  # fmt: skip
    data_type = values.get("DataType") or (last.data_type if last is not None else "text")
    if data_type not in {"text", IMAGE}:
        raise invalid(f"The following data type is not supported: {data_type} (Data type names are all lowercase.)")
    now = time.time()
    pattern = values.get("AllowedPattern", last.allowed_pattern if last is not None else "")
    _check_value(values["Value"], kind, data_type, pattern)
    return ParameterVersion(
        number=last.number + 1 if last is not None else 1,
        value=values["Value"],
        type=kind,
        data_type=data_type,
        description=values.get("Description", last.description if last is not None else ""),
        allowed_pattern=pattern,
        tier=_tier(values, last),
        key_id=values.get("KeyId") or ("alias/aws/ssm" if kind == "SecureString" else ""),
        user=caller.arn,
        time=now,
        ready=now + cloud.settle if data_type == IMAGE else now,
    )


def _with(
    caller: Caller, name: str, known: Parameter | None, version: ParameterVersion, tags: dict[str, str]
) -> Parameter:
    if known is None:
        return Parameter(account=caller.account, region=caller.region, name=name, versions=(version,), tags=tags)
    kept = known.versions[-(_MOST_VERSIONS - 1) :]
    if len(kept) < len(known.versions) and known.versions[0].labels:
        raise Refusal("ParameterMaxVersionLimitExceeded", f"You attempted to create a new version of {name} by calling "
                      "the PutParameter API with the overwrite flag. The oldest version can't be deleted because it "
                      "has a label associated with it. Move the label to another version and try again.")  # fmt: skip
    return replace(known, versions=(*kept, version))


def _is_sound(cloud: Cloud, caller: Caller, version: ParameterVersion) -> bool:
    """Say whether the value passes the validation that the caller never hears of."""
    if version.data_type != IMAGE:
        return True
    try:
        image = images.require_visible(cloud, caller, version.value)
    except Refusal:
        return False
    return cloud.image_state(image) in {"pending", "available"}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith("/") or "//" in name:
        raise invalid("Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can "
                      "consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, "
                      "numbers and the following 3 symbols .-_")  # fmt: skip
    if "/" in name and not name.startswith("/"):
        raise invalid("Parameter name must be a fully qualified name.")
    if name.removeprefix("/").lower().startswith(("aws", "ssm")):
        raise invalid(f"No access to reserved parameter name: {name}.")
    if name.count("/") > _DEEPEST:
        raise Refusal("HierarchyLevelLimitExceededException", f"A hierarchy can have a maximum of {_DEEPEST} levels.")


def _check_value(value: str, kind: str, data_type: str, pattern: str) -> None:
    if not value:
        raise invalid("1 validation error detected: Value '' at 'value' failed to satisfy constraint: Member must have "
                      "length greater than or equal to 1.")  # fmt: skip
    if kind == "StringList" and "" in value.split(","):
        raise invalid("A list must not have empty members.")
    if data_type == IMAGE and kind != "String":
        raise invalid(f"The data type {IMAGE} is for parameters of the type String.")
    try:
        if pattern and not re.search(pattern, value):
            raise Refusal("ParameterPatternMismatchException", "Parameter value, cannot be validated against "
                          f"allowedPattern: {pattern}")  # fmt: skip
    except re.error:
        raise Refusal(
            "InvalidAllowedPatternException", "The request doesn't meet the regular expression requirement."
        ) from None


def _tier(values: Values, last: ParameterVersion | None) -> str:
    asked, size = values.get("Tier", "Standard"), len(values["Value"].encode())
    advanced = size > _STANDARD or (last is not None and last.tier == "Advanced")
    if size > (_STANDARD if asked == "Standard" else _ADVANCED):
        raise invalid(f"{'Standard' if asked == 'Standard' else 'Advanced'} tier parameters support a maximum "
                      f"parameter value of {_STANDARD if asked == 'Standard' else _ADVANCED} characters.")  # fmt: skip
    if asked == "Standard" and "Tier" in values and advanced:
        raise invalid("This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the "
                      "advanced-parameter tier to the standard-parameter tier.")  # fmt: skip
    return "Advanced" if advanced or asked == "Advanced" else "Standard"


def _tags(values: Values) -> dict[str, str]:
    tags = {entry["Key"]: entry["Value"] for entry in values.get("Tags", ())}
    if len(tags) > _MOST_TAGS:
        raise Refusal("TooManyTagsError", f"A resource can have at most {_MOST_TAGS} tags.")
    return tags


def _delete(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        cloud.state.remove(find(cloud, caller, values["Name"]))
    return {}


def _delete_some(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        found = {name: peek(cloud, caller, name) for name in values["Names"]}
        cloud.state.remove(*(one for one in found.values() if one is not None))
    return {
        "DeletedParameters": [one.name for one in found.values() if one is not None],
        "InvalidParameters": [name for name, one in found.items() if one is None],
    }


# Tags


def _tagged(cloud: Cloud, caller: Caller, values: Values) -> Parameter:
    if values["ResourceType"] != "Parameter":
        raise Refusal("InvalidResourceType", "The sandbox has tags of parameters only.")
    found = peek(cloud, caller, bare_name(values["ResourceId"]))
    if found is None:
        raise Refusal("InvalidResourceId", "The resource ID isn't valid. Verify that you entered the correct ID and "
                      "try again.")  # fmt: skip
    return found


def _add_tags(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        found = _tagged(cloud, caller, values)
        tags = {**found.tags, **_tags(values)}
        if len(tags) > _MOST_TAGS:
            raise Refusal("TooManyTagsError", f"A resource can have at most {_MOST_TAGS} tags.")
        cloud.state.put(replace(found, tags=tags))
    return {}


def _remove_tags(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        found = _tagged(cloud, caller, values)
        tags = {key: value for key, value in found.tags.items() if key not in values["TagKeys"]}
        cloud.state.put(replace(found, tags=tags))
    return {}


def _list_tags(cloud: Cloud, caller: Caller, values: Values) -> Values:
    tags = _tagged(cloud, caller, values).tags
    return {"TagList": [{"Key": key, "Value": value} for key, value in tags.items()]}


# Labels


def _label(cloud: Cloud, caller: Caller, values: Values) -> Values:
    good, bad = _sorted_out(values["Labels"])
    with cloud.state.lock:
        found = find(cloud, caller, values["Name"])
        number = values.get("ParameterVersion", found.versions[-1].number)
        if number not in {one.number for one in found.versions}:
            raise _no_version(found, number)
        versions = tuple(_labelled(one, good, here=one.number == number) for one in found.versions)
        if any(len(one.labels) > _MOST_LABELS for one in versions):
            raise Refusal("ParameterVersionLabelLimitExceeded", f"A parameter version can have a maximum of "
                          f"{_MOST_LABELS} labels.")  # fmt: skip
        cloud.state.put(replace(found, versions=versions))
    return {"InvalidLabels": bad, "ParameterVersion": number}


def _unlabel(cloud: Cloud, caller: Caller, values: Values) -> Values:
    with cloud.state.lock:
        found = find(cloud, caller, values["Name"])
        version = next((one for one in found.versions if one.number == values["ParameterVersion"]), None)
        if version is None:
            raise _no_version(found, values["ParameterVersion"])
        gone = [label for label in values["Labels"] if label in version.labels]
        versions = tuple(_labelled(one, gone, here=False) if one is version else one for one in found.versions)
        cloud.state.put(replace(found, versions=versions))
    return {"RemovedLabels": gone, "InvalidLabels": [label for label in values["Labels"] if label not in gone]}


def _labelled(version: ParameterVersion, labels: Sequence[str], *, here: bool) -> ParameterVersion:
    """Return the version with these labels, or without them: a label is on one version only."""
    rest = tuple(label for label in version.labels if label not in labels)
    return replace(version, labels=(*rest, *dict.fromkeys(labels)) if here else rest)


def _sorted_out(labels: Sequence[Any]) -> tuple[list[str], list[str]]:
    good = [label for label in labels if _LABEL.fullmatch(label)]
    return good, [label for label in labels if label not in good]


def _no_version(parameter: Parameter, number: int) -> Refusal:
    return Refusal("ParameterVersionNotFound", f"Systems Manager could not find version {number} of {parameter.name}. "
                   "Verify the version and try again.")  # fmt: skip


ACTIONS: dict[str, Handler] = {
    "AddTagsToResource": _add_tags,
    "DeleteParameter": _delete,
    "DeleteParameters": _delete_some,
    "LabelParameterVersion": _label,
    "ListTagsForResource": _list_tags,
    "PutParameter": _put,
    "RemoveTagsFromResource": _remove_tags,
    "UnlabelParameterVersion": _unlabel,
}
