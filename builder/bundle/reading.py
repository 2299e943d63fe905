"""Reads manifests of every tool that wrote them, and refuses every one that two readers could understand differently.

Dialects, as their writers' sources have them: euca2ools 1.3 to 3.4, ec2-ami-tools to 1.5, and the older versions
2007-08-29 (written `20070829` too) and 3, which know no type, mappings or ids. They differ in quotes, in the order of
elements, in white space and in what is empty; none of that matters here. No tool ever wrote the words that euca2ools 3
look for (`block_device_mappings`, `productcodes`), so these are refused like all that is unknown: a reader that passes
over what it does not know cannot promise to keep it.
"""

from __future__ import annotations

import re
from typing import NoReturn

from builder.bundle import markup
from builder.bundle.markup import BLANK, Element
from builder.bundle.records import Bundler, Encrypted, ImageType, Manifest, Mapping, Part
from builder.errors import BundleRefused

_VERSIONS = {"2007-10-10": "2007-10-10", "2007-08-29": "2007-08-29", "20070829": "2007-08-29", "3": "3"}
_OLD = ("2007-08-29", "3")  # ec2-migrate-manifest takes them for i386 machine images
_ROOT = ("version", "bundler", "machine_configuration", "image", "signature")
_MACHINE = ("architecture", "block_device_mapping", "product_codes", "kernel_id", "ramdisk_id")
_ENCRYPTED = ("ec2_encrypted_key", "user_encrypted_key", "ec2_encrypted_iv", "user_encrypted_iv")
_IMAGE = ("name", "user", "type", "kernel_name", "ancestry", "digest", "size", "bundled_size", *_ENCRYPTED, "parts")
_TYPES: dict[str, ImageType] = {"machine": "machine", "kernel": "kernel", "ramdisk": "ramdisk"}
_OWN_ID = ("true", "yes")  # what Eucalyptus takes for "this is the kernel, or ramdisk, itself"
_SHA1 = re.compile(r"[0-9a-fA-F]{40}\Z")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+\Z")
_NUMBER = re.compile(r"[0-9]{1,15}\Z")
_WORD = re.compile(r"[!-~]{1,128}\Z")  # ids, devices, architectures: ASCII without spaces
_LARGEST_SIZE = 64 << 40  # bytes; no cloud has a larger disk (EBS io2: 64 TiB)
_MANIFEST = ".manifest.xml"
_LONGEST_NAME = 255  # bytes: what file systems allow; object keys may be longer
_LARGEST_CIPHERTEXT = 4096  # bytes: RSA with 32768 bits, which nobody has


def read(data: bytes, *, where: str) -> Manifest:
    """Return what the manifest says; `where` names it in messages.

    Raises BundleRefused, with the element's path, for what is damaged, missing, there twice, unknown, impossible (wrong
    counts, gaps, sizes) or dangerous (file names with a directory or a control character). Parts come in the order of
    their indexes. Digests are in lower case. Fields that a dialect has no word for get what the old tools took: i386,
    machine. A machine manifest with `kernel_id` or `ramdisk_id` `true` is a kernel or ramdisk, as Eucalyptus reads it:
    euca2ools before 3.0 write every type as machine. Nothing is said of signature, keys or parts being right.
    """
    return _Reader(where).manifest(markup.parse(data, where=where))


