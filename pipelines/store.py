"""Content-addressed files: whole under their digest, or absent.

Write order of a seal: the file is finished in scratch (same filesystem), fsynced, made read-only, renamed to its
digest, and the directory fsynced. The rename is the commit point: a crash before it leaves scratch, which the next run
empties; a crash after it leaves an object that no Result names, which `emi store prune` finds.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from builder import durable
from builder.digest import file_sha1, file_sha256
from builder.errors import FormatRefused
from builder.guest.overlay import Layer
from builder.image.identify import identify
from builder.image.identity import Identity, require_safe
from builder.image.reader import open_image, window
from builder.image.stream import ImageReader
from builder.image.write import content_digest
from pipelines.artifact import Bundle, File, ImageFile, ImageFormat


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What a prune removed and kept; sizes in bytes on the disk."""

    removed: int
    freed: int
    kept: int
    kept_size: int


class FileStore:
    """The store under one directory. Safe for several processes; its files are never changed once sealed."""

    def __init__(self, objects: Path) -> None:
        self._objects = objects

    def name(self, digest: str) -> str:
        """Return the object's path relative to `objects/`: `ab/sha256-abcd…`."""
        algorithm, _, value = digest.partition(":")
        return f"{value[:2]}/{algorithm}-{value}"

    def backing_name(self, digest: str) -> str:
        """Return how an overlay in the store names another object: relative, so that the store can move."""
        return f"../{self.name(digest)}"

    def path(self, artifact: File | ImageFile) -> Path:
        """Return where the artifact's file lies; read-only."""
        return self._objects / self.name(artifact.digest)

    def contains(self, digest: str) -> bool:
        """Say whether the object is here."""
        return (self._objects / self.name(digest)).is_file()

    def holds(self, artifact: File | ImageFile | Bundle) -> bool:
        """Say whether the artifact's files are here, whole by their size, and those an overlay reads from."""
        if isinstance(artifact, Bundle):
            return all(map(self.holds, (artifact.manifest, *artifact.parts)))
        return all(self.contains(digest) for digest in artifact.digests()) and not self._is_cut(artifact)

    def drop_if_cut(self, artifact: File | ImageFile | Bundle) -> None:
        """Remove each of the artifact's files that has not its size any more: nobody can rely on it."""
        files = (artifact.manifest, *artifact.parts) if isinstance(artifact, Bundle) else (artifact,)
        with self._locked(fcntl.LOCK_EX):
            for file in files:
                if self._is_cut(file):
                    self.path(file).unlink(missing_ok=True)

    def _is_cut(self, artifact: File | ImageFile) -> bool:
        if isinstance(artifact, ImageFile) and artifact.format != "raw":
            return False  # a qcow2's own size is written down nowhere
        size = artifact.size if isinstance(artifact, File) else artifact.whole().virtual_size
        try:
            return self.path(artifact).stat().st_size != size
        except FileNotFoundError:
            return True  # pruned as we looked

    def allocated(self, artifact: File | ImageFile | Bundle) -> int:
        """Return how many bytes of the disk the artifact's files take: its data, without holes.

        Of a part of a disk its own data, as a reader finds it.
        """
        digests = artifact.digests()
        within = 0
        if isinstance(artifact, ImageFile) and artifact.window:
            with self.open_image(artifact) as reader:
                within = sum(extent.length for extent in reader.extents())
            digests = tuple(file.digest for file in (artifact.kernel, artifact.ramdisk) if file)
        return within + sum((self._objects / self.name(digest)).stat().st_blocks * 512 for digest in digests)

    def seal_file(self, path: Path, *, name: str, sha256: str | None = None) -> File:
        """Take a finished file from scratch; `sha256` ('sha256:HEX') when its maker hashed it already.

        Sparse files are named by their content, so that no hole is hashed. Raises DiskFull.
        """
        status = path.stat()
        if sha256 is None and status.st_blocks * 512 < status.st_size:
            with open_image(path, "raw") as reader:
                digest = content_digest(reader)
        else:
            digest = sha256 or file_sha256(path)
        self._seal(path, digest)
        return File(digest=digest, size=status.st_size, name=name)

    def seal_part(self, path: Path, *, name: str, sha1: str) -> File:
        """Take a finished part of a bundle from scratch: `sha1:HEX`, as its manifest names it; `sha1` is hex.

        Nothing is hashed or copied: whoever made or checked the part has hashed it. Parts may be sealed from several
        threads at once. Raises DiskFull.
        """
        size = path.stat().st_size
        digest = f"sha1:{sha1}"
        self._seal(path, digest)
        return File(digest=digest, size=size, name=name)

    def seal_image(
        self,
        path: Path,
        *,
        format: ImageFormat,
        virtual_size: int,
        backing: ImageFile | None = None,
    ) -> ImageFile:
        """Take a finished disk image from scratch. Raises DiskFull."""
        if format == "raw":
            with open_image(path, "raw") as reader:
                digest = content_digest(reader)
        else:
            digest = file_sha256(path)
        self._seal(path, digest)
        return ImageFile(digest=digest, format=format, virtual_size=virtual_size, backing=backing)

    def seal_layer(self, path: Path, base: ImageFile) -> ImageFile:
        """Take a finished overlay that was made over `base`; it is the same part of the disk. Raises DiskFull."""
        whole = base.whole()
        size = identify(path).virtual_size  # its own: a `resize` step may have changed it
        assert size is not None
        sealed = self.seal_image(path, format="qcow2", virtual_size=size, backing=whole)
        return sealed.part(base.offset, base.virtual_size) if base.window else sealed

    def open_image(self, artifact: File | ImageFile, scratch: Path | None = None) -> ImageReader:
        """Open an image for reading; a File's format is established first. Raises FormatRefused."""
        path = self.path(artifact)
        if isinstance(artifact, File):
            return open_image(path, self.establish(artifact).format, scratch=scratch)
        backing = self.open_image(artifact.backing) if artifact.backing else None
        reader = open_image(path, artifact.format, backing=backing)
        if artifact.window is None:
            return reader
        return window(reader, artifact.offset, artifact.virtual_size, owned=True)

    def layer(self, artifact: ImageFile) -> Layer:
        """Return the image as what guest work puts its own layer on."""
        beneath = self.layer(artifact.backing) if artifact.backing else None
        part = (artifact.offset, artifact.virtual_size) if artifact.window else None
        return Layer(path=self.path(artifact), format=artifact.format, beneath=beneath, window=part)

    def image(self, artifact: File | ImageFile) -> ImageFile:
        """Return the artifact as a disk image whose format is established. Raises FormatRefused unless raw or qcow2."""
        if isinstance(artifact, ImageFile):
            return artifact
        found = self.establish(artifact)
        if found.virtual_size is None or found.format not in ("raw", "qcow2"):
            raise FormatRefused(f"{artifact.name} is {found.noun}", hint="Add a `convert` step before this one.")
        return ImageFile(digest=artifact.digest, format=found.format, virtual_size=found.virtual_size)

    def establish(self, file: File) -> Identity:
        """Return what a file is, under the name its publisher gave it. Raises FormatRefused unless it is an image."""
        found = replace(identify(self.path(file)), path=Path(file.name))
        require_safe(found)
        return found

    def _seal(self, path: Path, digest: str) -> None:
        target = self._objects / self.name(digest)
        with self.shared():
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                durable.fsync_directory(self._objects)
            if target.exists():
                os.utime(target)  # a prune that began before us must see it as new
                path.unlink()
                return
            durable.fsync_file(path)
            os.utime(path)  # sealed now: a download that a killed run began is older than this run
            path.chmod(0o444)
            durable.commit(path, target)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold off a prune for the block: for whoever looks and then relies on what was seen."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        self._objects.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._objects, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, mode)
            yield
        finally:
            os.close(descriptor)

    def damaged(self) -> Iterator[Path]:
        """Yield every object whose bytes are not those it is named by; reads the whole store."""
        for path in sorted(self._objects.glob("*/*")):
            algorithm, _, value = path.name.partition("-")
            if algorithm == "blocks":
                with open_image(path, "raw") as reader:
                    found = content_digest(reader)
            else:
                found = file_sha1(path) if algorithm == "sha1" else file_sha256(path)
            if found != f"{algorithm}:{value}":
                yield path

    def prune(self, keep: Callable[[], Collection[str]], *, sealed_before: Callable[[], float]) -> Pruned:
        """Remove every object whose digest is not in `keep` and that was sealed before that time (epoch seconds).

        A run in progress is safe: what it relies on is in `keep`, what it makes is sealed later. Both are asked for
        under the lock, the time first: a run that begins between the question and the removal would be overlooked.
        """
        removed = freed = kept = kept_size = 0
        with self._locked(fcntl.LOCK_EX):
            before = sealed_before()
            names = {self.name(digest) for digest in keep()}
            for path in sorted(self._objects.glob("*/*")):
                status = path.stat()
                size = status.st_blocks * 512
                if f"{path.parent.name}/{path.name}" in names or status.st_mtime >= before:
                    kept, kept_size = kept + 1, kept_size + size
                    continue
                path.unlink()
                removed, freed = removed + 1, freed + size
        return Pruned(removed=removed, freed=freed, kept=kept, kept_size=kept_size)
