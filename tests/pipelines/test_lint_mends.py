"""What `emi lint --fix` prints is a recipe's steps: each mend of each rule loads, and all of them together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from builder.guest.lint.lint import RULES, lint
from builder.guest.lint.mending import as_yaml, steps
from builder.guest.lint.rule import Finding, Mend
from pipelines.recipe import load

HERE = Path(__file__).parents[1] / "builder/guest/lint"


def _module(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rules = _module("test_rules")
BREAKS = {f"{number}-{row[0]}": row for number, row in enumerate(rules.BREAKS)}
HEAD = "name: mended\nsteps:\n  - download: {url: 'https://images.example/x.qcow2', checksum: 'sha256:%s'}\n" % (
    "0" * 64
)


def recipe(tmp_path: Path, findings) -> Path:
    path = tmp_path / "mended.yaml"
    path.write_text(HEAD + "".join(f"  {line}\n" for line in as_yaml(findings).splitlines()))
    return path


def finding(rule: str, *mends: Mend) -> Finding:
    return Finding(rule=rule, severity="error", what="x", mends=mends)


@pytest.mark.parametrize("name", BREAKS)
def test_what_mends_a_finding_is_a_step(tmp_path, name):
    rule, target, facts, *_ = BREAKS[name]
    found = [one for one in lint(facts, target) if one.rule == rule]
    mended = list(dict.fromkeys(mend.step for one in found for mend in one.mends))
    loaded = load(recipe(tmp_path, found))
    assert sorted(step.kind for step in loaded.steps[1:]) == sorted(mended)


def test_every_step_that_rules_name_is_reached():
    reached = {(one.rule, mend.step) for row in rules.BREAKS for one in lint(row[2], row[1]) for mend in one.mends}
    declared = {(rule.id, step) for rule in RULES.values() for step in rule.mended_by}
    assert declared == reached


def test_all_mends_together_are_one_recipe(tmp_path):
    findings = [one for row in rules.BREAKS for one in lint(row[2], row[1])]
    loaded = load(recipe(tmp_path, findings))
    kinds = [step.kind for step in loaded.steps[1:]]
    assert len(kinds) == len(set(kinds)) > 8
    assert kinds.index("label") < kinds.index("fstab") < kinds.index("grub") < kinds.index("sysprep")


def test_names_of_a_hostile_guest_stay_names(tmp_path):
    names = ["a b", "x: y", "- [", "'\"#", "new\nline", "\udcff", "*", "{path}", "%s", "é", "\x1b[2J"]
    keys = {f"/home/{name}/.aws/credentials": b"secret = x\n" for name in names}
    accounts = {
        "/etc/passwd": b"x y:x:1000:1000::/:/bin/sh\n-n:x:1001:1001::/:/bin/sh\nok:x:1002:1002::/:/bin/sh\n",
        "/etc/shadow": b"x y:::::::\n-n:::::::\nok:::::::\n",
    }
    found = lint(rules.broken(keys | accounts), "aws")
    loaded = {step.kind: step.options for step in load(recipe(tmp_path, found)).steps[1:]}
    plain = {path for path in keys if path.isprintable() and "{" not in path}
    assert {entry.path for entry in loaded["files"].entries} == plain
    assert len(plain) == len(names) - 4
    assert sum("cannot stand in a recipe" in one.advice for one in found) == 4
    assert loaded["users"].lock == ("ok",)


def test_options_of_one_step_go_together():
    found = [
        finding("a", Mend(step="sysprep", options={"only": ["logs"]})),
        finding("b", Mend(step="grub", options={"remove": ["quiet"]})),
        finding("c", Mend(step="sysprep", options={"only": ["history", "logs"]}), Mend(step="network")),
        finding("d", Mend(step="grub", options={"timeout": 1})),
    ]
    assert steps(found) == [
        {"network": None},
        {"grub": {"remove": ["quiet"], "timeout": 1}},
        {"sysprep": {"only": ["logs", "history"]}},
    ]
    assert as_yaml(found) == (
        "# mends c\n- network:\n# mends b, d\n- grub:\n    remove: [quiet]\n    timeout: 1\n"
        "# mends a, c\n- sysprep:\n    only: [logs, history]"
    )
    assert as_yaml([finding("a")]) == ""
