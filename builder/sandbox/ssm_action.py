"""What the calls of SSM share: names with selectors, what counts now, and the words of refusal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.records import Parameter
from builder.sandbox.records.ssm import ParameterVersion, parameter_key
from builder.sandbox.wire import Caller, Refusal

Values = Mapping[str, Any]
Handler = Callable[[Cloud, Caller, Values], Values]

_ARN = re.compile(r"arn:aws:ssm:[a-z0-9-]+:\d{12}:parameter(/.+)")


def bare_name(text: str) -> str:
    """Return the parameter's name of a name, a name:selector, or an ARN."""
    return split(text)[0]


def split(text: str) -> tuple[str, str]:
    """Return the name and the selector (`:3`, `:label`, or nothing) of what a call names."""
    match = _ARN.match(text)
    if match:
        path, _, selector = match[1].partition(":")
        # The ARN of a name without a hierarchy has a slash of its own.
        name = path if "/" in path[1:] else path[1:]
    else:
        name, _, selector = text.strip().partition(":")
    return name, f":{selector}" if selector else ""


def find(cloud: Cloud, caller: Caller, name: str) -> Parameter:
    """Return the parameter whose name or ARN this is, with the versions that count by now. Raises Refusal."""
    found = peek(cloud, caller, name)
    if found is None:
        raise Refusal("ParameterNotFound", "")
    return found


def peek(cloud: Cloud, caller: Caller, name: str) -> Parameter | None:
    """Return the same, or None."""
    own = bare_name(name)
    for candidate in (own, f"/{own}") if name.startswith("arn:") else (own,):
        found = cloud.state.all(Parameter).get(parameter_key(caller.account, caller.region, candidate))
        if found is not None and counting(found):
            return found
    return None


def counting(parameter: Parameter) -> tuple[ParameterVersion, ...]:
    """Return the versions that count by now: an image id counts once it was looked at."""
    now = time.time()
    return tuple(one for one in parameter.versions if one.ready <= now)


def current(parameter: Parameter) -> ParameterVersion:
    """Return the version that a name without a selector means."""
    return counting(parameter)[-1]


def selected(parameter: Parameter, selector: str) -> ParameterVersion:
    """Return the version that a selector means. Raises Refusal."""
    if not selector:
        return current(parameter)
    word = selector[1:]
    for version in counting(parameter):
        if word == str(version.number) or word in version.labels:
            return version
    kind = "version" if word.isdecimal() else "label"
    raise Refusal("ParameterVersionNotFound", f"Systems Manager could not find {kind} {word} of {parameter.name}. "
                  f"Verify the {kind} and try again.")  # fmt: skip


def invalid(message: str) -> Refusal:
    """Return the ValidationException."""
    return Refusal("ValidationException", message)
