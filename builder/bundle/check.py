"""Every claim of a manifest held against what there is to hold it against: certificates, a private key, the parts.

Nothing here raises for a bundle that is not as it should be: that is the answer. Only a manifest that cannot be read at
all is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from builder import pool
from builder.bundle import keys, limits, manifest, signature
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.decrypt import first_block
from builder.bundle.inflate import MAGIC
from builder.bundle.joined import OpenPart, Parts
from builder.bundle.records import ContentKey, Encrypted, Manifest
from builder.bundle.signature import Verification
from builder.errors import BundleRefused, EmiError
from builder.progress import SILENT, Progress
from builder.units import format_size

Reader = Literal["user", "cloud"]
_FIRST = 16  # bytes: a block of AES


@dataclass(frozen=True, kw_only=True)
class PartFound:
    """What lies where a part should: its bytes and SHA-1, None for both when it cannot be read; "" for no problem."""

    filename: str
    sha1: str | None
    size: int | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a manifest says and what of it holds, in sentences for people.

    `problems` do not hold, `remarks` are what some readers of bundles refuse, `unchecked` is what nobody could tell.
    `signed_by` is the first certificate whose key signed it. `opened_by` says for whom the fields are that the private
    key opens: `user`, `cloud`, both or none. `parts` is empty when the parts were not looked at.
    """

    manifest: Manifest
    signed_by: Verification | None
    opened_by: tuple[Reader, ...]
    parts: tuple[PartFound, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    unchecked: tuple[str, ...]


def inspect(
    data: bytes,
    *,
    where: str,
    certificates: Sequence[Certificate] = (),
    private_key: PrivateKey | None = None,
    open_part: OpenPart | None = None,
    surplus: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Inspection:
    """Return what the manifest `data` says and what of it holds; what is not given is not checked, and said so.

    `surplus` are files beside the parts that are named like them (see folder.py). Digests are computed by all cores.
    Raises BundleRefused for a manifest that cannot be read.
    """
    says = manifest.read(data, where=where)
    told = _Told([], [*_beyond_limits(says)], [])
    signed_by = _signature(data, says, certificates, where, told)
    opened_by, key = _keys(says, private_key, signed_by, told)
    parts: tuple[PartFound, ...] = ()
    if open_part is None:
        told.unchecked.append("the parts: they were not looked at")
    else:
        parts = _parts(says, open_part, progress, told)
        if key and not parts[0].problem and not _opens(open_part, key):
            told.problems.append("the key does not open the parts: what it decrypts does not begin as gzip does")
    told.problems.extend(f"{name} is named like a part, and the manifest does not list it" for name in surplus)
    return Inspection(
        manifest=says,
        signed_by=signed_by,
        opened_by=opened_by,
        parts=parts,
        problems=tuple(told.problems),
        remarks=tuple(told.remarks),
        unchecked=tuple(told.unchecked),
    )


def require_signature(data: bytes, certificate: Certificate, *, where: str) -> Verification:
    """Return how the certificate's key signed the manifest. Raises BundleRefused that says why it did not."""
    found = signature.verify(data, certificate, where=where)
    if not found.holds:
        raise BundleRefused(f"{where}: {_unsigned(data, found, where)}", hint=_TRUST)
    return found


@dataclass(frozen=True)
class _Told:
    problems: list[str]
    remarks: list[str]
    unchecked: list[str]


_TRUST = "Get the manifest again from where the bundle comes from, or the certificate of who signed it."


def _unsigned(data: bytes, found: Verification, where: str) -> str:
    """Return why a verification does not hold: nobody, somebody else, or something else."""
    if not found.signed:
        return "the manifest is not signed"
    certificate = f"{found.certificate.where} ({found.certificate.fingerprint})"
    claimed = bytes.fromhex(manifest.read(data, where=where).signature)
    if _is_by(claimed, found.certificate):
        return f"the manifest was altered after it was signed with {certificate}"
    return f"the manifest was signed by somebody else, not with {certificate}, or its signature is damaged"


def _is_by(claimed: bytes, certificate: Certificate) -> bool:
    """Say whether the certificate's key made this signature, of whatever text."""
    key = x509.load_pem_x509_certificate(certificate.pem).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        key.recover_data_from_signature(claimed, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's digest
    except InvalidSignature:
        return False
    return True


def _signature(
    data: bytes, says: Manifest, certificates: Sequence[Certificate], where: str, told: _Told
) -> Verification | None:
    if says.signature in ("", signature.UNSIGNED):
        told.problems.append(
            "the manifest is not signed: nobody vouches for it, EC2 and Eucalyptus before 4.2 refuse it"
        )
        return None
    if not certificates:
        told.unchecked.append("the signature: no certificate is given")
        return None
    found = [signature.verify(data, certificate, where=where) for certificate in certificates]
    held = next((verification for verification in found if verification.holds), None)
    if held is None:
        signers = [one for one in found if _is_by(bytes.fromhex(says.signature), one.certificate)]
        told.problems.extend(_unsigned(data, verification, where) for verification in signers or found)
    elif not (held.raw and held.reserialised):
        told.remarks.append(f"the manifest is {held}")
    return held


def _keys(
    says: Manifest, private_key: PrivateKey | None, signed_by: Verification | None, told: _Told
) -> tuple[tuple[Reader, ...], ContentKey | None]:
    both: tuple[tuple[Reader, Encrypted], ...] = (("user", says.for_user), ("cloud", says.for_cloud))
    if not says.for_user.key:
        told.remarks.append("the key is not encrypted for the user: EC2 refuses it")
    if not says.for_cloud.key:
        told.remarks.append("the key is not encrypted for the cloud: none can run it")
    if private_key is None:
        told.unchecked.append("the encrypted key: no private key is given")
        return (), None
    opened = {who: key for who, held in both if (key := keys.opened(held, private_key))}
    if not opened:
        try:
            keys.decrypt(says, private_key, fitting=signed_by.certificate if signed_by else None)
        except BundleRefused as error:
            told.problems.append(error.message)
    return tuple(opened), next(iter(opened.values()), None)


def _parts(says: Manifest, open_part: OpenPart, progress: Progress, told: _Told) -> tuple[PartFound, ...]:
    joined = Parts(says, open_part)
    progress.total(says.bundled_size)

    def look(index: int) -> PartFound:
        name = says.parts[index].filename
        try:
            sha1, size = joined.look(index)
        except EmiError as error:
            return PartFound(filename=name, sha1=None, size=None, problem=error.message)
        progress.advance(size)
        return PartFound(filename=name, sha1=sha1, size=size)

    found = list(pool.in_order(look, range(len(says.parts)), workers=len(os.sched_getaffinity(0))))
    sizes = [part.size for part in found if part.size is not None]
    total = sum(sizes) if len(sizes) == len(found) else None
    for index, part in enumerate(found):
        if part.sha1 is not None and part.size is not None:
            found[index] = replace(part, problem=joined.wrong(index, part.sha1, size=part.size, total=total))
    told.problems.extend(part.problem for part in found if part.problem)
    if total is not None and not any(part.problem for part in found) and (wrong := joined.wrong_total(total)):
        told.problems.append(wrong)
    if disorder := joined.disorder():
        told.problems.append(disorder)
    return tuple(found)


def _opens(open_part: OpenPart, key: ContentKey) -> bool:
    """Say whether the first part's beginning, decrypted, is that of a gzip stream."""
    with open_part(0) as file:
        block = first_block(file.read(_FIRST), key)
    return not block or block.startswith(MAGIC)


def _beyond_limits(says: Manifest) -> Iterator[str]:
    if says.size > limits.LARGEST_IMAGE_EUCALYPTUS:
        yield f"the image has {format_size(says.size)}: Eucalyptus takes 30 GiB at most by default, EC2 10 GiB"
    elif says.size > limits.LARGEST_IMAGE_EC2:
        yield f"the image has {format_size(says.size)}: EC2 takes 10 GiB at most"
