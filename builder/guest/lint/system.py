"""Rules on the system: its clock, SELinux."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.guest.lint.rule import Found, Mend, Rule, install
from builder.guest.lint.subject import Subject
from builder.guest.os import parse_assignments

_CLOCKS = ("chronyd", "ntpd", "openntpd", "ntpsec-ntpd")
_LABELLED = ("/etc/passwd", "/etc/shadow", "/etc/fstab", "/etc/hostname", "/usr/lib/systemd/systemd", "/usr/sbin/sshd")
_IN_UTC = {"path": "/etc/adjtime", "content": "0.0 0 0.0\n0\nUTC\n"}  # as it is where hwclock never wrote it
_TIMESYNCD = ("/usr/lib/systemd/systemd-timesyncd", "/lib/systemd/systemd-timesyncd")


def clock_in_local_time(subject: Subject) -> Iterator[Found]:
    """The hardware's clock is taken to show local time; a cloud's shows UTC, so that the time is hours off.

    Certificates and signed requests are refused then. Source: adjtime(5), hwclock(8), rcS(5).
    """
    lines = subject.facts.text("/etc/adjtime").splitlines()
    if len(lines) > 2 and lines[2].strip() == "LOCAL" and not _zone_is_utc(subject):
        yield _local("/etc/adjtime:3", lines[2], (Mend(step="files", options={"entries": [_IN_UTC]}),))
    for path in ("/etc/default/rcS", "/etc/sysconfig/clock", "/etc/conf.d/hwclock", "/etc/rc.conf"):
        for _, number, line in subject.lines(path):
            if re.match(r"\s*(?:UTC=[\"']?(?:no|false)|HWCLOCK=[\"']?--localtime|clock=[\"']?local)", line):
                yield _local(f"{path}:{number}", line)


def no_time_service(subject: Subject) -> Iterator[Found]:
    """Nothing keeps the clock right.

    Source: EC2 User Guide, "Set the time for your instance": chrony and 169.254.169.123.
    """
    if any(map(subject.program, _CLOCKS)) or subject.first(*_TIMESYNCD):
        return
    yield Found(
        severity="note",
        what="nothing in the guest keeps its clock right (neither chrony nor ntpd nor systemd-timesyncd)",
        where="/usr/sbin/chronyd",
        mends=(install("chrony"),),
    )


def selinux_without_policy(subject: Subject) -> Iterator[Found]:
    """SELinux is to be enforced, and there is no policy: the boot freezes.

    Source: systemd's "Failed to load SELinux policy, freezing"; selinux(8), /etc/selinux/TYPE/policy.
    """
    mode, kind = _selinux(subject)
    if mode != "enforcing" or subject.facts.names(f"/etc/selinux/{kind}/policy/policy.*"):
        return
    yield Found(
        severity="error",
        what=f"SELinux is enforced, and its policy {kind} is not installed",
        where="/etc/selinux/config",
        quote=f"SELINUX={mode}",
        mends=(install(f"selinux-policy-{kind}"),),
    )


def selinux_unlabelled(subject: Subject) -> Iterator[Found]:
    """SELinux is enforced, and files that the boot needs have no label: services fail, and nobody can log in.

    Edits from outside leave files so, unless the first boot relabels. Source: selinux(8), /.autorelabel;
    virt-customize's --selinux-relabel.
    """
    mode, _ = _selinux(subject)
    if mode != "enforcing" or subject.facts.exists("/.autorelabel"):
        return
    there = [path for path in _LABELLED if subject.facts.exists(path)]
    bare = [path for path in there if b"_t" not in (subject.facts.attribute(path, "security.selinux") or b"")]
    if bare:
        yield Found(
            severity="error",
            what=f"SELinux is enforced, and {' and '.join(bare)} {'has' if len(bare) == 1 else 'have'} no label",
            where=bare[0],
            mends=(Mend(step="selinux"),),
        )


def selinux_relabel_pending(subject: Subject) -> Iterator[Found]:
    """The first boot labels every file for SELinux and boots again: it takes minutes.

    Source: selinux(8), /.autorelabel.
    """
    mode, _ = _selinux(subject)
    if mode in ("enforcing", "permissive") and subject.facts.exists("/.autorelabel"):
        yield Found(
            severity="note",
            what="the first boot relabels every file for SELinux, and then boots again",
            where="/.autorelabel",
            advice="It is right after edits from outside; `selinux: {relabel: now}` labels in the image instead, in "
            "minutes.",
        )


def _selinux(subject: Subject) -> tuple[str, str]:
    """Return SELinux' mode and policy; `` where there is none, or the kernel is told to leave it out."""
    if any("selinux=0" in entry.arguments for entry in subject.boot_entries[:1]):
        return "", ""
    said = parse_assignments(subject.facts.text("/etc/selinux/config"))
    kind = said.get("SELINUXTYPE", "targeted")
    return said.get("SELINUX", "").lower(), kind if re.fullmatch(r"[\w.-]+", kind) else "targeted"


def _zone_is_utc(subject: Subject) -> bool:
    target = subject.facts.link("/etc/localtime") or ""
    return target.rpartition("/")[2] in ("UTC", "UCT", "Zulu", "Universal", "GMT")


def _local(where: str, text: str, mends: tuple[Mend, ...] = ()) -> Found:
    return Found(
        severity="warning",
        what="the hardware's clock is taken to show local time, and a cloud's shows UTC",
        where=where,
        quote=text,
        mends=mends,
        advice="Say UTC there with a `files` or `run` step.",
    )


RULES = (
    Rule(check=clock_in_local_time, worst="warning", mended_by=("files",)),
    Rule(check=no_time_service, worst="note", mended_by=("packages",)),
    Rule(check=selinux_without_policy, worst="error", mended_by=("packages",)),
    Rule(check=selinux_unlabelled, worst="error", mended_by=("selinux",)),
    Rule(check=selinux_relabel_pending, worst="note"),
)
