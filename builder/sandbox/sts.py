"""The service `sts`: who is calling, and credentials that expire.

Source: botocore's model of `sts` 2011-06-15 and the IAM user guide ("Requesting temporary security credentials"). A
session is one record, kept until a day after its end so that using it late is told from using what never was.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from builder.sandbox.access import documents
from builder.sandbox.access.accounts import new_id, new_secret
from builder.sandbox.access.gate import Gate
from builder.sandbox.protocols import query
from builder.sandbox.records import Policy, Role, Session, iam_key
from builder.sandbox.state import State
from builder.sandbox.wire import Answer, Caller, Denied, Need, Refusal, Request

Values = Mapping[str, Any]
Handler = Callable[[Caller, Values], Values]

_LEAST = 900  # seconds that a session lives at least
_ROOT_LONGEST, _USER_LONGEST, _USER_DEFAULT = 3600, 129600, 43200  # of GetSessionToken
_CHAINED_LONGEST = 3600  # of a role that was taken on by a role
_KEPT = 24 * 3600  # seconds that a session's record outlives it
_ROLE_ARN = re.compile(r"arn:aws:iam::(\d{12}):role/(?:.*/)?([\w+=,.@-]+)")
_NAME = re.compile(r"[\w+=,.@-]{2,64}")


class Sts:
    """STS's query protocol. `life` cuts every session to that many seconds: nobody waits 15 minutes for an expiry."""

    service = "sts"

    def __init__(self, state: State, gate: Gate, *, life: float | None = None) -> None:
        self._state = state
        self._gate = gate
        self._life = life
        self._handlers: dict[str, Handler] = {
            "AssumeRole": self._assume_role,
            "GetAccessKeyInfo": self._get_access_key_info,
            "GetCallerIdentity": self._get_caller_identity,
            "GetSessionToken": self._get_session_token,
        }

    @property
    def actions(self) -> frozenset[str]:
        """The names of the calls that are answered."""
        return frozenset(self._handlers)

    def action(self, request: Request) -> str:
        """Return the name of the call."""
        return request.form.get("Action", "")

    def permissions(self, action: str, request: Request, caller: Caller) -> Iterable[Need]:
        """Return what the caller must be allowed; nobody can be forbidden to ask who it is."""
        if action == "GetAccessKeyInfo":
            return [Need(action="sts:GetAccessKeyInfo")]
        if action != "AssumeRole":
            return []
        return self._to_assume(request.form, caller)

    def _to_assume(self, form: Mapping[str, str], caller: Caller) -> Sequence[Need]:
        arn = form.get("RoleArn", "")
        if caller.root:
            raise Denied("denied", "Roles may not be assumed by root accounts.")
        context: dict[str, str | tuple[str, ...]] = {"sts:RoleSessionName": form.get("RoleSessionName", "")}
        if "ExternalId" in form:
            context["sts:ExternalId"] = form["ExternalId"]
        role = self._role(arn)
        # A role that is not there is refused like one that trusts others: its name is nobody's business.
        trust = role.trust if role is not None else _NOBODY
        owner = match[1] if (match := _ROLE_ARN.fullmatch(arn)) else None
        actions = ["sts:AssumeRole"]
        if tags := _tags(form):
            context |= {f"aws:RequestTag/{key}": value for key, value in tags.items()} | {"aws:TagKeys": tuple(tags)}
            actions.append("sts:TagSession")
        return [
            Need(action=action, resources=(arn,), context=context, policy=trust, owner=owner, strict=True)
            for action in actions
        ]

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""
        model = query.service("sts")
        if action not in self._handlers:
            if model.has(action):
                raise Refusal("UnsupportedOperation", f"The sandbox does not support {action}.")
            raise Refusal("InvalidAction", f"Could not find operation {action} for version 2011-06-15")
        try:
            values = model.parse(action, request.form)
        except Refusal as refusal:
            raise Refusal("ValidationError", refusal.message) from None
        return model.answer(action, self._handlers[action](caller, values), request)

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as STS words it."""
        return query.refuse_query(refusal, request)

    def _get_caller_identity(self, caller: Caller, _: Values) -> Values:
        return {"UserId": caller.user_id, "Account": caller.account, "Arn": caller.arn}

    def _get_access_key_info(self, _: Caller, values: Values) -> Values:
        key = self._gate.keys.find(values["AccessKeyId"])
        if key is None:
            raise Refusal("ValidationError", "The access key ID does not belong to any account.")
        return {"Account": key.account}

    def _get_session_token(self, caller: Caller, values: Values) -> Values:
        if self._session(caller) is not None:
            raise Denied("denied", "Cannot call GetSessionToken with session credentials")
        longest = _ROOT_LONGEST if caller.root else _USER_LONGEST
        seconds = values.get("DurationSeconds", _ROOT_LONGEST if caller.root else _USER_DEFAULT)
        _check_range("durationSeconds", seconds, _LEAST, _USER_LONGEST)
        made = self._open(
            min(seconds, longest),
            account=caller.account,
            arn=caller.arn,
            user_id=caller.user_id,
            principal=caller.principal,
            root=caller.root,
        )
        return {"Credentials": _credentials(made)}

    def _assume_role(self, caller: Caller, values: Values) -> Values:
        name = values["RoleSessionName"]
        if not _NAME.fullmatch(name):
            raise _invalid(name, "roleSessionName", r"Member must satisfy regular expression pattern: [\w+=,.@-]*")
        role = self._role(values["RoleArn"])
        if role is None:  # removed since it was looked at
            raise Denied("denied", f"User: {caller.arn} is not authorized to perform: sts:AssumeRole")
        seconds = values.get("DurationSeconds", _LEAST * 4)
        _check_range("durationSeconds", seconds, _LEAST, 43200)
        own = self._session(caller)
        if own is not None and own.role and seconds > _CHAINED_LONGEST:
            limit = "the 1 hour session limit for roles assumed by role chaining"
            raise Refusal("ValidationError", f"The requested DurationSeconds exceeds {limit}")
        if seconds > role.longest:
            message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            raise Refusal("ValidationError", message)
        arn = f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{name}"
        made = self._open(
            seconds,
            account=role.account,
            arn=arn,
            user_id=f"{role.id}:{name}",
            principal=role.arn,
            role=True,
            policies=self._policies(values),
            tags={tag["Key"]: tag["Value"] for tag in values.get("Tags", ())},
        )
        answer: dict[str, object] = {
            "Credentials": _credentials(made),
            "AssumedRoleUser": {"AssumedRoleId": made.user_id, "Arn": arn},
        }
        if made.policies is not None:
            answer["PackedPolicySize"] = 100 * sum(map(len, made.policies)) // 2048
        return answer

    def _policies(self, values: Values) -> tuple[str, ...] | None:
        """Return the documents that limit the session, or None when the call brings none. Raises Refusal."""
        texts = [values["Policy"]] if values.get("Policy") else []
        for entry in values.get("PolicyArns", ()):
            found = self._state.all(Policy).get(entry.get("arn", ""))
            if found is None:
                raise Refusal("ValidationError", f"The policy {entry.get('arn')} does not exist.")
            texts.append(found.document)
        for text in texts:
            try:
                documents.parse(text)
            except documents.Malformed as error:
                raise Refusal("MalformedPolicyDocument", str(error)) from None
        return tuple(texts) if texts else None

    def _role(self, arn: str) -> Role | None:
        match = _ROLE_ARN.fullmatch(arn)
        found = self._state.all(Role).get(iam_key(match[1], match[2])) if match else None
        return found if found is not None and found.arn == arn else None

    def _session(self, caller: Caller) -> Session | None:
        return self._state.all(Session).get(caller.access_key)

    def _open(self, seconds: float, **who: Any) -> Session:
        """Make a session durable and return it; those that ended long ago go in the same transaction."""
        now = self._gate.clock()
        made = Session(
            access_key=new_id("ASIA"),
            secret_key=new_secret(),
            token=base64.b64encode(b"sandbox session " + secrets.token_bytes(128)).decode(),
            start_time=now,
            expiry=now + min(seconds, self._life or seconds),
            **who,
        )
        with self._state.lock:
            old = [one for one in self._state.all(Session).values() if one.expiry + _KEPT < time.time()]
            self._state.change(put=[made], remove=old)
        return made


_NOBODY = '{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "none:None"}}'


def _tags(form: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for key, value in form.items():
        if match := re.fullmatch(r"Tags\.member\.(\d+)\.Key", key):
            found[value] = form.get(f"Tags.member.{match[1]}.Value", "")
    return found


def _credentials(session: Session) -> Values:
    return {
        "AccessKeyId": session.access_key,
        "SecretAccessKey": session.secret_key,
        "SessionToken": session.token,
        "Expiration": datetime.fromtimestamp(int(session.expiry), UTC),
    }


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if value < least:
        raise _invalid(value, name, f"Member must have value greater than or equal to {least}")
    if value > most:
        raise _invalid(value, name, f"Member must have value less than or equal to {most}")


def _invalid(value: object, name: str, constraint: str) -> Refusal:
    return Refusal("ValidationError", f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy "
                   f"constraint: {constraint}")  # fmt: skip
