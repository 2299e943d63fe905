"""SSH key pairs: made here, or the user's own, as text in OpenSSH's formats."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from builder.errors import InputError


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A private key and its public half, as OpenSSH writes them: a PEM, and `ssh-ed25519 AAAA…`."""

    private: bytes = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> Self:
        """Return a new ed25519 pair: for logging in, or as the host key of a machine that is about to boot."""
        return cls._of(Ed25519PrivateKey.generate())

    @classmethod
    def generate_rsa(cls) -> Self:
        """Return a new RSA pair of 2048 bits, for clouds and systems that do not know ed25519.

        Its private key is written in the form that OpenSSH before 6.5 reads too.
        """
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        old = serialization.PrivateFormat.TraditionalOpenSSL
        private = key.private_bytes(serialization.Encoding.PEM, old, serialization.NoEncryption())
        return cls(private=private, public=cls._of(key).public)

    @classmethod
    def load(cls, pem: bytes, where: str) -> Self:
        """Return the pair of a private key without a passphrase, of any kind that OpenSSH has.

        `where` is what messages call it. Raises InputError.
        """
        made: serialization.SSHPrivateKeyTypes
        try:
            if b"BEGIN OPENSSH PRIVATE KEY" in pem:
                made = serialization.load_ssh_private_key(pem, None)
            else:
                made = serialization.load_pem_private_key(pem, None)  # type: ignore[assignment]  # checked when written
            return cls._of(made)
        except TypeError as error:
            raise InputError(
                f"{where} is a private key with a passphrase, which nobody is there to type",
                hint=f"`ssh-keygen -p -f {where}` writes it without one; or use another key.",
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(f"{where} is not a private key that SSH can use: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the pair whose private key is in `path`. Raises InputError."""
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        return cls.load(pem, str(path))

    @classmethod
    def _of(cls, key: serialization.SSHPrivateKeyTypes) -> Self:
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return cls(private=private, public=public.decode())


def is_public(text: str) -> bool:
    """Say whether a text is a public key as OpenSSH writes it, `ssh-ed25519 AAAA…`, perhaps with a comment."""
    kind, _, rest = text.strip().partition(" ")
    try:
        data = b64decode(rest.split()[0], validate=True) if rest.split() else b""
    except ValueError:
        return False
    length = int.from_bytes(data[:4], "big")  # RFC 4253: the key begins with its kind
    return data[4 : 4 + length] == kind.encode() and len(data) > 4 + length


def fingerprint(public: str) -> str:
    """Return `SHA256:…` of a public key (`ssh-ed25519 AAAA…`), as `ssh-keygen -l` prints it."""
    blob = b64decode(public.split()[1])
    return "SHA256:" + b64encode(sha256(blob).digest()).decode().rstrip("=")
