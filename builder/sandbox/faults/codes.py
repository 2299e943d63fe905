"""How each service words what a fault makes it say: code, message, HTTP status.

Sources: the EC2 API reference ("Error codes"), botocore's `ebs` 2019-11-02 model (types, statuses and reasons), the S3
API reference ("Error responses"), "Common errors" of the STS, IAM and SSM API references, EBS and AMI quota pages.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.sandbox.faults.model import Fault
from builder.sandbox.wire import Refusal

Words = tuple[str, str, int, str | None]  # code, message, status, the EBS direct APIs' reason

_RATE = "Rate exceeded"
_EBS_QUOTA = "Your current service quotas do not allow you to perform this action."
_COPIES = "Too many snapshot copies in progress. The limit is 20 for this destination region."
_PUBLIC = (
    "You have reached your quota of 5 public images allowed in this Region. Deregister unused public images or request "
    "an increase in your public AMIs quota."
)
_QUERY: Mapping[str, Words] = {
    "throttle": ("Throttling", _RATE, 400, None),
    "internal-error": ("InternalFailure", "The request processing has failed because of an unknown error.", 500, None),
    "unavailable": ("ServiceUnavailable", "The request has failed due to a temporary failure.", 503, None),
    "denied": ("AccessDenied", "User: {arn} is not authorized to perform: {service}:{call}", 403, None),
    "expired": ("ExpiredToken", "The security token included in the request is expired", 403, None),
    "quota": ("LimitExceeded", "Cannot exceed quota for this account.", 409, None),
}  # fmt: skip
_SERVICES: Mapping[str, Mapping[str, Words]] = {
    "ec2": {
        "throttle": ("RequestLimitExceeded", "Request limit exceeded.", 503, None),
        "internal-error": ("InternalError", "An internal error has occurred", 500, None),
        "unavailable": ("Unavailable", "The server is overloaded and can't handle the request.", 503, None),
        "denied": (
            "UnauthorizedOperation",
            "You are not authorized to perform this operation. User: {arn} is not authorized to perform: ec2:{call}",
            403,
            None,
        ),
        "expired": ("RequestExpired", "Request has expired.", 400, None),
        "quota": ("ResourceLimitExceeded", "You have reached your quota for this resource in this Region.", 400, None),
    },
    "ebs": {
        "throttle": ("RequestThrottledException", "The number of API requests has exceeded the maximum allowed.", 400,
                     "ACCOUNT_THROTTLED"),
        "internal-error": ("InternalServerException", "An internal error has occurred.", 500, None),
        "unavailable": ("ServiceUnavailable", "Service is unable to handle the request.", 503, None),
        "denied": ("AccessDeniedException", "User: {arn} is not authorized to perform: ebs:{call}", 403,
                   "UNAUTHORIZED_ACCOUNT"),
        "expired": ("ExpiredTokenException", "The security token included in the request is expired", 403, None),
        "quota": ("ServiceQuotaExceededException", _EBS_QUOTA, 402, "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"),
    },
    "s3": {
        "throttle": ("SlowDown", "Please reduce your request rate.", 503, None),
        "internal-error": ("InternalError", "We encountered an internal error. Please try again.", 500, None),
        "unavailable": ("ServiceUnavailable", "Service is unable to handle request.", 503, None),
        "denied": ("AccessDenied", "Access Denied", 403, None),
        "expired": ("ExpiredToken", "The provided token has expired.", 400, None),
        "quota": ("TooManyBuckets", "You have attempted to create more buckets than allowed.", 400, None),
    },
    "ssm": {
        "throttle": ("ThrottlingException", _RATE, 400, None),
        "internal-error": ("InternalServerError", "An error occurred on the server side.", 500, None),
        "unavailable": ("ServiceUnavailable", "Service is unable to handle the request.", 503, None),
        "denied": ("AccessDeniedException", "User: {arn} is not authorized to perform: ssm:{call}", 400, None),
        "expired": ("ExpiredTokenException", "The security token included in the request is expired", 400, None),
        "quota": ("ParameterLimitExceeded", "You have exceeded the number of parameters for this account.", 400, None),
    },
}  # fmt: skip
# Where a call has a word of its own for the quota that it meets.
_QUOTAS: Mapping[str, tuple[str, str]] = {
    "CopySnapshot": ("ResourceLimitExceeded", _COPIES),
    "CreateSnapshot": ("PendingSnapshotLimitExceeded", "Pending snapshot limit exceeded."),
    "CreateSnapshots": ("PendingSnapshotLimitExceeded", "Pending snapshot limit exceeded."),
    "CreateVolume": ("VolumeLimitExceeded", "You have exceeded your maximum gp3 storage limit in this region."),
    "ImportSnapshot": ("ResourceCountLimitExceeded", "Resource limit exceeded"),
    "ModifyImageAttribute": ("ResourceLimitExceeded", _PUBLIC),
    "RunInstances": ("InstanceLimitExceeded", "You have requested more instances than your limit allows."),
}  # fmt: skip
REFUSALS = frozenset(_QUERY) | {"refuse"}


class Fake(Refusal):
    """A refusal that a fault made up: services say it word for word."""


def refusal(fault: Fault, *, service: str, call: str, arn: str) -> Fake:
    """Return what the service says when the fault acts on the call; the fault's own code and message come first."""
    if fault.effect == "refuse":
        code, message, status, reason = fault.code or "", "The call was refused.", fault.status or 400, fault.reason
    else:
        code, message, status, reason = _SERVICES.get(service, _QUERY)[fault.effect]
        if fault.effect == "quota" and service == "ec2":
            code, message = _QUOTAS.get(call, (code, message))
    text = fault.message if fault.message is not None else message.format(arn=arn, service=service, call=call)
    return Fake(fault.code or code, text, status=status, reason=reason)
