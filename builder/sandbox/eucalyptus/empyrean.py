"""Empyrean, the bootstrap service, as far as bundles need it: DescribeServiceCertificates (4.2 and later).

Source: com.eucalyptus.empyrean of Eucalyptus (EmpyreanService, its binding), and what euca2ools asks it for.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from builder.sandbox.bundling import Bundling
from builder.sandbox.personality import Personality
from builder.sandbox.protocols import query
from builder.sandbox.wire import Answer, Caller, Need, Refusal, Request

_NAMESPACE = "http://msgs.eucalyptus.com/"
_ACTION = "DescribeServiceCertificates"
_DIGESTS: dict[str, hashes.HashAlgorithm] = {"SHA-256": hashes.SHA256(), "SHA-1": hashes.SHA1()}  # noqa: S303 - a fingerprint
_FACTS = {"service-type": "compute", "certificate-usage": "image-bundling"}
_FILTER = re.compile(r"Filter\.(\d+)\.Name")


class Empyrean:
    """The service over the cloud's own certificate."""

    service = "bootstrap"

    def __init__(self, bundling: Bundling, personality: Personality) -> None:
        self._bundling = bundling
        self.actions = frozenset() if personality.before(4, 2) else frozenset({_ACTION})

    def action(self, request: Request) -> str:
        """Return the name of the call."""
        return request.form.get("Action") or request.form.get("Operation", "")

    def permissions(self, action: str, _request: Request, _caller: Caller) -> Iterable[Need]:
        """Return what the caller must be allowed."""
        return (Need(action=f"euserv:{action}"),)

    def perform(self, action: str, request: Request, _caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""
        if action not in self.actions:
            raise Refusal("400 Bad Request", f"Failed to construct message of type {action}")
        form = request.form
        wording, digest = form.get("Format", "pem"), form.get("FingerprintDigest", "SHA-256")
        certificate = x509.load_pem_x509_certificate(self._bundling.cloud().certificate.read_bytes())
        items = ""
        if all(_FACTS.get(name) in values for name, values in _filters(form.items())):
            items = _item(certificate, wording, digest if digest in _DIGESTS else "SHA-256")
        said = f"<correlationId>{request.id}</correlationId><_return>true</_return>"
        said += f"<serviceCertificates>{items}</serviceCertificates>"
        text = f'<{_ACTION}Response xmlns="{_NAMESPACE}">{said}</{_ACTION}Response>'
        return Answer(headers={"Content-Type": "application/xml; charset=UTF-8"}, body=text.encode())

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as Eucalyptus words it."""
        return query.refuse_ec2(refusal, request)


def _filters(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, set[str]]]:
    """Yield each filter's name and its values."""
    found = dict(pairs)
    for key, name in found.items():
        if match := _FILTER.fullmatch(key):
            yield name, {value for each, value in found.items() if each.startswith(f"Filter.{match[1]}.Value.")}


def _item(certificate: x509.Certificate, wording: str, digest: str) -> str:
    encoded = certificate.public_bytes(serialization.Encoding.DER)
    text = base64.b64encode(encoded).decode()
    if wording == "pem":
        text = certificate.public_bytes(serialization.Encoding.PEM).decode()
    fields = {
        "serviceType": _FACTS["service-type"],
        "certificateUsage": _FACTS["certificate-usage"],
        "certificateFormat": wording,
        "certificate": text,
        "certificateFingerprint": certificate.fingerprint(_DIGESTS[digest]).hex(":").upper(),
        "certificateFingerprintDigest": digest,
    }
    return f"<item>{''.join(f'<{name}>{escape(value)}</{name}>' for name, value in fields.items())}</item>"
