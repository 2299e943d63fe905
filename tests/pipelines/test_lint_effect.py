"""What `emi lint --fix` prints mends what was found: the steps are applied, and the rule finds nothing any more."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from builder.guest import sysprep
from builder.guest.edits import (
    Command,
    MakeDirectory,
    MakeLink,
    Remove,
    SetAttributes,
    SetLabel,
    Truncate,
    Unchanged,
    WriteFile,
)
from builder.guest.facts import KnownFacts, Stat
from builder.guest.lint import leftovers
from builder.guest.lint.lint import RULES, lint
from builder.guest.lint.mending import as_yaml
from pipelines import kinds
from pipelines.recipe import load
from pipelines.steps.sysprep import Sysprep
from tests.builder.guest.lint import breaks

HEAD = "name: mended\nsteps:\n  - download: {url: 'https://images.example/x.qcow2', checksum: 'sha256:%s'}\n" % (
    "0" * 64
)
# These run the guest's own programs or work on disks, which plain values cannot.
_REAL = {"packages", "initramfs", "run", "resize", "extract", "assemble"}

MENDED = {
    f"{number}-{row[0]}": row
    for number, row in enumerate(breaks.BREAKS)
    if RULES[row[0]].mended_by and not _REAL & set(RULES[row[0]].mended_by)
}


def applied(facts: KnownFacts, edit) -> KnownFacts:
    """Return the guest after an edit."""
    files, stats = dict(facts.files), dict(facts.stats)
    match edit:
        case WriteFile(path=path, data=data):
            files[path] = data
        case MakeLink(path=path, target=target):
            files[path] = target
        case Remove(paths=paths):
            files = {
                path: data
                for path, data in files.items()
                if not any(path == gone or path.startswith(f"{gone}/") for gone in paths)
            }
        case Truncate(paths=paths):
            files |= dict.fromkeys(paths, b"")
        case SetLabel(device=device, label=label):
            labelled = [replace(one, label=label) if one.device == device else one for one in facts.filesystems]
            return replace(facts, filesystems=tuple(labelled))
        case MakeDirectory(path=path):
            stats[path] = Stat(mode=stat.S_IFDIR | 0o755)
        case SetAttributes():
            pass
        case Command():
            raise AssertionError(edit)
        case _:
            raise AssertionError(edit)
    return replace(facts, files=files, stats=stats)


@pytest.mark.parametrize("name", MENDED)
def test_the_steps_mend_what_was_found(tmp_path, name):
    rule, target, facts, *_ = MENDED[name]
    found = [one for one in lint(facts, target) if one.rule == rule]
    mended = [one for one in found if one.mends]
    path = tmp_path / "mended.yaml"
    path.write_text(HEAD + "".join(f"  {line}\n" for line in as_yaml(found).splitlines()))
    for item in load(path).steps[1:]:
        edits = kinds.load(item.kind).edits(item.options, facts, {})
        assert not isinstance(edits, Unchanged), edits
        for edit in edits:
            facts = applied(facts, edit)
    left = [one for one in lint(facts, target) if one.rule == rule]
    assert [one for one in left if (one.where, one.what) in {(each.where, each.what) for each in mended}] == []


# What `sysprep` takes away for rules that look for files: each name that such a rule knows.
LEFT = {
    "shell-history": [f"/root/{name}" for name in sysprep.TYPED],
    "random-seed": leftovers._SEEDS,
    "dhcp-leases": leftovers._LEASES,
    "logs": [*leftovers._TELLING, *leftovers._LOGS],
    "package-cache": leftovers._CACHES,
    "temporary-files": ["/tmp/x", "/tmp/.x", "/var/tmp/x"],
    "ssh-host-keys": ["/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_key"],
    "authorized-keys": ["/root/.ssh/authorized_keys", "/root/.ssh/authorized_keys2"],
}


@pytest.mark.parametrize("rule", LEFT)
def test_sysprep_takes_whatever_a_rule_looks_for(rule):
    paths = [path.replace("*", "x") for path in LEFT[rule]]
    facts = breaks.broken(dict.fromkeys(paths, b"x\n"))
    mends = [mend for one in lint(facts, "aws") if one.rule == rule for mend in one.mends]
    only = tuple(mends[0].options["only"])
    assert {tuple(mend.options["only"]) for mend in mends} == {only}
    edits = Sysprep().edits(Sysprep.options(only=only), facts, {})
    assert not isinstance(edits, Unchanged)
    for edit in edits:
        facts = applied(facts, edit)
    assert [path for path in paths if facts.files.get(path)] == []
    assert lint(facts, "aws") == ()
