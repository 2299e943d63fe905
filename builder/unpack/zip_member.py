"""One member of a zip archive."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from builder.errors import ArchiveRefused
from builder.unpack.decoders import DAMAGED
from builder.unpack.members import Choice, Kind

_READ = 1 << 20
_UNIX = 3  # APPNOTE.TXT 4.4.2: the upper half of the external attributes is st_mode
_ENCRYPTED = 0x1  # APPNOTE.TXT 4.4.4
# LZMA's header in a zip may ask for 4 GiB of memory; the others are not in Python's library.
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated", zipfile.ZIP_BZIP2: "bzip2"}
# What Python's library raises for headers that contradict each other, beside its own error.
_DAMAGES = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, IndexError, RuntimeError)
_OTHERS = {9: "deflate64", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd"}


def extract(path: Path, choice: Choice, sink: Callable[[bytes], None], name: str) -> str:
    """Give the chosen member's bytes to `sink` and return its name. Raises ArchiveRefused."""
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = [info for info in archive.infolist() if choice.takes(info.filename, _kind(info), info.file_size)]
            member = choice.result()
            for info in chosen:
                _require_readable(info, name)
                with archive.open(info) as content:
                    while data := content.read(_READ):
                        sink(data)
    except _DAMAGES as error:
        raise ArchiveRefused(f"{name}: damaged zip archive ({error})", hint=DAMAGED) from error
    return member


def _kind(info: zipfile.ZipInfo) -> Kind:
    if info.filename.endswith("/"):
        return "directory"
    mode = info.external_attr >> 16
    if info.create_system != _UNIX or not stat.S_IFMT(mode) or stat.S_ISREG(mode):
        return "file"
    return "symbolic link" if stat.S_ISLNK(mode) else "special file"


def _require_readable(info: zipfile.ZipInfo, name: str) -> None:
    what = f"{name}: member {info.filename!r}"
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveRefused(f"{what} is encrypted", hint="Decrypt it first: emi holds no keys.")
    if info.compress_type not in _METHODS:
        method = _OTHERS.get(info.compress_type, f"method {info.compress_type}")
        raise ArchiveRefused(f"{what} is compressed with {method}", hint="Unpack it by hand with 7z or bsdtar.")
