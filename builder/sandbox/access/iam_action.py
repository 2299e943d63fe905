"""What the calls of IAM share: finding what they name, pages, documents, and the words of refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

from builder.sandbox.access import documents, managed
from builder.sandbox.access.keys import Keys
from builder.sandbox.bundling import Bundling
from builder.sandbox.personality import AWS, Personality
from builder.sandbox.records import Group, InstanceProfile, Policy, Role, User, iam_key
from builder.sandbox.state import State
from builder.sandbox.wire import Caller, Refusal

Values = Mapping[str, Any]
Item = TypeVar("Item")
Entity = User | Role | Group
Named = User | Role | Group | InstanceProfile

KINDS: dict[str, type[Named]] = {"user": User, "role": Role, "group": Group, "instance-profile": InstanceProfile}
_PAGE = 100  # entries of a page when the call does not say
_MOST_TAGS = 50


@dataclass(frozen=True, kw_only=True)
class Iam:
    """What IAM works on."""

    state: State
    keys: Keys
    bundling: Bundling | None = None
    like: Personality = AWS

    def find(self, caller: Caller, kind: str, name: str) -> Any:
        """Return the caller's user, role, group or instance profile. Raises Refusal."""
        found = self.state.all(KINDS[kind]).get(iam_key(caller.account, name))
        if found is None:
            what = f"Instance Profile {name}" if kind == "instance-profile" else f"The {kind} with name {name}"
            raise gone(f"{what} cannot be found.")
        return found

    def add(self, kind: str, made: Named) -> None:
        """Make a new one durable. Raises Refusal when its name is taken, in whatever case."""
        with self.state.lock:
            if made.key in self.state.all(KINDS[kind]):
                what = f"Instance Profile {made.name}" if kind == "instance-profile" else (
                    f"{kind.capitalize()} with name {made.name}"
                )  # fmt: skip
                raise Refusal("EntityAlreadyExists", f"{what} already exists.", status=409)
            self.state.put(made)

    def change(self, caller: Caller, kind: str, name: str, change: Callable[[Any], Mapping[str, Any]]) -> None:
        """Replace fields of what the caller names by those that `change` returns for it. Raises Refusal."""
        with self.state.lock:
            found = self.find(caller, kind, name)
            self.state.put(replace(found, **change(found)))

    def mine(self, caller: Caller, kind: type[Any], values: Values) -> list[Any]:
        """Return the caller's records of a kind under PathPrefix, by their names."""
        prefix = values.get("PathPrefix") or "/"
        found = [one for one in list(self.state.all(kind).values()) if one.account == caller.account]
        return sorted((one for one in found if one.path.startswith(prefix)), key=lambda one: one.name.lower())

    def policy(self, arn: str) -> Policy | None:
        """Return the managed policy of that ARN, or None for AWS's own. Raises Refusal when there is none."""
        found = self.state.all(Policy).get(arn)
        if found is None and arn not in managed.DOCUMENTS:
            raise gone(f"Policy {arn} does not exist or is not attachable.")
        return found

    def arn(self, caller: Caller, kind: str, name: str, *, path: str = "/") -> str:
        """Return the ARN of what is named, or the one it would have."""
        found = self.state.all(KINDS[kind]).get(iam_key(caller.account, name))
        return found.arn if found is not None else f"arn:aws:iam::{caller.account}:{kind}{path}{name}"


def gone(message: str) -> Refusal:
    """Return the refusal of what does not exist."""
    return Refusal("NoSuchEntity", message, status=404)


def in_use(message: str) -> Refusal:
    """Return the refusal to delete what others hang on."""
    return Refusal("DeleteConflict", f"Cannot delete entity, {message}.", status=409)


def full(message: str) -> Refusal:
    """Return the refusal of one more than there may be."""
    return Refusal("LimitExceeded", f"Cannot exceed quota for {message}", status=409)


def checked(text: str, kind: str = documents.IDENTITY) -> str:
    """Return the text of a policy document that is one. Raises Refusal."""
    try:
        documents.parse(text, kind)
    except documents.Malformed as error:
        raise Refusal("MalformedPolicyDocument", str(error)) from None
    return text


def wire(document: str) -> str:
    """Return a document as IAM's answers carry it: percent-encoded."""
    return quote(document, safe="-_.~")


def moment(time: float) -> datetime:
    """Return a time as answers carry it: whole seconds."""
    return datetime.fromtimestamp(int(time), UTC)


def page(name: str, items: Iterable[Item], show: Callable[[Item], Any], values: Values) -> Values:
    """Return the page that Marker and MaxItems ask for; a marker is how many entries came before."""
    found = list(items)
    marker = values.get("Marker") or "0"
    if not marker.isdecimal():
        raise Refusal("ValidationError", "Invalid Marker.")
    start, size = int(marker), values.get("MaxItems") or _PAGE
    answer: dict[str, Any] = {name: [show(one) for one in found[start : start + size]], "IsTruncated": False}
    if start + size < len(found):
        answer |= {"IsTruncated": True, "Marker": str(start + size)}
    return answer


def tags_of(values: Values) -> dict[str, str]:
    """Return the tags that a call brings. Raises Refusal."""
    entries = values.get("Tags") or []
    tags = {entry["Key"]: entry["Value"] for entry in entries}
    if len(tags) != len(entries):
        raise Refusal("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    return room_for(tags)


def room_for(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags when they are not too many. Raises Refusal."""
    if len(tags) > _MOST_TAGS:
        raise full(f"TagsPerResource: {_MOST_TAGS}")
    return tags


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as IAM lists them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
