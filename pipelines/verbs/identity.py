"""Whose bundles a verb works on: certificates and keys given as files, and else those of a cloud's account."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from builder.bundle.certificates import Certificate, PrivateKey
from builder.cloud.identity import BundlingIdentity
from builder.errors import InputError, UsageError
from pipelines import ui
from pipelines.events import StepProgress
from pipelines.home import home
from pipelines.targets import Target, choose, open_target

_LARGEST = 1 << 20  # bytes of a file that is taken for a certificate or a key
Found = TypeVar("Found")


def target_of(cloud: str | None) -> Target:
    """Return the cloud of that name, or the default; on standard error it is told what it waits for."""
    progress = StepProgress("cloud", ui.watcher(as_json=False))
    return open_target(choose(cloud), home().make(), progress=progress, warn=ui.warn)


@dataclass(frozen=True, kw_only=True)
class Who:
    """What a command line says of it: files, an account, a cloud's name.

    A cloud is asked for what is not given, only then, and only where it was named, or where no file was given and the
    verb cannot do without (`offline` says that it can). A certificate and a private key that do not belong together are
    never put together: what was given as a file counts. Raises UsageError for what is not there and needed.
    """

    user: str | None = None
    cert: Path | None = None
    privatekey: Path | None = None
    ec2cert: Path | None = None
    cloud: str | None = None
    offline: bool = False

    @cached_property
    def _configured(self) -> BundlingIdentity | None:
        alone = self.offline or self.cert or self.privatekey or self.ec2cert
        if alone and not (self.cloud or os.environ.get("EMI_CLOUD")):
            return None
        return self.target().bundling()

    def target(self) -> Target:
        """Return the cloud that is named, or the default."""
        return target_of(self.cloud)

    def account(self) -> str | None:
        """Return the account's id, 12 digits."""
        if self.user is None:
            return self._configured.account if self._configured else None
        digits = self.user.replace("-", "")
        if not (digits.isdecimal() and digits.isascii() and len(digits) == 12):
            raise UsageError(f"{self.user} is no account id", hint="It has 12 digits, as in 1234-5678-9012.")
        return digits

    def certificate(self) -> Certificate | None:
        """Return the account's certificate, if there is one."""
        if self.cert:
            return Certificate.load(_bytes(self.cert), str(self.cert))
        found = self._configured
        if found is None or found.user_certificate is None:
            return None
        certificate = Certificate.load(found.user_certificate, f"the certificate of account {found.account}")
        given = PrivateKey.load(_bytes(self.privatekey), str(self.privatekey)) if self.privatekey else None
        return certificate if given is None or certificate.matches(given) else None

    def private_key(self) -> PrivateKey | None:
        """Return its private key, if there is one."""
        if self.privatekey:
            return PrivateKey.load(_bytes(self.privatekey), str(self.privatekey))
        found = self._configured
        if found is None or found.private_key is None:
            return None
        key = PrivateKey.load(found.private_key, f"of account {found.account}")
        given = Certificate.load(_bytes(self.cert), str(self.cert)) if self.cert else None
        return key if given is None or given.matches(key) else None

    def cloud_certificate(self) -> Certificate | None:
        """Return the certificate of the cloud that reads the bundle, if there is one."""
        if self.ec2cert:
            return Certificate.load(_bytes(self.ec2cert), str(self.ec2cert))
        found = self._configured
        return Certificate.load(found.cloud_certificate, "the cloud's certificate") if found else None

    def certificates(self) -> Sequence[Certificate]:
        """Return those there are, the account's first."""
        return [found for found in (self.certificate(), self.cloud_certificate()) if found]

    def need_account(self) -> str:
        """Return the account's id."""
        return _needed(self.account(), "account", "-u")

    def need_certificate(self) -> Certificate:
        """Return the account's certificate."""
        return _needed(self.certificate(), "certificate", "-c")

    def need_private_key(self) -> PrivateKey:
        """Return its private key."""
        return _needed(self.private_key(), "private key", "-k")

    def need_cloud_certificate(self) -> Certificate:
        """Return the cloud's certificate."""
        return _needed(self.cloud_certificate(), "certificate of the cloud", "--ec2cert")


def _needed(found: Found | None, what: str, option: str) -> Found:
    if found is None:
        raise UsageError(f"no {what} is given", hint=f"Give it with {option}, or a cloud that has it with --cloud.")
    return found


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