class _Reader:
    def __init__(self, where: str) -> None:
        self._where = where

    def manifest(self, root: Element) -> Manifest:
        if root.name != "manifest":
            self._refuse(root.path, "the root element is not <manifest>")
        inside = self._children(root, _ROOT)
        version = self._version(inside)
        image = self._children(self._need(root, inside, "image"), _IMAGE)
        machine = self._machine(root, inside, version)
        kernel_id, ramdisk_id = self._optional(machine, "kernel_id"), self._optional(machine, "ramdisk_id")
        parent = inside["image"]
        return Manifest(
            version=version,
            bundler=self._bundler(inside.get("bundler")),
            architecture=self._architecture(inside, machine, version),
            mappings=self._mappings(machine.get("block_device_mapping")),
            product_codes=self._list(machine.get("product_codes"), "product_code"),
            kernel_id=kernel_id,
            ramdisk_id=ramdisk_id,
            name=self._file_name(self._need(parent, image, "name")),
            user=self._word(self._need(parent, image, "user")),
            type=self._type(image.get("type"), kernel_id, ramdisk_id),
            kernel_name=self._free(image.get("kernel_name")) or None,
            ancestry=self._list(image.get("ancestry"), "ancestor_ami_id"),
            tar_sha1=self._digest(self._need(parent, image, "digest")),
            size=self._size(self._need(parent, image, "size")),
            bundled_size=self._size(self._need(parent, image, "bundled_size")),
            for_cloud=self._encrypted(parent, image, "ec2"),
            for_user=self._encrypted(parent, image, "user"),
            parts=self._parts(self._need(parent, image, "parts")),
            signature=self._signature(inside.get("signature")),
        )

    def _version(self, inside: dict[str, Element]) -> str:
        element = inside.get("version")
        if element is None:
            self._refuse("manifest", "<version> is missing")
        text = self._text(element)
        if text not in _VERSIONS:
            known = "2007-10-10, 2007-08-29 and 3"
            self._refuse(element.path, f"{_shown(text)} is a version that no bundling tool wrote; {known} are known")
        return _VERSIONS[text]

    def _bundler(self, element: Element | None) -> Bundler:
        inside = self._children(element, ("name", "version", "release")) if element is not None else {}
        name, version, release = (self._free(inside.get(word)) for word in ("name", "version", "release"))
        return Bundler(name=name, version=version, release=release)

    def _machine(self, root: Element, inside: dict[str, Element], version: str) -> dict[str, Element]:
        if version == "3":
            if "machine_configuration" in inside:
                self._refuse(inside["machine_configuration"].path, "a manifest of version 3 has none")
            return {}
        return self._children(self._need(root, inside, "machine_configuration"), _MACHINE)

    def _architecture(self, inside: dict[str, Element], machine: dict[str, Element], version: str) -> str:
        if "architecture" not in machine and version in _OLD:
            return "i386"
        return self._word(self._need(inside["machine_configuration"], machine, "architecture"))

    def _mappings(self, element: Element | None) -> tuple[Mapping, ...]:
        mappings: dict[str, Mapping] = {}
        for entry in self._repeated(element, "mapping"):
            inside = self._children(entry, ("virtual", "device"))
            virtual = self._word(self._need(entry, inside, "virtual"))
            if virtual in mappings:
                self._refuse(entry.path, f"the virtual name {virtual} is mapped twice")
            mappings[virtual] = Mapping(virtual=virtual, device=self._word(self._need(entry, inside, "device")))
        return tuple(mappings.values())

    def _type(self, element: Element | None, kernel_id: str | None, ramdisk_id: str | None) -> ImageType:
        text = self._text(element) if element is not None else "machine"
        if text not in _TYPES:
            self._refuse("manifest/image/type", f"{_shown(text)} is none of machine, kernel, ramdisk")
        if text == "machine" and (kernel_id or "").lower() in _OWN_ID:
            return "kernel"
        if text == "machine" and (ramdisk_id or "").lower() in _OWN_ID:
            return "ramdisk"
        return _TYPES[text]

    def _encrypted(self, parent: Element, image: dict[str, Element], who: str) -> Encrypted:
        key = self._ciphertext(self._need(parent, image, f"{who}_encrypted_key"))
        iv = self._ciphertext(self._need(parent, image, f"{who}_encrypted_iv"))
        if bool(key) != bool(iv):
            self._refuse(f"{parent.path}/{who}_encrypted_*", "key and vector are of no use without each other")
        return Encrypted(key=key, iv=iv)

    def _ciphertext(self, element: Element) -> str:
        self._algorithm(element, ("AES-128-CBC",))
        text = self._text(element)
        if text and not _HEX.match(text):
            self._refuse(element.path, f"{_shown(text)} is not hex")
        if len(text) > 2 * _LARGEST_CIPHERTEXT:
            self._refuse(element.path, f"{len(text)} digits; no RSA key makes so many")
        return text

    def _parts(self, element: Element) -> tuple[Part, ...]:
        count = self._number(f"{element.path}@count", element.attributes.get("count"))
        entries = self._repeated(element, "part", attributes=("count",))
        if count != len(entries):
            self._refuse(element.path, f"count='{count}', but {len(entries)} parts are listed")
        if not entries:
            self._refuse(element.path, "no parts: there is nothing to read the image from")
        parts: dict[int, Part] = {}
        names: dict[str, int] = {}
        for entry in entries:
            index, part = self._part(entry)
            if index in parts:
                self._refuse(entry.path, f"two parts have the index {index}")
            if part.filename in names:
                both = f"{names[part.filename]} and {index}"
                self._refuse(entry.path, f"the parts {both} have the same file name {_shown(part.filename)}")
            parts[index], names[part.filename] = part, index
        gap = next((index for index in range(count) if index not in parts), None)
        if gap is not None:
            self._refuse(element.path, f"no part has the index {gap}, though there are {count}")
        return tuple(parts[index] for index in range(count))

    def _part(self, entry: Element) -> tuple[int, Part]:
        index = self._number(f"{entry.path}@index", entry.attributes.get("index"))
        inside = self._children(entry, ("filename", "digest"), attributes=("index",))
        name = self._file_name(self._need(entry, inside, "filename"))
        return index, Part(filename=name, sha1=self._digest(self._need(entry, inside, "digest")))

    def _signature(self, element: Element | None) -> str:
        text = self._text(element) if element is not None else ""
        if text and text != "UNSIGNED" and not _HEX.match(text):
            self._refuse("manifest/signature", f"{_shown(text)} is neither hex nor UNSIGNED")
        return text

    def _digest(self, element: Element) -> str:
        self._algorithm(element, ("SHA1",))
        text = self._text(element)
        if not _SHA1.match(text):
            self._refuse(element.path, f"{_shown(text)} is not the 40 hex digits of a SHA-1")
        return text.lower()

    def _algorithm(self, element: Element, known: tuple[str, ...]) -> None:
        self._attributes(element, ("algorithm",))
        algorithm = element.attributes.get("algorithm", known[0])
        if algorithm.upper() not in known:
            self._refuse(element.path, f"the algorithm {_shown(algorithm)} is not {known[0]}, the format's only one")

    def _size(self, element: Element) -> int:
        size = self._number(element.path, self._text(element))
        self._attributes(element, ())
        if not 0 < size <= _LARGEST_SIZE:
            self._refuse(element.path, f"{size} bytes; between 1 and {_LARGEST_SIZE} are possible")
        return size

    def _number(self, path: str, text: str | None) -> int:
        if text is None or not _NUMBER.match(text):
            self._refuse(path, f"{_shown(text or '')} is not a number of at most 15 digits")
        return int(text)

    def _file_name(self, element: Element) -> str:
        name = self._text(element)
        self._attributes(element, ())
        why = None
        if name in ("", ".", ".."):
            why = "it names no file"
        elif "/" in name or "\\" in name:
            why = "it holds a directory; parts lie beside their manifest"
        elif name.lower().endswith(_MANIFEST):
            why = "it is a manifest's, which it would take the place of"
        elif not name.isprintable():
            why = "it holds a control or invisible character"
        elif len(name.encode()) > _LONGEST_NAME:
            why = f"it is longer than {_LONGEST_NAME} bytes"
        if why:
            self._refuse(element.path, f"{_shown(name)} is refused as a file name: {why}")
        return name

    def _word(self, element: Element) -> str:
        self._attributes(element, ())
        text = self._text(element)
        if not _WORD.match(text):
            self._refuse(element.path, f"{_shown(text)} is not one word of at most 128 ASCII characters")
        return text

    def _optional(self, inside: dict[str, Element], name: str) -> str | None:
        element = inside.get(name)
        if element is None or not self._text(element):
            return None
        return self._word(element)

    def _free(self, element: Element | None) -> str:
        """Return text that only people read; "" for none."""
        if element is None:
            return ""
        self._attributes(element, ())
        text = self._text(element)
        if len(text) > _LONGEST_NAME or not text.isprintable():
            self._refuse(element.path, f"{_shown(text)} is too long, or holds invisible characters")
        return text

    def _list(self, element: Element | None, name: str) -> tuple[str, ...]:
        return tuple(self._word(entry) for entry in self._repeated(element, name))

    def _repeated(self, element: Element | None, name: str, *, attributes: tuple[str, ...] = ()) -> list[Element]:
        """Return the children of a list, which has nothing else in it."""
        if element is None:
            return []
        self._container(element, (name,), attributes)
        return element.children

    def _children(
        self, element: Element, known: tuple[str, ...], *, attributes: tuple[str, ...] = ()
    ) -> dict[str, Element]:
        """Return the children by name; each is known, and there once at most."""
        self._container(element, known, attributes)
        found: dict[str, Element] = {}
        for child in element.children:
            if child.name in found:
                self._refuse(child.path, "it is there twice")
            found[child.name] = child
        return found

    def _container(self, element: Element, known: tuple[str, ...], attributes: tuple[str, ...]) -> None:
        self._attributes(element, attributes)
        if element.text.strip(BLANK):
            self._refuse(element.path, f"text between its elements: {_shown(element.text.strip(BLANK))}")
        for child in element.children:
            if child.name not in known:
                self._refuse(child.path, "no manifest has this element here, and what it means is not known")

    def _need(self, parent: Element, inside: dict[str, Element], name: str) -> Element:
        if name not in inside:
            self._refuse(parent.path, f"<{name}> is missing")
        return inside[name]

    def _text(self, element: Element) -> str:
        if element.children:
            self._refuse(element.children[0].path, f"an element where {element.path} has text")
        return element.text.strip(BLANK)

    def _attributes(self, element: Element, known: tuple[str, ...]) -> None:
        for name in element.attributes:
            if name not in known:
                self._refuse(element.path, f"no manifest has the attribute {_shown(name)} here")

    def _refuse(self, path: str, why: str) -> NoReturn:
        raise BundleRefused(f"{self._where}: {path[:200]}: {why}")


def _shown(text: str) -> str:
    """Return text of a manifest as a message may show it: quoted, escaped and not too long."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
