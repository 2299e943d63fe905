"""Rules on what must not leave the machine where the image was made: keys, credentials, histories."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.guest.lint.rule import Found, Mend, Rule, delete
from builder.guest.lint.subject import Subject
from builder.guest.sysprep import TYPED

_PRIVATE = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----|PuTTY-User-Key-File")
_KEY_LIMIT = 64 << 10  # bytes; larger files are no keys
_HOME_KEYS = (".ssh/*", "*.pem", "*.key", ".euca/*.pem", ".ec2/*.pem", ".gnupg/private-keys-v1.d/*.key")
_SYSTEM_KEYS = ("/etc/ssl/private/*", "/etc/pki/tls/private/*", "/etc/letsencrypt/archive/*/privkey*.pem")
_CREDENTIALS = (
    ".aws/credentials", ".aws/config", ".boto", ".euca/*.ini", ".eucarc", ".euca/eucarc", "eucarc", ".netrc",
    ".awssecret", ".s3cfg", ".passwd-s3fs", ".docker/config.json", ".kube/config", ".azure/*.json",
    ".config/gcloud/*.db", ".config/gcloud/*.json", ".git-credentials", ".pypirc", ".npmrc", ".vault-token",
    ".my.cnf", ".pgpass", ".config/gh/hosts.yml", ".terraform.d/credentials.tfrc.json", ".fly/config.yml",
)  # fmt: skip
_HARMLESS = re.compile(rb"(?i)secret|password|token|auth|key", re.ASCII)  # some of these files hold settings only
_MAY_BE_HARMLESS = (".aws/config", ".npmrc", ".docker/config.json", ".azure/", ".boto", ".my.cnf")
_CENTRAL = "/etc/ssh/authorized_keys/*"  # where AuthorizedKeysFile often leads instead of into homes
_URL_PASSWORD = re.compile(r"[a-z][a-z0-9+]*://[^/\s:@]+:[^/\s@]+@")
_REPOSITORIES = (
    "/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/yum.repos.d/*.repo", "/etc/zypp/repos.d/*.repo",
    "/etc/pip.conf", "/etc/apk/repositories", "/etc/environment", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d/*",
    "/etc/yum.conf", "/etc/dnf/dnf.conf",
)  # fmt: skip
_REPOSITORY_PASSWORD = re.compile(r"\s*(?:password|proxy_password)\s*=\s*\S")


def ssh_host_keys(subject: Subject) -> Iterator[Found]:
    """sshd's host keys are in the image: every instance has the same, and who has the image can play each of them.

    Source: EC2 User Guide, "Recommendations for creating shared Linux AMIs: remove SSH host key pairs".
    """
    sysprep = Mend(step="sysprep", options={"only": ["ssh-hostkeys"]})
    found = {
        "sshd": (list(subject.filled("/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_key")), (sysprep,)),
        "dropbear": (list(subject.filled("/etc/dropbear/*_key")), ()),
    }
    for program, (keys, mends) in found.items():
        if keys:
            yield Found(
                severity="error",
                what=f"{len(keys)} private host keys of {program} are in the image",
                where=keys[0],
                mends=mends,
                advice="Delete them with a `files` step; dropbear makes others where it is started with -R.",
            )


def private_keys(subject: Subject) -> Iterator[Found]:
    """A private key is in somebody's home, or where the system keeps those of its certificates.

    Source: EC2 User Guide, "Recommendations for creating shared Linux AMIs: protect your privacy"; Debian's snakeoil
    certificate, whose key is then the same on every instance.
    """
    homes = [f"{home}/{pattern}" for home in subject.homes for pattern in _HOME_KEYS]
    for path in subject.filled(*homes, *_SYSTEM_KEYS):
        stat = subject.facts.stat(path)
        if stat is None or stat.size > _KEY_LIMIT:
            continue
        match = _PRIVATE.search(subject.facts.read(path, limit=_KEY_LIMIT) or b"")
        if match or "/private-keys-v1.d/" in path:
            snakeoil = "snakeoil" in path
            yield Found(
                severity="warning" if snakeoil else "error",
                what="every instance gets the same key" if snakeoil else "a private key is in the image",
                where=path,
                quote=match[0].decode() if match else "",
                mends=(delete(path),),
            )


def cloud_credentials(subject: Subject) -> Iterator[Found]:
    """Credentials of a cloud or another service are in somebody's home.

    Source: EC2 User Guide, "Recommendations for creating shared Linux AMIs"; the files are those of the AWS CLI, boto,
    euca2ools, git, docker, kubectl, gcloud, az, npm, PyPI, MySQL and PostgreSQL.
    """
    for path in subject.filled(*(f"{home}/{name}" for home in subject.homes for name in _CREDENTIALS)):
        if any(name in path for name in _MAY_BE_HARMLESS):
            stat = subject.facts.stat(path)
            data = subject.facts.read(path) if stat and stat.size <= _KEY_LIMIT else b"key"
            if not _HARMLESS.search(data or b""):
                continue
        yield Found(
            severity="error",
            what="credentials are in the image",
            where=path,
            mends=(delete(path),),
        )


def repository_credentials(subject: Subject) -> Iterator[Found]:
    """A package source or a proxy is named with its password, or passwords for them are kept.

    Source: apt_auth.conf(5), yum.conf(5) `password`; EC2 User Guide on shared AMIs.
    """
    for path, number, line in subject.lines(*_REPOSITORIES):
        if _URL_PASSWORD.search(line) or _REPOSITORY_PASSWORD.match(line):
            yield Found(
                severity="error",
                what="a password for a package source or proxy is in the image",
                where=f"{path}:{number}",
                quote=line,
                advice="Take it out with a `files` or `run` step.",
            )
    for path in subject.filled("/etc/apt/auth.conf", "/etc/apt/auth.conf.d/*.conf"):
        if any(re.search(r"\bpassword\s", line) for _, _, line in subject.lines(path)):
            yield Found(
                severity="error",
                what="passwords for package sources are in the image",
                where=path,
                mends=(delete(path),),
            )


def shell_history(subject: Subject) -> Iterator[Found]:
    """Histories of shells and programs tell what was typed when the image was made, passwords included.

    Source: EC2 User Guide, "Recommendations for creating shared Linux AMIs: protect your privacy" (shell history).
    """
    for path in subject.filled(*(f"{home}/{name}" for home in subject.homes for name in TYPED)):
        yield Found(
            severity="error",
            what="what was typed on the machine of the build is in the image",
            where=path,
            mends=(Mend(step="sysprep", options={"only": ["history"]}),),
        )


def authorized_keys(subject: Subject) -> Iterator[Found]:
    """Somebody's key opens every instance: authorized_keys holds one already.

    The cloud's own key is added at first boot. Source: EC2 User Guide, "Recommendations for creating shared Linux AMIs:
    remove SSH public keys"; images taken of a machine that had run in a cloud.
    """
    for home in (*subject.homes, ""):
        files = [f"{home}/.ssh/authorized_keys", f"{home}/.ssh/authorized_keys2"] if home else [_CENTRAL]
        for path, number, line in subject.lines(*files):
            name = path.rpartition("/")[2] if not home else subject.owners.get(home) or home.rpartition("/")[2]
            sysprep = Mend(step="sysprep", options={"only": ["authorized-keys"]})
            yield Found(
                severity="error",
                what=f"a key that opens every instance as {name} is left",
                where=f"{path}:{number}",
                quote=line,
                mends=(sysprep if home else delete(path),),
            )


RULES = (
    Rule(check=ssh_host_keys, worst="error", mended_by=("sysprep",)),
    Rule(check=private_keys, worst="error", mended_by=("files",)),
    Rule(check=cloud_credentials, worst="error", mended_by=("files",)),
    Rule(check=repository_credentials, worst="error", mended_by=("files",)),
    Rule(check=shell_history, worst="error", mended_by=("sysprep",)),
    Rule(check=authorized_keys, worst="error", mended_by=("sysprep", "files")),
)
