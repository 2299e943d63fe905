"""Signature Version 2 as the server sees it: that of the query APIs, and the older one of S3.

S3's covers the method, a few headers, the bucket and key, and those query parameters that make it another call; nothing
of the body but what Content-MD5 says. Sources: "Signature Version 2 signing process" of the AWS documentation; "Signing
and authenticating REST requests (AWS signature version 2)" of the S3 user guide. Which parameters of a URL count as
headers is told by what boto and boto3 put there, and of Content-Type by radosgw's rgw_auth_s3.cc, which wants it sent.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from builder.sandbox.access.claim import Claim
from builder.sandbox.access.times import SKEW, moment
from builder.sandbox.access.verify import HASH, moved, paths
from builder.sandbox.protocols import hosts
from builder.sandbox.wire import Denied, Request, Signature

_HASHES = {"HmacSHA256": "sha256", "HmacSHA1": "sha1"}
# Query parameters that are signed: those of botocore's HmacV1Auth, which are the user guide's and what came after it.
_SIGNED = {
    "accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location",
    "logging", "metrics", "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment",
    "response-cache-control", "response-content-disposition", "response-content-encoding",
    "response-content-language", "response-content-type", "response-expires", "restore", "select", "select-type",
    "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions", "website",
}  # fmt: skip


def verify(request: Request, claim: Claim, secret: str, now: float) -> None:
    """Return when the claim's signature is right under this secret at `now`. Raises Denied when it is not.

    Presigned requests of S3 have their x-amz-… parameters as headers from here on, as S3 takes them.
    """
    if claim.service == "s3":
        _verify_s3(request, claim, secret, now)
    else:
        _verify_form(request, claim, secret, now)


def _is_right(claim: Claim, secret: str, text: str, method: str) -> bool:
    right = base64.b64encode(hmac.digest(secret.encode(), text.encode("latin-1"), method))
    return hmac.compare_digest(right, claim.signature.encode())


# The query APIs


def _verify_form(request: Request, claim: Claim, secret: str, now: float) -> None:
    form = request.form
    _check_form_time(claim, now)
    method = _HASHES.get(form.get("SignatureMethod", ""))
    if method is None:
        raise Denied("malformed", "SignatureMethod must be HmacSHA256 or HmacSHA1.")
    pairs = sorted((name.encode(), value.encode()) for name, value in form.items() if name != "Signature")
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    host = (request.header("Host") or "").lower()
    if not _is_right(claim, secret, f"{request.method}\n{host}\n{request.sent_path}\n{query}", method):
        raise Denied("mismatch")


def _check_form_time(claim: Claim, now: float) -> None:
    try:
        then = datetime.fromisoformat(claim.expires or claim.stamp)
    except ValueError:
        raise Denied("malformed", "The request needs a Timestamp or Expires, in ISO 8601.") from None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    if claim.expires and now > then.timestamp():
        raise Denied("expired", f"Request has expired. Expires date is: {claim.expires}")
    if not claim.expires and abs(now - then.timestamp()) > SKEW:
        raise Denied("skewed", f"Request has expired. Timestamp date is: {claim.stamp}")


# S3


def _verify_s3(request: Request, claim: Claim, secret: str, now: float) -> None:
    _check_time(claim, now)
    presigned = claim.expires is not None
    values = _amz(request, presigned=presigned)
    date = claim.expires if presigned else "" if request.header("X-Amz-Date") else claim.stamp
    lines = [request.method, request.header("Content-MD5") or "", request.header("Content-Type") or "", date or ""]
    lines += [f"{name}:{value}" for name, value in sorted(values.items())]
    head = "\n".join(lines)
    if not any(_is_right(claim, secret, f"{head}\n{place}", "sha1") for place in _resources(request)):
        raise Denied("mismatch")
    request.adopt(values)
    if HASH.fullmatch(stated := values.get("x-amz-content-sha256", "")):  # a header like others, but it was signed
        request.signed(Signature(payload=stated, key=b"", stamp="", scope="", value=""))


def _check_time(claim: Claim, now: float) -> None:
    if claim.expires is not None:
        if now > int(claim.expires):
            raise Denied("expired")
        return
    try:
        _, then = moment(claim.stamp)
    except Denied:
        raise Denied("denied", "AWS authentication requires a valid Date or x-amz-date header") from None
    if abs(now - then) > SKEW:
        raise Denied("skewed")


def _amz(request: Request, *, presigned: bool) -> dict[str, str]:
    """Return the headers x-amz-… as they are signed; those of a presigned request may be in its query as well."""
    values = moved(request) if presigned else {}
    values |= {name: request.header(name) or "" for name in request.header_names if name.startswith("x-amz-")}
    return {name: value.strip() for name, value in values.items()}


def _resources(request: Request) -> Iterator[str]:
    """Yield what the canonical resource may be: the bucket and key, and what of the query is signed.

    Clients differ in what they encode of a key, in whether a bucket alone ends in a slash (boto3 signs one and sends
    none), and in whether a parameter without a value ends in `=`.
    """
    bucket, _ = hosts.of_s3(request)
    base = f"/{bucket}" if bucket else ""
    # Where services have paths, Eucalyptus takes the service's part of it signed or not.
    places = [base + path for sent in {request.sent_path, request.raw_path} for path in paths(sent, "s3")]
    if (base + request.raw_path).count("/") == 1:
        places += [place + "/" for place in places if not place.endswith("/")]
    signed = []
    for item in request.raw_query.split("&"):
        name, equals, value = item.partition("=")
        if name in _SIGNED:
            signed.append((name, equals, unquote_to_bytes(value.replace("+", " ")).decode("latin-1")))
    signed.sort(key=lambda one: one[0])
    short = "&".join(f"{name}={value}" if value else name for name, _, value in signed)
    whole = "&".join(name + equals + value for name, equals, value in signed)
    for query in dict.fromkeys([short, whole]):
        for place in places:
            yield f"{place}?{query}" if query else place
