"""What an AWS error code means for us: one table for the answers of EC2, STS and the EBS direct APIs.

Sources: the error code list of the EC2 API reference, the error shapes of the EBS direct service model (2019-11-02)
and the SigV4 error list of the IAM user guide.
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
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerInternal",
        "ServiceUnavailable",
        "Unavailable",
    }
)
# Reasons inside EBS direct's ValidationException (a 400) that are passing all the same.
_PASSING_REASONS = frozenset({"WRITE_REQUEST_TIMEOUT", "CONFLICTING_BLOCK_UPDATE"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_DENIED = _EXPIRED | {
    "AccessDenied",
    "AccessDeniedException",
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
_NOT_FOUND = frozenset({"InvalidAMIID.Unavailable", "ResourceNotFoundException"})
_CONFLICT = frozenset(
    {
        "ConflictException",
        "IdempotentInstanceTerminated",
        "IdempotentParameterMismatch",
        "InvalidAMIName.Duplicate",
        "InvalidSnapshot.InUse",
        "ResourceAlreadyExistsException",
    }
)
_PERMISSION = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_QUOTA = frozenset(
    {"PendingSnapshotLimitExceeded", "ServiceQuotaExceededException", "SnapshotLimitExceeded", "VolumeLimitExceeded"}
)
_SKEW = 240  # seconds; AWS refuses signatures that are off by more than 5 minutes


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer of the cloud that is not a success, whatever protocol brought it."""

    call: str  # service:Action, which is also the name of the IAM permission
    code: str
    message: str
    status: int
    reason: str = ""
    date: str | None = None  # the answer's Date header

    @property
    def throttled(self) -> bool:
        """Say whether we called too often."""
        return self.code in THROTTLING or self.status == 429

    def error(self) -> EmiError:
        """Return the error that a user shall see."""
        words = f"{self.call}: {self.message or 'no message'} ({'/'.join(filter(None, (self.code, self.reason)))})"
        if self.code in _DENIED:
            return self._denied(words)
        if self.throttled or self.code in _TROUBLE or self.status >= 500 or self.reason in _PASSING_REASONS:
            return CloudTrouble(words)
        if self.code in _NOT_FOUND or self.code.endswith((".NotFound", ".Unknown")):
            return CloudNotFound(words)
        if self.code in _CONFLICT:
            return CloudConflict(words)
        quota = "Ask AWS Service Quotas for more, then `emi resume`." if self.code in _QUOTA else None
        return CloudError(words, hint=quota)

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
            return CloudDenied(words, hint=f"Grant {self.call} to these credentials, then `emi resume`.")
        return CloudDenied(words, hint="Check the access key, its secret and the region, then `emi resume`.")


def _clock_offset(date: str | None) -> float:
    """Return by how many seconds our clock is ahead of an HTTP Date header; 0 when there is none."""
    try:
        return time.time() - email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return 0
