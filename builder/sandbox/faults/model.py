"""One fault: which calls it concerns, when it acts on them, and what it does. The closed schema of the YAML."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What each effect does, in the words of `docs/sandbox-faults.md`, and the parameters that it takes.
EFFECTS: Mapping[str, tuple[str, frozenset[str]]] = {
    "throttle": ("the call is refused as one too many, in the service's own code", frozenset({"code", "message"})),
    "internal-error": ("500: the service failed; nothing was done", frozenset({"code", "message"})),
    "unavailable": ("503: the service is overloaded; nothing was done", frozenset({"code", "message"})),
    "denied": ("the caller may not do this, in the service's own code", frozenset({"code", "message"})),
    "expired": ("the caller's credentials have expired, in the service's own code", frozenset({"code", "message"})),
    "quota": ("a quota of the account is used up, in the call's own code", frozenset({"code", "message"})),
    "refuse": ("the call is refused with the `code` given", frozenset({"code", "message", "status", "reason"})),
    "reset": ("the connection is reset before the answer; nothing was done", frozenset()),
    "lost": ("the call takes effect, then the connection is reset: its answer is lost", frozenset()),
    "reset-body": ("the connection is reset after half of the answer's body", frozenset()),
    "slow": ("the answer begins `seconds` late", frozenset({"seconds"})),
    "trickle": ("the answer's body comes `rate` bytes a second", frozenset({"rate"})),
    "lag": ("what was made less than `seconds` ago does not exist for this call yet", frozenset({"seconds"})),
    "stuck": ("what the call makes stays pending until the faults are cleared", frozenset()),
    "fail": ("what the call makes ends in its failed state, with `reason`", frozenset({"reason"})),
    "dies": ("the machine of an instance that the call makes or names is lost `seconds` later", frozenset({"seconds"})),
    "skew": ("the service's clock is `seconds` ahead (behind: negative)", frozenset({"seconds"})),
    "corrupt": ("a byte of the answer's body is wrong; with `matching`, its checksum headers fit the wrong bytes",
                frozenset({"matching"})),
}  # fmt: skip
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "slow": {"seconds": 5.0},
    "trickle": {"rate": 100},
    "lag": {"seconds": 10.0},
    "dies": {"seconds": 0.0},
    "skew": {"seconds": 3600.0},
}
_NEEDS: Mapping[str, tuple[str, ...]] = {"refuse": ("code",)}

Effect = Literal[
    "throttle", "internal-error", "unavailable", "denied", "expired", "quota", "refuse", "reset", "lost", "reset-body",
    "slow", "trickle", "lag", "stuck", "fail", "dies", "skew", "corrupt",
]  # fmt: skip


class Misfit(ValueError):
    """A parameter that does not go with the effect; `key` is the parameter's name."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Fault(BaseModel):
    """One fault of the table. `*` and `?` are wildcards in the texts that select."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    effect: Effect = Field(description="what it does: one of the effects below")
    service: str = Field(default="*", description="the service as signatures name it: `ec2`, `ebs`, `s3`, `sts`, …")
    call: str = Field(default="*", description="the API call: `RegisterImage`, `Describe*`")
    account: str = Field(default="*", description="the caller's account")
    region: str = Field(default="*", description="the region that is called")
    resource: str = Field(default="*", description="an id, name or path in the request; for `lag` what is not found")
    first: int | None = Field(default=None, ge=1, description="acts this many times at most, then never again")
    every: int = Field(default=1, ge=1, description="acts on every so many-th of the calls that it concerns")
    after: int = Field(default=0, ge=0, description="lets this many of them pass first")
    probability: float = Field(default=1.0, gt=0, le=1, description="acts with this probability")
    seed: int = Field(default=0, description="decides what `probability` draws: same seed, same calls, same faults")
    seconds: float | None = Field(default=None, description="for `slow`, `lag`, `dies` and `skew`")
    rate: int | None = Field(default=None, ge=1, description="for `trickle`: bytes a second")
    reason: str | None = Field(default=None, description="for `fail`: why; for `refuse`: the EBS direct APIs' `Reason`")
    code: str | None = Field(default=None, min_length=1, description="the error code, instead of the service's own")
    message: str | None = Field(default=None, description="the error's message, instead of the service's own")
    status: int | None = Field(default=None, ge=400, le=599, description="for `refuse`: the HTTP status (400)")
    matching: bool = Field(default=False, description="for `corrupt`: the checksum headers fit the wrong bytes")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        takes = EFFECTS[self.effect][1]
        for name in _PARAMETERS:
            if name in self.model_fields_set and name not in takes:
                raise Misfit(name, f"`{name}` does not go with `effect: {self.effect}`")
        for name in _NEEDS.get(self.effect, ()):
            if getattr(self, name) is None:
                raise Misfit("effect", f"`effect: {self.effect}` needs `{name}`")
        if self.seconds is not None and self.effect != "skew" and self.seconds < 0:
            raise Misfit("seconds", "`seconds` must be at least 0")
        if self.effect in ("stuck", "fail") and not any(fnmatchcase(call, self.call) for call in MAKES):
            raise Misfit("call", f"`effect: {self.effect}` needs a call that makes something: {', '.join(MAKES)}")
        return self

    def parameter(self, name: str) -> float:
        """Return `seconds` or `rate`, or the effect's default for it."""
        given = getattr(self, name)
        return float(given if given is not None else str(DEFAULTS[self.effect][name]))

    def concerns(self, *, service: str, call: str, account: str, region: str) -> bool:
        """Say whether the fault is about such a call, whatever resource it names."""
        return (
            fnmatchcase(call, self.call)
            and fnmatchcase(service, self.service)
            and fnmatchcase(account, self.account)
            and fnmatchcase(region, self.region)
        )


_PARAMETERS = ("seconds", "rate", "reason", "code", "message", "status", "matching")
_IMAGE = "[ae]mi|[ae]ki|[ae]ri"
# The calls whose result has a life of its own, and how the id of that result begins, as a pattern.
MAKES: Mapping[str, str] = {
    "CompleteSnapshot": "snap",
    "CopyImage": _IMAGE,
    "CopySnapshot": "snap",
    "CreateImage": _IMAGE,
    "CreateSnapshot": "snap",
    "CreateSnapshots": "snap",
    "CreateVolume": "vol",
    "ImportSnapshot": "import-snap",
    "RegisterImage": _IMAGE,
    "StartSnapshot": "snap",
}
