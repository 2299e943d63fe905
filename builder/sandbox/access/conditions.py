"""The Condition block of a policy's statement.

Source: "IAM JSON policy elements: Condition operators" and "Multivalued context keys" of the IAM user guide.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

from builder.sandbox.access.patterns import Context, matches, matches_arn, substituted

Block = Mapping[str, Mapping[str, tuple[str, ...]]]  # operator -> key -> values
Test = Callable[[str, str, Context], bool]  # what the call has, what the policy wants

_ALL, _ANY, _IF_EXISTS = "ForAllValues:", "ForAnyValue:", "IfExists"


def _exact(fold: Callable[[str], str]) -> Test:
    def test(have: str, want: str, context: Context) -> bool:
        filled = substituted(want, context)
        return filled is not None and fold(have) == fold(filled)

    return test


def _numbers(test: Callable[[float, float], bool]) -> Test:
    return lambda have, want, _: _compared(test, float, have, want)


def _moments(test: Callable[[float, float], bool]) -> Test:
    return lambda have, want, _: _compared(test, _seconds, have, want)


def _compared(test: Callable[[float, float], bool], read: Callable[[str], float], have: str, want: str) -> bool:
    try:
        return test(read(have), read(want))
    except ValueError:
        return False


@lru_cache(maxsize=256)
def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _address(have: str, want: str, _: Context) -> bool:
    try:
        return ipaddress.ip_address(have) in ipaddress.ip_network(want, strict=False)
    except ValueError:
        return False


_TESTS: dict[str, Test] = {
    "StringEquals": _exact(str),
    "StringEqualsIgnoreCase": _exact(str.lower),
    "StringLike": lambda have, want, context: matches(want, have, context),
    "NumericEquals": _numbers(lambda have, want: have == want),
    "NumericLessThan": _numbers(lambda have, want: have < want),
    "NumericLessThanEquals": _numbers(lambda have, want: have <= want),
    "NumericGreaterThan": _numbers(lambda have, want: have > want),
    "NumericGreaterThanEquals": _numbers(lambda have, want: have >= want),
    "DateEquals": _moments(lambda have, want: have == want),
    "DateLessThan": _moments(lambda have, want: have < want),
    "DateLessThanEquals": _moments(lambda have, want: have <= want),
    "DateGreaterThan": _moments(lambda have, want: have > want),
    "DateGreaterThanEquals": _moments(lambda have, want: have >= want),
    "Bool": _exact(str.lower),
    "BinaryEquals": _exact(str),
    "IpAddress": _address,
    "ArnEquals": lambda have, want, context: matches_arn(want, have, context),
    "ArnLike": lambda have, want, context: matches_arn(want, have, context),
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}


def known(operator: str) -> bool:
    """Say whether there is such an operator."""
    name = operator.removeprefix(_ALL).removeprefix(_ANY)
    base = name.removesuffix(_IF_EXISTS)
    return base in _TESTS or base in _NEGATED or name == "Null"


def hold(block: Block, context: Context) -> bool:
    """Say whether every key of every operator holds for the call."""
    return all(
        _holds(operator, key.lower(), wanted, context)
        for operator, keys in block.items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, key: str, wanted: tuple[str, ...], context: Context) -> bool:
    have = context.get(key, ())
    if operator == "Null":
        return any((want.lower() == "true") == (not have) for want in wanted)
    name = operator.removeprefix(_ALL).removeprefix(_ANY)
    base = name.removesuffix(_IF_EXISTS)
    negated = base in _NEGATED
    if not have:
        return operator.startswith(_ALL) or name != base or (negated and not operator.startswith(_ANY))
    test = _TESTS[_NEGATED.get(base, base)]

    def fits(value: str) -> bool:
        return any(test(value, want, context) for want in wanted) != negated

    if operator.startswith(_ALL):
        return all(map(fits, have))
    # A key with one value needs no quantifier; one with several counts as true when any does.
    return any(map(fits, have))
