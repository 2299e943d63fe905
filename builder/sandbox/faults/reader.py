"""A file of faults: YAML in, faults out, or every problem at the line where the user wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from builder.errors import UsageError
from builder.sandbox.faults.model import EFFECTS, Fault, Misfit

_LIMIT = 1 << 20  # bytes; more is no table of faults
_MOST = 1000  # faults
_WIDTH = 200  # characters of the user's line that are shown
_HINT = "Correct the lines shown; docs/sandbox-faults.md lists every key and effect."
Actions = Mapping[str, Collection[str]]  # service -> its calls


def read(path: Path, actions: Actions) -> list[Fault]:
    """Return the faults of a file; `actions` are the calls that the sandbox answers.

    Raises UsageError with every problem, each with its line.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _LIMIT:
        raise UsageError(f"{path}: is larger than 1 MiB; is it the right file?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text") from error
    return _Reader(path, text, actions).faults()


class _Reader:
    def __init__(self, path: Path, text: str, actions: Actions) -> None:
        self._path, self._text, self._actions = path, text, actions
        self._lines = text.splitlines()
        self._problems: list[tuple[int, int, str]] = []

    def faults(self) -> list[Fault]:
        """Return the faults. Raises UsageError."""
        root = self._compose()
        found = [fault for node in self._entries(root) if (fault := self._fault(node)) is not None]
        self._refuse_if_wrong()
        return found

    def _compose(self) -> yaml.Node | None:
        try:
            for event in yaml.parse(self._text, Loader=yaml.CSafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    self._add(event.start_mark, "aliases are not used in a table of faults")
                    self._refuse_if_wrong()
            return yaml.compose(self._text, Loader=yaml.CSafeLoader)
        except RecursionError:
            raise UsageError(f"{self._path}: is nested too deeply", hint=_HINT) from None
        except yaml.MarkedYAMLError as error:
            self._add(error.problem_mark or error.context_mark, f"is not YAML: {error.problem}")
        except yaml.YAMLError as error:
            raise UsageError(f"{self._path}: is not YAML: {error}", hint=_HINT) from error
        self._refuse_if_wrong()
        return None

    def _entries(self, root: yaml.Node | None) -> Iterable[yaml.Node]:
        """Return the nodes of the list below `faults`."""
        if root is None:
            raise UsageError(f"{self._path}: is empty; `emi sandbox faults --clear` removes all faults", hint=_HINT)
        listed: yaml.Node | None = None
        for key, value in self._pairs(root, "the file", ["faults"]):
            if key == "faults":
                listed = value
        if listed is None and not self._problems:
            self._add(root.start_mark, "needs the key `faults`")
        if listed is None:
            return []
        if not isinstance(listed, yaml.SequenceNode):
            self._add(listed.start_mark, "`faults` needs a list: one `- effect: …` for each fault")
            return []
        if len(listed.value) > _MOST:
            self._add(listed.start_mark, f"`faults` takes at most {_MOST} entries")
            return []
        entries: list[yaml.Node] = listed.value
        return entries

    def _pairs(self, node: yaml.Node, noun: str, known: Collection[str]) -> Iterable[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._add(node.start_mark, f"{noun} needs a mapping")
            return
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name not in known:
                self._add(key.start_mark, f"`{name[:60]}` is no key of {noun}{_meant(name, known)}")
            elif name in seen:
                self._add(key.start_mark, f"`{name}` is given twice")
            else:
                seen.add(name)
                yield name, value

    def _fault(self, node: yaml.Node) -> Fault | None:
        before = len(self._problems)
        values: dict[str, Any] = {}
        marks = {"": node.start_mark}
        for key, value in self._pairs(node, "a fault", list(Fault.model_fields)):
            marks[key] = value.start_mark
            if isinstance(value, yaml.ScalarNode):
                values[key] = _plain(value, key)
            else:
                self._add(value.start_mark, f"`{key}` needs a single value")
        if len(self._problems) > before:
            return None
        try:
            fault = Fault.model_validate(values)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                key, sentence = _say(problem, values)
                self._add(marks.get(key, node.start_mark), sentence)
            return None
        self._check_call(fault, marks)
        return fault

    def _check_call(self, fault: Fault, marks: Mapping[str, Any]) -> None:
        services = [name for name in self._actions if fnmatchcase(name, fault.service)]
        if self._actions and not services:
            sentence = f"the sandbox has no service `{fault.service}`{_meant(fault.service, self._actions)}"
            self._add(marks.get("service", marks[""]), sentence)
            return
        calls = {call for service in services for call in self._actions[service]}
        if calls and not any(fnmatchcase(call, fault.call) for call in calls):
            where = fault.service if len(services) == 1 else "the sandbox"
            self._add(marks.get("call", marks[""]), f"{where} has no call `{fault.call}`{_meant(fault.call, calls)}")

    def _add(self, mark: Any, sentence: str) -> None:
        self._problems.append((mark.line, mark.column, sentence) if mark else (0, 0, sentence))

    def _refuse_if_wrong(self) -> None:
        if self._problems:
            raise UsageError("\n".join(self._show(*problem) for problem in sorted(self._problems)), hint=_HINT)

    def _show(self, line: int, column: int, sentence: str) -> str:
        head = f"{self._path}:{line + 1}:{column + 1}: {sentence}"
        text = self._lines[line][:_WIDTH] if line < len(self._lines) else ""
        if not text.strip() or column >= _WIDTH:
            return head
        blank = "".join("\t" if char == "\t" else " " for char in text[:column])
        return f"{head}\n{line + 1:>5} | {text}\n      | {blank}^"


def _plain(node: yaml.ScalarNode, key: str) -> object:
    """Return the value; an account such as 123456789012 is text, quoted or not."""
    text_keys = ("account", "code", "call", "service", "region", "resource", "reason", "message")
    if key in text_keys and node.tag != "tag:yaml.org,2002:null":
        return node.value
    try:
        return yaml.CSafeLoader("").construct_object(node)
    except yaml.YAMLError:
        return node.value


def _say(problem: Any, values: Mapping[str, Any]) -> tuple[str, str]:
    """Return the key that a verdict of pydantic is about, and the sentence for it."""
    context = problem.get("ctx") or {}
    error = context.get("error")
    if isinstance(error, Misfit):
        return error.key, str(error)
    key = str(problem["loc"][0]) if problem["loc"] else ""
    match problem["type"]:
        case "missing":
            return "", f"a fault needs `{key}`: {', '.join(EFFECTS)}"
        case "literal_error":
            given = str(values.get(key))
            return key, f"`{given[:60]}` is no {key}{_meant(given, EFFECTS)} ({', '.join(EFFECTS)})"
        case _:
            said = str(problem["msg"]).replace("Input should be", "must be")
            return key, f"`{key}` {said}"


def _meant(word: str, known: Iterable[str]) -> str:
    """Return the question after an unknown word, where one of the known ones is near."""
    folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(word[:100].lower(), folded, n=1, cutoff=0.6)
    return f"; did you mean `{folded[near[0]]}`?" if near else ""
