"""What faults make services say: each service's own code, status and protocol, and nothing done."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest

SAID = [
    ("ec2", "throttle", "RequestLimitExceeded", 503),
    ("ec2", "internal-error", "InternalError", 500),
    ("ec2", "unavailable", "Unavailable", 503),
    ("ec2", "denied", "UnauthorizedOperation", 403),
    ("ec2", "expired", "RequestExpired", 400),
    ("ec2", "quota", "ResourceLimitExceeded", 400),
    ("ebs", "throttle", "RequestThrottledException", 400),
    ("ebs", "internal-error", "InternalServerException", 500),
    ("ebs", "unavailable", "ServiceUnavailable", 503),
    ("ebs", "denied", "AccessDeniedException", 403),
    ("ebs", "expired", "ExpiredTokenException", 403),
    ("ebs", "quota", "ServiceQuotaExceededException", 402),
    ("s3", "throttle", "SlowDown", 503),
    ("s3", "internal-error", "InternalError", 500),
    ("s3", "unavailable", "ServiceUnavailable", 503),
    ("s3", "denied", "AccessDenied", 403),
    ("s3", "expired", "ExpiredToken", 400),
    ("sts", "throttle", "Throttling", 400),
    ("sts", "internal-error", "InternalFailure", 500),
    ("sts", "denied", "AccessDenied", 403),
    ("sts", "expired", "ExpiredToken", 403),
    ("iam", "throttle", "Throttling", 400),
    ("ssm", "throttle", "ThrottlingException", 400),
    ("ssm", "denied", "AccessDeniedException", 400),
    ("ssm", "expired", "ExpiredTokenException", 400),
]
CALLS = {
    "ec2": lambda client: client.describe_images(Owners=["self"]),
    "ebs": lambda client: client.start_snapshot(VolumeSize=1),
    "s3": lambda client: client.list_buckets(),
    "sts": lambda client: client.get_caller_identity(),
    "iam": lambda client: client.list_roles(),
    "ssm": lambda client: client.describe_parameters(),
}


@pytest.mark.parametrize(("service", "effect", "code", "status"), SAID)
@pytest.mark.behaviour("Faults", "refusals", "throttling, 5xx, denial, expiry and quota have each service's own code")
def test_each_service_has_its_own_words(sandbox, faults, service, effect, code, status):
    client = sandbox.client(service)
    faults({"effect": effect, "service": service, "first": 1})
    with pytest.raises(Exception) as caught:  # noqa: PT011 - every client has its own class
        CALLS[service](client)
    response = caught.value.response
    assert response["Error"]["Code"] == code
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert response["Error"]["Message"]


@pytest.mark.behaviour("Faults", "refusals", "a call that a fault refuses has done nothing; the next one passes")
def test_a_refused_call_has_done_nothing(sandbox, ec2, ebs, faults, calls):
    before = len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"])
    faults({"effect": "throttle", "call": "StartSnapshot", "first": 1})
    with pytest.raises(ebs.exceptions.RequestThrottledException) as caught:
        ebs.start_snapshot(VolumeSize=1)
    assert caught.value.response["Reason"] == "ACCOUNT_THROTTLED"
    assert len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == before
    assert ebs.start_snapshot(VolumeSize=1)["Status"] == "pending"
    assert [(call.action, call.fault, call.error) for call in calls() if call.service == "ebs"] == [
        ("StartSnapshot", "1:throttle", "RequestThrottledException"),
        ("StartSnapshot", "", ""),
    ]


QUOTAS = [
    ("create_snapshot", {"VolumeId": "vol-01234567890123456"}, "PendingSnapshotLimitExceeded"),
    ("copy_snapshot", {"SourceSnapshotId": "snap-0123", "SourceRegion": "eu-west-1"}, "ResourceLimitExceeded"),
    ("create_volume", {"AvailabilityZone": "us-east-1a", "Size": 1}, "VolumeLimitExceeded"),
    ("register_image", {"Name": "abc", "RootDeviceName": "/dev/xvda"}, "ResourceLimitExceeded"),
    ("modify_image_attribute", {"ImageId": "ami-01234567890123456"}, "ResourceLimitExceeded"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "parameters", "code"), QUOTAS)
@pytest.mark.behaviour("Faults", "quota", "a quota that is used up has the code of the call that meets it")
def test_a_quota_has_the_calls_own_code(ec2, faults, code_of, call, parameters, code):
    faults({"effect": "quota", "service": "ec2"})
    assert code_of(getattr(ec2, call), **parameters) == code


@pytest.mark.behaviour("Faults", "refuse", "any code, message, status and reason can be given")
def test_any_code_can_be_given(ebs, faults):
    words = {"code": "ValidationException", "message": "no", "status": 400, "reason": "WRITE_REQUEST_TIMEOUT"}
    faults({"effect": "refuse", "service": "ebs", **words})
    with pytest.raises(ebs.exceptions.ValidationException) as caught:
        ebs.start_snapshot(VolumeSize=1)
    assert caught.value.response["Error"]["Message"] == "no"
    assert caught.value.response["Reason"] == "WRITE_REQUEST_TIMEOUT"


@pytest.mark.behaviour("Faults", "expired", "credentials expire in mid-run: from the N-th call on, static keys too")
def test_credentials_expire_in_mid_run(ec2, faults, code_of):
    faults({"effect": "expired", "service": "ec2", "after": 2})
    for _ in range(2):
        ec2.describe_images(Owners=["self"])
    assert [code_of(ec2.describe_images) for _ in range(2)] == ["RequestExpired"] * 2


SKEWS = [("ec2", "RequestExpired"), ("ebs", "InvalidSignatureException"), ("sts", "SignatureDoesNotMatch")]


@pytest.mark.parametrize(("service", "code"), SKEWS)
@pytest.mark.parametrize("seconds", [3600, -3600])
@pytest.mark.behaviour("Faults", "skew", "signatures are checked by the skewed clock, and the answer's Date shows it")
def test_a_skewed_clock_refuses_signatures(sandbox, faults, service, code, seconds):
    client = sandbox.client(service)
    plain = sandbox.client("sts").get_caller_identity()["ResponseMetadata"]["HTTPHeaders"]["date"]
    faults({"effect": "skew", "seconds": seconds, "service": service})
    with pytest.raises(Exception, match=code) as caught:
        CALLS[service](client)
    skewed = caught.value.response["ResponseMetadata"]["HTTPHeaders"]["date"]
    ahead = (parsedate_to_datetime(skewed) - parsedate_to_datetime(plain)).total_seconds()
    assert abs(ahead - seconds) < 60
