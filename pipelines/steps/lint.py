"""The step kind `lint`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from builder.errors import LintFailed
from builder.guest.edits import Edit, Unchanged
from builder.guest.facts import GuestFacts
from builder.guest.lint.lint import lint, unknown_rules
from builder.guest.lint.rule import Finding
from builder.guest.lint.subject import Target
from pipelines.step import GuestStep, Options

_GIB = 1 << 30


class LintOptions(Options):
    """What the image is meant for, and what is let pass."""

    for_: Target = Field(default="aws", alias="for", description="the machines that the image is to run on")
    fail_on: Literal["error", "warning", "never"] = Field(
        default="error", description="the mildest findings that end the run; `never` only reports them"
    )
    volume_size: int | None = Field(
        default=None, ge=1, le=65536, description="GiB of the volume that it is to become; a larger disk is an error"
    )
    except_: tuple[str, ...] = Field(default=(), alias="except", description="rules, by their ids, that are left out")


class Lint(GuestStep[LintOptions]):
    """Look for what keeps the image from booting in a cloud, and for what leaks out of it; change nothing.

    The rules are those of `emi lint`, in docs/lint.md. Each finding is told with its place and the step that mends it.
    It sees what the steps before it left, and shares their launch.
    """

    options = LintOptions

    def check(self, options: LintOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        return [
            f"`except`: there is no rule {name}; docs/lint.md lists them" for name in unknown_rules(options.except_)
        ]

    def edits(self, options: LintOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Apply the rules. Raises LintFailed, with all that was found, when some of it is as bad as `fail_on`."""
        volume = options.volume_size * _GIB if options.volume_size else None
        found = lint(facts, options.for_, exempt=options.except_, volume_size=volume)
        if any(_fails(finding, options) for finding in found):
            told = "\n".join(f"  {told_of(finding)}" for finding in found)
            raise LintFailed(f"the image is not fit for {options.for_}:\n{told}")
        if not found:
            return Unchanged(why=f"nothing is wrong with it for {options.for_}")
        return Unchanged(why=f"lint only reports: {'; '.join(map(told_of, found))}")


def told_of(finding: Finding) -> str:
    """Return a finding as a line for a person, with the steps that mend it."""
    steps = " and ".join(f"`{step}`" for step in dict.fromkeys(mend.step for mend in finding.mends))
    return f"{finding}{f'; mended by {steps}' if steps else ''}"


def _fails(finding: Finding, options: LintOptions) -> bool:
    match options.fail_on:
        case "error":
            return finding.severity == "error"
        case "warning":
            return finding.severity in ("error", "warning")
        case "never":
            return False
