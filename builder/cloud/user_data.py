"""What a helper instance is told as it boots: its host keys, who may log in, and to end itself when nobody comes. Pure.

Two forms: a `#cloud-config` for images with cloud-init, which sets the host keys before sshd starts; and a script for
images that only run what begins with `#!` (Eucalyptus' images of old), which does so after sshd may have started.

The end: a loop in the instance compares the seconds since its boot with those in LEASE, and shuts down when they are
past. `extension` is what a client that lives runs now and then, so that they never are. No wall clock is looked at, as
a machine's may jump. It ends the machine for good, since it is launched to be terminated by its own shutdown.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

from builder.remote.keys import KeyPair

LEASE = "/var/run/emi-lease"  # seconds since the boot at which the machine ends itself; /run where that is a link
_LOOK = 20  # seconds between two looks at it
_KINDS = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}
Form = Literal["cloud-init", "script"]


def user_data(form: Form, *, host_keys: Sequence[KeyPair], login: str, seconds: int) -> bytes:
    """Return the user data; `login` is the public key that may log in as root, and as the image's own user.

    The same arguments give the same bytes: a launch that is repeated with one token must not differ.
    """
    if form == "script":
        return _script(host_keys, login, seconds).encode()
    config = {
        "bootcmd": [["sh", "-c", _watch(seconds)]],
        "disable_root": False,
        "ssh_authorized_keys": [login],
        "ssh_deletekeys": True,
        "ssh_keys": _ssh_keys(host_keys),
    }
    return f"#cloud-config\n{json.dumps(config, indent=1)}\n".encode()  # JSON is YAML, and needs no quoting of ours


def extension(seconds: int) -> str:
    """Return a command (POSIX sh, as root) that lets the machine live so long from now; elsewhere it does nothing."""
    return f"[ ! -e {LEASE} ] || {{ {_set(seconds)}; }}"


def _ssh_keys(host_keys: Sequence[KeyPair]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for key in host_keys:
        name = _KINDS[key.public.split()[0]]
        found |= {f"{name}_private": key.private.decode(), f"{name}_public": key.public}
    return found


def _watch(seconds: int) -> str:
    """Return what writes the first end and starts the loop; its last resort asks no program of the system."""
    return f"""\
{_set(seconds)}
( end=$(({_UPTIME} + {seconds}))
while sleep {_LOOK}; do
    said=$(cat {LEASE} 2>/dev/null) && [ -n "$said" ] && end=$said
    [ {_UPTIME} -lt "$end" ] || break
done
echo "emi: nobody came for {seconds} s, so this machine ends" >/dev/console
shutdown -P now || poweroff || halt -p
sleep 120
echo o >/proc/sysrq-trigger ) </dev/null >/dev/null 2>&1 &
"""


_RESTARTS = (
    "service ssh restart",
    "service sshd restart",
    "systemctl restart ssh",
    "systemctl restart sshd",
    "/etc/init.d/ssh restart",
    "/etc/init.d/sshd restart",
)
_UPTIME = "$(cut -d. -f1 /proc/uptime)"


def _set(seconds: int) -> str:
    return f"echo $(({_UPTIME} + {seconds})) >{LEASE}.new && mv -f {LEASE}.new {LEASE}"


def _script(host_keys: Sequence[KeyPair], login: str, seconds: int) -> str:
    lines = ["#!/bin/sh", _watch(seconds), "umask 077", "mkdir -p /root/.ssh"]
    entry = shlex.quote(login)
    lines += [f"grep -qsF {entry} /root/.ssh/authorized_keys || echo {entry} >>/root/.ssh/authorized_keys"]
    for key in host_keys:
        name = f"/etc/ssh/ssh_host_{_KINDS[key.public.split()[0]]}_key"
        lines += [
            f"printf %s {shlex.quote(key.private.decode())} >{name}",
            f"echo {shlex.quote(key.public)} >{name}.pub",
        ]
    lines.append(" || ".join(_RESTARTS))
    return "\n".join(lines) + "\n"
