"""The calls of EC2, STS and S3 as such: retried, counted and framed. What is asked is in the ec2*.py beside this.

botocore makes every call here. Every attempt is reported through `on_call` and framed by the crash points
`before SERVICE:ACTION` and `after SERVICE:ACTION`. What goes through `_call` may be repeated: it only reads, names its
end state, carries a client token, or creates under a name that is taken by then. What makes something that only a tag
tells goes through `_create`, which looks for it before it asks again.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from builder import pool
from builder.cloud import records
from builder.cloud.api import Call, Capabilities
from builder.cloud.claims import TAG, Claim
from builder.cloud.limits import limits
from builder.cloud.refusals import THROTTLING
from builder.cloud.s3 import S3
from builder.cloud.settings import Settings
from builder.cloud.wait import found_within
from builder.crashpoint import reach
from builder.errors import CloudError, CloudNotFound, CloudTrouble
from builder.progress import SILENT, Progress, Sparing
from builder.retry import retrying

if TYPE_CHECKING:
    from builder.cloud.session import Session

Answer = TypeVar("Answer")

_ATTEMPTS = 1000  # the limit in time comes first


class Calls(ABC):
    """Calls one account in one region. Nothing is loaded, looked up or connected before the first call.

    `retry` is how long a call is repeated that fails for a reason that may pass, in seconds; None: as limits.py says.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_call: Callable[[Call], None] = lambda _: None,
        progress: Progress = SILENT,
        retry: float | None = None,
    ) -> None:
        self._settings = settings
        self._retry = retry
        self._on_call, self._progress = on_call, Sparing(progress)
        self._s3 = S3(settings, on_call=on_call, progress=progress)
        self._lock = pool.Lock()
        self._session_made: Session | None = None
        self._account = ""
        self._known: dict[str, float] = {}  # resource id -> when we first heard of it

    @property
    def region(self) -> str:
        """The region's name."""
        return self._settings.region

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this cloud can do. Nothing is asked of it."""

    def url(self, service: str) -> str:
        """Return where a service (botocore's name: ec2, s3) answers. Nothing is asked of it."""
        return self._session().url(service)

    def account(self) -> str:
        """Return the account id of the credentials (asked once, then remembered)."""
        if not self._account:
            self._account = self._ask_account()
        return self._account

    def answer(self) -> str:
        """Return the account id of the credentials, asked now by a call that changes nothing: whether it answers."""
        return self._ask_account()

    def _ask_account(self) -> str:
        return str(self._call("sts", "GetCallerIdentity")["Account"])

    def _pages(self, action: str, member: str, **request: Any) -> list[Mapping[str, Any]]:
        answer = self._call("ec2", action, **request)
        found = list(answer.get(member, ()))
        while answer.get("NextToken"):
            answer = self._call("ec2", action, **request, NextToken=answer["NextToken"])
            found += answer.get(member, ())
        return found

    def _call(self, service: str, action: str, uses: Sequence[str] = (), /, **request: Any) -> Mapping[str, Any]:
        session = self._session()

        def once() -> Mapping[str, Any]:
            return session.control(service, action, request, limit=limits().answer)

        return self._attempts(Call(service, action), once, uses=uses)

    def _create(self, action: str, member: str, find: Callable[[], str | None], /, **request: Any) -> str:
        """Return the id of what the call makes, where no client token keeps a repetition from making another.

        After a failure that may have taken effect `find` is asked for it, as long as a describe may lag; only then is
        the call made again.
        """
        call = Call("ec2", action)
        session = self._session()

        def once() -> str:
            try:
                return str(session.control("ec2", action, request, limit=limits().answer)[member])
            except CloudTrouble as error:
                if error.code in THROTTLING:  # refused before anything was done
                    raise
                until = time.time() + limits().settle
                found = found_within(find, until=until, what=str(call), progress=self._progress)
                if found is None:
                    raise
                return found

        return self._attempts(call, once, longer=limits().settle)

    def _marks(self, action: str, claim: Claim, tags: Mapping[str, str], *types: str) -> dict[str, Any]:
        """Return the part of a request that sets tags and the claim's as it creates; {} where the call takes none."""
        if not self._tags_at_once(action):
            return {}
        marks = self._tag_list(claim, tags)
        return {"TagSpecifications": [{"ResourceType": one, "Tags": marks} for one in types]}

    def _mark_after(self, action: str, claim: Claim, tags: Mapping[str, str], *ids: str) -> None:
        """Set tags and the claim's on what the call has just made, where the call itself took none."""
        if not self._tags_at_once(action):
            self._call("ec2", "CreateTags", ids, Resources=list(ids), Tags=self._tag_list(claim, tags))

    def _tags_at_once(self, action: str) -> bool:
        return Call("ec2", action) in self.capabilities.tags_at_once

    def _tag_list(self, claim: Claim, tags: Mapping[str, str]) -> list[dict[str, str]]:
        return records.tag_list({**tags, TAG: claim.token})

    def _attempts(
        self, call: Call, once: Callable[[], Answer], *, uses: Sequence[str] = (), longer: float = 0
    ) -> Answer:
        """Return what `once` does, repeated while that may help, `longer` seconds longer than is usual.

        `uses` are resources that must exist for it.
        """
        before, after = f"before {call}", f"after {call}"

        def attempt() -> Answer:
            self._on_call(call)
            reach(before)
            try:
                answer = once()
            except CloudNotFound as error:
                if self._settles(uses):
                    raise CloudTrouble(f"{error.message}, perhaps not yet: it is new to us") from error
                raise
            except CloudError as error:
                meant = self._meant(error)
                if meant is error:
                    raise
                raise meant from error
            reach(after)
            return answer

        deadline = limits().retry if self._retry is None else self._retry
        return retrying(attempt, deadline=deadline + longer, attempts=_ATTEMPTS, progress=self._progress)

    def _meant(self, error: CloudError) -> CloudError:
        """Return what a refusal means, where this cloud says it otherwise than AWS does."""
        return error

    def _know(self, resource: str) -> None:
        self._known.setdefault(resource, time.monotonic())

    def _settles(self, resources: Sequence[str]) -> bool:
        """Say whether one of them is so new that the cloud may not know it everywhere yet (awslabs/coldsnap#43)."""
        since = time.monotonic() - limits().settle
        return any(self._known.get(resource, since) > since for resource in resources)

    def _session(self) -> Session:
        with self._lock:
            if self._session_made is None:
                from builder.cloud.session import Session  # botocore costs 0.15 s that `emi --help` does not owe

                self._session_made = Session(self._settings)
            return self._session_made


def filters(name: str, value: str) -> list[dict[str, Any]]:
    """Return one filter as a request holds it."""
    return [{"Name": name, "Values": [value]}]
