"""The gate in front of every service: who calls is verified, then whether it may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from builder.sandbox.access import verify
from builder.sandbox.access.claim import Claim
from builder.sandbox.access.keys import Keys
from builder.sandbox.wire import ANONYMOUS, Caller, Denied, Need, Request


class Gate:
    """Verifies callers by the keys of one sandbox; `clock` is in seconds since the epoch."""

    def __init__(self, keys: Keys, *, region: str, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._region = region
        self.clock = clock

    def account(self, claim: Claim | None) -> str:
        """Return the account that a request says it is from; nothing of it is verified."""
        key = self._keys.find(claim.access_key) if claim is not None else None
        return key.account if key is not None else ""

    def caller(self, request: Request, claim: Claim | None, service: str) -> Caller:
        """Return whose request it is. Raises Denied.

        Nothing is read of a body whose hash the client states; what was verified is `request.signature` from here on.
        """
        if claim is None:
            if service == "s3":  # a bucket may be public
                return ANONYMOUS
            raise Denied("missing")
        key = self._keys.find(claim.access_key)
        if key is None:
            raise Denied("unknown-key")
        now = self.clock()
        self._keys.check_token(key, claim.token)
        verify.verify(request, claim, key.secret_key, now)
        if key.expiry is not None and now >= key.expiry:
            raise Denied("expired-token")
        return Caller(
            account=key.account,
            region=claim.region or self._region,
            service=claim.service,
            access_key=claim.access_key,
            arn=key.arn,
            user_id=key.user_id,
            principal=key.principal,
            root=key.root,
        )

    def require(self, needs: Iterable[Need], request: Request, caller: Caller) -> None:
        """Return when the caller may do all of this. Raises Denied."""
