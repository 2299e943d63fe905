"""What every editor of a boot loader's file takes and returns, and the lines they share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from builder.guest.boot_names import BootNames
from builder.guest.kernel_arguments import Edited, Wish, edit, value

_SERIAL = re.compile(r"ttyS(?P<unit>\d)(?:,(?P<speed>\d{3,7})[noe]?\d?r?)?")
_LONGEST = 16 << 10  # characters; kernels take 2 to 4 KiB
_NO_LINUX = re.compile(r"(?i)memtest|ipxe|(^|/)xen[^/]*$")
_LINUX_NAME = re.compile(r"(?:.*/)?(?:vmlinu|bzImage|Image|kernel)[^/]*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Serial:
    """A serial line for a boot loader's menu; `speed` in baud."""

    unit: int
    speed: int

    @property
    def command(self) -> str:
        """The command of GRUB, old and new, that opens it."""
        return f"serial --unit={self.unit} --speed={self.speed}"


def serial_of(console: str) -> Serial | None:
    """Return the serial line that a kernel's console is on; None for those that boot loaders do not speak on."""
    found = _SERIAL.fullmatch(console)
    return Serial(unit=int(found["unit"]), speed=int(found["speed"] or 9600)) if found else None


def same_serial(old: str, command: str) -> bool:
    """Say whether two `serial` commands of GRUB open the same line in the same way."""
    return _meant(old) == _meant(command)


def _meant(command: str) -> dict[str, str]:
    given = dict(re.findall(r"--(unit|speed|word|parity|stop|port)[= ](\w+)", command))
    return {"unit": "0", "speed": "9600", "word": "8", "parity": "no", "stop": "1", **given}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is wanted of a boot loader; `timeout` in seconds, None to leave it."""

    wish: Wish
    names: BootNames
    timeout: int | None = None
    menu: Serial | None = field(default=None)

    @property
    def unwished(self) -> Settings:
        """The same, but nothing is added: for a line whose other words are kept elsewhere."""
        return replace(self, wish=replace(self.wish, add=(), replace=(), console=""))

    @property
    def lines_only(self) -> Settings:
        """The same, but the menu's own settings are left: for a file that is a part of a menu."""
        return replace(self, timeout=None, menu=None)


@dataclass(frozen=True, kw_only=True)
class FileEdit:
    """A file's new bytes, what was changed in it, and what stays although it was meant."""

    data: bytes
    changes: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class Lines:
    """The lines of a file while it is edited, with their ends; joined and encoded they are the file again."""

    def __init__(self, data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        self.texts: list[str] = re.findall(r"[^\n]*\n|[^\n]+", text)
        self.changes: list[str] = []
        self.kept: list[str] = []

    def body(self, at: int) -> str:
        """Return a line without its end."""
        return self.texts[at].rstrip("\r\n")

    def put(self, at: int, body: str, *changes: str) -> None:
        """Replace a line, its end kept."""
        old = self.texts[at]
        self.texts[at] = body + old[len(old.rstrip("\r\n")) :]
        self.changes += changes

    def insert(self, at: int, body: str, *changes: str) -> None:
        """Put a line before that one, ended as the file's first."""
        end = "\r\n" if self.texts and self.texts[0].endswith("\r\n") else "\n"
        if at == len(self.texts) and at and not self.texts[-1].endswith("\n"):
            self.texts[-1] += end
        self.texts.insert(at, body + end)
        self.changes += changes

    def arguments(
        self, at: int, span: tuple[int, int], settings: Settings, *, initramfs: bool = True, quoted: bool = False
    ) -> None:
        """Edit the kernel's arguments that stand in that part of a line; `quoted` when quotes are around them."""
        body = self.body(at)
        edited = edit_arguments([body[slice(*span)]], settings, initramfs=initramfs)
        new = edited.parts[0] if quoted else _apart(body, span[0], edited.parts[0])
        self.put(at, body[: span[0]] + new + body[span[1] :], *edited.changes)
        self.kept += edited.kept

    def done(self) -> FileEdit:
        """Return the file."""
        data = "".join(self.texts).encode("utf-8", "surrogateescape")
        return FileEdit(data=data, changes=counted(self.changes), kept=counted(self.kept))


def _apart(body: str, start: int, arguments: str) -> str:
    """Return arguments that keep their distance from the word before them."""
    together = start == 0 or body[start - 1] in " \t" or not arguments or arguments[0] in " \t"
    return arguments if together else f" {arguments}"


def edit_arguments(parts: Sequence[str], settings: Settings, *, initramfs: bool = True, end: int = 0) -> Edited:
    """Edit a kernel's arguments; those of another system on the disk are left alone, and it is said."""
    names = settings.names
    if any(len(part) > _LONGEST for part in parts):
        kept = f"a line of more than {_LONGEST} characters stays: no kernel takes that many"
        return Edited(parts=tuple(parts), kept=(kept,))
    for part in parts:
        root = value(part, "root")
        if root and (other := names.other(root)):
            kept = f"root={root} stays: it is {other.device}, not this system's root"
            return Edited(parts=tuple(parts), kept=(kept,))
    rename = names.rename if initramfs else names.rename_early
    return edit(parts, replace(settings.wish, root=rename), end=end)


def is_linux(kernel: str, *, module: bool = False) -> bool:
    """Say whether a boot loader's entry starts Linux by that path, and not a memory test, iPXE or the hypervisor Xen.

    A `module` that follows a hypervisor is Linux when its name says so.
    """
    return not _NO_LINUX.search(kernel) and (not module or _LINUX_NAME.fullmatch(kernel) is not None)


def counted(said: Iterable[str]) -> tuple[str, ...]:
    """Return each sentence once, with how often it was said."""
    return tuple(f"{each} ({count} times)" if count > 1 else each for each, count in Counter(said).items())
