"""How each service words what a fault makes it say: code, message, HTTP status.

Sources: the EC2 API reference ("Error codes"), botocore's `ebs` 2019-11-02 model (types, statuses and reasons), the S3
API reference ("Error responses"), "Common errors" of the STS, IAM and SSM API references, EBS and AMI quota pages.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.sandbox.access import words
from builder.sandbox.faults.model import Fault
from builder.sandbox.wire import Denied, Refusal

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
    "quota": ("LimitExceeded", "Cannot exceed quota for this account.", 409, None),
}  # fmt: skip
_SERVICES: Mapping[str, Mapping[str, Words]] = {
    "ec2": {
        "throttle": ("RequestLimitExceeded", "Request limit exceeded.", 503, None),
        "internal-error": ("InternalError", "An internal error has occurred", 500, None),
        "unavailable": ("Unavailable", "The server is overloaded and can't handle the request.", 503, None),
        "quota": ("ResourceLimitExceeded", "You have reached your quota for this resource in this Region.", 400, None),
    },
    "ebs": {
        "throttle": ("RequestThrottledException", "The number of API requests has exceeded the maximum allowed.", 400,
                     "ACCOUNT_THROTTLED"),
        "internal-error": ("InternalServerException", "An internal error has occurred.", 500, None),
        "unavailable": ("ServiceUnavailable", "Service is unable to handle the request.", 503, None),
        "quota": ("ServiceQuotaExceededException", _EBS_QUOTA, 402, "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"),
    },
    "s3": {
        "throttle": ("SlowDown", "Please reduce your request rate.", 503, None),
        "internal-error": ("InternalError", "We encountered an internal error. Please try again.", 500, None),
        "unavailable": ("ServiceUnavailable", "Service is unable to handle request.", 503, None),
        "quota": ("TooManyBuckets", "You have attempted to create more buckets than allowed.", 400, None),
    },
    "ssm": {
        "throttle": ("ThrottlingException", _RATE, 400, None),
        "internal-error": ("InternalServerError", "An error occurred on the server side.", 500, None),
        "unavailable": ("ServiceUnavailable", "Service is unable to handle the request.", 503, None),
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
_DENIALS: Mapping[str, str] = {"denied": "denied", "expired": "expired-token"}
REFUSALS = frozenset(_QUERY) | frozenset(_DENIALS) | {"refuse"}


class Fake(Refusal):
    """A refusal that a fault made up: services say it word for word."""


def refusal(fault: Fault, *, service: str, call: str) -> Fake:
    """Return what the service says when the fault acts on the call; the fault's own code and message come first."""
    code, text, status, reason = _words(fault, service, call)
    return Fake(fault.code or code, text if fault.message is None else fault.message, status=status, reason=reason)


def _words(fault: Fault, service: str, call: str) -> Words:
    if fault.effect == "refuse":
        return fault.code or "", "The call was refused.", fault.status or 400, fault.reason
    if denied := _DENIALS.get(fault.effect):  # in the words of the gate, which says the same without a fault
        detail = f"The caller is not authorized to perform: {service}:{call}"
        said = words.of(Denied(denied, detail), service, target=service == "ssm")
        return said.code, said.message, said.status, said.reason
    code, message, status, reason = _SERVICES.get(service, _QUERY)[fault.effect]
    if fault.effect == "quota" and service == "ec2":
        code, message = _QUOTAS.get(call, (code, message))
    return code, message, status, reason
