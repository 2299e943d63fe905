"""The certificates and private keys that bundles are encrypted for, signed with and verified against: RSA, X.509.

Validity dates, issuers and extensions are ignored, as every cloud and tool does: EC2's own bundling certificate, as
ec2-ami-tools ship it, ran out in 2006 and was used for a decade after. A certificate here only carries a public key.
"""

from __future__ import annotations

import datetime as dt
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from builder.errors import UsageError

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_DER = b"\x30"  # the tag of an ASN.1 SEQUENCE


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """An X.509 certificate with an RSA key; `where` says where it came from, `pem` is it alone, nothing around it."""

    where: str
    pem: bytes = field(repr=False)
    fingerprint: str  # SHA-1 of the DER, as `openssl x509 -fingerprint` prints it
    sha256: str  # of the DER, hex
    subject: str
    expires: dt.datetime
    _key: rsa.RSAPublicKey = field(repr=False, compare=False)

    @classmethod
    def load(cls, pem: bytes, where: str) -> Certificate:
        """Return the first certificate in `pem`, which may be PEM with anything around it, or DER.

        Raises UsageError, naming `where`, for what holds no certificate, a damaged one or one without an RSA key.
        """
        blocks = _blocks(pem)
        ours = [block for kind, block in blocks if kind in ("CERTIFICATE", "X509 CERTIFICATE")]
        if not ours and not pem.startswith(_DER):
            held = ", ".join(kind for kind, _ in blocks) or "no PEM block, and it is not DER"
            raise UsageError(f"{where} holds no certificate: {held}", hint="Give an X.509 certificate, as PEM or DER.")
        try:
            with _quiet():
                found = x509.load_pem_x509_certificate(ours[0]) if ours else x509.load_der_x509_certificate(pem)
            key = found.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{where} holds a damaged certificate: {error}") from error
        if not isinstance(key, rsa.RSAPublicKey):
            raise UsageError(f"{where} is a certificate of another kind of key; bundles are encrypted with RSA only")
        return cls(
            where=where,
            pem=found.public_bytes(serialization.Encoding.PEM),
            fingerprint=found.fingerprint(hashes.SHA1()).hex(":").upper(),  # noqa: S303 - the name everyone knows it by
            sha256=found.fingerprint(hashes.SHA256()).hex(),
            subject=_subject(found),
            expires=found.not_valid_after_utc,
            _key=key,
        )

    @property
    def bits(self) -> int:
        """The size of its key's modulus, in bits; a ciphertext for it has as many."""
        return self._key.key_size

    def matches(self, key: PrivateKey) -> bool:
        """Say whether `key` is the private half of the certificate's key."""
        return self._key.public_numbers() == key.public_numbers

    def require(self, key: PrivateKey) -> None:
        """Raise UsageError unless `key` is the private half of the certificate's key."""
        if not self.matches(key):
            raise UsageError(
                f"the private key {key.where} does not belong to {self.where} ({self.fingerprint}): "
                "what is encrypted for the one cannot be opened with the other",
                hint="Give the certificate and the private key that were issued together.",
            )

    def encrypt(self, secret: bytes) -> bytes:
        """Return the RSA PKCS#1 v1.5 ciphertext of `secret`; another one each time, as the padding is random."""
        return self._key.encrypt(secret, padding.PKCS1v15())

    def verifies(self, signature: bytes, text: bytes) -> bool:
        """Say whether `signature` is an RSA PKCS#1 v1.5 signature of the SHA-1 of `text` by this certificate's key."""
        try:
            self._key.verify(signature, text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's digest
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class PrivateKey:
    """An RSA private key; `where` says where it came from. Its representation and its errors never show it."""

    where: str
    _key: rsa.RSAPrivateKey = field(repr=False, compare=False)

    @classmethod
    def load(cls, pem: bytes, where: str) -> PrivateKey:
        """Return the first private key in `pem`: PKCS#1 or PKCS#8, PEM with anything around it, or DER.

        Raises UsageError, naming `where`, for a key with a passphrase, of another kind, damaged or absent.
        """
        blocks = _blocks(pem)
        ours = [(kind, block) for kind, block in blocks if kind.endswith("PRIVATE KEY")]
        if not ours and not pem.startswith(_DER):
            held = ", ".join(kind for kind, _ in blocks) or "no PEM block, and it is not DER"
            raise UsageError(f"{where} holds no private key: {held}", hint="Give an RSA key, as PEM or DER.")
        if ours:
            _refuse_locked(*ours[0], where)
        try:
            key = (
                serialization.load_pem_private_key(ours[0][1], password=None)
                if ours
                else serialization.load_der_private_key(pem, password=None)
            )
        except TypeError as error:  # a DER key with a passphrase
            raise UsageError(f"{where} is a private key with a passphrase", hint=_UNLOCK) from error
        except (ValueError, UnsupportedAlgorithm):
            raise UsageError(
                f"{where} holds a damaged private key, or one of an unknown kind"
            ) from None  # may quote it
        if not isinstance(key, rsa.RSAPrivateKey):
            raise UsageError(f"{where} is another kind of private key; bundles are encrypted and signed with RSA only")
        return cls(where=where, _key=key)

    @property
    def bits(self) -> int:
        """The size of its modulus, in bits."""
        return self._key.key_size

    @property
    def public_numbers(self) -> rsa.RSAPublicNumbers:
        """Its public half."""
        return self._key.public_key().public_numbers()

    def sign(self, text: bytes) -> bytes:
        """Return the RSA PKCS#1 v1.5 signature of the SHA-1 of `text`: the same for the same text."""
        return self._key.sign(text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's digest

    def prove(self, text: bytes) -> bytes:
        """Return the RSA PKCS#1 v1.5 signature of the SHA-256 of `text`: only the key's holder can compute it."""
        return self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())

    def decrypt(self, ciphertext: bytes) -> bytes | None:
        """Return what is inside, or None where that shows; with a wrong key it may as well be random bytes.

        OpenSSL answers a wrong padding with bytes that an attacker cannot tell from a message (implicit rejection):
        the caller must know what a message looks like.
        """
        try:
            return self._key.decrypt(ciphertext, padding.PKCS1v15())
        except ValueError:  # longer or shorter than the modulus, or not below it
            return None

    def verifies(self, signature: bytes, text: bytes) -> bool:
        """Say whether `sign` would have given this signature for `text`."""
        try:
            self._key.public_key().verify(signature, text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - as above
        except InvalidSignature:
            return False
        return True


_UNLOCK = "Take the passphrase off a copy that only you can read: openssl pkey -in KEY -out COPY."


def _refuse_locked(kind: str, block: bytes, where: str) -> None:
    if kind == "ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in block:
        raise UsageError(f"{where} is a private key with a passphrase", hint=_UNLOCK)
    if kind == "OPENSSH PRIVATE KEY":
        raise UsageError(
            f"{where} is an OpenSSH private key; bundles are signed with the key of an X.509 certificate",
            hint="Give the private key that was issued together with the account's certificate (pk-*.pem).",
        )


def _blocks(data: bytes) -> list[tuple[str, bytes]]:
    """Return every PEM block with the word it has in its first line."""
    return [(block[1].decode(), block[0]) for block in _BLOCK.finditer(data)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what cryptography thinks of old certificates: a serial number of 0, a country of three letters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _subject(certificate: x509.Certificate) -> str:
    """Return who it names; "" where that is not readable, as nothing depends on it."""
    try:
        with _quiet():
            return certificate.subject.rfc4514_string()
    except ValueError:
        return ""
