"""What another machine has, found out in one round trip."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from builder.errors import RemoteError
from builder.remote.command import Shell

_TOOLS = (
    *("zstd", "gzip", "xz", "bzip2", "qemu-img", "curl", "wget", "sha256sum", "sha384sum", "sha512sum"),
    *("blockdev", "dd", "sudo", "tar", "unshare", "mount", "findmnt", "blkid"),
)
# RHEL 8 hides its own Python there; an older one than 3.6 does not run our program.
_PYTHONS = ("python3", "/usr/libexec/platform-python")
_PYTHON_TEST = "import sys, fcntl, hashlib, struct, zlib; sys.exit(sys.version_info < (3, 6))"
_ASK = f"""\
echo uid "$(id -u)"; echo machine "$(uname -m)"; echo boot "$(cat /proc/sys/kernel/random/boot_id)"
for tool in {" ".join(_TOOLS)}; do command -v "$tool" >/dev/null && echo tool "$tool"; done
for python in {" ".join(_PYTHONS)}; do
    "$python" -c {shlex.quote(_PYTHON_TEST)} 2>/dev/null && echo python "$python" && break
done
[ "$(id -u)" = 0 ] || {{ words=$(sudo -n sh -c : 2>&1) && echo sudo yes || echo sudo no "$words"; }}
echo end
"""


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What is there: the programs' names, a Python that runs our program ("" for none), and root's rights."""

    uid: int
    machine: str  # as `uname -m` says
    boot_id: str  # another one after each boot
    tools: frozenset[str]
    python: str
    root: bool  # the login is root's, or sudo asks for nothing
    sudo_said: str  # why not

    def require(self, shell: Shell, *tools: str) -> None:
        """Return if each tool is there. Raises RemoteError naming those that are not."""
        if missing := [tool for tool in tools if tool not in self.tools]:
            raise RemoteError(
                f"{shell.name} lacks {', '.join(missing)}",
                hint="Install it there, or use an image that has it.",
            )


def ask(shell: Shell) -> Abilities:
    """Find out what the machine of `shell` has. Raises what running a command does."""
    said = shell.script(_ASK, timeout=60, shown="what this machine has")
    lines = [line.split(" ", 1) for line in said.stdout.decode(errors="replace").splitlines()]
    told = {words[0]: words[1] for words in lines if len(words) == 2}
    sudo = told.get("sudo", "")
    return Abilities(
        uid=int(told["uid"]),
        machine=told["machine"],
        boot_id=told.get("boot", ""),
        tools=frozenset(words[1] for words in lines if words[0] == "tool"),
        python=told.get("python", ""),
        root=told["uid"] == "0" or sudo == "yes",
        sudo_said=sudo.removeprefix("no").strip(),
    )
