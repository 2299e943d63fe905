"""The gate in front of every service: who calls is verified, then whether it may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from builder.sandbox.access import verify, version2
from builder.sandbox.access.claim import Claim
from builder.sandbox.access.decide import Rights, decide, merged
from builder.sandbox.access.keys import Keys
from builder.sandbox.access.patterns import Context
from builder.sandbox.personality import AWS, Personality
from builder.sandbox.wire import ANONYMOUS, Caller, Denied, Need, Request


class Gate:
    """Verifies callers by the keys of one sandbox; `clock` is in seconds since the epoch."""

    def __init__(
        self, keys: Keys, *, region: str, personality: Personality = AWS, clock: Callable[[], float] = time.time
    ) -> None:
        self.keys = keys
        self._personality = personality
        self._region = region
        self.clock = clock
        # By service, what region a request means whose signature names none; else it is the directory's own.
        self.places: dict[str, Callable[[Request], str]] = {}

    def region(self, request: Request, claim: Claim | None) -> str:
        """Return the region that a request asks; empty for one that is not signed."""
        if claim is None:
            return ""
        if self._personality.is_eucalyptus:  # it has one, whatever the signature says
            return self._region
        place = self.places.get(claim.service)
        return claim.region or (place(request) if place is not None else self._region)

    def account(self, claim: Claim | None) -> str:
        """Return the account that a claim, not verified yet, would act in; empty for nobody's."""
        key = self.keys.find(claim.access_key) if claim is not None else None
        return key.account if key is not None else ""

    def caller(self, request: Request, claim: Claim | None, service: str) -> Caller:
        """Return whose request it is. Raises Denied.

        Nothing is read of a body whose hash the client states; what was verified is `request.signature` from here on.
        """
        if claim is None:
            if service == "s3":  # a bucket may be public
                return ANONYMOUS
            raise Denied("missing")
        if claim.flaw is not None:
            raise claim.flaw
        key = self.keys.find(claim.access_key)
        if key is None:
            raise Denied("unknown-key")
        if service == "s3" and claim.version == 4 and self._personality.before(4, 4):
            raise Denied("obsolete")
        now = self.clock()
        self.keys.check_token(key, claim.token)
        process = version2 if claim.version == 2 else verify
        process.verify(request, claim, key.secret_key, now)
        if key.session is not None and now >= key.session.expiry:
            raise Denied("expired-token")
        return Caller(
            account=key.account,
            region=self.region(request, claim),
            service=service,
            access_key=claim.access_key,
            arn=key.arn,
            user_id=key.user_id,
            principal=key.principal,
            root=key.root,
        )

    def require(self, needs: Iterable[Need], request: Request, caller: Caller) -> None:
        """Return when the caller may do all of this. Raises Denied."""
        rights: Rights | None = None
        for need in needs:
            if caller.root and need.policy is None and need.owner in {None, caller.account}:
                continue
            rights = rights or self.keys.rights(caller)
            decision = decide(rights, need, self._context(request, caller, need))
            if not decision.allowed:
                raise Denied("denied", decision.reason)

    def allows(self, need: Need, request: Request, caller: Caller) -> bool:
        """Say whether the caller may do this, for a service whose answer depends on it."""
        try:
            self.require([need], request, caller)
        except Denied:
            return False
        return True

    def _context(self, request: Request, caller: Caller, need: Need) -> Context:
        now = self.clock()
        common = {
            "aws:CurrentTime": datetime.fromtimestamp(now, UTC).isoformat(),
            "aws:EpochTime": str(int(now)),
            "aws:RequestedRegion": caller.region,
            "aws:SecureTransport": "true" if request.is_secure else "false",
            "aws:SourceIp": request.address,
            "aws:UserAgent": request.header("User-Agent") or "",
        }
        if referer := request.header("Referer"):
            common["aws:Referer"] = referer
        return merged(common, self.keys.traits(caller), need.context)
