"""Can this machine do it? Each check tries the thing itself, and a failed one names its fix.

A check is a function that returns what it found, or raises an EmiError whose hint is the fix: the same error that a
run would meet, met early. Nothing is changed but caches.
"""

from __future__ import annotations

import getpass
import importlib
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from builder import acceleration, proc
from builder.errors import EmiError, HostError, ToolFailed
from builder.guest import session
from builder.units import format_size
from pipelines import targets
from pipelines.home import Home

Severity = Literal["needed", "advised"]

# How a program says its version, where it is not `--version`.
_VERSION_FLAGS: Mapping[str, str] = {"debugfs": "-V", "mke2fs": "-V", "mkfs.ext4": "-V", "mkfs.vfat": "--help"}
_VERSION = re.compile(r"\d+\.\d+")
# The demo's peak: the tree and the image (1.3 GiB of data), the packages, and its blocks once more in the sandbox.
_HOME_SPACE = 6 << 30
# libguestfs keeps its appliance (about 400 MiB) and each session's overlay there.
_TEMPORARY_SPACE = 1 << 30
# The appliance's guest has 1280 MiB by libguestfs' default; emi itself stays below 256 MiB.
_MEMORY = 1536 << 20
_SANDBOX_MODULES = ("moto", "cheroot", "cryptography")
_SETUP = "In emi's checkout: make setup"


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check came to; `fix` is what to do about a failed one, `severity` whether a run needs it."""

    name: str
    ok: bool
    severity: Severity
    found: str
    fix: str = ""


def doctor(home: Home, *, cloud: str | None = None, quick: bool = False) -> Iterator[Check]:
    """Yield every check as soon as it is done; `quick` leaves out those that take seconds (the appliance).

    `cloud` is a name as --cloud takes it. Raises UsageError when there is no such cloud.
    """
    target = targets.choose(cloud)
    local = targets.is_sandbox(target)
    for program in proc.PACKAGES:
        yield _check(program, partial(tool, program))
    yield _check("libguestfs binding", binding)
    yield _check("kernel for the appliance", kernel)
    yield _check("virtual machines", emulation)
    yield _check("acceleration", accelerated, "advised")
    if not quick:
        yield _check("appliance launch", appliance)
    yield _check("space in EMI_HOME", lambda: space(home.root, need=_HOME_SPACE))
    yield _check("space for the appliance", lambda: space(_appliance_cache(), need=_TEMPORARY_SPACE))
    yield _check("memory", memory)
    yield _check("user namespaces for mmdebstrap", user_namespaces, "advised")
    yield _check("sandbox", sandbox, "needed" if local else "advised")
    yield _check("cloud credentials", lambda: credentials(target, home))


def healthy(checks: Sequence[Check]) -> bool:
    """Say whether everything that a run needs is there."""
    return all(check.ok for check in checks if check.severity == "needed")


def _check(name: str, find: Callable[[], str], severity: Severity = "needed") -> Check:
    try:
        return Check(name=name, ok=True, severity=severity, found=find())
    except EmiError as error:
        return Check(name=name, ok=False, severity=severity, found=error.message, fix=error.hint)


def tool(program: str) -> str:
    """Return what the program says of its version. Raises ToolMissing, and ToolFailed when it does not even start."""
    try:
        # Some end with 1 because they know no --version: that, too, proves that they run. 126 and 127 do not.
        said = proc.run([program, _VERSION_FLAGS.get(program, "--version")], timeout=20, allowed=range(126))
    except ToolFailed as error:
        package = proc.PACKAGES[program]
        raise ToolFailed(error.message, hint=f"sudo apt-get install --reinstall {package}") from error
    lines = (said.stdout + said.stderr).decode(errors="replace").splitlines()
    return next((line for line in lines if _VERSION.search(line)), "it runs")


def binding() -> str:
    """Return where libguestfs' binding was imported from. Raises HostError when Python cannot import it."""
    try:
        # Not for use: builder/guest/session.py is the one importer, and this asks whether it could.
        module = importlib.import_module("guestfs")
    except ImportError as error:
        raise HostError(
            f"Python cannot import guestfs: {error}",
            hint="sudo apt-get install python3-guestfs, and a .venv that sees it (make setup makes one)",
        ) from error
    return str(module.__file__)


