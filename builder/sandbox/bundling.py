"""The key pairs of instance-store bundles: the cloud's own, and one for each account.

A bundle's content key is encrypted for the cloud's certificate, so that the cloud can open it, and for the certificate
of whoever made it. Each pair is two PEM files of the directory, a self-signed X.509 certificate and an RSA key, mode
0600, made when it is first asked for: that takes some 0.1 s, which most sandboxes never need. The cloud's pair and the
first account's belong to the directory as its access key does; those of other accounts go when the state is emptied.

The key is written first and the certificate is the commit point: a key without a certificate is made anew.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from builder import durable, pool
from builder.sandbox import settings
from builder.sandbox.wire import ACCOUNT

_BITS = 2048  # what Eucalyptus and IAM made theirs with
_LIFE = dt.timedelta(days=3650)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Bundling:
    """The pairs of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = pool.Lock()

    def cloud(self) -> Pair:
        """Return the cloud's pair, made if there is none yet; durable once this returns. Raises DiskFull."""
        return self._pair(settings.CLOUD_CERTIFICATE, settings.CLOUD_KEY, "emi sandbox: image bundles")

    def account(self, number: str) -> Pair:
        """Return the pair of an account that exists, as `cloud` does."""
        if number == ACCOUNT:
            return self._pair(settings.ACCOUNT_CERTIFICATE, settings.ACCOUNT_KEY, number)
        return self._pair(f"{settings.ACCOUNTS}/{number}.pem", f"{settings.ACCOUNTS}/{number}-key.pem", number)

    def _pair(self, certificate: str, key: str, name: str) -> Pair:
        pair = Pair(certificate=self._directory / certificate, key=self._directory / key)
        with self._lock:
            if not (pair.certificate.exists() and pair.key.exists()):
                if not pair.key.parent.exists():
                    pair.key.parent.mkdir(mode=0o700)
                    durable.fsync_directory(self._directory)
                pair.certificate.unlink(missing_ok=True)
                made = _make(name)
                durable.write_file(pair.key, made[1], private=True)
                durable.write_file(pair.certificate, made[0], private=True)
        return pair


def _make(name: str) -> tuple[bytes, bytes]:
    """Return a certificate of that common name, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _LIFE)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
