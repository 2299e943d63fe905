"""Rules on who may log in, and who becomes root."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.guest import cloudinit
from builder.guest.accounts import NAME, Accounts
from builder.guest.lint.rule import Found, Mend, Rule, delete, install, lock
from builder.guest.lint.subject import Subject
from builder.guest.passwords import lets_in
from builder.guest.sshd import sshd_settings

_NOPASSWD = re.compile(r"\s*(%?[\w.@+-]+)\s+\S.*\bNOPASSWD\s*:")
_ADMIN_GROUPS = ("sudo", "wheel", "admin")


def root_password(subject: Subject) -> Iterator[Found]:
    """root has a password, the same on every instance, known to whoever made the image.

    It is an error where sshd lets it in. Source: EC2 User Guide, "Recommendations for creating shared Linux AMIs:
    disable password-based remote logins for root".
    """
    accounts = subject.accounts
    field = subject.passwords.get("root", "*")
    if not lets_in(field) or not field:
        return
    reachable = _ssh_lets_root_in(subject) and _ssh_takes_passwords(subject)
    yield Found(
        severity="error" if reachable else "warning",
        what="root has a password"
        + (", and sshd lets it in" if reachable else ", which opens every instance's console"),
        where=_line(subject, accounts, "root"),
        quote=f"root:{accounts.password('root')}",
        mends=(lock("root"),),
    )


def empty_password(subject: Subject) -> Iterator[Found]:
    """An account needs no password at all.

    Source: shadow(5): an empty field; CVE-2019-5021 (Alpine's images for years).
    """
    accounts = subject.accounts
    for user in subject.users:
        if subject.passwords[user.name] == "" and user.may_log_in:
            yield Found(
                severity="error",
                what=f"{user.name} logs in without a password",
                where=_line(subject, accounts, user.name),
                quote=f"{user.name}::",
                mends=(lock(user.name),) if NAME.fullmatch(user.name) else (),
                advice="" if NAME.fullmatch(user.name) else "Lock it with a `run` step.",
            )


def user_password(subject: Subject) -> Iterator[Found]:
    """Somebody has a password, the same on every instance, and sshd lets passwords in.

    Source: as for root-password; bots find such accounts within hours.
    """
    accounts = subject.accounts
    if not _ssh_takes_passwords(subject):
        return
    for user in subject.users:
        if (
            user.name != "root"
            and user.may_log_in
            and lets_in(subject.passwords[user.name])
            and subject.passwords[user.name]
        ):
            yield Found(
                severity="warning",
                what=f"{user.name} has a password, and sshd lets passwords in",
                where=_line(subject, accounts, user.name),
                quote=f"{user.name}:{subject.passwords[user.name]}",
                mends=(lock(user.name),) if NAME.fullmatch(user.name) else (),
                advice="" if NAME.fullmatch(user.name) else "Lock it with a `run` step.",
            )


def second_root(subject: Subject) -> Iterator[Found]:
    """Another account than root has the number 0, and is root.

    Source: passwd(5); a common back door.
    """
    for user in subject.users:
        if user.uid == 0 and user.name != "root":
            yield Found(
                severity="error",
                what=f"{user.name} is root by another name",
                where=f"/etc/passwd:{_number(subject, '/etc/passwd', user.name)}",
                quote=f"{user.name}:x:0:",
                mends=(Mend(step="users", options={"remove": [user.name]}),) if NAME.fullmatch(user.name) else (),
                advice="" if NAME.fullmatch(user.name) else "Remove it with a `run` step.",
            )


def sudo_without_password(subject: Subject) -> Iterator[Found]:
    """An account that is in the image becomes root without a password.

    cloud-init writes that rule for its own user at first boot; in an image it is left from a build (vagrant, packer).
    Source: sudoers(5), NOPASSWD; packer's and vagrant's templates.
    """
    accounts = subject.accounts
    names = {user.name for user in subject.users if user.uid and user.may_log_in}
    default = _default_user(subject)
    for path, number, line in subject.lines("/etc/sudoers", "/etc/sudoers.d/*"):
        match = _NOPASSWD.match(line)
        who = match[1] if match else ""
        group = accounts.group(who.removeprefix("%")) if who.startswith("%") else None
        if who in names - {default} or (group and set(group.members) - {default}):
            yield Found(
                severity="warning",
                what=f"{who} becomes root without a password on every instance",
                where=f"{path}:{number}",
                quote=line,
                mends=() if path == "/etc/sudoers" else (delete(path),),
                advice="Remove the line with a `run` step." if path == "/etc/sudoers" else "",
            )


def no_sshd(subject: Subject) -> Iterator[Found]:
    """There is no sshd in the guest: nobody can log in from outside.

    Source: EC2 User Guide, "Connect to your Linux instance".
    """
    if (
        subject.program("sshd")
        or subject.program("dropbear")
        or subject.first("/usr/lib/ssh/sshd", "/usr/lib/systemd/systemd-ssh-generator")
    ):
        return
    yield Found(
        severity="note" if subject.target == "qemu" else "warning",
        what="no sshd is installed: nobody can log in from outside",
        where="/usr/sbin/sshd",
        mends=(install(_sshd_package(subject)),),
    )


def _sshd_package(subject: Subject) -> str:
    return "openssh" if subject.system.family in ("suse", "arch") else "openssh-server"


def _ssh_takes_passwords(subject: Subject) -> bool:
    if subject.program("sshd") is None:
        return False
    if cloudinit.installed(subject.facts) and subject.cloud.get("ssh_pwauth") in (False, 0, "false", "no"):
        return False  # cloud-init says so to sshd at first boot
    setting = sshd_settings(subject.facts).get("passwordauthentication")
    return setting is None or setting.value.lower() != "no"


def _ssh_lets_root_in(subject: Subject) -> bool:
    setting = sshd_settings(subject.facts).get("permitrootlogin")
    if setting is None:  # OpenSSH's default since 7.0 is prohibit-password; Red Hat kept `yes` through EL 7
        major = subject.system.major
        return subject.system.family == "redhat" and major is not None and major <= 7
    return setting.value.lower() == "yes"


def _default_user(subject: Subject) -> str:
    info = subject.cloud.get("system_info")
    user = info.get("default_user") if isinstance(info, dict) else None
    return str(user.get("name", "")) if isinstance(user, dict) else ""


def _line(subject: Subject, accounts: Accounts, name: str) -> str:
    shadow = accounts.texts.get("/etc/shadow") is not None
    path = "/etc/shadow" if shadow else "/etc/passwd"
    return f"{path}:{_number(subject, path, name)}"


def _number(subject: Subject, path: str, name: str) -> int:
    lines = subject.facts.text(path).splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith(f"{name}:")), 1)


RULES = (
    Rule(check=root_password, worst="error", mended_by=("users",)),
    Rule(check=empty_password, worst="error", mended_by=("users",)),
    Rule(check=user_password, worst="warning", mended_by=("users",)),
    Rule(check=second_root, worst="error", mended_by=("users",)),
    Rule(check=sudo_without_password, worst="warning", mended_by=("files",)),
    Rule(check=no_sshd, worst="warning", mended_by=("packages",)),
)
