"""A sandbox's whole state in one file, to be carried elsewhere: `.tar.zst`, holes left out.

    emi-sandbox.json    first: {"version": 1, …}, so that what is too new is refused before anything is unpacked
    settings.json       keys, region, personality, settle time; ports and TLS's certificates stay with their directory
    *.pem               the cloud's and the first account's pairs for bundles, as far as they were made
    state.sqlite        a consistent copy made by SQLite itself
    everything else of the state, as it lies in the directory
    digests.json        last: {name: digest} of all the members between; of one with several names, the first name

A state is copied while calls are held back (`pause.py`), so it is what lies between two calls. Work that goes on in the
background meanwhile begins anew where the state is imported, as after a kill: the records, which say what is to be
done, are copied first.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

import zstandard

from builder import durable
from builder.errors import ArchiveRefused, InputError
from builder.sandbox import replacing, settings, tarball

VERSION = 1
_FIRST, _LAST = "emi-sandbox.json", "digests.json"
_DATABASE = "state.sqlite"
_CARRIED = {settings.SETTINGS, *settings.BUNDLING}  # of what a directory keeps for itself, what travels too
_LEVEL = 3  # zstd's default: faster than the disk on two cores


def write(directory: Path, file: Path, check: Callable[[], None]) -> None:
    """Write the state of `directory` to `file`, which is whole or absent whatever happens. Call it while calls wait.

    `check` raises when they have not waited until it is called, at the end: then there is no file. A crash may leave
    `.NAME.new` beside it. Raises DiskFull.
    """
    aside = file.with_name(f".{file.name}.new")
    with _removed_on_failure(aside), durable.translate_disk_full(aside), open(aside, "wb") as out:
        packer = zstandard.ZstdCompressor(level=_LEVEL, threads=-1, write_checksum=True)
        with packer.stream_writer(out, closefd=False) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
            _add(tar, _FIRST, {"version": VERSION, "written": int(time.time())})
            digests = dict(_members(directory, tar, aside.with_suffix(".sqlite")))
            _add(tar, _LAST, digests)
        out.flush()
        os.fsync(out.fileno())
        check()
    durable.commit(aside, file)


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _members(directory: Path, tar: tarfile.TarFile, scratch: Path) -> Iterator[tuple[str, str]]:
    """Add every member; yield its name and digest."""
    chosen = replace(settings.load(directory), port=0, tls_port=0, tls=False)
    scratch.unlink(missing_ok=True)
    try:
        scratch.write_text(json.dumps(asdict(chosen)))
        yield settings.SETTINGS, tarball.add(tar, scratch, settings.SETTINGS)
        scratch.unlink()
        if (directory / _DATABASE).exists():
            with closing(sqlite3.connect(directory / _DATABASE)) as ours, closing(sqlite3.connect(scratch)) as copy:
                ours.backup(copy)
            yield _DATABASE, tarball.add(tar, scratch, _DATABASE)
    finally:
        scratch.unlink(missing_ok=True)
    for name in settings.BUNDLING:
        if (directory / name).exists():
            yield name, tarball.add(tar, directory / name, name)
    names: dict[tuple[int, int], str] = {}  # a file that is there under several names travels once
    for entry in replacing.state_entries(directory):
        if entry.name.startswith(_DATABASE):
            continue  # with its write-ahead log: copied above
        for path in [entry, *sorted(entry.rglob("*"))] if entry.is_dir() else [entry]:
            info = tarfile.TarInfo(path.relative_to(directory).as_posix())
            info.mode = 0o600
            if path.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o700
                tar.addfile(info)
            elif path.exists():  # what work in the background has put aside may be gone by now
                about = path.stat()
                first = names.setdefault((about.st_dev, about.st_ino), info.name)
                if first == info.name:
                    yield info.name, tarball.add(tar, path, info.name)
                else:
                    info.type, info.linkname = tarfile.LNKTYPE, first
                    tar.addfile(info)
                    yield info.name, first


def _add(tar: tarfile.TarFile, name: str, value: object) -> None:
    data = json.dumps(value).encode()
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, BytesIO(data))


def read(file: Path, directory: Path) -> None:
    """Make the state in `file` that of `directory`, in place of the one there. Call it while nobody serves it.

    Ports and certificates stay those of the directory. A crash leaves the old state or the new one. Raises
    ArchiveRefused, with the old state as it was, when the file is damaged, no export, of a later version, or names
    anything but files and directories inside; InputError when it cannot be read; DiskFull.
    """
    try:
        packed = open(file, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}", hint="Give the name of an export.") from error
    place = replacing.prepare(directory)
    try:
        with packed, durable.translate_disk_full(place):
            _unpack(packed, place)
    except ArchiveRefused as error:
        raise ArchiveRefused(f"{file}: {error.message}", hint=_HINT) from None
    except (tarfile.TarError, zstandard.ZstdError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArchiveRefused(f"{file} is no export of a sandbox, or damaged: {error}", hint=_HINT) from error
    _keep_ports(directory, place)
    replacing.commit(directory)


_HINT = "`emi sandbox export FILE` writes such a file. The state that was here is untouched."


def _unpack(packed: IO[bytes], place: Path) -> None:
    """Unpack all members and hold them against their digests. Raises what a damaged file makes of itself."""
    stream = zstandard.ZstdDecompressor().stream_reader(packed)
    found: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        _require_version(tar, tar.next())
        while (member := tar.next()) is not None:
            if member.name == _LAST:
                if json.loads(_content(tar, member)) != found or settings.SETTINGS not in found:
                    raise ArchiveRefused("its files are not those it was written with")
                while stream.read(1 << 20):  # to the frame's own checksum
                    pass
                return
            if not _is_plain(member):
                raise ArchiveRefused(f"the member {member.name!r} has no place in a sandbox's state")
            target = place / member.name
            if member.isdir():
                target.mkdir()
            elif member.islnk():
                target.hardlink_to(place / _linked(member, found))
                found[member.name] = member.linkname
            else:
                found[member.name] = tarball.extract(tar, member, target)
    raise ArchiveRefused("its end is missing")


def _linked(member: tarfile.TarInfo, found: Mapping[str, str]) -> str:
    """Return the name, among those unpacked already, that the member is another name of."""
    if member.linkname not in found:
        raise ArchiveRefused(f"the member {member.name!r} is a link to {member.linkname!r}")
    return member.linkname


def _require_version(tar: tarfile.TarFile, first: tarfile.TarInfo | None) -> None:
    if first is None or first.name != _FIRST:
        raise ArchiveRefused("it is no export of a sandbox")
    version = json.loads(_content(tar, first))["version"]
    if version != VERSION:
        raise ArchiveRefused(f"it is of version {version}, and this emi reads version {VERSION}")


def _is_plain(member: tarfile.TarInfo) -> bool:
    """Say whether it is a file or directory of a state: no symlink or device, nothing outside or of the directory."""
    path = PurePosixPath(member.name)
    return (
        (member.isreg() or member.isdir() or member.islnk())
        and path.as_posix() == member.name
        and not path.is_absolute()
        and ".." not in path.parts
        and not path.parts[0].startswith(".")
        and (member.name in _CARRIED or path.parts[0] not in replacing.KEPT)
    )


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = tar.extractfile(member)
    if source is None or member.size > 64 << 20:
        raise ArchiveRefused(f"{member.name} is not what it should be")
    return source.read()


def _keep_ports(directory: Path, place: Path) -> None:
    ours = settings.load(directory)
    theirs = settings.load(place)
    settings.save(place, replace(theirs, port=ours.port, tls_port=ours.tls_port, tls=ours.tls))
