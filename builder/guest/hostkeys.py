"""ssh's host keys in a guest, and what would make others at boot."""

from __future__ import annotations

import re

from builder.guest import cloudinit
from builder.guest.facts import GuestFacts

_KEYS = ("/etc/ssh/ssh_host_*key", "/etc/ssh/ssh_host_*key.pub")
# Where systems start sshd, and what they call beforehand: Fedora and EL (sshd-keygen@.service; ssh-keygen in the init
# script of EL5 and 6), SUSE (sshd-gen-keys-start), Arch (sshdgenkeys.service), Alpine and Flatcar (ssh-keygen -A).
_STARTERS = (
    "/etc/systemd/system/ssh*",
    "/etc/systemd/system/ssh*.d/*.conf",
    "/usr/lib/systemd/system/ssh*",
    "/usr/lib/systemd/system/ssh*.d/*.conf",
    "/lib/systemd/system/ssh*",
    "/etc/init.d/ssh*",
    "/etc/init/ssh*.conf",
    "/etc/rc.local",
    "/etc/rc.d/rc.local",
)
_MAKES = re.compile(r"^[^#\n]*(ssh-keygen|sshd-keygen|sshd-gen-keys|sshdgenkeys)", re.MULTILINE)
_LIMIT = 1 << 20  # bytes


def keys(facts: GuestFacts) -> tuple[str, ...]:
    """Return the files of the host keys, public halves included."""
    return tuple(path for pattern in _KEYS for path in facts.names(pattern))


def maker(facts: GuestFacts) -> str | None:
    """Return what makes host keys at boot where there are none, in a person's words, or None.

    cloud-init is taken last, since it runs only where it finds a cloud.
    """
    for pattern in _STARTERS:
        for path in facts.names(pattern):
            if facts.link(path) == "/dev/null" or not _runs(facts, path):  # masked, or switched off
                continue
            if _MAKES.search((facts.read(path, limit=_LIMIT) or b"").decode("utf-8", "surrogateescape")):
                return path
    if cloudinit.installed(facts) and not facts.exists(cloudinit.DISABLED):
        return "cloud-init"
    return None


def _runs(facts: GuestFacts, path: str) -> bool:
    found = facts.stat(path)
    return "rc.local" not in path or bool(found and (found.is_link or found.permissions & 0o111))
