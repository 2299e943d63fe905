"""The changes that steps make to a guest: plain values, which say in words what they did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WriteFile:
    """Put `data` at `path`: a file that is there keeps its owner, mode and attributes unless they are given.

    A new file is root's with mode 0644. Directories that are missing are made. A symbolic link is followed, in the
    guest; one that leads nowhere is replaced. The guest never has half of the file.
    """

    path: str
    data: bytes
    mode: int | None = None
    owner: tuple[int, int] | None = None  # user and group, by number
    why: str = ""  # what a person is told about it; without it what `str` says

    def __str__(self) -> str:
        return self.why or f"wrote {self.path}"


@dataclass(frozen=True, kw_only=True)
class CopyIn:
    """Put a file of the recipe's directory at `path`, as WriteFile does, however large it is."""

    path: str
    source: str  # relative to the recipe's directory
    sha256: str  # HEX; what was pinned, and what is held against what is copied
    mode: int | None = None
    owner: tuple[int, int] | None = None
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"copied {self.source} to {self.path}"


@dataclass(frozen=True, kw_only=True)
class Copied:
    """One file of a tree: its path below the top, what was pinned (HEX) and its mode in the guest."""

    name: str
    sha256: str
    mode: int


@dataclass(frozen=True, kw_only=True)
class CopyTree:
    """Put files of a directory of the recipe's below `path`, each as CopyIn does; what else is there stays."""

    path: str
    source: str  # relative to the recipe's directory
    files: tuple[Copied, ...] = ()
    directories: tuple[str, ...] = ()  # to be made, below the top
    owner: tuple[int, int] | None = None
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"copied {self.source} to {self.path}: {len(self.files)} files"


@dataclass(frozen=True, kw_only=True)
class CopyOut:
    """Copy a file of the guest into the store, as `name` of the image that the step returns."""

    path: str
    name: str  # `kernel` or `ramdisk`
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"copied {self.path} out as {self.name}"


@dataclass(frozen=True, kw_only=True)
class MakeDirectory:
    """Make a directory, and those above it; one that is there gets the mode and owner that are given."""

    path: str
    mode: int | None = None
    owner: tuple[int, int] | None = None
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"made {self.path}/"


@dataclass(frozen=True, kw_only=True)
class MakeLink:
    """Make a symbolic link at `path`, in place of a file or link that is there."""

    path: str
    target: str
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"linked {self.path} to {self.target}"


@dataclass(frozen=True, kw_only=True)
class Remove:
    """Remove files, links (not what they lead to) and directories with all they hold; absent ones are no error."""

    paths: tuple[str, ...]
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"removed {', '.join(self.paths)}"


@dataclass(frozen=True, kw_only=True)
class Truncate:
    """Empty regular files that are there, in place: owner, mode and labels stay."""

    paths: tuple[str, ...]
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"emptied {', '.join(self.paths)}"


@dataclass(frozen=True, kw_only=True)
class SetAttributes:
    """Set mode and owner of what is at `path`; with `recursive` also of all that lies below, links excepted."""

    path: str
    mode: int | None = None
    owner: tuple[int, int] | None = None
    recursive: bool = False
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"set mode or owner of {self.path}"


@dataclass(frozen=True, kw_only=True)
class SetLabel:
    """Set the label of the filesystem on `device`."""

    device: str
    label: str
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"labelled {self.device} {self.label}"


@dataclass(frozen=True, kw_only=True)
class SetUuid:
    """Give the filesystem on `device` another UUID."""

    device: str
    uuid: str
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"gave {self.device} the UUID {self.uuid}"


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Give the disk `disk` bytes, and one partition `size` bytes, which its filesystem fills afterwards.

    Without a `partition` it is a disk that is one filesystem, without a table. Without a `size` no partition changes.
    """

    disk: int
    partition: int | None = None
    size: int | None = None
    why: str = ""

    def __str__(self) -> str:
        return self.why or f"the disk has {self.disk} bytes"


@dataclass(frozen=True, kw_only=True)
class GiveBack:
    """Give back the blocks that no filesystem of the disk uses; how many that were is its output."""

    why: str = ""

    def __str__(self) -> str:
        return self.why or "gave back what nothing uses"


@dataclass(frozen=True, kw_only=True)
class Command:
    """Run something inside the guest, by the guest's own programs; its exit status is obeyed.

    A script without `#!` is /bin/sh's. Standard input is empty; output and errors come together, the last 64 KiB.
    Processes that it leaves behind are ended with it. `environment` is added to PATH, HOME, TERM and LC_ALL.
    """

    script: bytes  # or, where `source` is given, what that file holds
    why: str  # what a person is told about it
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    limit: float = 600.0  # seconds, after which the appliance is ended and the edits are lost
    network: bool = False
    shown: bool = False  # tell the output also when it succeeds
    source: str = ""  # the script as a file, relative to the recipe's directory
    sha256: str = ""  # HEX; what was pinned of it
    secret: tuple[str, ...] = ()  # words that are blotted out of what is told

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, kw_only=True)
class RequireDrivers:
    """Read the initramfs of the kernel `version` again: an error unless each module is in it, or built in."""

    version: str
    modules: tuple[str, ...]

    def __str__(self) -> str:
        return f"read it again: {', '.join(self.modules)} in it"


Edit = (
    WriteFile
    | CopyIn
    | CopyTree
    | CopyOut
    | MakeDirectory
    | MakeLink
    | Remove
    | SetAttributes
    | SetLabel
    | SetUuid
    | Resize
    | Truncate
    | GiveBack
    | Command
    | RequireDrivers
)


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """Nothing to do, and why."""

    why: str
