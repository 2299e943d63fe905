"""How each service says that a caller is not who it says, or may not: its own codes, words and status.

Sources: "Common errors" in the API reference of each service, "Error codes for the Amazon EC2 API" and S3's "List of
error codes"; statuses as the services send them.
"""

from __future__ import annotations

from builder.sandbox.access import streaming
from builder.sandbox.wire import Denied, Refusal

Words = tuple[str, str, int]  # code, message ({detail} is filled in), status

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_S3_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your key and signing method."
)
_INVALID = "The security token included in the request is invalid."
_EXPIRED = "The security token included in the request is expired"
_EC2 = "AWS was not able to validate the provided access credentials"

_QUERY: dict[str, Words] = {
    "missing": ("MissingAuthenticationToken", "Request is missing Authentication Token", 403),
    "unknown-key": ("InvalidClientTokenId", _INVALID, 403),
    "mismatch": ("SignatureDoesNotMatch", _MISMATCH, 403),
    "payload": ("SignatureDoesNotMatch", _MISMATCH, 403),
    "no-payload-hash": ("SignatureDoesNotMatch", _MISMATCH, 403),
    "odd-payload-hash": ("SignatureDoesNotMatch", _MISMATCH, 403),
    "unsigned-header": ("SignatureDoesNotMatch", "{detail}", 403),
    "skewed": ("SignatureDoesNotMatch", "{detail}", 403),
    "expired": ("SignatureDoesNotMatch", "{detail}", 403),
    "malformed": ("IncompleteSignature", "{detail}", 400),
    "malformed-query": ("IncompleteSignature", "{detail}", 400),
    "obsolete": ("IncompleteSignature", "{detail}", 400),
    "bad-token": ("InvalidClientTokenId", _INVALID, 403),
    "expired-token": ("ExpiredToken", _EXPIRED, 403),
    "denied": ("AccessDenied", "{detail}", 403),
}
_EC2_WORDS: dict[str, Words] = _QUERY | {
    "unknown-key": ("AuthFailure", _EC2, 401),
    "bad-token": ("AuthFailure", _EC2, 401),
    "mismatch": ("AuthFailure", _EC2, 401),
    "payload": ("AuthFailure", _EC2, 401),
    "odd-payload-hash": ("AuthFailure", _EC2, 401),
    "unsigned-header": ("AuthFailure", "{detail}", 401),
    "skewed": ("RequestExpired", "Request has expired. {detail}", 400),
    "expired": ("RequestExpired", "Request has expired. {detail}", 400),
    "expired-token": ("RequestExpired", "Request has expired.", 400),
    "denied": ("UnauthorizedOperation", "You are not authorized to perform this operation. {detail}", 403),
}
_REST: dict[str, Words] = {
    "missing": ("MissingAuthenticationTokenException", "Missing Authentication Token", 403),
    "unknown-key": ("UnrecognizedClientException", _INVALID, 403),
    "mismatch": ("InvalidSignatureException", _MISMATCH, 403),
    "payload": ("InvalidSignatureException", _MISMATCH, 403),
    "no-payload-hash": ("InvalidSignatureException", _MISMATCH, 403),
    "odd-payload-hash": ("InvalidSignatureException", _MISMATCH, 403),
    "unsigned-header": ("InvalidSignatureException", "{detail}", 403),
    "skewed": ("InvalidSignatureException", "{detail}", 403),
    "expired": ("InvalidSignatureException", "{detail}", 403),
    "malformed": ("IncompleteSignatureException", "{detail}", 403),
    "malformed-query": ("IncompleteSignatureException", "{detail}", 403),
    "obsolete": ("IncompleteSignatureException", "{detail}", 403),
    "bad-token": ("UnrecognizedClientException", _INVALID, 403),
    "expired-token": ("ExpiredTokenException", _EXPIRED, 403),
    "denied": ("AccessDeniedException", "{detail}", 403),
}
_JSON = {kind: (code, message, 400) for kind, (code, message, _) in _REST.items()}
_S3: dict[str, Words] = {
    "missing": ("AccessDenied", "Access Denied", 403),
    "unknown-key": ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", 403),
    "mismatch": ("SignatureDoesNotMatch", _S3_MISMATCH, 403),
    "payload": (
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
        400,
    ),
    "no-payload-hash": ("InvalidRequest", "Missing required header for this request: x-amz-content-sha256", 400),
    "odd-payload-hash": (
        "InvalidArgument",
        f"x-amz-content-sha256 must be UNSIGNED-PAYLOAD, {', '.join(sorted(streaming.ALL))}, or a valid sha256 value.",
        400,
    ),
    "unsigned-header": ("AccessDenied", "There were headers present in the request which were not signed", 403),
    "skewed": (
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
        403,
    ),
    "expired": ("AccessDenied", "Request has expired", 403),
    "malformed": ("AuthorizationHeaderMalformed", "The authorization header is malformed; {detail}", 400),
    "malformed-query": ("AuthorizationQueryParametersError", "{detail}", 400),
    "malformed-old": (
        "InvalidArgument",
        "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature",
        400,
    ),
    "obsolete": (
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        400,
    ),
    "bad-token": ("InvalidToken", "The provided token is malformed or otherwise invalid.", 400),
    "expired-token": ("ExpiredToken", "The provided token has expired.", 400),
    "denied": ("AccessDenied", "{detail}", 403),
}
_BY_SERVICE = {"ec2": _EC2_WORDS, "bootstrap": _EC2_WORDS, "sts": _QUERY, "iam": _QUERY, "ebs": _REST, "s3": _S3}


def of(denied: Denied, service: str, *, target: bool) -> Refusal:
    """Return the refusal as the service words it; `target` says that the call speaks the plain JSON protocol."""
    words = _BY_SERVICE.get(service) or (_JSON if target else _REST)
    code, message, status = words[denied.kind]
    return Refusal(code, message.format(detail=denied.detail).strip(), status=status)
