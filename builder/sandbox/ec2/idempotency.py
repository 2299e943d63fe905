"""Client tokens of EC2's calls: a request that comes again is answered, not done again."""

from __future__ import annotations

import json
from typing import Any

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Values
from builder.sandbox.records import ClientToken, token_key
from builder.sandbox.wire import Caller, Refusal


def before(cloud: Cloud, caller: Caller, action: str, values: Values) -> Any:
    """Return what `used` kept for the call's client token, or None when there is no token or it is new.

    Raises Refusal when the token was used with other parameters. Call it under the state's lock, and keep that until
    the record of `used` is put: a token seen twice at once must be acted on once.
    """
    token = values.get("ClientToken")
    if not token:
        return None
    known = cloud.state.find(ClientToken, token_key(caller.account, caller.region, action, token))
    if known is None:
        return None
    if known.request != _fingerprint(values):
        message = f"The request uses the same client token ({token}) as a previous, but non-identical request."
        raise Refusal("IdempotentParameterMismatch", message)
    return json.loads(known.answer)


def used(caller: Caller, action: str, values: Values, answer: Any) -> list[ClientToken]:
    """Return the record that remembers the call's client token, none without one.

    Put it in the transaction that makes the resource. `answer` is what `before` shall return, as JSON knows it.
    """
    token = values.get("ClientToken")
    if not token:
        return []
    record = ClientToken(
        account=caller.account,
        region=caller.region,
        action=action,
        token=token,
        request=_fingerprint(values),
        answer=json.dumps(answer),
    )
    return [record]


def _fingerprint(values: Values) -> str:
    """Return the parameters that a second request under the same token must repeat."""
    told = {name: value for name, value in values.items() if name not in {"ClientToken", "DryRun"}}
    return json.dumps(told, sort_keys=True, default=str)
