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

_OPENED = re.compile(r"<machine_configuration\s*>")
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
    return _verify(data.decode(), reading.read(data, where=where).signature, certificate)


def signer(data: bytes, certificates: Iterable[Certificate], *, where: str = "the manifest") -> Verification | None:
    """Return the verification by the first of `certificates` whose key signed the manifest, or None.

    It may be the user's, the cloud's or any other. Raises BundleRefused as `verify` does.
    """
    claimed = reading.read(data, where=where).signature
    found = (_verify(data.decode(), claimed, certificate) for certificate in certificates)
    return next((verification for verification in found if verification.holds), None)


def made_by(data: bytes, key: PrivateKey, *, where: str = "the manifest") -> bool:
    """Say whether `key` signed the manifest, in one reading at least. Raises BundleRefused as `verify` does."""
    return any(_holds(data.decode(), reading.read(data, where=where).signature, key))


def seen_by_all(data: bytes, key: PrivateKey, *, where: str = "the manifest") -> bool:
    """Say whether `key` signed the manifest so that every verifier sees it. Raises BundleRefused as `verify` does."""
    return all(_holds(data.decode(), reading.read(data, where=where).signature, key))


def _verify(text: str, claimed: str, certificate: Certificate) -> Verification:
    raw, reserialised = _holds(text, claimed, certificate)
    signed = claimed not in ("", UNSIGNED)
    return Verification(certificate=certificate, signed=signed, raw=raw, reserialised=reserialised)


def _holds(text: str, claimed: str, by: Certificate | PrivateKey) -> tuple[bool, bool]:
    """Say whether the signature holds for the text as it stands, and for the text written again."""
    if claimed in ("", UNSIGNED):
        return False, False
    texts = (_signed_text(text), _signed_text(markup.reserialised(text)))
    raw, reserialised = (signed is not None and by.verifies(bytes.fromhex(claimed), signed) for signed in texts)
    return raw, reserialised


def sign(text: str, key: PrivateKey) -> str:
    """Return the signature, in hex, of the text of a manifest that has none yet."""
    signed = _signed_text(text)
    assert signed is not None  # our own writer's tags are literal
    return key.sign(signed).hex()


def _signed_text(text: str) -> bytes | None:
    """Return both elements, each from its literal first tag to its literal last; nothing for a first one that is empty.

    None where an element is there and a verifier that looks for literal tags would not see it: a signature made
    without a `<machine_configuration>` must not hold for a manifest that has one.
    """
    machine, image = _between(text, "machine_configuration"), _between(text, "image")
    if not image or (not machine and _OPENED.search(text)):
        return None
    return (machine + image).encode()


def _between(text: str, name: str) -> str:
    first, last = f"<{name}>", f"</{name}>"
    start, end = text.find(first), text.find(last)
    return text[start : end + len(last)] if 0 <= start < end else ""
