"""Packages become a tar of an installed system: mmdebstrap in namespaces of its own.

The mount and pid namespaces are the kernel's guarantee that nothing outlives us: when we die, `unshare` dies
(`setpriv --pdeathsig`), then the first process of the namespace (`--kill-child`), then every other process and every
mount in it. As an ordinary user the user namespace maps all of the user's subordinate ids (`--map-auto`), in which
mmdebstrap works exactly as for root; the tar is the same.

Signatures are apt's business: it trusts the host's keyring for the suite, or `keyring`.
"""

from __future__ import annotations

import getpass
import io
import os
import re
import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path

from builder import proc
from builder.bootstrap import grub
from builder.bootstrap.system import BASE, System, early_files
from builder.durable import translate_disk_full
from builder.errors import HostError
from builder.progress import Progress

TOOLS = ("mmdebstrap", "unshare", "mke2fs", "debugfs", "e2fsck", "sgdisk", "mkfs.vfat", "mmd", "mcopy")
_NOISE = re.compile(r"chroot architecture|automatically chosen|running --|skipping|success in|finding correct")
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


def install(system: System, archive: Path, *, cache: Path | None, scratch: Path, progress: Progress) -> None:
    """Write the installed system as a tar at `archive`.

    Packages are kept in `cache`, and taken from it when apt finds there what its signed index names. Raises
    ToolFailed with the last of apt's words, DiskFull. A crash leaves files in `scratch` and no process; `remove` clears
    scratch, whoever the files belong to.
    """
    temporary = scratch / "installing"
    temporary.mkdir(parents=True)
    overlay = scratch / "early.tar"
    _write_overlay(system, overlay)
    loader = scratch / "boot-loader.sh"
    loader.write_text(grub.INSTALL)

    def heard(line: str) -> None:
        if line.startswith("I: ") and not _NOISE.search(line):
            progress.note(line.removeprefix("I: ").removesuffix("..."))

    proc.follow(
        [*_namespaces(), *_command(system, archive, scratch, cache)],
        heard=heard,
        environment={
            "SOURCE_DATE_EPOCH": str(system.epoch),
            "TMPDIR": str(temporary),
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


def _command(system: System, archive: Path, scratch: Path, cache: Path | None) -> Sequence[str]:
    packages = [*BASE[system.distribution], *system.packages]
    hooks = [f'--essential-hook=tar -C "$1" -xf {shlex.quote(str(scratch / "early.tar"))}']
    if cache:
        cache.mkdir(parents=True, exist_ok=True)
        hooks += _cache_hooks(shlex.quote(str(cache)))
    hooks.append(f'--customize-hook=chroot "$1" sh < {shlex.quote(str(scratch / "boot-loader.sh"))}')
    if any(re.match(r"(file|copy):", mirror) for mirror in system.mirrors):
        hooks.append(f"--hook-directory={_LOCAL_MIRROR_HOOKS}")
    return [
        *("mmdebstrap", "--mode=root", "--format=tar", "--architectures=amd64", f"--variant={system.variant}"),
        f"--components={','.join(system.components)}",
        f"--include={','.join(packages)}",
        *([f"--keyring={system.keyring}"] if system.keyring else []),
        *hooks,
        *("--", system.suite, str(archive), *system.mirrors),
    ]


def _cache_hooks(cache: str) -> Sequence[str]:
    inside = '"$1"/var/cache/apt/archives'
    return (
        "--skip=essential/unlink",  # or the essential packages would be gone before they are kept
        f"--setup-hook=mkdir -p {inside}; find {cache} -name '*.deb' -exec cp -t {inside} {{}} +",
        # Under another name first: a crash must not leave half a package under its own.
        f"--customize-hook=for deb in {inside}/*.deb; do name=$(basename \"$deb\"); "
        f'test -e {cache}/"$name" || {{ cp "$deb" {cache}/.new-$$ && mv {cache}/.new-$$ {cache}/"$name"; }}; done',
    )


def _write_overlay(system: System, overlay: Path) -> None:
    with translate_disk_full(overlay), tarfile.open(overlay, "w", format=tarfile.PAX_FORMAT) as tar:
        for path, text in early_files(system).items():
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.mtime = len(text.encode()), 0o644, system.epoch
            tar.addfile(member, io.BytesIO(text.encode()))
