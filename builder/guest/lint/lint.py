"""All rules, and what they say of a guest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import ModuleType

from builder.errors import EmiError
from builder.guest.facts import Filesystem, GuestFacts, KnownFacts
from builder.guest.lint import accounts, boot, cloud, disk, drivers, leftovers, naming, network, secrets, system
from builder.guest.lint.rule import SEVERITIES, Finding, Found, Rule, blotted, printable
from builder.guest.lint.subject import Subject, Target
from builder.guest.unclean import HEAD, unclean
from builder.image.inspect import look_inside
from builder.image.stream import ImageReader

# By group, in the order in which a person wants to read them.
GROUPS: Mapping[str, tuple[ModuleType, Sequence[Rule]]] = {
    "disk and firmware": (disk, disk.RULES),
    "boot": (boot, boot.RULES),
    "names of filesystems": (naming, naming.RULES),
    "drivers": (drivers, drivers.RULES),
    "network": (network, network.RULES),
    "cloud-init": (cloud, cloud.RULES),
    "accounts": (accounts, accounts.RULES),
    "secrets": (secrets, secrets.RULES),
    "leftovers": (leftovers, leftovers.RULES),
    "system": (system, system.RULES),
}
RULES: Mapping[str, Rule] = {rule.id: rule for _, rules in GROUPS.values() for rule in rules}

_ORDER = list(SEVERITIES)
_LOOKED = 200  # of one rule that are looked for: a hostile image can have as many as it likes
_MANY = 10  # findings of one rule that are told


def lint(
    facts: GuestFacts, target: Target, *, exempt: Collection[str] = (), volume_size: int | None = None
) -> tuple[Finding, ...]:
    """Return what the rules, but for those `exempt` by id, find in a guest that is to run on `target`: worst first.

    `volume_size` is that of the volume which it is to become, in bytes, where that is known. What a rule cannot tell is
    a note of that rule. Raises GuestError when the appliance is gone.
    """
    found = _judge(Subject(facts, target, volume_size=volume_size), RULES.values(), exempt)
    facts.sectors(512, 0)  # asked anew each time: with a dead appliance, every rule would only have notes
    return found


def lint_disk(
    reader: ImageReader, target: Target, *, exempt: Collection[str] = (), volume_size: int | None = None
) -> tuple[Finding, ...]:
    """Return what the rules on disks find in one whose guest cannot be looked at; no appliance is needed."""
    table, volumes = look_inside(reader)
    starts = {part.number: part.start for part in table.partitions} if table else {}
    filesystems = []
    for volume in volumes:
        kind = volume.filesystem.type
        wrong = unclean(kind, reader.pread(HEAD, starts.get(volume.partition or 0, 0)))
        where = f"partition {volume.partition}" if volume.partition else "the disk"
        filesystems.append(Filesystem(device=where, type=kind, unclean=wrong))
    subject = Subject(KnownFacts(filesystems=filesystems), target, reader, volume_size=volume_size)
    return _judge(subject, disk.RULES, exempt)


def _judge(subject: Subject, rules: Iterable[Rule], exempt: Collection[str]) -> tuple[Finding, ...]:
    found = [finding for rule in rules if rule.id not in exempt for finding in _apply(rule, subject)]
    return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.severity)))


def _apply(rule: Rule, subject: Subject) -> Iterator[Finding]:
    try:
        found = list(islice(rule.check(subject), _LOOKED))
    except EmiError as error:
        found = [Found(severity="note", what=f"could not be told: {error.message}")]
    for one in found[:_MANY]:
        yield _finding(rule, one)
    if len(found) > _MANY:
        rest = found[_MANY:]
        worst = min((one.severity for one in rest), key=_ORDER.index)
        mends = tuple({repr(mend): mend for one in rest for mend in one.mends}.values())
        yield _finding(
            rule,
            Found(
                severity=worst,
                what=f"and {len(rest)} more of these{' at least' if len(found) == _LOOKED else ''}",
                mends=mends,
            ),
        )


def _finding(rule: Rule, found: Found) -> Finding:
    plain = tuple(mend for mend in found.mends if mend.plain)
    spoken = plain == found.mends
    advice = found.advice or ("" if spoken else "Its name cannot stand in a recipe: use a `run` step.")
    return Finding(
        rule=rule.id,
        severity=found.severity,
        what=blotted(found.what),
        where=printable(found.where),
        quote=blotted(found.quote),
        mends=plain,
        advice="" if plain and spoken else advice,
    )


def unknown_rules(names: Collection[str]) -> tuple[str, ...]:
    """Return which of these are no rule's id."""
    return tuple(name for name in names if name not in RULES)
