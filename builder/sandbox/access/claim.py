"""Who a request says it is from: its signature taken apart, not verified yet.

Sources: "Signature Version 4 signing process" and "Signature Version 2 signing process" of the AWS documentation;
"Signing and authenticating REST requests (AWS signature version 2)" of the S3 user guide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus

from builder.sandbox.wire import Denied, Request

ALGORITHM = "AWS4-HMAC-SHA256"
_FIELDS = re.compile(
    rf"{ALGORITHM}\s+Credential=([^,\s]+),?\s*SignedHeaders=([^,\s]+),?\s*Signature=([0-9a-f]{{64}})\s*"
)
_OLD = "AWS "  # what the Authorization header of S3's Signature Version 2 begins with
_OLD_QUERY = ("Signature", "Expires", "AWSAccessKeyId")
_EBS = re.compile(r"/snapshots/(?:completion/)?snap-.*")
_VERSIONS = {"2010-05-08": "iam", "2011-06-15": "sts"}  # the API versions that are not EC2's


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A signature as it came. `expires` is how many seconds a presigned request is good for, None for others.

    `version` is that of the signature process: 4, or 2 for the query APIs and S3 of old tools, which names no region
    and no service of its own; there, `expires` is a time, of S3 in seconds since the epoch. `flaw` is what there is to
    say of a claim that cannot be verified.
    """

    version: int
    access_key: str
    service: str
    signature: str
    day: str = ""
    region: str = ""
    names: tuple[str, ...] = ()
    stamp: str = ""
    expires: str | None = None
    token: str | None = None
    flaw: Denied | None = None

    @property
    def scope(self) -> str:
        """The credential scope, as it was signed."""
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def read(request: Request) -> Claim | None:
    """Return what the request says of itself, or None when it is not signed. Raises Denied when it cannot be read."""
    authorization = request.header("Authorization")
    if authorization is not None:
        return _from_header(request, authorization)
    if "X-Amz-Signature=" in request.raw_query or "X-Amz-Credential=" in request.raw_query:
        return _from_query(request)
    if ("Signature=" in request.raw_query or "AWSAccessKeyId=" in request.raw_query) and "Action" not in request.query:
        return _from_old_query(request)
    return _from_form(request) if is_form(request) else None


def is_form(request: Request) -> bool:
    """Say whether it is a call of a query protocol."""
    if request.header("X-Amz-Target") is not None:
        return False
    return (request.header("Content-Type") or "").startswith("application/x-www-form-urlencoded") or (
        "Action=" in request.raw_query
    )


def scoped(request: Request) -> str:
    """Return the service that the request's credential scope names, or the one that it seems to mean."""
    try:
        claim = read(request)
    except Denied:
        claim = None
    return claim.service if claim is not None else service_of(request)


def _from_header(request: Request, text: str) -> Claim:
    if text.startswith(_OLD) and _takes_old(request):
        return _from_old_header(request, text)
    if not text.startswith(ALGORITHM + " "):
        raise Denied("obsolete" if text.startswith("AWS ") else "malformed", "Unsupported Authorization Type")
    match = _FIELDS.fullmatch(text)
    if match is None:
        raise Denied("malformed", "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature'.")
    credential, names, signature = match.groups()
    return _claim(
        credential, names, signature,
        stamp=request.header("X-Amz-Date") or request.header("Date") or "",
        token=request.header("X-Amz-Security-Token"),
    )  # fmt: skip


def _from_query(request: Request) -> Claim:
    query = request.query
    needed = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature")
    if missing := [name for name in needed if not query.get(name)]:
        raise Denied("malformed-query", f"The request lacks the query parameter {missing[0]}.")
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise Denied("malformed-query", f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    return _claim(
        query["X-Amz-Credential"], query["X-Amz-SignedHeaders"], query["X-Amz-Signature"],
        stamp=query["X-Amz-Date"],
        token=query.get("X-Amz-Security-Token"),
        expires=query.get("X-Amz-Expires", ""),
    )  # fmt: skip


def _claim(
    credential: str, names: str, signature: str, *, stamp: str, token: str | None, expires: str | None = None
) -> Claim:
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise Denied("malformed", "The Credential is not KEY/YYYYMMDD/REGION/SERVICE/aws4_request.")
    access_key, day, region, service, _ = parts
    return Claim(
        version=4,
        access_key=access_key,
        day=day,
        region=region,
        service=service,
        names=tuple(names.lower().split(";")),
        signature=signature,
        stamp=stamp,
        expires=expires,
        token=token,
    )


def _takes_old(request: Request) -> bool:
    """Say whether the request is S3's, for only S3 takes a Signature Version 2 in the header or without an Action."""
    if request.header("X-Amz-Target") is not None or "Action" in request.query or _is_ebs(request):
        return False
    return request.path != "/" or request.method != "POST" or bool(request.raw_query)  # else the call is in the body


def _from_old_header(request: Request, text: str) -> Claim:
    access_key, colon, signature = text.removeprefix(_OLD).strip().partition(":")
    return Claim(
        version=2,
        access_key=access_key,
        service="s3",
        signature=signature,
        stamp=request.header("X-Amz-Date") or request.header("Date") or "",
        token=request.header("X-Amz-Security-Token"),
        flaw=None if colon else Denied("malformed-old"),
    )


def _from_old_query(request: Request) -> Claim:
    if not _takes_old(request):
        raise Denied("obsolete", "Unsupported Authorization Type")
    query, flaw = request.query, None
    if not all(query.get(name) for name in _OLD_QUERY):
        detail = "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"
        flaw = Denied("denied", detail)
    elif not (query["Expires"].isascii() and query["Expires"].isdecimal()):
        flaw = Denied("denied", f"Invalid date (should be seconds since epoch): {query['Expires']}")
    return Claim(
        version=2,
        access_key=query.get("AWSAccessKeyId", ""),
        service="s3",
        signature=query.get("Signature", "").replace(" ", "+"),  # some tools leave its plus signs as they are
        expires=query.get("Expires", ""),
        token=request.header("X-Amz-Security-Token") or query.get("x-amz-security-token"),
        flaw=flaw,
    )


def _from_form(request: Request) -> Claim | None:
    form = request.form
    if "Signature" not in form:
        return None
    if form.get("SignatureVersion") != "2" or not form.get("AWSAccessKeyId"):
        raise Denied("malformed", "SignatureVersion must be 2, beside AWSAccessKeyId.")
    return Claim(
        version=2,
        access_key=form["AWSAccessKeyId"],
        service=service_of(request),
        signature=unquote_plus(form["Signature"]) if "%" in form["Signature"] else form["Signature"],
        stamp=form.get("Timestamp", ""),
        expires=form.get("Expires"),
        token=form.get("SecurityToken"),
    )


def service_of(request: Request) -> str:
    """Return the service that a request means which does not name it in a credential scope; "s3" for all the rest."""
    target = request.header("X-Amz-Target")
    if target:
        return "ssm" if target.startswith("AmazonSSM.") else target.partition("_")[0].lower()
    if is_form(request) and "Action" in request.form:
        return _VERSIONS.get(request.form.get("Version", ""), "ec2")
    return "ebs" if _is_ebs(request) else "s3"


def _is_ebs(request: Request) -> bool:
    """Say whether the path is one of the EBS direct APIs, and not a key in a bucket `snapshots`."""
    if request.service:  # the path has said it
        return False
    start = request.method == "POST" and request.path == "/snapshots" and not request.raw_query
    return start or _EBS.fullmatch(request.path) is not None
