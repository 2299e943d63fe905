"""What an AWS error code means for us: one table for the answers of EC2, STS, S3 and the EBS direct APIs.

Sources: the error code lists of the EC2 and S3 API references, the error shapes of the EBS direct service model
(2019-11-02) and the SigV4 error list of the IAM user guide. An answer to S3's HEAD has no body: its code is its status.
"""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass

from builder.errors import CloudConflict, CloudDenied, CloudError, CloudNotFound, CloudTrouble, EmiError, HostError

THROTTLING = frozenset(
    {
        "BandwidthLimitExceeded",
        "ConcurrentLimitExceededException",
        "EC2ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "SnapshotCreationPerVolumeRateExceeded",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_TROUBLE = frozenset(
    {
        "BadDigest",  # what arrived is not what was sent
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "OperationAborted",  # another request about the same bucket is under way
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerInternal",
        "ServiceUnavailable",
        "Unavailable",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
# Reasons inside EBS direct's ValidationException (a 400) that are passing all the same.
_PASSING_REASONS = frozenset({"WRITE_REQUEST_TIMEOUT", "CONFLICTING_BLOCK_UPDATE"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_DENIED = _EXPIRED | {
    "403",
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "AuthFailure",
    "Blocked",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "OptInRequired",
    "PendingVerification",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
}
_NOT_FOUND = frozenset(
    {"404", "InvalidAMIID.Unavailable", "NoSuchBucket", "NoSuchKey", "NoSuchUpload", "ResourceNotFoundException"}
)
_CONFLICT = frozenset(
    {
        "412",
        "BucketAlreadyExists",
        "BucketAlreadyOwnedByYou",
        "ConflictException",
        "DependencyViolation",
        "IdempotentInstanceTerminated",
        "IdempotentParameterMismatch",
        "InvalidAMIName.Duplicate",
        "InvalidGroup.Duplicate",
        "InvalidGroup.InUse",
        "InvalidKeyPair.Duplicate",
        "InvalidSnapshot.InUse",
        "PreconditionFailed",
        "ResourceAlreadyExistsException",
        "VolumeInUse",
    }
)
_PERMISSION = frozenset({"403", "AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_QUOTA = frozenset(
    {
        "ConcurrentSnapshotLimitExceeded",
        "InstanceLimitExceeded",
        "LimitExceeded",
        "MaxIOPSLimitExceeded",
        "ParameterLimitExceeded",
        "PendingSnapshotLimitExceeded",
        "ResourceCountLimitExceeded",
        "ResourceLimitExceeded",
        "ServiceQuotaExceededException",
        "SnapshotLimitExceeded",
        "TooManyBuckets",
        "VolumeLimitExceeded",
    }
)
# S3's calls whose permission has another name; "Actions, resources, and condition keys for Amazon S3".
_PERMISSIONS = {
    "bootstrap:DescribeServiceCertificates": "euserv:DescribeServiceCertificates",  # what Eucalyptus calls it
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject (and s3:PutObjectAcl where an ACL is set)",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject and s3:ListBucket",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListParts": "s3:ListMultipartUploadParts",
    "s3:PutObject": "s3:PutObject (and s3:PutObjectAcl where an ACL is set)",
    "s3:UploadPart": "s3:PutObject",
}
_ADVICE = {
    "AccessControlListNotSupported": "Use a bucket that emi makes, or let this one take ACLs: its Object Ownership "
    "must be BucketOwnerPreferred. Then `emi resume`.",
}
_SKEW = 240  # seconds; AWS refuses signatures that are off by more than 5 minutes


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer of the cloud that is not a success, whatever protocol brought it."""

    call: str  # service:Action, which is also the name of the IAM permission, but for some of S3's
    code: str
    message: str
    status: int
    reason: str = ""
    date: str | None = None  # the answer's Date header
    retry_after: float = 0  # seconds, of the answer's Retry-After header

    @property
    def throttled(self) -> bool:
        """Say whether we called too often."""
        return self.code in THROTTLING or self.status == 429

    @property
    def _passing_status(self) -> bool:
        return self.status >= 500 and self.status != 501  # 501: S3's NotImplemented, which it will stay

    def error(self) -> EmiError:
        """Return the error that a user shall see; a CloudError carries the code."""
        error = self._error()
        if isinstance(error, CloudError):
            error.code = self.code
        return error

    def _error(self) -> EmiError:
        words = f"{self.call}: {self.message or 'no message'} ({'/'.join(filter(None, (self.code, self.reason)))})"
        if self.code in _DENIED:
            return self._denied(words)
        if self.throttled or self.code in _TROUBLE or self._passing_status or self.reason in _PASSING_REASONS:
            return CloudTrouble(words, retry_after=self.retry_after)
        if self.code in _NOT_FOUND or self.code.endswith((".NotFound", ".Unknown")):
            return CloudNotFound(words)
        if self.code in _CONFLICT:
            return CloudConflict(words)
        quota = "Ask AWS Service Quotas for more, then `emi resume`." if self.code in _QUOTA else None
        return CloudError(words, hint=_ADVICE.get(self.code, quota))

    def _denied(self, words: str) -> EmiError:
        ahead = _clock_offset(self.date)
        if abs(ahead) > _SKEW:
            side = "ahead of" if ahead > 0 else "behind"
            return HostError(
                f"{words}\nthis machine's clock is {abs(ahead):.0f} s {side} the cloud's, so it refuses our signatures",
                hint="Set the clock (sudo timedatectl set-ntp true), then `emi resume`.",
            )
        if self.code in _EXPIRED or self.code == "RequestExpired":
            return CloudDenied(words, hint="The session's credentials have expired: renew them, then `emi resume`.")
        if self.code in _PERMISSION:
            needed = _PERMISSIONS.get(self.call, self.call)
            return CloudDenied(words, hint=f"Grant {needed} to these credentials, then `emi resume`.")
        return CloudDenied(words, hint="Check the access key, its secret and the region, then `emi resume`.")


def _clock_offset(date: str | None) -> float:
    """Return by how many seconds our clock is ahead of an HTTP Date header; 0 when there is none."""
    try:
        return time.time() - email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return 0
