"""Access keys: whose they are, and the secret behind each."""

from __future__ import annotations

from dataclasses import dataclass, field

from builder.sandbox.settings import Settings
from builder.sandbox.wire import ACCOUNT, Denied


@dataclass(frozen=True, kw_only=True)
class Key:
    """One access key and its principal, as Caller names it; `token` and `expiry` are those of a session."""

    access_key: str
    secret_key: str = field(repr=False)
    account: str
    arn: str
    user_id: str
    principal: str
    root: bool = False
    token: str | None = field(default=None, repr=False)
    expiry: float | None = None


class Keys:
    """All access keys of one sandbox."""

    def __init__(self, settings: Settings) -> None:
        self._first = root_key(ACCOUNT, settings.access_key, settings.secret_key)

    def find(self, access_key: str) -> Key | None:
        """Return an access key that is in force, or a session's that was."""
        return self._first if access_key == self._first.access_key else None

    def check_token(self, key: Key, token: str | None) -> None:
        """Raise Denied unless the session token is the one that belongs to the key."""
        if (token or None) != key.token:
            raise Denied("bad-token")


def root_key(account: str, access_key: str, secret_key: str) -> Key:
    """Return the root access key of an account."""
    arn = f"arn:aws:iam::{account}:root"
    return Key(
        access_key=access_key,
        secret_key=secret_key,
        account=account,
        arn=arn,
        user_id=account,
        principal=arn,
        root=True,
    )
