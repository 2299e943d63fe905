"""The step `unbundle`, on bundles of old tools, with keys of two accounts and clouds."""

from __future__ import annotations

from typing import Any

import pytest

from builder.errors import BundleRefused, UsageError

# Those that differ in what a step sees; tests/builder/bundle/ has all of them.
NAMES = ("2007-08-29", "ec2-ami-tools-1.5", "euca2ools-2.1", "euca2ools-3.4-unsigned-kernel", "v3")
SIGNED, UNSIGNED = "ec2-ami-tools-1.5", "euca2ools-3.4-unsigned-kernel"


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_gives_its_image(name: str, scene: Any) -> None:
    made = scene.run("unbundle", scene.fetch(name), **scene.whose(name))
    assert (made.format, made.window, made.backing) == ("raw", None, None)
    scene.require_image(made, name)


def test_there_are_signed_and_unsigned_ones(scene: Any) -> None:
    assert {scene.whose(name)["unsigned"] for name in NAMES} == {True, False}


@pytest.mark.parametrize(
    ("name", "told", "error", "says"),
    [
        pytest.param(SIGNED, {}, BundleRefused, "signed by somebody else", id="another account's"),
        pytest.param(SIGNED, {"unsigned": True}, BundleRefused, "does not open", id="another account's key"),
        pytest.param(UNSIGNED, {"cloud": "old"}, BundleRefused, "is not signed", id="nobody signed it"),
        pytest.param(SIGNED, {"cloud": "keyless"}, UsageError, "private key of account 123456789012", id="no key"),
        pytest.param(SIGNED, {"cloud": "old", "max_size": 4096}, BundleRefused, "beyond the limit", id="too large"),
    ],
)
def test_what_is_not_right_is_refused(name: str, told: Any, error: Any, says: str, scene: Any) -> None:
    bundle = scene.fetch(name)
    with pytest.raises(error, match=says):
        scene.run("unbundle", bundle, **told)
