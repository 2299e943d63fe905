"""SimulatePrincipalPolicy and SimulateCustomPolicy: what policies would decide, by the same evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from builder.sandbox.access.decide import Rights, decide, merged
from builder.sandbox.access.documents import parse
from builder.sandbox.access.iam_action import Iam, Values, checked, gone, page
from builder.sandbox.wire import Caller, Need, Refusal

Handler = Callable[[Iam, Caller, Values], Values]


def _simulate_principal(iam: Iam, caller: Caller, values: Values) -> Values:
    arn = values["PolicySourceArn"]
    holder = iam.keys.holder(arn)
    if holder is None or holder.account != caller.account:
        raise gone(f"Entity {arn} cannot be found.")
    who = Caller(
        account=holder.account,
        region=caller.region,
        service="iam",
        access_key="",
        arn=values.get("CallerArn") or arn,
        user_id=holder.id,
        principal=arn,
    )
    rights = iam.keys.rights(who)
    more = tuple(parse(checked(text)) for text in values.get("PolicyInputList") or ())
    rights = Rights(caller=who, identity=(*rights.identity, *more), boundary=rights.boundary)
    return _simulate(rights, values, iam.keys.traits(who))


def _simulate_custom(_: Iam, caller: Caller, values: Values) -> Values:
    arn = values.get("CallerArn") or f"arn:aws:iam::{caller.account}:user/anybody"
    who = Caller(account=caller.account, region=caller.region, service="iam", access_key="", arn=arn, principal=arn)
    given = tuple(parse(checked(text)) for text in values["PolicyInputList"])
    return _simulate(Rights(caller=who, identity=given), values, {})


def _simulate(rights: Rights, values: Values, traits: Mapping[str, Any]) -> Values:
    if values.get("ResourcePolicy"):
        raise Refusal("UnsupportedOperation", "The sandbox simulates identity policies only.")
    given = {entry["ContextKeyName"]: tuple(entry["ContextKeyValues"]) for entry in values.get("ContextEntries") or ()}
    context = merged(traits, given)

    def result(pair: tuple[str, str]) -> Values:
        action, resource = pair
        decision = decide(rights, Need(action=action, resources=(resource,)), context)
        word = "allowed" if decision.allowed else "explicitDeny" if decision.explicit else "implicitDeny"
        return {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": word,
            "MatchedStatements": [],
            "MissingContextValues": [],
        }

    pairs = [(action, resource) for action in values["ActionNames"] for resource in values.get("ResourceArns") or ["*"]]
    return page("EvaluationResults", pairs, result, values)


ACTIONS: dict[str, Handler] = {
    "SimulateCustomPolicy": _simulate_custom,
    "SimulatePrincipalPolicy": _simulate_principal,
}
