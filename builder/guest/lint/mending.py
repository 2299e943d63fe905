"""The steps of a recipe that mend findings: one for each kind, in an order that works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

import yaml

from builder.guest.lint.rule import Finding

# What others build on comes first; what removes traces comes after it, so that it removes those of the mending too;
# then the root leaves its disk. A fstab for that alone takes leave of /boot, so it waits for the kernel of there.
_ORDER = (
    "label", "fstab", "packages", "run", "network", "users", "cloud-init", "files", "grub", "initramfs", "kernel",
    "fstab, alone", "selinux", "sysprep", "extract", "assemble", "resize",
)  # fmt: skip


def steps(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the steps that mend what has such steps, as a recipe's `steps` hold them."""
    merged: dict[str, dict[str, Any]] = {}
    for finding in findings:
        for mend in finding.mends:
            merged[mend.step] = _together(merged.get(mend.step, {}), mend.options)
    if "assemble" in merged and merged.get("resize", {}).get("size") == "keep":
        del merged["resize"]  # it cuts a disk that `extract` takes the root out of; a new one is as large as needed
    order = sorted(merged, key=lambda step: _ORDER.index(_place(step, merged[step])))
    return [{step: merged[step]} if merged[step] else {step: None} for step in order]


def _place(step: str, options: Mapping[str, Any]) -> str:
    return "fstab, alone" if step == "fstab" and options.get("alone") else step


def as_yaml(findings: Sequence[Finding]) -> str:
    """Return those steps as YAML, each after the rules whose findings it mends; empty when there are none."""
    lines = []
    for step in steps(findings):
        (kind,) = step
        rules = dict.fromkeys(finding.rule for finding in findings for mend in finding.mends if mend.step == kind)
        lines += [f"# mends {', '.join(rules)}", f"- {kind}:{_options(step[kind])}"]
    return "\n".join(lines)


def _options(options: Mapping[str, Any] | None) -> str:
    """Return what follows the colon: nothing, options on the same line, or a line for each."""
    if options is None:
        return ""
    text = yaml.safe_dump(options, sort_keys=False, default_flow_style=None, width=110).rstrip("\n")
    return f" {text}" if text.startswith("{") else f"\n{indent(text, '    ')}"


def _together(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of both: lists one after the other without repetition, mappings key by key."""
    merged = dict(one)
    for key, value in other.items():
        before = merged.get(key)
        if isinstance(before, list) and isinstance(value, list):
            merged[key] = [*before, *(item for item in value if item not in before)]
        elif isinstance(before, dict) and isinstance(value, Mapping):
            merged[key] = _together(before, value)
        else:
            merged[key] = value
    return merged
