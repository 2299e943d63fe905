"""The step `lint`: it changes nothing, and ends the run where the image is as bad as the recipe says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from builder.errors import LintFailed
from builder.guest.edits import Unchanged
from builder.guest.facts import KnownFacts
from builder.guest.lint.lint import lint
from pipelines.steps.lint import Lint, LintOptions

STEP = Lint()
# A bare root with a left-over key (error), a machine-id (warning) and a file of the build's (note).
LEFT = KnownFacts(
    files={
        "/etc/os-release": b"ID=debian\n",
        "/etc/machine-id": b"0123456789abcdef0123456789abcdef\n",
        "/etc/ssh/ssh_host_rsa_key": b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "/tmp/build.log": b"made\n",
    }
)


def options(**given) -> LintOptions:
    return LintOptions.model_validate({key: tuple(value) if key == "except" else value for key, value in given.items()})


def exempt(*kept: str) -> list[str]:
    """Return the ids of all rules that this guest breaks but these."""
    return sorted({finding.rule for finding in lint(LEFT, "aws")} - set(kept))


def test_errors_end_the_run_and_all_that_was_found_is_told():
    with pytest.raises(LintFailed) as caught:
        STEP.edits(options(**{"except": exempt("ssh-host-keys", "machine-id")}), LEFT, {})
    assert caught.value.message == (
        "the image is not fit for aws:\n"
        "  error: ssh-host-keys: 1 private host keys of sshd are in the image (/etc/ssh/ssh_host_rsa_key)"
        "; mended by `sysprep`\n"
        "  warning: machine-id: every instance will have this identity (/etc/machine-id); mended by `sysprep`"
    )


@pytest.mark.parametrize(
    ("fail_on", "kept", "fails"),
    [
        ("error", ["machine-id", "temporary-files"], False),
        ("warning", ["machine-id"], True),
        ("warning", ["temporary-files"], False),
        ("never", ["ssh-host-keys", "machine-id", "temporary-files"], False),
    ],
)
def test_how_bad_it_must_be(fail_on, kept, fails):
    given = options(**{"except": exempt(*kept), "fail_on": fail_on})
    if fails:
        with pytest.raises(LintFailed, match=kept[0]):
            STEP.edits(given, LEFT, {})
        return
    found = STEP.edits(given, LEFT, {})
    assert isinstance(found, Unchanged)
    assert all(rule in found.why for rule in kept)


def test_the_target_is_obeyed():
    given = {"for": "eucalyptus-xen", "fail_on": "never"}
    assert "ssh-host-keys" in STEP.edits(options(**given), LEFT, {}).why
    assert "no-partition-table" in STEP.edits(options(**{**given, "for": "aws"}), LEFT, {}).why
    assert "no-partition-table" not in STEP.edits(options(**given), LEFT, {}).why


def test_a_volume_must_hold_the_disk():
    large = replace(LEFT, disk_size=(2 << 30) + 512)
    with pytest.raises(
        LintFailed, match=r"disk-larger-than-volume: the disk has 2\.0 GiB, its volume is to have 2 GiB"
    ):
        STEP.edits(options(**{"except": exempt(), "volume_size": 2}), large, {})
    assert isinstance(STEP.edits(options(**{"except": exempt(), "volume_size": 3}), large, {}), Unchanged)


def test_nothing_found_is_said():
    found = STEP.edits(options(**{"except": exempt()}), LEFT, {})
    assert found == Unchanged(why="nothing is wrong with it for aws")


def test_options_are_checked():
    assert STEP.check(options(**{"except": ["no-dhcp", "no-such-rule"]})) == [
        "`except`: there is no rule no-such-rule; docs/lint.md lists them"
    ]
    assert not STEP.check(options())
    for wrong in ({"for": "azure"}, {"fail_on": "note"}, {"rules": []}, {"volume_size": 0}):
        with pytest.raises(ValidationError):
            options(**wrong)
