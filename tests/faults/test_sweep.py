"""Each fault at each cloud call of the demo's cloud steps: emi gets over it, or says why not and what to do next.

Three kinds of fault. One that *passes*: the run succeeds. One that *stays* but might have passed: the run gives up
within its limits, with the cause. One that is *final*: it is not retried. Once the fault is gone, `emi resume` ends
with exactly one image and one snapshot, and nothing else is left of the run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import pytest

ROOT = Path(__file__).parents[2]
CALLS = (
    "ec2:DescribeSnapshots",
    "ebs:StartSnapshot",
    "ebs:PutSnapshotBlock",
    "ebs:CompleteSnapshot",
    "ebs:ListSnapshotBlocks",
    "ebs:GetSnapshotBlock",
    "ec2:DescribeImages",
    "ec2:RegisterImage",
)
IN_PARALLEL = ("PutSnapshotBlock", "GetSnapshotBlock")
Kind = Literal["passes", "stays", "final"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, at which calls it makes sense, and how a run must end with it."""

    kind: Kind
    effect: str
    more: Mapping[str, object] = field(default_factory=dict)
    only: Sequence[str] = ("*",)
    code: int = 7  # emi's exit code
    cause: str = "{call}: "  # what its message must say
    hint: str = "`emi resume`"

    def at(self, call: str) -> dict[str, object]:
        """Return the fault at that call."""
        service, action = call.split(":")
        times = {"first": 2} if self.kind == "passes" else {}
        return {"effect": self.effect, "service": service, "call": action, **times, **self.more}

    def fits(self, call: str) -> bool:
        """Say whether the fault makes sense at that call."""
        return any(fnmatchcase(call, pattern) for pattern in self.only)


BODIES = ("ec2:*", "ebs:Start*", "ebs:Complete*", "ebs:List*", "ebs:Get*")  # PutSnapshotBlock answers without one
LARGE = ("ec2:*", "ebs:List*", "ebs:Get*")
USES = ("ec2:*", "ebs:Put*", "ebs:Complete*", "ebs:List*", "ebs:Get*")  # they name what there is, or look for it
MAKERS = ("ebs:StartSnapshot", "ebs:CompleteSnapshot", "ec2:RegisterImage")
READS = ("ebs:GetSnapshotBlock",)
EBS = ("ebs:*",)
CURSED = {"reason": "the disk is cursed"}
FAULTS = (
    Fault(kind="passes", effect="throttle"),
    Fault(kind="passes", effect="throttle", more={"code": "ThrottlingException"}, only=EBS),
    Fault(kind="passes", effect="internal-error"),
    Fault(kind="passes", effect="unavailable"),
    Fault(kind="passes", effect="reset"),
    Fault(kind="passes", effect="reset-body", only=BODIES),
    Fault(kind="passes", effect="lost"),
    Fault(kind="passes", effect="slow", more={"seconds": 0.5}),
    Fault(kind="passes", effect="trickle", more={"rate": 4000}, only=("ec2:*", "ebs:Start*", "ebs:Complete*")),
    Fault(kind="passes", effect="corrupt", only=READS),
    Fault(kind="passes", effect="lag", more={"seconds": 8, "first": 1000}, only=USES),
    Fault(kind="stays", effect="throttle"),
    Fault(kind="stays", effect="internal-error"),
    Fault(kind="stays", effect="unavailable"),
    Fault(kind="stays", effect="reset"),
    Fault(kind="stays", effect="lost"),
    Fault(kind="stays", effect="trickle", more={"rate": 5}, only=LARGE, cause="no whole answer within 1 s"),
    Fault(kind="stays", effect="corrupt", only=READS, cause="damaged on the way"),
    Fault(kind="stays", effect="stuck", only=MAKERS, cause="is not finished after 3 s"),
    Fault(kind="final", effect="denied", hint="Grant {call} to these credentials"),
    Fault(kind="final", effect="expired", hint="expired: renew them"),
    Fault(kind="final", effect="quota", hint="Ask AWS Service Quotas for more"),
    Fault(kind="final", effect="refuse", more={"code": "InvalidParameterValue"}, cause="(InvalidParameterValue)"),
    Fault(
        kind="final",
        effect="skew",
        code=5,
        cause="s behind the cloud's, so it refuses our signatures",
        hint="Set the clock",
    ),
    Fault(kind="final", effect="fail", only=MAKERS, more=CURSED, cause="the disk is cursed"),
    Fault(kind="final", effect="corrupt", only=READS, more={"matching": True}, cause="does not hold what was sent"),
)
FEW = 6  # of the pairs, in the cut without `sweep`
Pair = tuple[Fault, str]


def pairs() -> list[Pair]:
    """Return every fault at every call where it makes sense."""
    return [(fault, call) for fault in FAULTS for call in CALLS if fault.fits(call)]


