"""grub.cfg as grub-mkconfig writes it, as people write it, and as `bootstrap` does: edited where it boots from.

So that no grub-mkconfig has to run in the guest (15 s under TCG, and it must see the disk as the guest does). Sources:
GRUB's manual (`linux`, `search`, `serial`, `terminal_input`, `terminal_output`, `timeout`), util/grub.d/ of GRUB,
Fedora and Ubuntu for the forms that are found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.errors import GuestError
from builder.guest.bootloader import FileEdit, Lines, Settings, is_linux, same_serial

_LINUX = re.compile(
    r"""[ \t]*(?P<command>linux|linux16|linuxefi|module|module2)[ \t]+(?P<kernel>(?:"[^"]*"|'[^']*'|[^ \t"'])+)"""
)
_INITRD = re.compile(r"[ \t]*(?:initrd|initrd16|initrdefi|module|module2)[ \t]")
_BLOCK_END = re.compile(r"[ \t]*(?:\}|else\b|elif\b|menuentry\b|submenu\b)")
_VARIABLE = re.compile(r'[ \t]*set[ \t]+(?:default_)?kernelopts="(?P<arguments>(?:[^"\\]|\\.)*)"')
_SPLIT = re.compile(r"""(?P<gap>[ \t]*)(?P<word>(?:"(?:[^"\\]|\\.)*"|'[^']*'|\\.|[^ \t"'\\]|["'\\])+)""")
_MENU = re.compile(r"[ \t]*(?:menuentry|submenu|blscfg|linux|linux16|linuxefi)\b")
_SECTION = re.compile(r"### (?P<edge>BEGIN|END) (?P<name>.*) ###")
_TIMEOUT = re.compile(r"(?P<lead>[ \t]*(?:set[ \t]+)?timeout=)(?P<value>[^ \t;]+)")
_SERIAL = re.compile(r"(?P<lead>[ \t]*)serial(?:[ \t].*)?")
_TERMINAL = re.compile(r"(?P<lead>[ \t]*)terminal_(?P<side>input|output)(?P<words>(?:[ \t]+[\w.-]+)+)[ \t]*", re.ASCII)
_SEARCH = re.compile(r"[ \t]*search(?P<kind>\.fs_uuid|\.fs_label)?[ \t]")
_FLAGS = {"--fs-uuid": "uuid", "-u": "uuid", "--label": "label", "-l": "label", "--fs-label": "label"}
_OTHER_FLAG = {"--fs-uuid": "--label", "--label": "--fs-uuid", "--fs-label": "--fs-uuid", "-u": "-l", "-l": "-u"}
_LONGEST = 16 << 10  # characters of a line that is looked at


def edit_config(data: bytes, settings: Settings) -> FileEdit:
    """Return a grub.cfg that boots as `settings` wants it; what is not meant stays byte for byte.

    Raises GuestError for a file that would be edited again and again: its lines are not what they look like.
    """
    edited = _edited(data, settings)
    if _edited(edited.data, settings).data != edited.data:
        raise GuestError("grub.cfg is not understood: its commands read otherwise once they are edited")
    return edited


def _edited(data: bytes, settings: Settings) -> FileEdit:
    lines = Lines(data)
    for at in range(len(lines.texts)):
        body = lines.body(at)
        if len(body) > _LONGEST:
            continue
        if found := _LINUX.match(body):
            _edit_linux(lines, at, found, settings)
        elif found := _VARIABLE.match(body):
            lines.arguments(at, found.span("arguments"), settings, quoted=True)
        elif found := _SEARCH.match(body):
            _edit_search(lines, at, found["kind"] or "", settings)
    if any(_MENU.match(lines.body(at)) for at in range(len(lines.texts))):
        if settings.timeout is not None:
            _set_timeout(lines, settings.timeout)
        if settings.menu is not None:
            _set_serial(lines, settings)
    return lines.done()


def _edit_linux(lines: Lines, at: int, found: re.Match[str], settings: Settings) -> None:
    body, start = lines.body(at), found.end()
    end = _arguments_end(body, start)
    arguments = body[start:end]
    kernel = found["kernel"].strip("\"'")
    if not is_linux(kernel, module=found["command"].startswith("module")):
        return
    elsewhere = re.search(r"\$\{?(?:default_)?kernelopts\b", arguments)
    lines.arguments(at, (start, end), settings.unwished if elsewhere else settings, initramfs=_has_initrd(lines, at))


def _has_initrd(lines: Lines, at: int) -> bool:
    """Say whether an initramfs is loaded for the kernel of that line."""
    for after in range(at + 1, len(lines.texts)):
        body = lines.body(after)
        if _INITRD.match(body):
            return True
        if _LINUX.match(body) or _BLOCK_END.match(body):
            return False
    return False


