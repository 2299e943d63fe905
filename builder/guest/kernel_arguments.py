"""The kernel's command line, edited word by word wherever it is kept: what is not meant stays byte for byte.

Sources: Documentation/admin-guide/kernel-parameters.rst of Linux (`-` and `_` are one in names, the last `console=` is
/dev/console, what follows `--` is init's); words and quotes are those of GRUB's script and of the shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# A word of a command line, quotes and escapes included; a quote that is not closed is a character like others.
_WORD = r"""(?:\\"(?:[^\\"]|\\[^"])*\\"|"(?:[^"\\]|\\.)*"|'[^']*'|\\[^\r\n]|[^ \t\r\n"'\\]|["']|\\(?!\n))+"""
_ITEM = re.compile(rf"((?:[ \t\r\n]|\\\n)*)({_WORD})", re.DOTALL)
_QUOTED = re.compile(r"""\\"|"((?:[^"\\]|\\.)*)"|'([^']*)'|\\(.)""", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_.,:=/@+%-]+")
_CONSOLE = re.compile(r"(?P<device>tty[A-Za-z]*\d+|hvc\d+|xvc\d+)(?:,\d+[noe]?\d?r?)?")

# Given the value of a `root=` argument: the value it is to have (the same to leave it), and why it stays if so.
RenameRoot = Callable[[str], tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to become of a command line.

    `replace` takes the place of every argument of its name; `remove` names arguments (`quiet`) or gives them whole
    (`console=tty1`), and leaves what the others want; `console` is a serial console (`ttyS0,115200`).
    """

    add: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    console: str = ""
    root: RenameRoot | None = None


@dataclass(frozen=True, kw_only=True)
class Edited:
    """The parts of the command line as they are now, what was changed in which, and what stays though it was meant."""

    parts: tuple[str, ...]
    by_part: tuple[tuple[int, str], ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[str, ...]:
        """What was changed, in words."""
        return tuple(told for _, told in self.by_part)


def problem(argument: str) -> str | None:
    """Return why that cannot be given as an argument, or None; what boot loaders would read otherwise is refused."""
    if not _PLAIN.fullmatch(argument) or argument.startswith(("=", "-")):
        return f"{argument!r} is no argument that boot loaders hand on as it is: only letters, digits and _.,:=/@+%-"
    return None


def console_problem(console: str) -> str | None:
    """Return why that is no console for the kernel, or None."""
    if not _CONSOLE.fullmatch(console):
        return f"{console!r} is no console: write it like ttyS0,115200 or hvc0"
    return None


def edit(parts: Sequence[str], wish: Wish, *, end: int = 0) -> Edited:
    """Return a command line that is kept in parts (which follow each other) as `wish` wants it.

    What must be added goes to the end of part number `end`, but a console behind the other consoles.
    """
    line = _Line(parts, end)
    line.remove(wish)
    line.replace(wish.replace)
    line.add(wish.add)
    if wish.console:
        line.console(wish.console, alone="console" in wish.remove)
    if wish.root is not None:
        line.root(wish.root)
    return Edited(parts=line.parts, by_part=tuple(line.changes), kept=tuple(line.kept))


def words(part: str) -> list[str]:
    """Return the arguments of a command line as the kernel sees them."""
    return [_plain(word) for _, word in _ITEM.findall(part)]


def value(part: str, name: str) -> str | None:
    """Return the value of the last argument of that name."""
    found = [word.partition("=")[2] for word in words(part) if _same(_name(word), name)]
    return found[-1] if found else None


@dataclass
class _Word:
    gap: str
    text: str

    @property
    def plain(self) -> str:
        return _plain(self.text)

    @property
    def name(self) -> str:
        return _name(self.plain)


class _Line:
    """A command line being edited."""

    def __init__(self, parts: Sequence[str], end: int) -> None:
        self._parts = [[_Word(gap, text) for gap, text in _ITEM.findall(part)] for part in parts]
        self._tails = [part[sum(len(gap) + len(text) for gap, text in _ITEM.findall(part)) :] for part in parts]
        self._end = end
        self.changes: list[tuple[int, str]] = []
        self.kept: list[str] = []

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts as text."""
        joined = ("".join(word.gap + word.text for word in part) for part in self._parts)
        return tuple(text + tail for text, tail in zip(joined, self._tails, strict=True))

    def remove(self, wish: Wish) -> None:
        """Remove what is named, but not what is wanted in its place: `remove: [console]` with another `console`."""
        console = _line_of(f"console={wish.console}") if wish.console else None
        for number, word in self._all():
            wanted = word.plain in (*wish.add, *wish.replace) or _line_of(word.plain) == console
            if not wanted and any(_means(given, word) for given in wish.remove):
                self._drop(number, word)

    def replace(self, wanted: Sequence[str]) -> None:
        for name in dict.fromkeys(map(_name, wanted)):
            new = [each for each in dict.fromkeys(wanted) if _name(each) == name]
            old = [(number, word) for number, word in self._all() if _same(word.name, name)]
            for (number, word), argument in zip(old, new, strict=False):
                self._become(number, word, argument)
            for number, word in old[len(new) :]:
                self._drop(number, word)
            for argument in new[len(old) :]:
                self._append(self._end, argument)

    def add(self, wanted: Sequence[str]) -> None:
        for argument in dict.fromkeys(wanted):
            if all(word.plain != argument for _, word in self._all()):
                self._append(self._end, argument)

    def console(self, wanted: str, *, alone: bool) -> None:
        argument, device = f"console={wanted}", wanted.partition(",")[0]
        consoles = [(number, word) for number, word in self._all() if word.name == "console"]
        same = [(number, word) for number, word in consoles if re.split(r"[=,]", word.plain)[1:2] == [device]]
        if same:
            if _line_of(same[-1][1].plain) != _line_of(argument):
                self._become(*same[-1], argument)
            return
        end = consoles[-1][0] if consoles else self._end
        if not consoles and device != "tty0" and not alone:
            self._append(end, "console=tty0")  # the screen, which was the console while none was named
        self._append(end, argument)

    def root(self, rename: RenameRoot) -> None:
        for number, word in self._all():
            old = word.plain.partition("=")[2]
            if word.name == "root" and old:
                new, why = rename(old)
                self._become(number, word, f"root={new}")
                if new == old and why:
                    self.kept.append(f"root={old} stays: {why}")

    def _all(self) -> list[tuple[int, _Word]]:
        return [(number, word) for number, part in enumerate(self._parts) for word in part]

    def _become(self, number: int, word: _Word, argument: str) -> None:
        if word.plain != argument:
            self.changes.append((number, f"{word.plain} -> {argument}"))
            word.text = argument

    def _append(self, number: int, argument: str) -> None:
        part = self._parts[number]
        at = next((at for at, word in enumerate(part) if word.text in ("--", "---") or _goes_on(word)), len(part))
        gap = " "
        if at == 0:
            gap = part[0].gap if part else ""
        if at == 0 and part:
            part[0].gap = " "
        part.insert(at, _Word(gap, argument))
        self.changes.append((number, f"added {argument}"))

    def _drop(self, number: int, word: _Word) -> None:
        part = self._parts[number]
        at = next(at for at, each in enumerate(part) if each is word)
        if at == 0 and len(part) > 1:
            part[1].gap = word.gap
        del part[at]
        self.changes.append((number, f"removed {word.plain}"))


def _line_of(console: str) -> str:
    """Return a serial console's argument with what the kernel takes for granted: 9600n8."""
    device, _, mode = console.partition(",")
    return f"{device},{re.sub(r'(?<=[0-9])n8?$', '', mode) or 9600}"


def _goes_on(word: _Word) -> bool:
    """Say whether a backslash at the word's end takes the next line, or blank, for its own."""
    return (len(word.text) - len(word.text.rstrip("\\"))) % 2 == 1


def _means(given: str, word: _Word) -> bool:
    return word.plain == given if "=" in given else _same(word.name, given)


def _same(one: str, other: str) -> bool:
    return one.replace("-", "_") == other.replace("-", "_")


def _name(argument: str) -> str:
    return argument.partition("=")[0]


def _plain(word: str) -> str:
    return _QUOTED.sub(lambda found: next((group for group in found.groups() if group is not None), ""), word)
