"""Access keys: whose they are, the secret behind each, and the policies that its principal carries."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from builder.sandbox.access import managed
from builder.sandbox.access.decide import Rights
from builder.sandbox.access.documents import Document, parse
from builder.sandbox.records import AccessKey, Account, Group, Policy, Role, Session, User
from builder.sandbox.records.access import Holder, iam_key
from builder.sandbox.settings import Settings
from builder.sandbox.state import State
from builder.sandbox.wire import ACCOUNT, Caller, Denied

_ARN = re.compile(r"arn:aws:iam::(\d{12}):(user|role|root)(?:.*/)?([^/]*)")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One access key and its principal, as Caller names it; `session` is set for credentials of STS."""

    secret_key: str = field(repr=False)
    account: str
    arn: str
    user_id: str
    principal: str
    root: bool = False
    session: Session | None = None


class Keys:
    """All access keys of one sandbox."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._first = settings.access_key
        self._first_key = _root(ACCOUNT, settings.secret_key)

    def find(self, access_key: str) -> Key | None:
        """Return an access key that is in force, or a session's that is or was."""
        if access_key == self._first:
            return self._first_key
        if (session := self._state.all(Session).get(access_key)) is not None:
            return Key(
                secret_key=session.secret_key,
                account=session.account,
                arn=session.arn,
                user_id=session.user_id,
                principal=session.principal,
                root=session.root,
                session=session,
            )
        if (owned := self._state.all(AccessKey).get(access_key)) is not None:
            user = self._state.all(User).get(iam_key(owned.account, owned.user))
            return _of_user(owned, user) if user is not None and owned.active else None
        account = next((one for one in list(self._state.all(Account).values()) if one.access_key == access_key), None)
        return _root(account.account, account.secret_key) if account is not None else None

    def check_token(self, key: Key, token: str | None) -> None:
        """Raise Denied unless the session token is the one that belongs to the key."""
        right = key.session.token if key.session is not None else ""
        if not hmac.compare_digest((token or "").encode(), right.encode()):
            raise Denied("bad-token")

    def rights(self, caller: Caller) -> Rights:
        """Return what the caller carries now."""
        session = self._state.all(Session).get(caller.access_key)
        own = None if session is None or session.policies is None else tuple(map(parse, session.policies))
        holder = self.holder(caller.principal)
        if holder is None:
            return Rights(caller=caller, session=own)
        boundary = self._document(holder.boundary) if holder.boundary else None
        return Rights(caller=caller, identity=tuple(self._documents(holder)), boundary=boundary, session=own)

    def holder(self, arn: str) -> User | Role | None:
        """Return the user or role of that ARN, or None."""
        match = _ARN.fullmatch(arn)
        if match is None or match[2] == "root":
            return None
        kind: type[User | Role] = User if match[2] == "user" else Role
        found = self._state.all(kind).get(iam_key(match[1], match[3]))
        return found if found is not None and found.arn == arn else None

    def traits(self, caller: Caller) -> Mapping[str, str | tuple[str, ...]]:
        """Return the condition keys that say who the caller is."""
        if not caller.account:
            return {"aws:PrincipalType": "Anonymous", "aws:userid": "anonymous"}
        session = self._state.all(Session).get(caller.access_key)
        holder = self.holder(caller.principal)
        kind = "AssumedRole" if isinstance(holder, Role) else "User" if holder is not None else "Account"
        traits: dict[str, str | tuple[str, ...]] = {
            "aws:PrincipalAccount": caller.account,
            "aws:PrincipalArn": caller.principal,
            "aws:PrincipalType": kind,
            "aws:userid": caller.user_id,
        }
        if isinstance(holder, User):
            traits["aws:username"] = holder.name
        tags = {**(holder.tags if holder is not None else {}), **(session.tags if session is not None else {})}
        traits |= {f"aws:PrincipalTag/{key}": value for key, value in tags.items()}
        if session is not None:
            traits["aws:TokenIssueTime"] = str(session.start_time)
        return traits

    def _documents(self, holder: User | Role) -> Iterable[Document]:
        holders: list[Holder] = [holder]
        if isinstance(holder, User):
            groups = (self._state.all(Group).get(iam_key(holder.account, name)) for name in holder.groups)
            holders += filter(None, groups)
        for one in holders:
            yield from (parse(text) for text in one.inline.values())
            yield from filter(None, map(self._document, one.attached))

    def _document(self, arn: str) -> Document | None:
        policy = self._state.all(Policy).get(arn)
        text = policy.document if policy is not None else managed.DOCUMENTS.get(arn)
        return parse(text) if text is not None else None


def _root(account: str, secret_key: str) -> Key:
    arn = f"arn:aws:iam::{account}:root"
    return Key(secret_key=secret_key, account=account, arn=arn, user_id=account, principal=arn, root=True)


def _of_user(owned: AccessKey, user: User) -> Key:
    return Key(
        secret_key=owned.secret_key,
        account=user.account,
        arn=user.arn,
        user_id=user.id,
        principal=user.arn,
    )