def _arguments_end(body: str, start: int) -> int:
    """Return where the words of a command end: at `;`, a comment, or the end of its block."""
    for found in _SPLIT.finditer(body, start):
        word = found["word"]
        if word[0] == "#" or word in ("{", "}", "&&", "||"):
            return found.start()
        if word[0] not in "\"'" and ";" in word:
            return found.start("word") + word.index(";")
    return len(body.rstrip(" \t"))


def _edit_search(lines: Lines, at: int, kind: str, settings: Settings) -> None:
    body = lines.body(at)
    ending = _arguments_end(body, 0)
    words = [(found["word"], found.span("word")) for found in _SPLIT.finditer(body, 0, ending)][1:]
    flag = next(((word, span) for word, span in words if word in _FLAGS), None)
    if kind:
        by = kind.removeprefix(".fs_")
        target = words[0] if words else None
    elif flag is not None:
        by = _FLAGS[flag[0]]
        hints = {index + 1 for index, (word, _) in enumerate(words) if word == "--hint"}
        names = [each for index, each in enumerate(words) if each[0][0] != "-" and index not in hints]
        target = names[-1] if names else None
    else:
        return
    if target is None or not re.fullmatch(r"[\w.:/@+%-]+", target[0].strip("\"'")):
        return
    old = target[0].strip("\"'")
    new_by, new = settings.names.search("label" if by == "label" else "uuid", old)
    if new == old:
        return
    pieces = [(target[1], new)]
    if new_by != by:
        begin = body.index("search") + len("search")
        command = ((begin, begin + len(kind)), f".fs_{new_by}")
        pieces.append(command if flag is None else (flag[1], _OTHER_FLAG[flag[0]]))
    for (start, end), text in sorted(pieces, reverse=True):
        body = body[:start] + text + body[end:]
    lines.put(at, body, f"search by {by} {old} -> by {new_by} {new}")


def _set_timeout(lines: Lines, timeout: int) -> None:
    there = list(_timeouts(lines))
    for at, found in there:
        if found["value"].strip("\"'") != str(timeout):
            rest = lines.body(at)[found.end() :]
            lines.put(at, f"{found['lead']}{timeout}{rest}", f"timeout {found['value']} -> {timeout}")
    if not there:
        header = next((at + 1 for at in range(len(lines.texts)) if _begins_header(lines.body(at))), None)
        place = _first_command(lines) if header is None else header
        lines.insert(place, f"set timeout={timeout}", f"timeout {timeout}")


def _begins_header(body: str) -> bool:
    found = _SECTION.match(body)
    return found is not None and found["edge"] == "BEGIN" and "00_header" in found["name"]


def _timeouts(lines: Lines) -> Iterator[tuple[int, re.Match[str]]]:
    """Yield the lines that set it, but for the menus after a failed boot or for one boot, and other scripts' own."""
    everywhere = not any(_begins_header(lines.body(at)) for at in range(len(lines.texts)))
    header, failed = False, [False]
    for at in range(len(lines.texts)):
        body = lines.body(at)
        word = body.split(maxsplit=1)[0] if body.strip() else ""
        if _SECTION.match(body):
            header, failed = _begins_header(body), [False]
        elif word == "if":
            failed.append("recordfail" in body or "boot_once" in body)
        elif word in ("else", "elif"):
            failed[-1] = False
        elif word == "fi" and len(failed) > 1:
            failed.pop()
        elif (found := _TIMEOUT.match(body)) and not any(failed) and (header or everywhere):
            yield at, found


def _set_serial(lines: Lines, settings: Settings) -> None:
    assert settings.menu is not None
    command = settings.menu.command
    serials = [at for at in range(len(lines.texts)) if _SERIAL.fullmatch(lines.body(at))]
    for at in serials:
        old = lines.body(at)
        new = old[: len(old) - len(old.lstrip())] + command
        if not same_serial(old.strip(), command):
            lines.put(at, new, f"{old.strip()} -> {command}")
    first: dict[str, int] = {}
    for at in range(len(lines.texts)):
        if found := _TERMINAL.fullmatch(lines.body(at)):
            first.setdefault(found["side"], at)
            words = found["words"].split()
            if not any(word.startswith("serial") for word in words):
                now = f"terminal_{found['side']}{found['words']} serial"
                lines.put(at, found["lead"] + now, now)
    # From the end to the beginning, so that places stay right; each before what uses it.
    place = min(first.values(), default=_first_command(lines))
    missing = [command] if not serials else []
    missing += [f"terminal_{side} console serial" for side in ("input", "output") if side not in first]
    after = max(serials[0] + 1, place) if serials else place
    for text in reversed(missing):
        lines.insert(after if text != command else place, text, text)


def _first_command(lines: Lines) -> int:
    """Return the first line that is neither blank nor a comment."""
    for at in range(len(lines.texts)):
        body = lines.body(at).strip()
        if body and not body.startswith("#"):
            return at
    return len(lines.texts)
