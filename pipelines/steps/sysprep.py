"""The step kind `sysprep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from builder.errors import GuestError
from builder.guest import sysprep
from builder.guest.edits import Edit, Unchanged
from builder.guest.facts import GuestFacts
from builder.guest.sysprep import Operation, Removal
from pipelines.step import GuestStep, Options


class SysprepOptions(Options):
    """Which operations; without options, those of the default list."""

    only: tuple[Operation, ...] | None = Field(default=None, min_length=1, description="these operations and no others")
    except_: tuple[Operation, ...] = Field(default=(), alias="except", description="all of the default but these")
    also: tuple[Operation, ...] = Field(default=(), description="these beside the default ones")


class Sysprep(GuestStep[SysprepOptions]):
    """Remove what one machine left in the image and no other may have: its identity, secrets, logs and caches.

    By default: `accounting`, `blkid-cache`, `cloud-init` (state and logs; NoCloud's seed stays), `crash-dumps`,
    `dhcp-leases`, `enrolments` (Kerberos keytab, sssd, IPA, Samba, Puppet, Chef, Salt), `history` (of shells, editors
    and databases, of every user), `installer` (kickstart files and logs), `logs`, `machine-id` (emptied), `mail-spool`,
    `package-cache`, `package-lists` (apt's and pacman's; `apt-get update` brings them back), `passwd-backups`,
    `random-seed` (and secrets made at first use), `rpm-db` (locks), `ssh-hostkeys`, `subscriptions` (Red Hat, SUSE,
    Ubuntu Pro), `tmp-files`, `udev-persistent-net`. Only when asked for, in `only` or `also`: `authorized-keys`,
    `cron-spool`, `hostname`, `ssh-userdir`.

    Host keys are only removed where something makes others at boot: a unit or script that calls ssh-keygen, or
    cloud-init. Elsewhere they stay and the report says so, for sshd would not start without; asked for by name, that is
    an error.

    Against virt-sysprep: logs that are in use are emptied, not removed, since many daemons do not make them again, and
    all of /var/log is looked at, not a list. `cron-spool` and `ssh-userdir` are not done unasked, being settings as
    often as leftovers. `package-lists` and `cloud-init` it does not have, and it writes a random seed where this
    removes it. Not here: `backup-files` (*.bak and *~ anywhere, which may be anything), `ca-certificates`,
    `firewall-rules`, `flag-reconfiguration`, `net-hostname`, `net-hwaddr` and `net-nmconn` (the `network` step),
    `fs-uuids` (the `uuid` step), `lvm-uuids`, `user-account` (the `users` step), `customize` and `script` (others).
    """

    options = SysprepOptions

    def check(self, options: SysprepOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = []
        if options.only is not None and (options.except_ or options.also):
            problems.append("`only` is a whole list: `except` and `also` change the default one")
        problems += [f"`except`: {name} is not done by default" for name in options.except_ if _on_request(name)]
        problems += [f"`also`: {name} is done by default" for name in options.also if not _on_request(name)]
        return problems

    def edits(self, options: SysprepOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Do every operation that has something to do."""
        named = {*(options.only or ()), *options.also}
        chosen = options.only or (*sysprep.DEFAULT, *options.also)
        edits: list[Removal] = []
        kept = []
        for operation in dict.fromkeys(chosen):
            if operation in options.except_:
                continue
            found = sysprep.find(operation, facts)
            edits += [replace(edit, why=f"{operation}: {edit}") for edit in found.edits]
            if found.kept and operation in named:
                raise GuestError(
                    found.kept,
                    hint="Take it off the list, or have a `files` step write a unit that runs ssh-keygen -A.",
                )
            kept += [found.kept] if found.kept else []
        if not edits:
            return Unchanged(why="; ".join(["nothing of what it removes is there", *kept]))
        edits[-1] = replace(edits[-1], why="; ".join([str(edits[-1]), *kept]))
        return edits


def _on_request(operation: Operation) -> bool:
    return operation in sysprep.ONLY_IF_ASKED
