"""Calls that users, roles and groups have alike: managed and inline policies, boundaries and tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from builder.sandbox.access.iam_action import Iam, Values, checked, full, gone, page, room_for, tag_list, tags_of, wire
from builder.sandbox.wire import Caller

Handler = Callable[[Iam, Caller, Values], Values]
_MOST_ATTACHED = 10


def _attach(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        arn = values["PolicyArn"]

        def change(found: Any) -> Mapping[str, Any]:
            iam.policy(arn)
            if arn not in found.attached and len(found.attached) >= _MOST_ATTACHED:
                raise full(f"PoliciesPer{kind.capitalize()}: {_MOST_ATTACHED}")
            return {"attached": tuple(dict.fromkeys([*found.attached, arn]))}

        iam.change(caller, kind, values[parameter], change)
        return {}

    return handler


def _detach(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        arn = values["PolicyArn"]

        def change(found: Any) -> Mapping[str, Any]:
            if arn not in found.attached:
                raise gone(f"Policy {arn} was not found.")
            return {"attached": tuple(one for one in found.attached if one != arn)}

        iam.change(caller, kind, values[parameter], change)
        return {}

    return handler


def _list_attached(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        found = iam.find(caller, kind, values[parameter])
        return page("AttachedPolicies", sorted(found.attached), _attached, values)

    return handler


def _attached(arn: str) -> Values:
    return {"PolicyArn": arn, "PolicyName": arn.rpartition("/")[2]}


def _put_inline(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        new = {values["PolicyName"]: checked(values["PolicyDocument"])}
        iam.change(caller, kind, values[parameter], lambda found: {"inline": {**found.inline, **new}})
        return {}

    return handler


def _get_inline(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        found, name = iam.find(caller, kind, values[parameter]), values["PolicyName"]
        _require_inline(kind, found, name)
        return {parameter: found.name, "PolicyName": name, "PolicyDocument": wire(found.inline[name])}

    return handler


def _delete_inline(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        name = values["PolicyName"]

        def change(found: Any) -> Mapping[str, Any]:
            _require_inline(kind, found, name)
            return {"inline": {key: text for key, text in found.inline.items() if key != name}}

        iam.change(caller, kind, values[parameter], change)
        return {}

    return handler


def _require_inline(kind: str, found: Any, name: str) -> None:
    if name not in found.inline:
        raise gone(f"The {kind} policy with name {name} cannot be found.")


def _list_inline(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        found = iam.find(caller, kind, values[parameter])
        return page("PolicyNames", sorted(found.inline), str, values)

    return handler


def _put_boundary(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        iam.policy(values["PermissionsBoundary"])
        iam.change(caller, kind, values[parameter], lambda _: {"boundary": values["PermissionsBoundary"]})
        return {}

    return handler


def _delete_boundary(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        iam.change(caller, kind, values[parameter], lambda _: {"boundary": None})
        return {}

    return handler


def _tag(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        new = tags_of(values)
        iam.change(caller, kind, values[parameter], lambda found: {"tags": room_for({**found.tags, **new})})
        return {}

    return handler


def _untag(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        keys = set(values["TagKeys"])
        iam.change(caller, kind, values[parameter], lambda found: {
            "tags": {key: value for key, value in found.tags.items() if key not in keys}
        })  # fmt: skip
        return {}

    return handler


def _list_tags(kind: str, parameter: str) -> Handler:
    def handler(iam: Iam, caller: Caller, values: Values) -> Values:
        return page("Tags", tag_list(iam.find(caller, kind, values[parameter]).tags), dict, values)

    return handler


def _table() -> dict[str, Handler]:
    table: dict[str, Handler] = {}
    for word, kind in (("User", "user"), ("Role", "role"), ("Group", "group")):
        of = (kind, f"{word}Name")
        table |= {
            f"Attach{word}Policy": _attach(*of),
            f"Delete{word}Policy": _delete_inline(*of),
            f"Detach{word}Policy": _detach(*of),
            f"Get{word}Policy": _get_inline(*of),
            f"List{word}Policies": _list_inline(*of),
            f"ListAttached{word}Policies": _list_attached(*of),
            f"Put{word}Policy": _put_inline(*of),
        }
        if word != "Group":
            table |= {
                f"Delete{word}PermissionsBoundary": _delete_boundary(*of),
                f"List{word}Tags": _list_tags(*of),
                f"Put{word}PermissionsBoundary": _put_boundary(*of),
                f"Tag{word}": _tag(*of),
                f"Untag{word}": _untag(*of),
            }
    return table


ACTIONS: dict[str, Handler] = _table()
