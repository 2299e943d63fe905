"""What each of AWS's error codes means for a user."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import pytest

from builder.cloud.refusals import THROTTLING, Refusal
from builder.errors import CloudConflict, CloudDenied, CloudError, CloudNotFound, CloudTrouble, HostError


def refusal(code: str, status: int = 400, **more: Any) -> Refusal:
    return Refusal(call="ec2:RegisterImage", code=code, message="the cloud's words", status=status, **more)


@pytest.mark.parametrize(
    ("code", "status", "reason", "ours"),
    [
        *((code, 400, "", CloudTrouble) for code in sorted(THROTTLING)),
        ("Odd", 429, "", CloudTrouble),
        ("InternalError", 500, "", CloudTrouble),
        ("InternalServerException", 500, "", CloudTrouble),
        ("ServiceUnavailable", 503, "", CloudTrouble),
        ("Unavailable", 503, "", CloudTrouble),
        ("HTTP 502", 502, "", CloudTrouble),
        ("ValidationException", 400, "WRITE_REQUEST_TIMEOUT", CloudTrouble),
        ("ValidationException", 400, "INVALID_BLOCK", CloudError),
        ("AccessDeniedException", 403, "UNAUTHORIZED_ACCOUNT", CloudDenied),
        ("AuthFailure", 401, "", CloudDenied),
        ("ExpiredToken", 400, "", CloudDenied),
        ("ExpiredTokenException", 403, "", CloudDenied),
        ("InvalidClientTokenId", 403, "", CloudDenied),
        ("RequestExpired", 400, "", CloudDenied),
        ("SignatureDoesNotMatch", 403, "", CloudDenied),
        ("UnauthorizedOperation", 403, "", CloudDenied),
        ("UnrecognizedClientException", 400, "", CloudDenied),
        ("InvalidAMIID.NotFound", 400, "", CloudNotFound),
        ("InvalidAMIID.Unavailable", 400, "", CloudNotFound),
        ("InvalidSnapshot.NotFound", 400, "", CloudNotFound),
        ("ResourceNotFoundException", 404, "SNAPSHOT_NOT_FOUND", CloudNotFound),
        ("ConflictException", 409, "", CloudConflict),
        ("IdempotentParameterMismatch", 400, "", CloudConflict),
        ("InvalidAMIName.Duplicate", 400, "", CloudConflict),
        ("InvalidSnapshot.InUse", 400, "", CloudConflict),
        ("InvalidAMIID.Malformed", 400, "", CloudError),
        ("InvalidParameterValue", 400, "", CloudError),
        ("ServiceQuotaExceededException", 402, "", CloudError),
        ("403", 403, "", CloudDenied),
        ("404", 404, "", CloudNotFound),
        ("412", 412, "", CloudConflict),
        ("AccessControlListNotSupported", 400, "", CloudError),
        ("BadDigest", 400, "", CloudTrouble),
        ("BucketAlreadyExists", 409, "", CloudConflict),
        ("ConditionalRequestConflict", 409, "", CloudTrouble),
        ("NoSuchUpload", 404, "", CloudNotFound),
        ("NotImplemented", 501, "", CloudError),
        ("OperationAborted", 409, "", CloudTrouble),
        ("PreconditionFailed", 412, "", CloudConflict),
        ("TagPolicyViolation", 400, "", CloudError),
        ("UnsupportedOperation", 400, "", CloudError),
    ],
)
def test_a_code_becomes_an_error_with_the_clouds_own_words(code, status, reason, ours):
    error = refusal(code, status, reason=reason).error()
    assert type(error) is ours
    assert error.retryable == (ours is CloudTrouble)
    assert "ec2:RegisterImage: the cloud's words" in error.message
    assert code in error.message
    assert error.code == code
    assert reason in error.message


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("UnauthorizedOperation", "Grant ec2:RegisterImage"),
        ("AccessDeniedException", "Grant ec2:RegisterImage"),
        ("ExpiredToken", "renew them"),
        ("InvalidClientTokenId", "Check the access key"),
        ("ServiceQuotaExceededException", "Service Quotas"),
        ("AccessControlListNotSupported", "Object Ownership"),
    ],
)
def test_the_hint_says_what_to_do(code, hint):
    assert hint in refusal(code, 403).error().hint


@pytest.mark.parametrize(
    ("seconds", "words"), [(-700, "700 s behind the cloud's"), (+3600, "3600 s ahead of the cloud's"), (+30, None)]
)
@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException"])
def test_a_wrong_clock_is_named_with_its_offset(monkeypatch, code, seconds, words):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    error = refusal(code, 403, date=email.utils.formatdate(int(now) - seconds)).error()
    if words is None:
        assert type(error) is CloudDenied
        return
    assert type(error) is HostError
    assert words.split()[1:] == [word for word in words.split()[1:] if word in error.message]
    assert any(f"{abs(seconds) + slack} s" in error.message for slack in (0, 1, -1))
    assert "timedatectl" in error.hint


def test_a_senseless_date_is_no_second_error():
    assert type(refusal("AuthFailure", 401, date="yesterday").error()) is CloudDenied


@pytest.mark.parametrize(
    ("call", "permission"),
    [
        ("s3:HeadObject", "s3:GetObject and s3:ListBucket"),
        ("s3:UploadPart", "s3:PutObject"),
        ("s3:ListParts", "s3:ListMultipartUploadParts"),
        ("s3:DeleteObject", "s3:DeleteObject"),
    ],
)
def test_the_hint_names_the_permission_and_not_the_call(call, permission):
    denied = Refusal(call=call, code="403", message="", status=403)
    assert f"Grant {permission} to these credentials" in denied.error().hint


def test_a_pause_that_the_cloud_asks_for_is_passed_on():
    assert refusal("SlowDown", 503, retry_after=7).error().retry_after == 7
