"""Calls that read parameters: by name, version and label, by path, with filters and pages."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.records import Parameter
from builder.sandbox.records.ssm import ParameterVersion
from builder.sandbox.ssm_action import Handler, Values, counting, current, find, invalid, selected, split
from builder.sandbox.wire import Caller, Refusal

Item = tuple[Parameter, ParameterVersion]


def _get(cloud: Cloud, caller: Caller, values: Values) -> Values:
    return {"Parameter": _one(cloud, caller, values["Name"], values)}


def _get_some(cloud: Cloud, caller: Caller, values: Values) -> Values:
    names = values["Names"]
    if len(set(names)) != len(names):
        raise invalid("Duplicate names are not allowed.")
    found, bad = [], []
    for name in names:
        try:
            found.append(_one(cloud, caller, name, values))
        except Refusal:
            bad.append(name)
    return {"Parameters": found, "InvalidParameters": bad}


def _one(cloud: Cloud, caller: Caller, text: str, values: Values) -> Values:
    name, selector = split(text)
    found = find(cloud, caller, text if text.startswith("arn:") else name)
    version = selected(found, selector)
    shown = _show((found, version), decrypted=bool(values.get("WithDecryption")))
    return shown | ({"Selector": selector} if selector else {})


def _show(item: Item, *, decrypted: bool) -> dict[str, Any]:
    parameter, version = item
    return {
        "Name": parameter.name,
        "Type": version.type,
        "Value": _value(parameter, version, decrypted=decrypted),
        "Version": version.number,
        "LastModifiedDate": round(version.time, 3),
        "ARN": parameter.arn,
        "DataType": version.data_type,
    }


def _value(parameter: Parameter, version: ParameterVersion, *, decrypted: bool) -> str:
    """Return the value; of a SecureString without its decryption a text that says nothing of it."""
    if version.type != "SecureString" or decrypted:
        return version.value
    return base64.b64encode(hashlib.sha256(f"{parameter.arn}:{version.number}".encode()).digest()).decode()


def _mine(cloud: Cloud, caller: Caller) -> list[Item]:
    found = [one for one in list(cloud.state.all(Parameter).values()) if counting(one)]
    own = [one for one in found if (one.account, one.region) == (caller.account, caller.region)]
    return [(one, current(one)) for one in sorted(own, key=lambda one: one.name)]


def _by_path(cloud: Cloud, caller: Caller, values: Values) -> Values:
    path = values["Path"]
    if not path.startswith("/"):
        raise invalid("The parameter doesn't meet the parameter name requirements. The parameter name must begin with "
                      'a forward slash "/".')  # fmt: skip
    filters = values.get("ParameterFilters", ())
    items = [item for item in _mine(cloud, caller) if _below(item[0].name, path, deep=bool(values.get("Recursive")))]
    labels = [entry for entry in filters if entry["Key"] == "Label"]
    if labels:
        wanted = set(labels[0].get("Values", ()))
        items = [(one, version) for one, _ in items for version in counting(one) if wanted & set(version.labels)]
    items = _passing(items, [entry for entry in filters if entry["Key"] != "Label"], ("Type", "KeyId"))
    decrypted = bool(values.get("WithDecryption"))
    return _page(items, lambda item: _show(item, decrypted=decrypted), values, 10)


def _below(name: str, path: str, *, deep: bool) -> bool:
    start = path.rstrip("/") + "/"
    return name.startswith(start) and (deep or "/" not in name[len(start) :])


def _describe(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if values.get("Filters") and values.get("ParameterFilters"):
        raise invalid("You can use either Filters or ParameterFilters in a single request.")
    if values.get("Shared"):
        return {"Parameters": []}
    filters = values.get("ParameterFilters") or [
        {"Key": entry["Key"], "Option": "BeginsWith" if entry["Key"] == "Name" else "Equals", "Values": entry["Values"]}
        for entry in values.get("Filters", ())
    ]
    items = _passing(_mine(cloud, caller), filters, ("Name", "Type", "KeyId", "Path", "Tier", "DataType", "tag:"))
    return _page(items, _metadata, values, 50)


def _metadata(item: Item) -> Values:
    parameter, version = item
    shown: dict[str, Any] = {
        "Name": parameter.name,
        "ARN": parameter.arn,
        "Type": version.type,
        "LastModifiedDate": round(version.time, 3),
        "LastModifiedUser": version.user,
        "Version": version.number,
        "Tier": version.tier,
        "Policies": [],
        "DataType": version.data_type,
    }
    more = {"KeyId": version.key_id, "Description": version.description, "AllowedPattern": version.allowed_pattern}
    return shown | {key: value for key, value in more.items() if value}


def _history(cloud: Cloud, caller: Caller, values: Values) -> Values:
    found = find(cloud, caller, values["Name"])
    decrypted = bool(values.get("WithDecryption"))

    def show(item: Item) -> Values:
        shown = {key: value for key, value in _metadata(item).items() if key != "ARN"}
        return {**shown, "Value": _value(*item, decrypted=decrypted), "Labels": list(item[1].labels)}

    return _page([(found, version) for version in counting(found)], show, values, 50)


def _passing(items: Iterable[Item], filters: Sequence[Values], known: Sequence[str]) -> list[Item]:
    """Return the items that pass all filters. Raises Refusal."""
    tests = [_test(entry, known) for entry in filters]
    return [item for item in items if all(test(item) for test in tests)]


def _test(entry: Values, known: Sequence[str]) -> Callable[[Item], bool]:
    key, option, wanted = entry["Key"], entry.get("Option", "Equals"), entry.get("Values") or []
    if key not in known and not (key.startswith("tag:") and "tag:" in known):
        raise Refusal("InvalidFilterKey", f"The following filter key is not valid: {key}. Valid filter keys include: "
                      f"[{', '.join(known)}].")  # fmt: skip
    if not wanted and not key.startswith("tag:"):
        raise Refusal("InvalidFilterValue", f"The filter {key} needs values.")
    if key == "Path":
        if option not in {"Recursive", "OneLevel", "Equals"}:
            raise Refusal("InvalidFilterOption", f"The filter option {option} is not valid for Path.")
        return lambda item: any(_below(item[0].name, path, deep=option == "Recursive") for path in wanted)
    compare = _COMPARISONS.get(option)
    if compare is None or (option != "Equals" and key != "Name"):
        raise Refusal("InvalidFilterOption", f"The filter option {option} is not valid for {key}.")
    if key.startswith("tag:"):
        tag = key[4:]
        return lambda item: tag in item[0].tags and (not wanted or item[0].tags[tag] in wanted)
    return lambda item: any(compare(_trait(item, key), value) for value in wanted)


_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "Equals": lambda have, want: have == want,
    "BeginsWith": lambda have, want: have.startswith(want),
    "Contains": lambda have, want: want in have,
}


def _trait(item: Item, key: str) -> str:
    parameter, version = item
    traits = {
        "Name": parameter.name,
        "Type": version.type,
        "KeyId": version.key_id,
        "Tier": version.tier,
        "DataType": version.data_type,
    }
    return traits[key]


def _page(items: Sequence[Item], show: Callable[[Item], Values], values: Values, most: int) -> Values:
    """Return a page; its token names the last item, so that what goes meanwhile moves nobody."""
    if token := values.get("NextToken"):
        last = _last(token)
        items = [item for item in items if _place(item) > last]
    size = values.get("MaxResults", most)
    answer: dict[str, Any] = {"Parameters": [show(item) for item in items[:size]]}
    if len(items) > size:
        answer["NextToken"] = base64.b64encode("\0".join(_place(items[size - 1])).encode()).decode()
    return answer


def _place(item: Item) -> tuple[str, str]:
    return item[0].name, f"{item[1].number:09}"


def _last(token: str) -> tuple[str, str]:
    try:
        name, _, number = base64.b64decode(token, validate=True).decode().partition("\0")
    except (binascii.Error, ValueError):
        name, number = "", ""
    if not number:
        raise Refusal("InvalidNextToken", "The specified token isn't valid.")
    return name, number


ACTIONS: dict[str, Handler] = {
    "DescribeParameters": _describe,
    "GetParameter": _get,
    "GetParameterHistory": _history,
    "GetParameters": _get_some,
    "GetParametersByPath": _by_path,
}
