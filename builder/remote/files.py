"""Files to another machine and back: compressed on the way, compared by their SHA-256."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

import zstandard

from builder.digest import is_zero
from builder.durable import translate_disk_full
from builder.errors import ChecksumMismatch, RemoteFailed
from builder.image.raw import RawReader
from builder.image.stream import ImageReader
from builder.progress import SILENT, Progress
from builder.remote.abilities import Abilities
from builder.remote.command import Shell
from builder.remote.write import write
from builder.retry import retrying

_SMALL = 1 << 20  # bytes that go in one command
_HOURS = 3600
_PIECE = 512 << 10


def put(shell: Shell, path: Path, there: str, *, mode: int = 0o600, progress: Progress = SILENT) -> None:
    """Copy a file to the path `there`, in a directory that is there; with a cut it goes on. Raises as `write`."""
    if path.stat().st_size <= _SMALL:
        text = f"cat >{shlex.quote(there)} && chmod {mode:o} {shlex.quote(there)}"
        data = path.read_bytes()
        retrying(lambda: shell.script(text, stdin=data, timeout=300, shown=f"copy of {path.name}"), attempts=4)
        return
    with RawReader(path) as reader:
        put_image(shell, reader, there, progress=progress)
    retrying(lambda: shell.run(["chmod", f"{mode:o}", there]), attempts=4)


def put_image(shell: Shell, reader: ImageReader, there: str, *, progress: Progress = SILENT) -> None:
    """Copy an image to the path `there` as a sparse raw file, read back by its digest. Raises as `write`."""
    write(reader, shell, there, progress=progress)


def take(
    shell: Shell, able: Abilities, there: str, target: Path, *, root: bool = False, progress: Progress = SILENT
) -> str:
    """Copy a file from there to `target`, a new sparse file, and return its SHA-256 in hex.

    Begun again after a cut; a crash or an error leaves an unfinished `target`. Raises RemoteFailed (no such file),
    ChecksumMismatch (it changed meanwhile), RemoteTrouble, RemoteDenied, DiskFull.
    """

    def copy() -> str:
        found = _receive(shell, able, there, target, root=root, progress=progress)
        told = shell.run(["sha256sum", "--", there], root=root, timeout=6 * _HOURS).stdout.split()
        if not told or told[0].lstrip(b"\\").decode() != found:
            raise ChecksumMismatch(f"{there} on {shell.name} is not what was copied of it: it was changed meanwhile")
        return found

    return retrying(copy, attempts=4, deadline=24 * _HOURS, progress=progress)


def _receive(shell: Shell, able: Abilities, there: str, target: Path, *, root: bool, progress: Progress) -> str:
    """Copy the bytes; return their SHA-256."""
    quoted = shlex.quote(there)
    unpack = zstandard.ZstdDecompressor().decompressobj() if "zstd" in able.tools else None
    there_is = f'[ -f {quoted} ] || {{ echo "there is no such file" >&2; exit 1; }}'
    text = f"{there_is}; exec {'zstd -1 -q -c' if unpack else 'cat'} -- {quoted}"
    digest = hashlib.sha256()
    with translate_disk_full(target), open(target, "wb", buffering=0) as out:

        def taken(data: bytes) -> None:
            plain = unpack.decompress(data) if unpack else data
            digest.update(plain)
            progress.advance(len(plain))
            for at in range(0, len(plain), _PIECE):
                piece = memoryview(plain)[at : at + _PIECE]
                if is_zero(piece):
                    out.seek(len(piece), os.SEEK_CUR)
                    continue
                while piece:
                    piece = piece[out.write(piece) :]

        shown = f"copy of {there}"
        with shell.start(text, root=root, streams=False, timeout=6 * _HOURS, shown=shown) as running:
            try:
                running.finish(taken=taken)
            except zstandard.ZstdError as error:
                raise RemoteFailed(f"{shell.name}: what came of {there} is damaged: {error}") from error
        out.truncate()
    return digest.hexdigest()
