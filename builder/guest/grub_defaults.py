"""/etc/default/grub and /etc/default/grub.d/*.cfg: the settings that grub-mkconfig makes the next grub.cfg of.

They are shell, read in this order, the last assignment wins; here they are read as text. An assignment whose value is
one plain or quoted word is edited in its place, whatever else the files hold stays. Sources: GRUB's manual,
util/grub-mkconfig.in; grub.d is Debian's and SUSE's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.guest.bootloader import FileEdit, Settings, counted, edit_arguments, same_serial
from builder.guest.kernel_arguments import Edited

_ASSIGNMENT = re.compile(r"(?m)^[ \t]*(?:export[ \t]+)?(?P<name>GRUB_[A-Z0-9_]+)(?P<plus>\+?)=")
_VALUE = re.compile(
    r"""(?:"(?P<double>(?:[^"\\`]|\\[\s\S])*)"|'(?P<single>[^']*)'|(?P<bare>[^\s"'`\\;#&|<>()]*))"""
    r"""(?=[ \t]*(?:[;\r\n]|\Z)|[ \t]+#)"""
)
_LINUX, _DEFAULT = "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"
_LINES = (_LINUX, _DEFAULT)  # as they follow each other on the command line
_LONGEST = 16 << 10  # characters of a value that is looked at
_OWN_VALUE = re.compile(r"\$\{?GRUB_CMDLINE_LINUX(?:_DEFAULT)?\b")


@dataclass
class _Assignment:
    """An assignment; `quote` is None when its value is not understood and stays, whatever it is."""

    path: str
    span: tuple[int, int]  # of the value, with its quotes; empty and at the end for one to be added
    name: str
    value: str  # without them
    quote: str | None
    adds: bool = False  # NAME+=…
    start: str = ""  # the value before
    added: bool = False

    @property
    def written(self) -> str:
        """The value with its quotes, which a bare word gets when it needs them."""
        quote = self.quote or ('"' if re.search(r"[^\w.,:=/@+%-]", self.value) else "")
        return f"{quote}{self.value}{quote}"


class _Files:
    """The files' assignments, in the order in which the shell reads them."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.texts = {path: data.decode("utf-8", "surrogateescape") for path, data in files.items()}
        self._ends = {path: "\n" if text and not text.endswith("\n") else "" for path, text in self.texts.items()}
        self.found = [each for path, text in self.texts.items() for each in _assignments(path, text)]
        self.changes: dict[str, list[str]] = {path: [] for path in files}

    def last(self, name: str) -> _Assignment:
        """Return the assignment that decides; where it is not understood or there is none, one that will be added."""
        last = next((each for each in reversed(self.found) if each.name == name), None)
        if last is not None and last.quote is not None:
            return last
        path = last.path if last else next(iter(self.texts))
        end = len(self.texts[path])
        added = _Assignment(
            path=path, span=(end, end), name=name, value="", quote='"' if name in _LINES else "", added=True
        )
        self.found.append(added)
        return added

    def set(self, name: str, value: str) -> None:
        """Have the variable that value in the end."""
        last = self.last(name)
        if last.value != value:
            told = f"{name}={value}" if last.added else f"{name}={last.value} -> {value}"
            self.changes[last.path].append(told)
            last.value = value

    def done(self) -> dict[str, FileEdit]:
        """Return the files that changed."""
        edits = {}
        for path, text in self.texts.items():
            changed = [each for each in self.found if each.path == path and each.value != each.start]
            pieces, at = [], 0
            for each in sorted(changed, key=lambda each: each.span):
                pieces.append(text[at : each.span[0]])
                if each.added:
                    pieces += [self._ends.pop(path, ""), f"{each.name}={each.written}\n"]
                else:
                    pieces.append(each.written)
                at = each.span[1]
            if changed:
                whole = "".join([*pieces, text[at:]]).encode("utf-8", "surrogateescape")
                edits[path] = FileEdit(data=whole, changes=counted(self.changes[path]))
        return edits


def edit_defaults(files: Mapping[str, bytes], settings: Settings) -> dict[str, FileEdit]:
    """Return those of the files that change, by path; `files` are in the order in which they are read, one at least.

    What another system's entry would have is not known to these files: all they say is for this one.
    """
    every = _Files(files)
    _edit_lines(every, settings)
    if settings.timeout is not None:
        every.set("GRUB_TIMEOUT", str(settings.timeout))
    if settings.menu is not None:
        _set_terminal(every, settings.menu.command)
    return every.done()


def value_of(files: Mapping[str, bytes], name: str) -> str | None:
    """Return what the variable is in the end, as it is written, or None when it is not set."""
    return next((each.value for each in reversed(_Files(files).found) if each.name == name), None)


def _edit_lines(every: _Files, settings: Settings) -> None:
    target = every.last(_LINUX)
    if target.added and any(each.name == _LINUX and each is not target for each in every.found):
        target.value = target.start = f"${_LINUX}"  # what is not understood stays, and is gone on from
    effective = [each for name in _LINES for each in _effective(every, name)]
    for each in every.found:
        if each.name in _LINES and each.quote is not None and all(each is not other for other in effective):
            _put(every, [each], edit_arguments([each.value], settings.unwished))
    end = next(number for number, each in enumerate(effective) if each is target)
    _put(every, effective, edit_arguments([each.value for each in effective], settings, end=end))


def _put(every: _Files, assignments: Sequence[_Assignment], edited: Edited) -> None:
    for each, part in zip(assignments, edited.parts, strict=True):
        each.value = part
    for number, told in edited.by_part:
        each = assignments[number]
        every.changes[each.path].append(f"{each.name}: {told}")


def _effective(every: _Files, name: str) -> list[_Assignment]:
    """Return the assignments whose words are on the command line: the last one, and those that it goes on from."""
    kept: list[_Assignment] = []
    for each in every.found:
        if each.name == name:
            kept = [*kept, each] if each.adds or _OWN_VALUE.search(each.value) else [each]
    return [each for each in kept if each.quote is not None]


def _set_terminal(every: _Files, command: str) -> None:
    if "serial" not in every.last("GRUB_TERMINAL").value.split():
        every.set("GRUB_TERMINAL", "console serial")
    last = every.last("GRUB_SERIAL_COMMAND").value
    if "serial" not in last.split() or not same_serial(last, command):
        every.set("GRUB_SERIAL_COMMAND", command)


def _assignments(path: str, text: str) -> list[_Assignment]:
    found = []
    for match in _ASSIGNMENT.finditer(text):
        value = _VALUE.match(text, match.end())
        if value is None or value.end() - value.start() > _LONGEST:
            end = match.end()
            found.append(_Assignment(path=path, span=(end, end), name=match["name"], value="", quote=None, start=""))
            continue
        kind = next(kind for kind in ("double", "single", "bare") if value[kind] is not None)
        found.append(
            _Assignment(
                path=path,
                span=value.span(),
                name=match["name"],
                value=value[kind],
                quote={"double": '"', "single": "'"}.get(kind, ""),
                adds=bool(match["plus"]),
                start=value[kind],
            )
        )
    return found
