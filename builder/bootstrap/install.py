"""Packages become the tree of an installed system: mmdebstrap in namespaces of its own, its tar read as it comes.

The mount and pid namespaces are the kernel's guarantee that nothing outlives us: when we die, `unshare` dies
(`setpriv --pdeathsig`), then the first process of the namespace (`--kill-child`), then every other process and every
mount in it. As an ordinary user the user namespace maps all of the user's subordinate ids (`--map-auto`), in which
mmdebstrap works exactly as for root; the tar is the same.

Signatures are apt's business: it trusts the host's keyring for the suite, or `keyring`.
"""

from __future__ import annotations

import getpass
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import pool, proc
from builder.bootstrap import hooks
from builder.bootstrap.system import System
from builder.bootstrap.tree import Tree
from builder.errors import ArchiveRefused, HostError, ToolFailed
from builder.progress import Progress

TOOLS = ("mmdebstrap", "unshare", "mke2fs", "debugfs", "e2fsck", "sgdisk", "mkfs.vfat", "mmd", "mcopy")
_NOISE = re.compile(r"I: (chroot arch|automatic|running --|skipping|success|finding correct|using|removing|done|/)")
_LOCAL_MIRROR_HOOKS = "/usr/share/mmdebstrap/hooks/file-mirror-automount"


def check_host() -> None:
    """Raise ToolMissing or HostError, with the fix, if this machine cannot bootstrap; touches nothing."""
    for tool in TOOLS:
        proc.find(tool)
    if os.geteuid() == 0:
        return
    proc.find("newuidmap")
    user = getpass.getuser()
    for table in (Path("/etc/subuid"), Path("/etc/subgid")):
        names = [line.partition(":")[0] for line in table.read_text().splitlines()] if table.exists() else []
        if user not in names and str(os.getuid()) not in names:
            raise HostError(
                f"{user} has no range of subordinate ids in {table}, which bootstrapping without root needs",
                hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )


@dataclass(frozen=True, kw_only=True)
class Supply:
    """How this host gets at the packages; none of it is seen in the image.

    `cache` keeps packages, `mirrors` are pairs of a URL's prefix and what to read instead, `keyring` replaces the keys
    that the host's apt trusts.
    """

    cache: Path | None = None
    mirrors: Sequence[tuple[str, str]] = ()
    keyring: Path | None = None


def install(system: System, supply: Supply, *, scratch: Path, progress: Progress) -> Tree:
    """Return the installed system's files, unpacked below `scratch` while mmdebstrap packs them.

    Raises ToolFailed with the last of apt's words, DiskFull, ArchiveRefused. A crash leaves files in `scratch` and no
    process; `remove` clears scratch, whoever the files belong to.
    """
    temporary, contents = scratch / "installing", scratch / "contents"
    for directory in (temporary, contents):
        directory.mkdir()
    hooks.write(system, scratch / "hooks", cache=supply.cache)
    tree = Tree(contents)
    reader, writer = os.pipe()
    unpacking = pool.Background(lambda: _unpack(tree, reader))
    try:
        try:
            _follow(system, supply, scratch, writer, progress)
        finally:
            os.close(writer)
    except ToolFailed:
        _raise_cause(unpacking)
        raise
    unpacking.result()
    return tree


def _unpack(tree: Tree, reader: int) -> None:
    # Closed on an error as well: mmdebstrap then ends at its next write instead of waiting for a reader.
    with open(reader, "rb") as archive:
        tree.unpack(archive)


def _raise_cause(unpacking: pool.Background[None]) -> None:
    """Raise what kept the tar from being read; a tar that was cut off is what the failed program left, no cause."""
    try:
        unpacking.result()
    except ArchiveRefused as refused:
        if not isinstance(refused.__cause__, tarfile.TarError):
            raise


def _follow(system: System, supply: Supply, scratch: Path, writer: int, progress: Progress) -> None:
    def heard(line: str) -> None:
        if line.startswith("I: ") and not _NOISE.match(line):
            progress.note(line.removeprefix("I: ").removesuffix("..."))

    proc.follow(
        [*_namespaces(), *_command(system, supply, scratch / "hooks")],
        heard=heard,
        stdout=writer,
        environment={
            "SOURCE_DATE_EPOCH": str(system.epoch),
            "TMPDIR": str(scratch / "installing"),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        },
    )


def remove(directory: Path) -> None:
    """Remove what `install` may have left in `directory`, subordinate users' files included."""
    if directory.exists():
        proc.run([*_namespaces(), "rm", "-rf", "--one-file-system", "--", directory])


def _namespaces() -> Sequence[str]:
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user", "--map-auto")
    return ("unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


def _command(system: System, supply: Supply, scripts: Path) -> Sequence[str]:
    sources = [source.through(supply.mirrors) for source in system.sources]
    local = any(source.uri.startswith(("file:", "copy:")) for source in sources)
    return [
        *("mmdebstrap", "--mode=root", "--format=tar", "--architectures=amd64", f"--variant={system.variant}"),
        f"--include={','.join(system.wanted)}",
        *(_dpkg_option(path) for path in system.exclude),
        *([f"--keyring={supply.keyring}"] if supply.keyring else []),
        *([f"--hook-directory={_LOCAL_MIRROR_HOOKS}"] if local else []),
        f"--hook-directory={scripts}",
        "--skip=essential/unlink",  # or the essential packages would be gone before the cache can keep them
        *("--", system.suite, "-", *map(str, sources)),
    ]


def _dpkg_option(path: str) -> str:
    # mmdebstrap writes it into /etc/dpkg/dpkg.cfg.d, where later upgrades in the guest find it (dpkg(1)).
    taken_back = path.startswith("!")
    return f"--dpkgopt=path-{'include' if taken_back else 'exclude'}={path.removeprefix('!')}"
