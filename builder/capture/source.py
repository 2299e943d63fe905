"""The root filesystem of a machine that runs: what it is, and its files as one tar, over SSH.

The tar is read in a mount namespace of its own, from a second view of the filesystem (a bind mount) that has nothing
mounted on it: no /proc, no /sys, no other disk, and also what is hidden below mounts is seen. The view ends with the
process, so that nothing is left there, whatever ends it. Sources: mount_namespaces(7), mount(8) on bind mounts, the tar
manual ("Extended attributes", "Controlling the Archive Format").
"""

from __future__ import annotations

import gzip
import io
import posixpath
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import zstandard

from builder.errors import ArchiveRefused, RemoteError
from builder.image import filesystems
from builder.image.raw import RawReader
from builder.remote.abilities import Abilities
from builder.remote.command import Running, Shell

_TOOLS = ("tar", "dd", "mount", "unshare")
_HEAD = 128 << 10  # bytes of a device in which every filesystem that we know has told its label
_METADATA_CSUM = 0x400  # of s_feature_ro_compat, at byte 100 of an ext superblock, which lies at 1024 (ext4's layout)
_HOURS = 3600
# What a machine has there only while it runs, and what nobody misses: contents are left out, directories stay.
_FLEETING = ("/dev/*", "/lost+found", "/proc/*", "/run/*", "/sys/*", "/tmp/*", "/var/tmp/*")  # noqa: S108 - theirs

