"""Calls of libguestfs with names that are not UTF-8, made on the binding's own handle but past it.

A file's name is any bytes. libguestfs' Python binding gives only text (UnicodeDecodeError), takes only text
(UnicodeEncodeError), and where such a name is in a list that it was given, it crashes the process. In text here what is
not UTF-8 is a surrogate escape, as in Python's own names of files.

Source: guestfs(3), and guestfs-structs for `statns`; the C interface is stable.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

# name: (arguments, result). Arguments: s a string, i an int, q an int64, b bytes and their number, l strings, and o an
# optional truth value. Only the calls that take or give names of files.
_CALLS: Mapping[str, tuple[str, str]] = {
    "chmod": ("is", "done"),
    "chown": ("iis", "done"),
    "cp_a": ("ss", "done"),
    "exists": ("s", "number"),
    "find": ("s", "strings"),
    "glob_expand": ("so", "strings"),
    "is_dir": ("so", "number"),
    "is_file": ("so", "number"),
    "is_symlink": ("s", "number"),
    "ln_s": ("ss", "done"),
    "lstatnslist": ("sl", "stats"),
    "mkdir_p": ("s", "done"),
    "mount_options": ("sss", "done"),
    "pread": ("siq", "bytes"),
    "pwrite": ("sbq", "number"),
    "readlink": ("s", "string"),
    "realpath": ("s", "string"),
    "remount": ("so", "done"),
    "rename": ("ss", "done"),
    "rm_f": ("s", "done"),
    "rm_rf": ("s", "done"),
    "truncate": ("s", "done"),
    "vfs_label": ("s", "string"),
    "write": ("sb", "done"),
}
_OPTIONAL = {"glob_expand": "glob_expand_opts_argv", "is_dir": "is_dir_opts_argv", "is_file": "is_file_opts_argv"}
_OPTIONAL |= {"remount": "remount_argv"}

_Strings = ctypes.POINTER(ctypes.c_void_p)


class _Option(ctypes.Structure):
    _fields_ = (("bitmask", ctypes.c_uint64), ("value", ctypes.c_int))


_STAT = ("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks")


class _Stat(ctypes.Structure):
    # Behind them six for times, and six that are spare.
    _fields_ = (*((f"st_{name}", ctypes.c_int64) for name in _STAT), ("rest", ctypes.c_int64 * 12))


class _Stats(ctypes.Structure):
    _fields_ = (("count", ctypes.c_uint32), ("found", ctypes.POINTER(_Stat)))


def is_text(arguments: Sequence[object]) -> bool:
    """Say whether the binding takes these arguments: all their text, lists included, is UTF-8."""
    for argument in arguments:
        if isinstance(argument, str):
            try:
                argument.encode()
            except UnicodeEncodeError:
                return False
        elif isinstance(argument, list) and not is_text(argument):
            return False
    return True


def call(handle: Any, name: str, arguments: Sequence[Any], options: Mapping[str, bool]) -> Any:
    """Make the call on the binding's handle and return what the binding would; from the thread that made the handle.

    Raises RuntimeError with libguestfs' words, and ValueError for a call that does not know such names or one with a
    zero byte in it.
    """
    if name not in _CALLS:
        raise ValueError("a name that is not UTF-8 is in the way")
    takes, gives = _CALLS[name]
    pointer = _pointer(handle)
    words = [*arguments, *options.values()] if options or "o" not in takes else [*arguments, None]
    given = [part for kind, word in zip(takes, words, strict=True) for part in _given(kind, word)]
    return _GIVES[gives](_function(_OPTIONAL.get(name, name), gives), pointer, given)


def _given(kind: str, word: Any) -> list[Any]:
    match kind:
        case "i":
            return [ctypes.c_int(word)]
        case "q":
            return [ctypes.c_int64(word)]
        case "b":
            return [ctypes.c_char_p(word), ctypes.c_size_t(len(word))]
        case "o":
            return [ctypes.byref(_Option(bitmask=word is not None, value=bool(word)))]
        case "l":
            return [(ctypes.c_char_p * (len(word) + 1))(*map(_bytes, word), None)]
        case _:
            return [ctypes.c_char_p(_bytes(word))]


def _bytes(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("embedded null character")
    return text.encode("utf-8", "surrogateescape")


def _text(address: int) -> str:
    return ctypes.string_at(address).decode("utf-8", "surrogateescape")


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libguestfs.so.0")  # the one that the binding has loaded
    library.guestfs_last_error.restype = ctypes.c_char_p
    library.guestfs_free_statns_list.restype = None
    return library


@cache
def _c() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.free.argtypes = [ctypes.c_void_p]
    library.free.restype = None
    return library


def _pointer(handle: Any) -> ctypes.c_void_p:
    take = ctypes.pythonapi.PyCapsule_GetPointer
    take.restype, take.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.c_void_p(take(handle._o, b"guestfs_h"))  # noqa: SLF001 - the binding has no other way to it


def _function(name: str, gives: str) -> Any:
    function = getattr(_library(), f"guestfs_{name}")
    function.restype = {
        "string": ctypes.c_void_p,
        "bytes": ctypes.c_void_p,
        "strings": _Strings,
        "stats": ctypes.POINTER(_Stats),
    }.get(gives, ctypes.c_int)
    return function


def _fail(pointer: ctypes.c_void_p) -> RuntimeError:
    said = _library().guestfs_last_error(pointer)
    return RuntimeError((said or b"no reason given").decode("utf-8", "replace"))


def _number(function: Any, pointer: ctypes.c_void_p, given: list[Any]) -> int:
    if (found := function(pointer, *given)) == -1:
        raise _fail(pointer)
    return int(found)


def _done(function: Any, pointer: ctypes.c_void_p, given: list[Any]) -> None:
    _number(function, pointer, given)


def _string(function: Any, pointer: ctypes.c_void_p, given: list[Any]) -> str:
    if not (address := function(pointer, *given)):
        raise _fail(pointer)
    found = _text(address)
    _c().free(address)
    return found


def _strings(function: Any, pointer: ctypes.c_void_p, given: list[Any]) -> list[str]:
    if not (addresses := function(pointer, *given)):
        raise _fail(pointer)
    found: list[str] = []
    while address := addresses[len(found)]:
        found.append(_text(address))
        _c().free(address)
    _c().free(ctypes.cast(addresses, ctypes.c_void_p))
    return found


def _read(function: Any, pointer: ctypes.c_void_p, given: list[Any]) -> bytes:
    size = ctypes.c_size_t()
    if not (address := function(pointer, *given, ctypes.byref(size))):
        raise _fail(pointer)
    found = ctypes.string_at(address, size.value)
    _c().free(address)
    return found


def _stats(function: Any, pointer: ctypes.c_void_p, given: list[Any]) -> list[dict[str, int]]:
    if not (listed := function(pointer, *given)):
        raise _fail(pointer)
    each = [listed.contents.found[index] for index in range(listed.contents.count)]
    found = [{f"st_{name}": getattr(one, f"st_{name}") for name in _STAT} for one in each]
    _library().guestfs_free_statns_list(listed)
    return found


_GIVES: Mapping[str, Callable[[Any, ctypes.c_void_p, list[Any]], Any]] = {
    "done": _done,
    "number": _number,
    "string": _string,
    "strings": _strings,
    "bytes": _read,
    "stats": _stats,
}
