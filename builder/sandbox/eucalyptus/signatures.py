"""A manifest's signature at its registration: 4.0.2 to 4.1.x verify it (EUCA-8445), 4.2 and later do not (EUCA-10838).

It is that of the cloud's certificate or of any account's, over the text of two elements as it stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.manifests import Facts
from builder.sandbox.records import Account, SigningCertificate
from builder.sandbox.wire import ACCOUNT, Refusal

_SIGNED = re.compile(
    rb"(<machine_configuration>.*</machine_configuration>).*?(<image>.*</image>)\s*<signature>", re.DOTALL
)


def check(cloud: Cloud, facts: Facts) -> None:
    """Raise Refusal when the release verifies signatures and this one is nobody's."""
    if not cloud.personality.since(4, 0, 2) or cloud.personality.since(4, 2):
        return
    match = _SIGNED.search(facts.data)
    try:
        signature = bytes.fromhex(facts.signature or "")
    except ValueError:
        signature = b""
    if match is None or not any(_is_by(one, signature, match[1] + match[2]) for one in _certificates(cloud)):
        raise Refusal("InternalFailure", "Manifest signature verification failed", status=500)


def _certificates(cloud: Cloud) -> Iterator[bytes]:
    yield cloud.bundling.cloud().certificate.read_bytes()
    for number in (ACCOUNT, *cloud.state.all(Account)):
        yield cloud.bundling.account(number).certificate.read_bytes()
    for one in list(cloud.state.all(SigningCertificate).values()):
        if one.active:
            yield one.body.encode()


def _is_by(certificate: bytes, signature: bytes, signed: bytes) -> bool:
    key = x509.load_pem_x509_certificate(certificate).public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's
    except InvalidSignature:
        return False
    return True