def kernel(boot: Path = Path("/boot"), modules: Path = Path("/lib/modules")) -> str:
    """Return the newest kernel that the appliance can boot from. Raises HostError: none, or none we may read."""
    found = sorted(path for path in boot.glob("vmlinuz-*") if (modules / path.name.removeprefix("vmlinuz-")).is_dir())
    if not found:
        raise HostError(
            f"{boot} holds no kernel with its modules in {modules}; the appliance boots from one",
            hint="sudo apt-get install linux-image-cloud-amd64",
        )
    readable = [path for path in found if os.access(path, os.R_OK)]
    if not readable:
        raise HostError(f"{found[-1]} cannot be read by {getpass.getuser()}", hint=f"sudo chmod a+r {boot}/vmlinuz-*")
    return str(readable[-1])


def emulation() -> str:
    """Boot a guest of one sector by translation. Raises ToolFailed with what qemu says when it dies."""
    acceleration.boot("tcg")
    return "a guest booted"


def accelerated() -> str:
    """Boot the same guest under KVM. Raises HostError when virtual machines run here, but slowly."""
    found = acceleration.prove()
    if found.kind == "tcg":
        raise HostError(
            f"{found.why}; guests run by translation, which works but takes 5 to 30 times as long",
            hint="Nothing must be done; a host with nested virtualization or real hardware is faster.",
        )
    return found.why


def appliance() -> str:
    """Launch the appliance and return how long that took. Raises GuestError with libguestfs' own words."""
    with session.Session() as opened:
        return f"launched in {opened.launched():.1f} s"


def _appliance_cache() -> Path:
    # guestfs(3): LIBGUESTFS_CACHEDIR, else TMPDIR, else /var/tmp.
    return Path(os.environ.get("LIBGUESTFS_CACHEDIR") or os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108


def space(directory: Path, *, need: int) -> str:
    """Return what is free for us where `directory` is or would be made, in bytes for people. Raises HostError."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise HostError(f"{there} cannot be written by {getpass.getuser()}", hint="Point EMI_HOME elsewhere.")
    free = shutil.disk_usage(there).free
    if free < need:
        raise HostError(
            f"{directory}: {format_size(free)} free, {format_size(need)} needed for the demo",
            hint="`emi store prune` frees what no recipe needs; or point EMI_HOME (the appliance: TMPDIR) elsewhere.",
        )
    return f"{directory}: {format_size(free)} free"


def memory(meminfo: Path = Path("/proc/meminfo")) -> str:
    """Return how much memory is available. Raises HostError when the appliance would not fit."""
    lines = (line.split(":") for line in meminfo.read_text().splitlines())
    available = next(int(value.split()[0]) << 10 for key, value in lines if key == "MemAvailable")
    if available < _MEMORY:
        raise HostError(
            f"{format_size(available)} available, {format_size(_MEMORY)} needed for the appliance",
            hint="End other programs, or add swap or memory.",
        )
    return f"{format_size(available)} available"


def user_namespaces(subuid: Path = Path("/etc/subuid"), *, user: str | None = None) -> str:
    """Return how `bootstrap` gets a root of its own. Raises HostError when this user has no ids to map."""
    if user is None and os.geteuid() == 0:
        return "not needed by root"
    name = user or getpass.getuser()
    entries = [line.split(":") for line in subuid.read_text().splitlines()] if subuid.exists() else []
    # Debian's trees use the ids 0 to 65534.
    if not any(len(entry) == 3 and entry[0] == name and int(entry[2]) >= 65536 for entry in entries):
        raise HostError(
            f"{name} has no 65536 subordinate ids in {subuid}; the step `bootstrap` needs them",
            hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
        )
    proc.find("newuidmap")
    return f"{name} has subordinate ids"


def sandbox() -> str:
    """Say that the embedded cloud is installed. Raises HostError with what is not."""
    missing = [name for name in _SANDBOX_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise HostError(f"not installed: {', '.join(missing)}", hint="pip install 'emi-pipelines[sandbox]'")
    return "installed"


def credentials(target: str, home: Home) -> str:
    """Return whose account the cloud says we are, by one call that needs no permission. Raises CloudError.

    Shows the account's number, never a key. The sandbox is not started for it.
    """
    if targets.is_sandbox(target):
        return "the sandbox hands out its own"
    opened = targets.open_target(target, home)
    return f"account {opened.cloud.account()} in {opened.cloud.region}"
