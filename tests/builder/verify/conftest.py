"""OpenPGP keys made by gpg, and what they sign."""

from __future__ import annotations

import os
import re
import subprocess  # noqa: TID251 - gpg signs here; emi only verifies, with gpgv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Gpg:
    """A GnuPG home with secret keys, for signing."""

    home: Path

    def __call__(self, *words: str | Path, stdin: bytes = b"") -> bytes:
        """Run gpg and return its output."""
        command = ["gpg", "--batch", "--no-tty", "--quiet", "--yes", "--passphrase", "", "--pinentry-mode", "loopback"]
        environment = {**os.environ, "GNUPGHOME": str(self.home)}
        return subprocess.run([*command, *words], input=stdin, env=environment, capture_output=True, check=True).stdout

    def make(self, user: str, *words: str, expire: str = "never") -> None:
        """Make a signing key."""
        self(*words, "--quick-gen-key", user, "ed25519", "sign", expire)

    def revoke(self, user: str) -> None:
        """Revoke a key by the certificate that gpg wrote when it made it."""
        listed = self("--with-colons", "--list-keys", user).decode()
        fingerprint = re.search(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)[1]
        text = (self.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text()
        self("--import", stdin=text.replace(":-----BEGIN", "-----BEGIN").encode())

    def public(self, *users: str, armour: bool = False) -> bytes:
        """Export public keys."""
        return self(*(["--armor"] if armour else []), "--export", *users)

    def sign(self, data: bytes, *users: str, how: str = "--detach-sign", words: tuple[str, ...] = ()) -> bytes:
        """Sign: `--detach-sign` or `--clearsign`."""
        return self(*words, *(word for user in users for word in ("--local-user", user)), how, stdin=data)


@pytest.fixture(scope="session")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    gpg = Gpg(home)
    for user in ("publisher", "other"):
        gpg.make(f"{user} <{user}@example.net>")
    gpg.make("expired <expired@example.net>", "--faked-system-time", "20200101T000000", expire="1d")
    gpg.make("old <old@example.net>", "--faked-system-time", "20200101T000000")
    gpg.make("revoked <revoked@example.net>")
    yield gpg
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
