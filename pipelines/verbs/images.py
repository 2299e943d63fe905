"""What the verbs do that look at one image: inspect, lint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builder.errors import EmiError, GuestError, HostError, LintFailed, UsageError
from builder.guest import inspect as guest_inspect
from builder.guest.facts import GuestFacts
from builder.guest.lint import mending
from builder.guest.lint.lint import lint as find_faults
from builder.guest.lint.lint import lint_disk, unknown_rules
from builder.guest.lint.rule import Finding
from builder.guest.lint.subject import Target
from builder.guest.look import layer_of, look
from builder.guest.overlay import Layer
from builder.image import inspect as image_inspect
from builder.image.inspect import ImageFacts
from builder.image.reader import open_image
from pipelines import ui
from pipelines.home import home


def inspect(image: Path, *, guest: bool, as_json: bool) -> None:
    """Show what is in an image: the disk at once, then its guest, which takes a launch of the appliance.

    What has no guest, or more than one, says so, and is shown nevertheless.
    """
    facts = image_inspect.inspect(image)
    if not as_json:
        ui.say(image_inspect.describe(facts))
    report, why = _report(image, facts) if guest else (None, "not looked at")
    if as_json:
        ui.say_json({**asdict(facts), "guest": asdict(report) if report else None, "no_guest": why})
        return
    if report:
        ui.say(guest_inspect.describe(report))
    elif guest:
        ui.say(f"  no guest is shown: {why}")


def lint(
    image: Path, target: Target, exempt: Sequence[str], *, volume_size: int | None = None, fix: bool, as_json: bool
) -> None:
    """Show what is wrong with an image, or print the steps that mend it; `volume_size` is GiB.

    Raises LintFailed when there are errors; GuestError or HostError when the guest could not be looked at, after what
    the disk alone tells was shown.
    """
    if unknown := unknown_rules(exempt):
        raise UsageError(f"no rule {', '.join(unknown)}", hint="docs/lint.md lists the rules.")
    found, trouble = _faults(image, target, exempt, None if volume_size is None else volume_size << 30)
    if as_json:
        said = {"image": str(image), "target": target, "no_guest": trouble.message if trouble else None}
        ui.say_json({**said, "findings": [_json(finding) for finding in found]})
    elif fix:
        ui.say(mending.as_yaml(found) or "# no step mends anything here")
    else:
        _show(found, image, target, trouble)
    if trouble:
        raise trouble
    errors = sum(1 for finding in found if finding.severity == "error")
    if errors and not fix:
        raise LintFailed(f"{image} has {errors} error{'s' if errors > 1 else ''} for {target}")


def _faults(
    image: Path, target: Target, exempt: Sequence[str], volume_size: int | None
) -> tuple[Sequence[Finding], EmiError | None]:
    """Return what is wrong with an image; of its disk alone, and why, where its guest cannot be looked at."""
    layer = layer_of(image)
    try:
        with _guest(layer) as facts:
            return find_faults(facts, target, exempt=exempt, volume_size=volume_size), None
    except (GuestError, HostError) as error:
        with open_image(image, layer.format) as reader:
            return lint_disk(reader, target, exempt=exempt, volume_size=volume_size), error


def _report(image: Path, facts: ImageFacts) -> tuple[guest_inspect.GuestReport | None, str | None]:
    """Return what the guest is, or why nothing can be told of it."""
    if facts.refused is not None:
        return None, facts.refused
    try:
        with _guest(layer_of(image)) as guest:
            return guest_inspect.inspect(guest), None
    except EmiError as error:
        return None, error.message


@contextmanager
def _guest(layer: Layer) -> Iterator[GuestFacts]:
    place = home().make()
    with look(layer, cache=place.cache, scratch=place.scratch) as guest:
        yield guest


def _show(found: Sequence[Finding], image: Path, target: Target, trouble: EmiError | None) -> None:
    if trouble:
        ui.say("note: of the guest nothing can be told, this is of the disk alone")
    for finding in found:
        ui.say(f"{finding.severity}: {finding.what}")
        ui.say(f"    {finding.rule}, {finding.where or image}{f': {finding.quote}' if finding.quote else ''}")
        if steps := [f"`{mend.step}`" for mend in finding.mends]:
            ui.say(f"    mended by {' and '.join(steps)}; `emi lint --fix` prints the step")
        elif finding.advice:
            ui.say(f"    {finding.advice}")
    if not found and not trouble:
        ui.say(f"nothing is wrong with {image} for {target}")


def _json(finding: Finding) -> dict[str, Any]:
    mends = [{mend.step: dict(mend.options) or None} for mend in finding.mends]
    return {**asdict(finding), "mends": mends}
