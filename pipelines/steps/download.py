"""The `download` step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from builder.digest import file_sha256
from builder.errors import InputError, UsageError
from builder.fetch import Limits, Remembered, Validators, Web, published
from builder.progress import SILENT, Progress
from builder.verify import Checksum, Keyring, parse_checksum
from pipelines.artifact import File
from pipelines.step import Inputs, LocalStep, Options, Outside, Work


class DownloadOptions(Options):
    """Where the file is, and what proves that it is the publisher's."""

    url: str = Field(description="http:, https: or file:///absolute/path")
    checksum: str | None = Field(
        default=None,
        description="`sha256:HEX`, `sha512:HEX`, or the URL of a checksum file (SHA256SUMS, ...) that lists it",
    )
    signature: str | None = Field(
        default=None,
        description="URL of an OpenPGP signature: of the checksum file if `checksum` is a URL, else of the file itself",
    )
    keyring: str | None = Field(
        default=None,
        description="the publisher's public keys, a file in the recipe's folder; without `signature`, "
        "the checksum file itself must be clearsigned",
    )
    name: str | None = Field(default=None, description="a name for messages, instead of the last part of the URL")
    attempts: int = Field(default=6, ge=1, le=100, description="requests that bring no byte before it is given up")
    timeout: float = Field(default=60, gt=0, le=3600, description="seconds of silence before a server is asked again")


class Download(LocalStep[DownloadOptions]):
    """Fetch a file over http, https or from this machine, and prove its checksum and signature.

    What was cut, also by a crash, continues where it stopped. A file that the store holds already is not fetched
    again: it is known by its checksum, or by the ETag, the date and the size that the server gave for it.
    """

    options = DownloadOptions
    returns = File
    continues = True

    def check(self, options: DownloadOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = published.problems([options.url, options.signature], options.checksum)
        if options.signature and not options.keyring:
            problems.append("signature needs a keyring: the file with the publisher's public keys")
        if options.keyring and not options.signature and not published.is_url(options.checksum):
            problems.append("keyring has nothing to check: give a signature, or the URL of a clearsigned checksum file")
        if options.keyring and (options.keyring.startswith("/") or ".." in PurePosixPath(options.keyring).parts):
            problems.append(f"keyring {options.keyring!r} is not a path inside the recipe's folder")
        if options.name is not None and ("/" in options.name or options.name in ("", ".", "..")):
            problems.append(f"name {options.name!r} is not a file name")
        return problems

    def pin(self, options: DownloadOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the file's checksum, or else what the server says about its version; and its size if known."""
        web = _web(options, outside, SILENT)
        pins: dict[str, Any] = {}
        if options.keyring:
            pins["keyring"] = file_sha256(_keyring(options, outside).path)
        if checksum := _checksum(options, outside, web):
            pins["checksum"] = str(checksum)
            known = Remembered(outside.cache).recall(pins["checksum"])
            pins["size"] = known.size if known else web.probe(options.url).size
        else:
            found = web.probe(options.url)
            pins |= {"etag": found.etag, "last_modified": found.last_modified, "size": found.size}
        return {name: value for name, value in pins.items() if value is not None}

    def expect(self, options: DownloadOptions, pins: Mapping[str, Any]) -> int | None:
        """Return the file's size in bytes, if the server gives it."""
        return pins.get("size")

    def build(self, options: DownloadOptions, inputs: Inputs, work: Work) -> File:
        """Adopt the file from the store, or fetch, prove and seal it."""
        web = _web(options, work.outside, work.progress)
        name = options.name or web.address(options.url).name or "download"
        remembered = Remembered(work.outside.cache)
        version = _version(options, work.pins, web)
        if file := _held(version, work, remembered, name):
            _require_signature(options, work, web, work.store.path(file))
            work.progress.note(f"{name} is in the store already: not fetched again")
            return file
        if not options.checksum and not options.signature:
            work.progress.note(f"no checksum given for {name}: nothing proves that these are the publisher's bytes")
        expected = parse_checksum(work.pins["checksum"]) if "checksum" in work.pins else None
        fetched = web.download(options.url, work.scratch, expected=expected)
        _require_pinned(work.pins, fetched.validators, web, options.url)
        _require_signature(options, work, web, fetched.path)
        remembered.keep(*version, digest=fetched.sha256, size=fetched.size)
        return work.store.seal_file(fetched.path, name=name, sha256=fetched.sha256)


def _web(options: DownloadOptions, outside: Outside, progress: Progress) -> Web:
    limits = Limits(silence=options.timeout, attempts=options.attempts)
    return Web(mirrors=outside.mirrors, limits=limits, progress=progress)


def _keyring(options: DownloadOptions, outside: Outside) -> Keyring:
    folder = outside.recipe_directory.resolve()
    path = (folder / (options.keyring or "")).resolve()
    if not path.is_relative_to(folder):
        raise UsageError(f"keyring {options.keyring!r} leads out of the recipe's folder {folder}")
    return Keyring(path)


def _checksum(options: DownloadOptions, outside: Outside, web: Web) -> Checksum | None:
    """Return the checksum that the recipe gives, or that its checksum file, once its signature is proven, gives."""
    keyring = _keyring(options, outside) if options.keyring else None
    return published.checksum(web, options.url, options.checksum, signature=options.signature, keyring=keyring)


def _version(options: DownloadOptions, pins: Mapping[str, Any], web: Web) -> tuple[str | int | None, ...]:
    """Return what names this version of the file: its checksum, or the URL and all that the server says."""
    if "checksum" in pins:
        return (pins["checksum"],)
    return (web.address(options.url).actual, pins.get("etag"), pins.get("last_modified"), pins.get("size"))


def _held(version: Sequence[str | int | None], work: Work, remembered: Remembered, name: str) -> File | None:
    known = remembered.recall(*version)
    digest = known.digest if known else str(version[0])
    # A size alone, or nothing at all, tells no version from the next.
    if len(version) > 1 and not any(version[1:3]):
        return None
    if not digest.startswith("sha256:") or not work.store.contains(digest):
        return None
    file = File(digest=digest, size=0, name=name)
    return file.model_copy(update={"size": work.store.path(file).stat().st_size})


def _require_pinned(pins: Mapping[str, Any], found: Validators, web: Web, url: str) -> None:
    """Refuse another version than the one that the plan, and with it the key, was made for."""
    if "checksum" in pins:
        return
    for word, now in (("ETag", found.etag), ("date", found.last_modified), ("size", found.size)):
        then = pins.get({"ETag": "etag", "date": "last_modified", "size": "size"}[word])
        if then is not None and now is not None and then != now:
            raise InputError(
                f"{web.address(url)} changed after this run began: its {word} was {then}, and now is {now}",
                hint="Run again for the new version; `checksum:` in the recipe would hold on to one.",
            )


def _require_signature(options: DownloadOptions, work: Work, web: Web, path: Path) -> None:
    if options.signature and not published.is_url(options.checksum):
        what = f"{web.address(options.url)}, signature {web.address(options.signature)}"
        _keyring(options, work.outside).verify_detached(path, web.read(options.signature), what=what)