@dataclass(kw_only=True)
class Sweep:
    """Goes through pairs, one run each, and counts how they ended."""

    subject: Any
    first: int = 1  # the number of its first run: two sweeps over one subject must not share a run
    ended: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def all(self, chosen: Iterable[Pair]) -> str:
        """Do them all; return what was done, in words."""
        wrong, done = [], 0
        for number, (fault, call) in enumerate(chosen, start=self.first):
            done += 1
            try:
                self.one(number, fault, call)
            except AssertionError as error:
                wrong.append(f"--- {number}: {fault.kind} {fault.effect} {dict(fault.more)} at {call}\n{error}")
            finally:
                self.subject.clear()
        assert not wrong, f"{len(wrong)} of {done}:\n" + "\n".join(wrong)
        assert done == sum(self.ended.values())
        return (
            f"fault sweep of {self.subject.recipe.name}: {done} pairs of a fault and a call:"
            f" {self.ended['passes']} runs got over it ({self.repeated} calls hit),"
            f" {self.ended['stays']} gave up within their limits, {self.ended['final']} ended without a retry;"
            " then one image and one snapshot"
        )

    def one(self, number: int, fault: Fault, call: str) -> None:
        """Run with the fault and look; clear it, resume, and look again."""
        subject, began, position = self.subject, time.monotonic(), self.subject.position()
        subject.put(fault.at(call))
        done = subject.run(number, **(subject.patient if fault.kind == "passes" else subject.quick))
        took = time.monotonic() - began
        hit = [one for one in subject.calls(position) if one.fault]
        assert hit, f"the fault never acted: {done.err}"
        if fault.kind == "passes":
            assert done.code == 0, done.err
            self.repeated += len(hit)
        else:
            assert took < 60, "limits of two and three seconds"
            self.fails_well(fault, call, done, len(hit))
            subject.clear()
            resumed = subject.resume()
            assert resumed.code == 0, resumed.err
        subject.has_one_of_each(number)
        self.repeats_nothing(fault, call, subject.effects(position))
        self.ended[fault.kind] += 1

    def fails_well(self, fault: Fault, call: str, done: Any, hits: int) -> None:
        """Fail unless emi ended with the cause, the next command, and no retry of what is final."""
        action = call.split(":")[1]
        assert done.code == fault.code, (done.code, done.err)
        words = done.err[done.err.rindex("error: ") :]
        assert fault.cause.format(call=call) in words, words
        assert fault.hint.format(call=call) in words, words
        assert "`emi resume`" in words, words
        if fault.kind == "final" and fault.effect != "corrupt":
            assert hits <= (self.subject.connections if action in IN_PARALLEL else 1), f"retried: {hits} calls"
        if fault.kind == "stays" and fault.effect not in ("stuck", "trickle"):  # one answer may take all the time
            assert "given up after" in words, words
            assert "cloud: attempt " in done.err, f"the waiting was not shown: {done.err}"
        if fault.effect == "stuck":
            assert "at most 3 s" in done.err, f"the waiting was not shown: {done.err}"

    def repeats_nothing(self, fault: Fault, call: str, effects: Counter[str]) -> None:
        """Fail unless one image was registered, and one snapshot started, in all; each again where the first failed."""
        doomed = fault.kind == "final" and fault.effect in ("fail", "corrupt")
        assert effects["RegisterImage"] == 1 + (doomed and call == "ec2:RegisterImage"), effects
        if not (
            fault.effect in ("lost", "reset-body") and call == "ebs:StartSnapshot"
        ):  # repeated under its token: the same snapshot
            assert effects["StartSnapshot"] == 1 + (doomed and call != "ec2:RegisterImage"), effects


@pytest.mark.timeout(900)
@pytest.mark.behaviour(
    "Faults", "emi", "a few faults at a few calls: emi gets over them or says why, then resumes to one"
)
def test_a_few_faults(subject, capsys) -> None:
    every = pairs()
    said = Sweep(subject=subject).all(every[:: len(every) // FEW])
    with capsys.disabled():
        print(f"\n{said}")


@pytest.mark.sweep
@pytest.mark.timeout(5400)
def test_every_fault_at_every_call(subject, capsys) -> None:
    said = Sweep(subject=subject, first=1001).all(pairs())
    with capsys.disabled():
        print(f"\n{said}")


@pytest.mark.sweep
@pytest.mark.timeout(5400)
def test_the_demos_cloud_steps(demo, make_subject, capsys) -> None:
    subject = make_subject(
        emi=demo.emi,
        recipe=ROOT / "recipes" / "debian-12.yaml",
        words=lambda number: ("--var", f"version=fault-{number}"),
        image="debian-fault-{}-amd64",
        snapshot="Debian fault-{}",
        connections=64,
    )
    assert subject.run(0).code == 0  # what all runs share is done now
    every = pairs()
    said = Sweep(subject=subject).all(every[:: len(every) // 30])
    with capsys.disabled():
        print(f"\n{said}")
