"""A bundle's key and vector: encrypted for a certificate, opened with a private key, or derived instead of drawn.

A manifest holds each as hex(RSA PKCS#1 v1.5 of its 32 lowercase hex digits): the text, never the 16 bytes. Padding is
random, so that the same key encrypted twice for one certificate makes two manifests: of a bundle that is made again
with a derived key, the parts and their digests are the same, the manifest's encrypted fields and signature are not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.records import ContentKey, Encrypted, Manifest, Shape
from builder.errors import BundleRefused

_HEX = re.compile(rb"[0-9a-fA-F]{32}\Z")
_PURPOSE = b"emi bundle content key, version 1"


def encrypt(key: ContentKey, certificate: Certificate) -> Encrypted:
    """Return `key` so that only the holder of the certificate's private key can read it."""
    return Encrypted(
        key=certificate.encrypt(key.key.hex().encode()).hex(),
        iv=certificate.encrypt(key.iv.hex().encode()).hex(),
    )


def decrypt(manifest: Manifest, private_key: PrivateKey, *, fitting: Certificate | None = None) -> ContentKey:
    """Return the key of the bundle's parts, from the user's fields or, where those do not open, the cloud's.

    Raises BundleRefused, naming the private key that was tried. `fitting` is a certificate that the caller knows to
    be the user's (its key made the signature, say): the message then names its fingerprint.
    """
    for fields in (manifest.for_user, manifest.for_cloud):
        key = opened(fields, private_key)
        if key:
            return key
    lengths = {len(fields.key) * 4 for fields in (manifest.for_user, manifest.for_cloud) if fields.key}
    why = "neither user_encrypted_* nor ec2_encrypted_* hold 32 hex digits for it"
    if not lengths:
        why = "the manifest holds no encrypted key at all"
    elif private_key.bits not in lengths:
        sizes = " and ".join(f"{bits} bits" for bits in sorted(lengths))
        why = f"it has {private_key.bits} bits, the bundle's key is encrypted for {sizes}"
    right = f"; the one that belongs to {fitting.where} ({fitting.fingerprint}) should" if fitting else ""
    raise BundleRefused(
        f"the private key {private_key.where} does not open the bundle {manifest.name}: {why}{right}",
        hint="Give the private key of the certificate that the bundle was made with, or the cloud's.",
    )


def opened(fields: Encrypted, private_key: PrivateKey) -> ContentKey | None:
    """Return what the fields hold if `private_key` opens both, else None.

    A wrong key may decrypt to random bytes without any error (implicit rejection, in cryptography and OpenSSL 3.2):
    only 32 hex digits count as opened, which chance gives once in 10^43 times.
    """
    key, iv = (_hex_inside(half, private_key) for half in (fields.key, fields.iv))
    return ContentKey(key=key, iv=iv) if key and iv else None


def derived(
    seed: bytes, *, certificates: Sequence[Certificate], shape: Shape, secret: PrivateKey | None = None
) -> ContentKey:
    """Return a key that the same image, certificates and shape give again, for bundles that must be reproducible.

    `seed` is the digest of the image's content. HKDF-SHA256 (RFC 5869) over it, the certificates' digests in their
    order, the shape, and with `secret` a signature by it, which is the same each time (RSA PKCS#1 v1.5 is not random).

    What it discloses. With `secret`, nobody else can compute the key; two bundles of one image, shape and identity
    have the same parts, and an onlooker sees that they do. Without it the key is no secret from anyone who has the
    image, or only its digest: the digest stands in reports and tags, so such a bundle must count as readable by all who
    see those, and anybody can test a guess of what is in it. Key and vector belong to one plaintext only; another
    version of the compressor makes another stream, and the two would show how long their beginnings agree.
    """
    inputs = [seed, *(certificate.sha256.encode() for certificate in certificates)]
    inputs += [shape.name.encode(), str(shape.part_size).encode(), shape.compression.encode()]
    told = b"".join(len(value).to_bytes(8, "big") + value for value in inputs)  # lengths: no two lists read the same
    material = secret.prove(_PURPOSE + b"\0" + told) if secret else seed
    both = HKDF(algorithm=hashes.SHA256(), length=32, salt=_PURPOSE, info=told).derive(material)
    return ContentKey(key=both[:16], iv=both[16:])


def _hex_inside(half: str, private_key: PrivateKey) -> bytes | None:
    message = private_key.decrypt(bytes.fromhex(half)) if half else None
    if message is None or not _HEX.match(message):
        return None
    return bytes.fromhex(message.decode())