# `$1` is a mount point. Prints its device, its size in bytes, and what the machine swaps to.
_ASK = """\\
device= number=
while read -r _ _ n inner place rest; do
    [ "$place" = "$1" ] || continue
    set -- "$1" ${rest#* - }
    number=$n device=$3 within=$inner
done </proc/self/mountinfo
[ -n "$number" ] || { echo "nothing is mounted at $1" >&2; exit 1; }
# A btrfs has a number of its own, under which there is no disk: then the device that it names is right.
[ ! -e "/sys/dev/block/$number" ] || { link=$(readlink -f "/sys/dev/block/$number") && device=/dev/${link##*/}; }
[ -b "$device" ] || { echo "$1 lies on $device, which is no disk" >&2; exit 1; }
name=$(readlink -f "$device")
echo "device $name"
echo "within $within"
echo "size $(($(cat "/sys/class/block/${name##*/}/size") * 512))"
while read -r file type _; do [ "$type" != file ] || echo "swap $file"; done </proc/swaps
echo end
"""
# $1 the root; the rest up to `--` are mount points to fold in; then tar's own words. The view is laid over /sys, which
# is everywhere and under which nobody's files are.
_TAR = """\\
set -e
mount --bind "$1" /sys
root=$1
shift
while [ "$1" != -- ]; do
    mount --bind "$1" "/sys/${1#"$root"}"
    shift
done
shift
exec tar "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Root:
    """The root filesystem that is captured: of what type, how it is called, how large its device is (bytes)."""

    path: str
    device: str
    type: str
    label: str
    uuid: str
    size: int
    checksummed: bool  # what reads it knows ext4's metadata_csum (Linux 3.18), or it is no ext
    swaps: tuple[str, ...] = ()  # files that it swaps to


def look(shell: Shell, able: Abilities, path: str, scratch: Path) -> Root:
    """Return what is mounted at `path` there. Raises RemoteError (no disk's filesystem, or of no known type)."""
    able.require(shell, *_TOOLS)
    _require_gnu_tar(shell)
    said = shell.script(shlex.join(["sh", "-c", _ASK, "sh", path]), root=True, timeout=60, shown=f"a look at {path}")
    lines = [line.partition(" ") for line in said.stdout.decode("utf-8", "surrogateescape").splitlines()]
    told = {word: value for word, _, value in lines}
    read = shlex.join(["dd", f"if={told['device']}", "bs=65536", f"count={_HEAD >> 16}"])
    head = shell.script(f"{read} 2>/dev/null", root=True, timeout=120, shown=f"the head of {told['device']}").stdout
    copy = scratch / "head"
    copy.write_bytes(head)
    with RawReader(copy) as reader:
        found = filesystems.probe(reader)
    if found is None:
        raise RemoteError(f"{shell.name}: {told['device']}, mounted at {path}, has no filesystem that emi knows")
    checksums = int.from_bytes(head[1024 + 100 : 1024 + 104], "little") & _METADATA_CSUM
    return Root(
        path=path,
        device=told["device"],
        type=found.type,
        label=found.label,
        uuid=found.uuid,
        size=int(told["size"]),
        checksummed=bool(checksums) or not found.type.startswith("ext"),
        swaps=tuple(value for word, _, value in lines if word == "swap"),
    )


def _require_gnu_tar(shell: Shell) -> None:
    if b"GNU tar" not in shell.run(["tar", "--version"], timeout=60, allowed=range(256)).stdout:
        raise RemoteError(
            f"{shell.name} has a tar that is not GNU's: it does not keep extended attributes",
            hint="Install GNU tar there.",
        )


@contextmanager
def files(
    shell: Shell, able: Abilities, root: Root, *, also: Sequence[str], exclude: Sequence[str]
) -> Iterator[Archive]:
    """Give a tar of the filesystem's files to read; at the block's end the program there is done, or ended.

    `also` are mount points of other filesystems whose files belong to it, `exclude` absolute patterns. Raises
    RemoteFailed, RemoteTrouble, RemoteDenied.
    """
    packing: Literal["zstd", "gzip", ""] = "zstd" if "zstd" in able.tools else "gzip" if "gzip" in able.tools else ""
    words = [root.path, *sorted(also), "--", *_tar_words(root, exclude)]
    pack = {"zstd": "| zstd -1 -q -c", "gzip": "| gzip -1 -c", "": ""}[packing]
    tar = shlex.join(["unshare", "--mount", "--propagation", "private", "sh", "-c", _TAR, "sh", *words])
    # The status is to be tar's: a pipe's is that of its last program, and not every sh has pipefail.
    piped = f"exec 3>&1; status=$({{ {{ {tar}; echo $? >&4; }} {pack} >&3; }} 4>&1); exit $status"
    text, shown = piped if pack else tar, f"tar of {root.path}"
    with shell.start(text, root=True, streams=False, timeout=12 * _HOURS, shown=shown) as running:
        archive = Archive(running, packing)
        try:
            yield archive
        except ArchiveRefused:
            archive.end()  # why it was cut off, if the tar there did not end well
            raise
        archive.end()


class Archive:
    """A tar that arrives: what is read of it, and afterwards what the program there said."""

    def __init__(self, running: Running, packing: Literal["zstd", "gzip", ""]) -> None:
        self._running = running
        self._incoming = _Incoming(running)
        self.complaints: tuple[str, ...] = ()  # of the tar there: files that changed while they were read
        raw = io.BufferedReader(self._incoming, 1 << 20)
        unpacked: object = raw
        if packing == "zstd":
            unpacked = zstandard.ZstdDecompressor().stream_reader(raw, read_size=1 << 18, read_across_frames=True)
        elif packing == "gzip":
            unpacked = gzip.GzipFile(fileobj=raw)
        self.file = cast(BinaryIO, unpacked)

    def end(self) -> None:
        """Take what is left, and wait for the end there. Raises RemoteFailed, RemoteTrouble."""
        said = self._running.finish((0, 1), taken=_drop)  # 1: files changed while they were read
        self.complaints = tuple(said.stderr.splitlines())


class _Incoming(io.RawIOBase):
    """What a command prints, as a file."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._left = self._left or self._running.receive()
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _drop(_data: bytes) -> None:
    """Take the padding at a tar's end."""


def _tar_words(root: Root, exclude: Sequence[str]) -> list[str]:
    left_out = [*_FLEETING, *(posixpath.join("/", path) for path in root.swaps), *exclude]
    return [
        *("--create", "--file=-", "--directory=/sys", "--format=pax", "--sparse", "--numeric-owner"),
        *("--xattrs", "--xattrs-include=*", "--anchored", "--wildcards", "--no-wildcards-match-slash"),
        *(f"--exclude=.{pattern}" for pattern in left_out),
        ".",
    ]
