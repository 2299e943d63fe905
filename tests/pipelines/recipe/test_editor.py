"""What an editor sees of the bad recipes: all but what only `emi validate` can know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from pipelines.kinds import Kinds
from pipelines.schema import schema

ONLY_VALIDATE_SEES = {
    "flow-braces-around-no-name",
    "flow-duplicate-id",
    "flow-file-where-an-image-is-needed",
    "flow-first-step-needs-an-input",
    "flow-from-a-later-step",
    "flow-from-dangling",
    "flow-from-itself",
    "flow-from-of-the-wrong-type",
    "flow-from-where-nothing-is-taken",
    "flow-image-where-a-snapshot-is-needed",
    "flow-output-dangling",
    "flow-output-field-nothing-near",
    "flow-output-field-unknown",
    "flow-override-mistyped",
    "flow-override-unknown",
    "flow-reference-dangling",
    "flow-reference-in-a-list",
    "flow-reference-of-the-wrong-type",
    "flow-stray-brace",
    "flow-variable-default-mistyped",
    "flow-variable-later",
    "flow-variable-misspelt-in-block-text",
    "flow-variable-of-the-wrong-type",
    "flow-variable-unknown",
    "flow-variable-without-value",
    "steps-step-checks-itself",
    "steps-two-options-that-disagree",
    "yaml-duplicate-key",
    "yaml-duplicate-top-key",
    "yaml-merge-key",
}


def test_editors_refuse_most_bad_recipes(bad_recipes: Sequence[Any], kinds: Kinds) -> None:
    validator = Draft202012Validator(schema(kinds))
    Draft202012Validator.check_schema(schema(kinds))
    fit = set()
    for row in bad_recipes:
        try:
            fits = validator.is_valid(yaml.safe_load(row.recipe))
        except (yaml.YAMLError, ValueError):
            fits = False
        if fits:
            fit.add(row.name)
    assert fit == ONLY_VALIDATE_SEES
    assert len(fit) < len(bad_recipes) / 2
