"""A manifest's signature: RSA PKCS#1 v1.5 over the SHA-1 of `<machine_configuration>…</…><image>…</…>`.

Verifiers differ in which text that is. Eucalyptus and euca2ools take it from the file as it stands; ec2-ami-tools (and
by all signs EC2) parse the manifest and take it from what REXML writes again, with single quotes. What is written with
single quotes from the start is the same text in both worlds. A manifest of version 3 signs `<image>` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from builder.bundle import markup, reading
from builder.bundle.certificates import Certificate, PrivateKey

_SIGNATURE = re.compile(r"<signature>\s*([0-9a-fA-F]+)\s*</signature>")
UNSIGNED = "UNSIGNED"  # what euca2ools write for want of a key: EC2 answers an empty element with an error of its own


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What holds of a manifest's signature with one certificate: by the text of the file, and re-serialised."""

    certificate: Certificate
    signed: bool  # there is a signature
    raw: bool  # Eucalyptus and euca2ools' way
    reserialised: bool  # ec2-ami-tools' way

    @property
    def holds(self) -> bool:
        """The certificate's key signed what the manifest says; some verifiers may still not see it."""
        return self.raw or self.reserialised

    def __str__(self) -> str:
        who = f"{self.certificate.where} ({self.certificate.fingerprint})"
        if not self.signed:
            return "the manifest is not signed"
        if self.raw and self.reserialised:
            return f"signed with {who}; every verifier sees it"
        if self.raw:
            return f"signed with {who}; ec2-ami-tools, which write the XML again before they verify, refuse it"
        if self.reserialised:
            return f"signed with {who}; Eucalyptus before 4.2 and others that take the text as it stands refuse it"
        return f"not signed with {who}, or altered since"


def verify(data: bytes, certificate: Certificate, *, where: str = "the manifest") -> Verification:
    """Say whether the manifest `data` carries a signature by the certificate's key, and in which reading it holds.

    Raises BundleRefused for what `reading.read` refuses: a text that can be read in two ways proves nothing.
    """
    reading.read(data, where=where)
    return _verify(data.decode(), certificate)


def signer(data: bytes, certificates: Iterable[Certificate], *, where: str = "the manifest") -> Verification | None:
    """Return the verification by the first of `certificates` whose key signed the manifest, or None.

    It may be the user's, the cloud's or any other. Raises BundleRefused as `verify` does.
    """
    reading.read(data, where=where)
    found = (_verify(data.decode(), certificate) for certificate in certificates)
    return next((verification for verification in found if verification.holds), None)


def _verify(text: str, certificate: Certificate) -> Verification:
    signature = _SIGNATURE.search(text)
    if signature is None:
        return Verification(certificate=certificate, signed=False, raw=False, reserialised=False)
    claimed = bytes.fromhex(signature[1])
    return Verification(
        certificate=certificate,
        signed=True,
        raw=certificate.verifies(claimed, signed_text(text).encode()),
        reserialised=certificate.verifies(claimed, signed_text(markup.reserialised(text)).encode()),
    )


def sign(text: str, key: PrivateKey) -> str:
    """Return the signature, in hex, of manifest text that has none yet."""
    return key.sign(signed_text(text).encode()).hex()


def signed_text(text: str) -> str:
    """Return what is signed: each of both elements from its literal first tag to its literal last, "" where absent."""
    return _between(text, "machine_configuration") + _between(text, "image")


def _between(text: str, name: str) -> str:
    first, last = f"<{name}>", f"</{name}>"
    start = text.find(first)
    end = text.find(last)
    return text[start : end + len(last)] if 0 <= start < end else ""
