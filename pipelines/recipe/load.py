"""From a recipe's file to a Recipe: the grammar of its top level and of a step's item."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipelines.kinds import BUILT_IN, Kinds
from pipelines.recipe import grammar
from pipelines.recipe.compose import compose
from pipelines.recipe.declarations import declare
from pipelines.recipe.expand import expand
from pipelines.recipe.flow import Draft, Flow
from pipelines.recipe.items import Items
from pipelines.recipe.model import Recipe, StepItem
from pipelines.recipe.nodes import Entry, ListNode, MapNode, Node, ScalarNode, is_null, noun
from pipelines.recipe.options import as_text
from pipelines.recipe.problems import any_of, closest, quoted
from pipelines.recipe.shape import dotted
from pipelines.recipe.source import Findings, TooMany, read
from pipelines.recipe.variables import Variables


def load(path: Path, overrides: Mapping[str, str] | None = None, *, kinds: Kinds = BUILT_IN) -> Recipe:
    """Read a recipe and check all that can be checked without running it.

    `overrides` are the values of `--var`, as text. Only the modules of the kinds that the recipe names are imported.
    Raises RecipeError with every problem at once.
    """
    source = read(path)
    findings = Findings(source)
    recipe = None
    with suppress(TooMany):
        root = compose(source, findings)
        if isinstance(root, MapNode):
            recipe = _Reader(path, findings, kinds).recipe(root, overrides or {})
        else:
            _refuse_root(root, findings)
    findings.raise_if_any()
    if recipe:
        return recipe
    raise AssertionError("a recipe without problems is returned above")


def _refuse_root(root: Node | None, findings: Findings) -> None:
    start = findings.source.span(0)
    if root is None or is_null(root):
        if not findings.problems:
            findings.add(start, "the recipe is empty; it needs `name` and `steps`")
    else:
        keys = any_of((f"`{key}`" for key in grammar.KEYS), "and")
        message = f"a recipe is a mapping with the keys {keys}, not {noun(root)}"
        findings.add(root.span, message)


class _Reader:
    def __init__(self, path: Path, findings: Findings, kinds: Kinds) -> None:
        self._path = path
        self._findings = findings
        self._kinds = kinds
        self._known = kinds.names()

    def recipe(self, root: MapNode, overrides: Mapping[str, str]) -> Recipe | None:
        self._refuse_unknown(root)
        name = self._text(root, "name") or ""
        if name and not re.fullmatch(grammar.NAME, name):
            message = f"{quoted(name)} cannot name a recipe; use up to 128 letters, digits, `.`, `_` and `-`"
            self._findings.add(root.entries["name"].value.span, message, where="name")
        description = self._text(root, "description")
        variables = declare(root.get("vars"), overrides, self._findings)
        drafts = self._drafts(root.entries.get("steps"), variables)
        if not drafts:
            return None
        drafts = expand(drafts, self._kinds, self._findings)
        flow = Flow(drafts, self._kinds, self._findings)
        sources = flow.bind()
        outputs = flow.outputs(root.get("outputs"))
        flow.warn_unused()
        for unused in variables.unused():
            self._findings.warn(unused.key, f"nothing uses variable `{unused.name}`", where=f"vars.{unused.name}")
        return Recipe(
            path=self._path,
            name=name,
            description=description or "",
            variables=variables.values(),
            steps=tuple(item for draft in drafts if (item := _item(draft, sources[draft.id]))),
            outputs=outputs,
            warnings=tuple(self._findings.warnings),
        )

    def _refuse_unknown(self, root: MapNode) -> None:
        meant = {key: closest(key, grammar.KEYS) for key in root.entries.keys() - set(grammar.KEYS)}
        for key in sorted({"name", "steps"} - root.entries.keys() - set(meant.values())):
            self._findings.add(root.span, f"the recipe has no `{key}`", where=key)
        for key, near in meant.items():
            rest = "" if near else f"; a recipe has {any_of((f'`{name}`' for name in grammar.KEYS), 'and')}"
            is_step = key in self._known
            message = (
                f"`{key}` is a step; put it into the list under `steps`"
                if is_step
                else f"unknown key {quoted(key)}{rest}"
            )
            self._findings.add(root.entries[key].key, message, where=key, suggestion=None if is_step else near)

    def _text(self, root: MapNode, key: str) -> str | None:
        node = root.get(key)
        text = as_text(node)
        if node is not None and text is None:
            quotes = f"; write it in quotes: '{node.text}'" if isinstance(node, ScalarNode) and node.text else ""
            self._findings.add(node.span, f"`{key}` needs text, not {noun(node)}{quotes}", where=key)
        return text

    def _drafts(self, steps: Entry | None, variables: Variables) -> list[Draft]:
        if steps is None:
            return []
        if not isinstance(steps.value, ListNode):
            message = f"`steps` takes a list of steps, not {noun(steps.value)}; begin each with `- `"
            self._findings.add(steps.key, message, where="steps")
            return []
        if not steps.value.items:
            self._findings.add(steps.key, "`steps` is empty; a recipe needs a step", where="steps")
        return Items(steps.value, variables, self._kinds, self._findings).drafts()


def _item(draft: Draft, source: str | None) -> StepItem | None:
    """Return the finished item; None for one with problems."""
    if draft.step is None or draft.given is None or draft.options is None:
        return None
    return StepItem(
        id=draft.id,
        kind=draft.kind,
        step=draft.step,
        options=draft.options,
        source=source,
        references={dotted(found.path): found.id for found in draft.references},
        line=draft.key.line + 1,
    )
