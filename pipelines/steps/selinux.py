"""The step kind `selinux`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from builder.errors import GuestError
from builder.guest.edits import Command, Edit, Remove, Unchanged, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.os import parse_assignments
from pipelines.step import GuestStep, Options

_CONFIG = "/etc/selinux/config"
_FLAG = "/.autorelabel"
# What relabels at boot where the flag is: a unit or generator of Fedora and EL 7 on, SUSE and Debian (selinux-basics),
# and the boot script of EL 5 and 6.
_AT_BOOT = (
    "/usr/lib/systemd/system-generators/selinux-autorelabel-generator.sh",
    "/usr/lib/systemd/system/selinux-autorelabel.service",
    "/usr/lib/systemd/system/rhel-autorelabel.service",
    "/lib/systemd/system/selinux-autorelabel.service",
    "/etc/init.d/selinux-basics",
)
_RC = ("/etc/rc.d/rc.sysinit", "/etc/rc.sysinit", "/usr/lib/systemd/rhel-autorelabel")
_LIMIT = 3600.0  # seconds for tens of thousands of files
# Without -m, setfiles passes over every filesystem that is not mounted with SELinux on, and none is in the appliance.
# FAT holds no labels, and setfiles would fail there.
_SCRIPT = b"""set -e
contexts=$1
if setfiles -m 2>&1 | grep -q "invalid option"; then
    echo "this guest's setfiles is too old to label files outside of a running system: take relabel: boot"
    exit 1
fi
set -- -e /proc -e /sys -e /dev
while read -r device place type rest; do
    case $type in vfat|msdos|exfat|ntfs*|iso9660) set -- "$@" -e "$place" ;; esac
done </proc/mounts
setfiles -m -F "$@" "$contexts" /
"""


class SelinuxOptions(Options):
    """Whether SELinux is on in the guest, and when files get their labels."""

    mode: Literal["enforcing", "permissive", "disabled"] | None = Field(
        default=None, description="SELinux' mode from the next boot on; without it, as it is"
    )
    relabel: Literal["boot", "now", "never"] = Field(
        default="boot",
        description="when all files are labelled: at the first `boot`, `now` by the guest's own setfiles, or `never`",
    )


class Selinux(GuestStep[SelinuxOptions]):
    """Have the guest's files labelled for SELinux, and set its mode.

    A file that a guest step makes has no label, since no SELinux runs in the appliance (one that is rewritten keeps
    the old file's); in enforcing mode programs may then not read it, and the machine may not boot or let anybody in. So
    this step stands behind all others that make files, and by default leaves the flag /.autorelabel: the first boot
    labels everything and starts once more, which takes a minute or two. `now` runs setfiles on the guest's policy here,
    which spares that to every machine made of the image, and takes minutes of building where there is no KVM.

    A guest without SELinux, or one where it is switched off, is left alone. In EL 9 and later, `disabled` leaves
    SELinux loaded without a policy; `selinux=0` on the kernel's command line, by a `grub` step, is the whole of it.
    """

    options = SelinuxOptions

    def check(self, options: SelinuxOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        if options.relabel == "never" and options.mode is None:
            return ("nothing is asked for: give `mode`, or leave `relabel` out",)
        return ()

    def edits(self, options: SelinuxOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Set the mode where it differs, and label unless SELinux is or will be off."""
        text = facts.text(_CONFIG)
        said = parse_assignments(text)
        contexts = f"/etc/selinux/{said.get('SELINUXTYPE', 'targeted')}/contexts/files/file_contexts"
        if not text or not facts.exists(contexts):
            if options.mode in ("enforcing", "permissive"):
                raise GuestError(
                    f"the guest has no SELinux policy to be {options.mode} about ({contexts} is not there)",
                    hint="Install one with a `packages` step before this one.",
                )
            return Unchanged(why="the guest has no SELinux policy")
        before = said.get("SELINUX", "enforcing").lower()
        mode = options.mode or before
        edits: list[Edit] = []
        if mode != before:
            data = _with_mode(text, mode).encode("utf-8", "surrogateescape")
            edits.append(
                WriteFile(path=_CONFIG, data=data, why=f"SELinux is {mode} from the next boot on (was {before})")
            )
        if mode != "disabled":
            edits += _relabelled(options, facts, contexts)
        return edits or Unchanged(why=_nothing(options, mode))


def _with_mode(text: str, mode: str) -> str:
    line = re.compile(r"^[ \t]*SELINUX=.*$", re.MULTILINE)
    if line.search(text):
        return line.sub(f"SELINUX={mode}", text)
    return f"{text.rstrip()}\nSELINUX={mode}\n"


def _relabelled(options: SelinuxOptions, facts: GuestFacts, contexts: str) -> list[Edit]:
    flagged = facts.exists(_FLAG)
    match options.relabel:
        case "never":
            return []
        case "boot":
            if flagged:
                return []
            _require_relabeller(facts)
            return [WriteFile(path=_FLAG, data=b"", why=f"{_FLAG} has the first boot label all files")]
        case "now":
            labels = Command(
                script=_SCRIPT, arguments=(contexts,), limit=_LIMIT, why=f"labelled all files by {contexts}"
            )
            return [labels, *([Remove(paths=(_FLAG,), why=f"removed {_FLAG}: it is done")] if flagged else [])]


def _require_relabeller(facts: GuestFacts) -> None:
    if any(map(facts.exists, _AT_BOOT)) or any("autorelabel" in facts.text(path) for path in _RC):
        return
    raise GuestError(
        f"nothing in the guest would label its files at boot, although it has a policy: {_FLAG} would be overlooked",
        hint="Say `relabel: now`.",
    )


def _nothing(options: SelinuxOptions, mode: str) -> str:
    if mode == "disabled":
        return "SELinux is off in the guest"
    return f"SELinux is {mode} already" + (f", and {_FLAG} is there" if options.relabel == "boot" else "")
