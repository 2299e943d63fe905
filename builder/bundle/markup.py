"""XML as manifests use it, and not one thing more: elements, attributes, text.

What XML offers beyond that is refused and not ignored. A comment, a CDATA section or a second `<image>` would let the
signed text (verifiers search for literal tags) and the text that is acted on be two different ones; a DOCTYPE brings
entities; a namespace makes two names of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from builder.bundle.limits import LARGEST_MANIFEST
from builder.errors import BundleRefused

BLANK = " \t\r\n"
_DEEPEST = 8  # manifest/machine_configuration/block_device_mapping/mapping/virtual is five
_MOST = 200_000  # elements; with three for a part, 5 MiB of the shortest names hold 120 000
_ENCODINGS = ("utf-8", "utf8", "ascii", "us-ascii")  # lxml declares ASCII, REXML and minidom nothing
_TAG = re.compile(r"<(/?)([^\s/>]+)((?:\s+[^\s=/>]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*)\s*(/?)>")
_ATTRIBUTE = re.compile(r"([^\s=]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_TWO_READINGS = "what is signed and what is read could differ by it"
_HOLLOW = re.compile(r"<([^\s/>]+)([^<>]*)></\1>")


@dataclass(kw_only=True, slots=True)
class Element:
    """One element; `text` is what stands before, between and after its children."""

    name: str
    path: str
    place: int
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""


def parse(data: bytes, *, where: str) -> Element:
    """Return the root of `data`. Raises BundleRefused for what is not XML, larger than 5 MiB, or not as simple as that.

    `where` names the manifest in messages.
    """
    if len(data) > LARGEST_MANIFEST:
        _refuse(where, f"{len(data)} bytes; no cloud reads a manifest of more than {LARGEST_MANIFEST}")
    return _Parse(where).run(data)


def reserialised(text: str) -> str:
    """Return manifest text as REXML writes it after reading: single quotes, sorted attributes, `<a></a>` as `<a/>`.

    Text between tags stays as it stands; line ends become newlines. That is what ec2-ami-tools verify against.
    `text` is taken from a manifest that `parse` let pass, hence without comments and CDATA.
    """
    return _HOLLOW.sub(r"<\1\2/>", _TAG.sub(_plain_tag, re.sub(r"\r\n?", "\n", text)))


def _plain_tag(tag: re.Match[str]) -> str:
    closing, name, attributes, hollow = tag.groups()
    pairs = sorted((key, double or single) for key, double, single in _ATTRIBUTE.findall(attributes))
    inside = "".join(f" {key}='{value.replace(chr(39), '&apos;')}'" for key, value in pairs)
    return f"<{closing}{name}{inside}{hollow}>"


def _refuse(where: str, why: str) -> NoReturn:
    raise BundleRefused(f"{where}: {why}")


class _Parse:
    """One run of expat. Its handlers raise through the parser, which leaves nothing of the document behind."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._open: list[Element] = []
        self._root: Element | None = None
        self._count = 0

    def run(self, data: bytes) -> Element:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            _refuse(self._where, f"byte {error.start} is not UTF-8, which every tool writes")
        parser = expat.ParserCreate("utf-8")  # whatever the declaration says: parsers must not disagree
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._never("a DOCTYPE, whose entities could stand for anything")
        parser.CommentHandler = self._never(f"a comment; {_TWO_READINGS}")
        parser.StartCdataSectionHandler = self._never(f"a CDATA section; {_TWO_READINGS}")
        parser.ProcessingInstructionHandler = self._never("a processing instruction; no tool writes one")
        try:
            parser.Parse(data, True)  # noqa: FBT003 - expat's own: this is all of it
        except expat.ExpatError as error:
            message = expat.ErrorString(error.code)
            _refuse(self._where, f"not XML at line {error.lineno}, column {error.offset + 1}: {message}")
        assert self._root is not None  # expat calls a document without a root not well-formed
        return self._root

    def _never(self, what: str) -> Callable[..., None]:
        def refuse(*_: object) -> None:
            _refuse(self._where, f"{self._path()} holds {what}")

        return refuse

    def _path(self) -> str:
        return self._open[-1].path if self._open else "the document"

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            _refuse(self._where, f"declares the encoding {encoding[:40]!r}; manifests are UTF-8")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        path = self._path_of(name)
        for word in (name, *attributes):
            if ":" in word or word == "xmlns":
                _refuse(self._where, f"{path[:200]} uses a namespace ({word[:40]!r}); manifests have none")
        if len(self._open) >= _DEEPEST:
            _refuse(self._where, f"{path[:200]} lies {len(self._open)} elements deep; no manifest does")
        self._count += 1
        if self._count > _MOST:
            _refuse(self._where, f"more than {_MOST} elements, which no manifest of this size has")
        element = Element(name=name, path=path, place=self._place_of(name), attributes=attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)

    def _path_of(self, name: str) -> str:
        if not self._open:
            return name
        place = self._place_of(name)
        return f"{self._open[-1].path}/{name}" + (f"[{place}]" if place > 1 else "")

    def _place_of(self, name: str) -> int:
        """Return which one it is of those of its name that stand in a row, counted from 1."""
        siblings = self._open[-1].children if self._open else []
        return siblings[-1].place + 1 if siblings and siblings[-1].name == name else 1

    def _end(self, _name: str) -> None:
        self._open.pop()

    def _characters(self, text: str) -> None:
        self._open[-1].text += text
