"""Where emi keeps things: one directory, `EMI_HOME`, by default `~/.local/state/emi` (XDG_STATE_HOME).

store/objects/ab/ALGO-HEX   files by digest, read-only, each whole or absent
journal.sqlite              what was intended, begun and finished
runs/RUN/report.json        what a run did, for people and for later
recipes/                    those that `emi install-image` wrote, by name and content
scratch/KEY/                work in progress; safe to delete when nothing runs
leases/KEY/                 what belongs to a helper or volume while it is leased: the key that logs in
reserve                     room that a prune gives back first: on a full disk the journal could not even be read
cache/                      remembered answers (ETags, package files); safe to delete always
locks/                      who runs what; held by the kernel, gone with the process
sandbox/                    the embedded cloud's own directory; sandbox-eucalyptus/ that of the one like Eucalyptus
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from builder.errors import HostError

_RESERVE = 256 << 10  # bytes: SQLite's shared memory (32 KiB) and a log of some pages


@dataclass(frozen=True)
class Home:
    """The directory that holds a user's emi state, and the places in it."""

    root: Path

    @property
    def objects(self) -> Path:
        """The content-addressed files."""
        return self.root / "store" / "objects"

    @property
    def journal(self) -> Path:
        """The SQLite file of the journal."""
        return self.root / "journal.sqlite"

    @property
    def runs(self) -> Path:
        """One directory per run."""
        return self.root / "runs"

    @property
    def recipes(self) -> Path:
        """The recipes that verbs wrote."""
        return self.root / "recipes"

    @property
    def scratch(self) -> Path:
        """Work in progress, one directory per key and generation."""
        return self.root / "scratch"

    @property
    def leases(self) -> Path:
        """What belongs to what is leased in a cloud, one directory per key and generation."""
        return self.root / "leases"

    @property
    def cache(self) -> Path:
        """Remembered answers."""
        return self.root / "cache"

    @property
    def locks(self) -> Path:
        """Lock files."""
        return self.root / "locks"

    @property
    def sandbox(self) -> Path:
        """The embedded cloud's directory."""
        return self.root / "sandbox"

    @property
    def sandbox_eucalyptus(self) -> Path:
        """The directory of the embedded cloud that is like Eucalyptus."""
        return self.root / "sandbox-eucalyptus"

    def key_lock(self, key: str) -> Path:
        """The lock of one key, or of what its scratch directories begin with."""
        return self.locks / f"key-{key[:32]}"

    def recipe_lock(self, recipe: str, target: str) -> Path:
        """The lock of one recipe on one target."""
        name = hashlib.sha256(f"{recipe}\n{target}".encode()).hexdigest()[:32]
        return self.locks / f"recipe-{name}"

    def free_reserve(self) -> None:
        """Give back the room held for a prune; the next `make` takes it again."""
        self._reserve.unlink(missing_ok=True)

    @property
    def _reserve(self) -> Path:
        return self.root / "reserve"

    def _keep_reserve(self) -> None:
        if self._reserve.exists() and self._reserve.stat().st_size:
            return
        with open(self._reserve, "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, _RESERVE)
            except OSError:  # full already, or a filesystem that cannot: prune then does without
                file.truncate(0)

    def make(self) -> Home:
        """Create what is missing, readable by this user only. Raises HostError when it cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for place in (self.objects, self.runs, self.recipes, self.scratch, self.leases, self.cache, self.locks):
                place.mkdir(parents=True, exist_ok=True)
            self._keep_reserve()
        except OSError as error:
            raise HostError(
                f"cannot write {error.filename or self.root}: {error.strerror}",
                hint="Point EMI_HOME at a directory that you can write.",
            ) from error
        return self


def home() -> Home:
    """Return the user's Home, made by nobody yet. Raises HostError."""
    chosen = os.environ.get("EMI_HOME") or Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "emi"
    try:
        return Home(Path(chosen).expanduser().absolute())
    except (RuntimeError, OSError) as error:  # a user without a home directory; a working directory that is gone
        raise HostError(f"cannot tell where {chosen} is: {error}", hint="Point EMI_HOME at a directory.") from error
