"""What `emi lint --fix` prints is a recipe's steps: each mend of each rule loads, and all of them together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.guest.edits import Unchanged
from builder.guest.lint.lint import RULES, lint
from builder.guest.lint.mending import as_yaml, steps
from builder.guest.lint.rule import Finding, Mend
from pipelines import kinds
from pipelines.recipe import load
from pipelines.steps.initramfs import InitramfsOptions
from tests.builder.guest.lint import breaks

BREAKS = {f"{number}-{row[0]}": row for number, row in enumerate(breaks.BREAKS)}
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
    found = [one for one in breaks.told(BREAKS[name]) if one.rule == BREAKS[name][0]]
    mended = list(dict.fromkeys(mend.step for one in found for mend in one.mends))
    loaded = load(recipe(tmp_path, found))
    assert sorted(step.kind for step in loaded.steps[1:]) == sorted(mended)


def test_every_step_that_rules_name_is_reached():
    reached = {(one.rule, mend.step) for row in breaks.BREAKS for one in breaks.told(row) for mend in one.mends}
    declared = {(rule.id, step) for rule in RULES.values() for step in rule.mended_by}
    assert declared == reached


def test_all_mends_together_are_one_recipe(tmp_path):
    # A new disk is not cut, so what would cut the old one is left out.
    rows = [row for row in breaks.BREAKS if row[0] not in ("disk-larger-than-needed", "size-not-whole")]
    findings = [one for row in rows for one in breaks.told(row) if one.rule == row[0]]
    loaded = load(recipe(tmp_path, findings))
    kinds = [step.kind for step in loaded.steps[1:]]
    assert len(kinds) == len(set(kinds)) > 8
    order = ["label", "packages", "grub", "kernel", "fstab", "selinux", "sysprep", "extract", "assemble", "resize"]
    assert [kind for kind in kinds if kind in order] == order


def test_names_of_a_hostile_guest_stay_names(tmp_path):
    names = ["a b", "x: y", "- [", "'\"#", "new\nline", "\udcff", "*", "{path}", "%s", "é", "\x1b[2J"]
    keys = {f"/home/{name}/.aws/credentials": b"secret = x\n" for name in names}
    accounts = {
        "/etc/passwd": b"x y:x:1000:1000::/:/bin/sh\n-n:x:1001:1001::/:/bin/sh\nok:x:1002:1002::/:/bin/sh\n",
        "/etc/shadow": b"x y:::::::\n-n:::::::\nok:::::::\n",
    }
    found = lint(breaks.broken(keys | accounts), "aws")
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


def test_the_root_leaves_its_disk_last(tmp_path):
    apart = breaks.broken(breaks.NAMED, **breaks.APART, disk=breaks.disk(core=b"", loaders=()))
    found = [one for one in lint(apart, "aws") if one.rule in ("bios-cannot-boot", "esp-without-loader")]
    lines = ["label: {label: rootfs}", "kernel:", "fstab: {alone: true}", "extract: {partition: 1}", "assemble:"]
    assert [line.removeprefix("- ") for line in as_yaml(found).splitlines() if "#" not in line] == lines
    assert len(load(recipe(tmp_path, found)).steps) == 6


@pytest.mark.parametrize(
    ("changed", "more"),
    [
        (breaks.fstab("LABEL=rootfs / ext4", "LABEL=UEFI /srv vfat"), {}),  # data on another partition
        ({"/etc/os-release": b"ID=flatcar\n"}, {}),
        ({}, {"filesystems": ()}),  # a guest that could not be looked at
        ({}, {"disk": breaks.disk(core=b"", loaders=(), root_size=breaks.GIB)}),
    ],
    ids=["another partition in use", "Flatcar", "no root", "a damaged table"],
)
def test_a_root_that_is_not_all_stays_where_it_is(changed, more):
    facts = breaks.broken(changed, **{"disk": breaks.disk(core=b"", loaders=()), **more})
    (found,) = [one for one in lint(facts, "aws") if one.rule == "bios-cannot-boot"]
    assert (found.mends, bool(found.advice)) == ((), True)


@pytest.mark.parametrize(
    ("changes", "mended"),
    [
        ({}, ({"disk": "1 GiB"},)),
        ({"disk": breaks.disk(size=8 * breaks.GIB, root_size=7 * breaks.GIB)}, ({"disk": "1 GiB"},)),
        # xfs cannot be made smaller: a disk that is cut behind it can
        ({"filesystems": (replace(breaks.ROOT, type="xfs"), breaks.ESP)}, ({"disk": "1 GiB"},)),
        (
            {
                "filesystems": (replace(breaks.ROOT, type="xfs"), breaks.ESP),
                "disk": breaks.disk(size=8 * breaks.GIB, root_size=7 * breaks.GIB),
            },
            (),
        ),
    ],
)
def test_a_disk_is_made_as_large_as_its_volume(changes, mended):
    facts = breaks.broken(**{"disk": breaks.disk(size=8 * breaks.GIB), "disk_size": 8 * breaks.GIB, **changes})
    (found,) = lint(facts, "aws", volume_size=breaks.GIB)
    assert found.rule == "disk-larger-than-volume"
    assert tuple(mend.options for mend in found.mends) == mended
    assert lint(facts, "aws", volume_size=8 * breaks.GIB) == ()


def test_a_new_disk_is_not_cut():
    cut = finding("a", Mend(step="resize", options={"disk": "1 GiB", "size": "keep"}))
    fitted = finding("b", Mend(step="resize", options={"disk": "1 GiB"}))
    made = finding("c", Mend(step="extract", options={"partition": 1}), Mend(step="assemble"))
    assert [list(step) for step in steps([cut, made])] == [["extract"], ["assemble"]]
    assert [list(step) for step in steps([fitted, made])] == [["extract"], ["assemble"], ["resize"]]


def test_an_initramfs_is_made_where_there_is_none():
    dracut = {"/usr/bin/dracut": b"", "/etc/os-release": b"ID=rhel\nVERSION_ID=9\n", breaks.INITRD: None}
    made = {
        "/usr/sbin/mkinitramfs": ["/usr/sbin/mkinitramfs", "-o", "IMAGE", breaks.VERSION],
        "/usr/bin/dracut": ["/usr/bin/dracut", "--force", "--no-hostonly", "IMAGE", breaks.VERSION],
    }
    for path, command in made.items():
        facts = breaks.broken(dracut if "dracut" in path else {breaks.INITRD: None, path: b""})
        (found,) = [one for one in lint(facts, "aws") if one.rule == "no-initramfs"]
        (mend,) = found.mends
        image = mend.options["creates"]
        assert (mend.step, mend.options["command"]) == ("run", [image if word == "IMAGE" else word for word in command])
        assert image.endswith(f"{breaks.VERSION}{'.img' if 'dracut' in path else ''}")
    # The step `initramfs` leaves a kernel without one alone.
    for tool in ({}, {"/usr/sbin/mkinitramfs": b""}):
        edits = kinds.load("initramfs").edits(InitramfsOptions(), breaks.broken({breaks.INITRD: None} | tool), {})
        assert isinstance(edits, Unchanged)
