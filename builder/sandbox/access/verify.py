"""Signature Version 4 as the server sees it: what was signed is built again and held against the claim.

The body is not read for it where the client states its hash: whoever reads the body holds that against it. Sources:
"Signature Version 4 signing process", "Authenticating requests (AWS Signature Version 4)" of the S3 API reference.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from builder.sandbox.access import streaming
from builder.sandbox.access.claim import ALGORITHM, Claim
from builder.sandbox.access.times import SKEW, moment, text
from builder.sandbox.wire import Denied, Request, Signature

UNSIGNED = "UNSIGNED-PAYLOAD"
_LONGEST = 7 * 24 * 3600  # seconds that a presigned request may be good for
HASH = re.compile("[0-9a-f]{64}")
# What the signature itself has in the query.
_OWN = {f"x-amz-{word}" for word in ("algorithm", "credential", "date", "expires", "signature", "signedheaders")}


def verify(request: Request, claim: Claim, secret: str, now: float) -> None:
    """Remember the claim's signature when it is right under this secret at `now`. Raises Denied when it is not.

    Presigned requests of S3 have their x-amz-… parameters as headers from here on, as S3 takes them.
    """
    stamp = _check_time(request, claim, now)
    _check_names(request, claim)
    key = signing_key(secret, claim.day, claim.region, claim.service)
    places = paths(request.sent_path, "s3" if _is_s3(request, claim) else claim.service)
    if request.service and not _is_s3(request, claim):
        places = [*places, "/"]  # Eucalyptus tries this too, for clients that sign so
    heads = [_canonical(request, claim, path) for path in places]
    for head, payload in ((head, payload) for payload in _payloads(request, claim) for head in heads):
        digest = hashlib.sha256(f"{head}{payload}".encode("latin-1")).hexdigest()
        signed = f"{ALGORITHM}\n{stamp}\n{claim.scope}\n{digest}"
        if hmac.compare_digest(hmac.digest(key, signed.encode(), "sha256").hex(), claim.signature):
            request.signed(Signature(payload=payload, key=key, stamp=stamp, scope=claim.scope, value=claim.signature))
            if _is_s3(request, claim) and claim.expires is not None:
                request.adopt(moved(request))
            return
    raise Denied("mismatch")


def _is_s3(request: Request, claim: Claim) -> bool:
    """Say whether it is S3 that is asked, by the path where services have paths, and not by what is signed."""
    return (request.service or claim.service) == "s3"


def moved(request: Request) -> dict[str, str]:
    """Return the headers x-amz-… that whoever presigned a request of S3 wrote into its URL; a character is a byte."""
    found = {name.lower(): value for name, value in request.query.items()}
    return {
        name: value.encode().decode("latin-1").strip()
        for name, value in found.items()
        if name.startswith("x-amz-") and name not in _OWN
    }


@lru_cache(maxsize=512)
def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """Return the key that requests of one day, region and service are signed with."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _check_time(request: Request, claim: Claim, now: float) -> str:
    """Return the time of signing as it is written in what was signed. Raises Denied when it is not about now."""
    stamp, then = moment(claim.stamp)
    if claim.day != stamp[:8]:
        raise Denied("malformed", f"Date in Credential scope does not match YYYYMMDD from ISO-8601: {stamp}")
    if claim.expires is None:
        if not request.header("X-Amz-Date") and "date" not in claim.names:
            raise Denied(
                "malformed", "Authorization header requires the existence of a 'X-Amz-Date' or a 'Date' header."
            )
        if now > then + SKEW:
            raise Denied("skewed", f"Signature expired: {stamp} is now earlier than {text(now - SKEW)} "
                         f"({text(now)} - 15 min.)")  # fmt: skip
    else:
        if not claim.expires.isdecimal() or not 0 < int(claim.expires) <= _LONGEST:
            raise Denied("malformed-query", f"X-Amz-Expires must be a number of seconds, at most {_LONGEST}.")
        if now > then + int(claim.expires):
            raise Denied("expired", f"Signature expired: {stamp} was good for {claim.expires} s, it is {text(now)}")
    if then > now + SKEW:
        raise Denied("skewed", f"Signature not yet current: {stamp} is still later than {text(now + SKEW)} "
                     f"({text(now)} + 15 min.)")  # fmt: skip
    return stamp


def _check_names(request: Request, claim: Claim) -> None:
    """Raise Denied unless the headers are signed that must be."""
    if "host" not in claim.names:
        raise Denied("unsigned-header", "'Host' must be a 'SignedHeader' in the AWS Authorization.")
    for name in request.header_names:
        if name.startswith("x-amz-") and name not in claim.names and (_is_s3(request, claim) or name == "x-amz-date"):
            raise Denied("unsigned-header", f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")


def _canonical(request: Request, claim: Claim, path: str) -> str:
    """Return the canonical request up to the payload's hash, each byte of a header as one character."""
    skipped = "X-Amz-Signature" if claim.expires is not None else None
    lines = "".join([f"{name}:{' '.join((request.header(name) or '').split())}\n" for name in claim.names])
    return f"{request.method}\n{path}\n{_query(request.raw_query, skipped)}\n{lines}\n{';'.join(claim.names)}\n"


@lru_cache(maxsize=256)
def paths(raw: str, service: str) -> list[str]:
    """Return the canonical path: S3 signs a key as it is, every other service a normalized path, encoded twice.

    Clients of S3 differ in what they encode, and then sign either the key encoded by the rule or what they send.
    """
    if service == "s3":
        return list(dict.fromkeys([raw, quote(unquote_to_bytes(raw), safe="/-_.~")]))
    kept: list[str] = []
    for part in raw.split("/"):
        if part == ".." and kept:
            kept.pop()
        elif part not in {"", ".", ".."}:
            kept.append(part)
    last = "/" if kept and raw.endswith("/") else ""
    return [quote("/" + "/".join(kept) + last, safe="/-_.~")]


def _query(raw: str, skipped: str | None) -> str:
    """Return the canonical query string."""
    if not raw:
        return ""
    pairs = []
    for item in raw.split("&"):
        name, _, value = item.partition("=")
        pair = (_encoded(name), _encoded(value))
        if item and pair[0] != skipped:
            pairs.append(pair)
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text.replace("+", "%20")), safe="-_.~")


def _payloads(request: Request, claim: Claim) -> Iterator[str]:
    """Yield what may stand for the body in what was signed, the most likely first; the body is read only at the end."""
    stated = request.header("X-Amz-Content-SHA256")
    is_s3 = _is_s3(request, claim)
    words = {UNSIGNED, *(streaming.EUCALYPTUS if request.service else streaming.ALL)} if is_s3 else {UNSIGNED}
    if stated and stated not in words and not HASH.fullmatch(stated):
        if request.service:
            raise Denied("denied", "x-amz-content-sha256 header is invalid.")
        raise Denied("odd-payload-hash")  # any other word would leave the body unchecked
    if is_s3:
        if claim.expires is not None:
            signed = stated if "x-amz-content-sha256" in claim.names else None
            yield request.query.get("X-Amz-Content-Sha256") or signed or UNSIGNED
        elif not stated:
            raise Denied("no-payload-hash")
        else:
            yield stated
        return
    if stated:
        yield stated
        return
    if checksum := request.header("X-Amz-Checksum"):  # a block of the EBS direct APIs states the same hash in base64
        with contextlib.suppress(ValueError):
            yield base64.b64decode(checksum, validate=True).hex()
    yield hashlib.sha256(request.body).hexdigest()
