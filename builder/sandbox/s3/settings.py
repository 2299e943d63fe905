"""What a bucket is set to: location, policy, ACL, ownership, access block, tags, lifecycle; the rest absent."""

from __future__ import annotations

import json
from typing import Any

from builder.sandbox.protocols import rest_xml
from builder.sandbox.protocols.rest_xml import NAMESPACE, S3Refusal, malformed
from builder.sandbox.records import Bucket
from builder.sandbox.s3 import acl, permissions, traits
from builder.sandbox.s3.depot import Call, Depot
from builder.sandbox.wire import Answer, Refusal

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_LARGEST_POLICY = 20 << 10  # bytes; S3's limit
_MOST_RULES = 1000
_SIZES = {"Days": 1, "DaysAfterInitiation": 1, "NoncurrentDays": 1}


def _bucket(depot: Depot, call: Call) -> Bucket:
    return depot.bucket(call.address.bucket)


def _none(code: str, message: str, bucket: Bucket) -> S3Refusal:
    return S3Refusal(code, message, status=404, BucketName=bucket.name)


def get_bucket_location(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketLocation: us-east-1 has no name there."""
    region = _bucket(depot, call).region
    text = region if region != "us-east-1" else ""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<LocationConstraint xmlns="{NAMESPACE}">{text}</LocationConstraint>'
    )
    return Answer(headers={"Content-Type": "application/xml"}, body=body.encode())


def get_bucket_versioning(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketVersioning: it was never on."""
    _bucket(depot, call)
    return call.answer(root="VersioningConfiguration")


def get_bucket_encryption(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketEncryption: what every bucket has by default."""
    _bucket(depot, call)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
    return call.answer(ServerSideEncryptionConfiguration={"Rules": [rule]})


# Policy


def get_bucket_policy(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketPolicy: word for word as it was put."""
    bucket = _bucket(depot, call)
    if bucket.policy is None:
        raise _none("NoSuchBucketPolicy", "The bucket policy does not exist", bucket)
    return call.answer(Policy=bucket.policy)


def put_bucket_policy(depot: Depot, call: Call) -> Answer:
    """Answer PutBucketPolicy."""
    bucket = _bucket(depot, call)
    if len(call.data) > _LARGEST_POLICY:
        raise Refusal("PolicyTooLarge", "The policy is larger than 20 KB")
    document = _policy(call.data, bucket)
    if "BlockPublicPolicy" in (bucket.access_block or ()) and permissions.is_public(document):
        raise Refusal("AccessDenied", "Access Denied", status=403)
    depot.change_bucket(bucket.name, policy=call.data.decode())
    return Answer(status=204)


def _policy(data: bytes, bucket: Bucket) -> dict[str, Any]:
    """Return the policy document. Raises Refusal (MalformedPolicy) where S3 would not take it."""
    try:
        document = json.loads(data)
    except ValueError:
        message = "Policies must be valid JSON and the first byte must be '{'"
        raise Refusal("MalformedPolicy", message) from None
    if not isinstance(document, dict) or not document.get("Statement"):
        raise Refusal("MalformedPolicy", "Missing required field Statement")
    for statement in permissions.listed(document["Statement"]):
        if (wrong := _wrong(statement, bucket)) is not None:
            raise Refusal("MalformedPolicy", wrong)
    return document


def _wrong(statement: Any, bucket: Bucket) -> str | None:
    """Return what S3 says against a statement of a bucket policy, or None."""
    if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
        return "Invalid effect"
    for field in ("Principal", "Action", "Resource"):
        if not statement.get(field) and not statement.get(f"Not{field}"):
            return f"Missing required field {field}"
    for word in permissions.listed(statement.get("Action") or statement["NotAction"]):
        if not isinstance(word, str) or not (word == "*" or word.lower().startswith("s3:")):
            return "Policy has invalid action"
    for word in permissions.listed(statement.get("Resource") or statement["NotResource"]):
        name = str(word).removeprefix("arn:aws:s3:::").partition("/")[0]
        if name == str(word) or name not in (bucket.name, "*", bucket.name + "*"):
            return "Policy has invalid resource"
    return None


def delete_bucket_policy(depot: Depot, call: Call) -> Answer:
    """Answer DeleteBucketPolicy."""
    depot.change_bucket(_bucket(depot, call).name, policy=None)
    return Answer(status=204)


def get_bucket_policy_status(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketPolicyStatus."""
    bucket = _bucket(depot, call)
    if bucket.policy is None:
        raise _none("NoSuchBucketPolicy", "The bucket policy does not exist", bucket)
    return call.answer(PolicyStatus={"IsPublic": permissions.is_public(json.loads(bucket.policy))})


# ACL, ownership, access block


def get_bucket_acl(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketAcl."""
    bucket = _bucket(depot, call)
    shown = acl.private(bucket.account) if bucket.ownership == acl.ENFORCED else bucket.acl
    return call.answer(root="AccessControlPolicy", **acl.answer(shown))


def put_bucket_acl(depot: Depot, call: Call) -> Answer:
    """Answer PutBucketAcl."""
    bucket = _bucket(depot, call)
    asked = acl.from_headers(call.values, owner=bucket.account, bucket_owner=bucket.account)
    if asked is None:
        asked = acl.from_body(call.body, owner=bucket.account)
    acl.check_allowed(bucket, asked, call.values)
    depot.change_bucket(bucket.name, acl=asked)
    return call.answer()


def get_bucket_ownership_controls(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketOwnershipControls."""
    bucket = _bucket(depot, call)
    if bucket.ownership is None:
        message = "The bucket ownership controls were not found"
        raise _none("OwnershipControlsNotFoundError", message, bucket)
    return call.answer(OwnershipControls={"Rules": [{"ObjectOwnership": bucket.ownership}]})


def put_bucket_ownership_controls(depot: Depot, call: Call) -> Answer:
    """Answer PutBucketOwnershipControls."""
    bucket = _bucket(depot, call)
    rules = call.body["Rules"]
    if len(rules) != 1:
        raise malformed()
    ownership = rules[0]["ObjectOwnership"]
    if ownership == acl.ENFORCED and bucket.acl.grants != acl.private(bucket.account).grants:
        message = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
        raise Refusal("InvalidBucketAclWithObjectOwnership", message)
    depot.change_bucket(bucket.name, ownership=ownership)
    return call.answer()


def delete_bucket_ownership_controls(depot: Depot, call: Call) -> Answer:
    """Answer DeleteBucketOwnershipControls."""
    depot.change_bucket(_bucket(depot, call).name, ownership=None)
    return Answer(status=204)


def get_public_access_block(depot: Depot, call: Call) -> Answer:
    """Answer GetPublicAccessBlock."""
    bucket = _bucket(depot, call)
    if bucket.access_block is None:
        message = "The public access block configuration was not found"
        raise _none("NoSuchPublicAccessBlockConfiguration", message, bucket)
    return call.answer(PublicAccessBlockConfiguration={name: name in bucket.access_block for name in _BLOCKS})


def put_public_access_block(depot: Depot, call: Call) -> Answer:
    """Answer PutPublicAccessBlock."""
    said = call.body
    depot.change_bucket(_bucket(depot, call).name, access_block=tuple(name for name in _BLOCKS if said.get(name)))
    return call.answer()


def delete_public_access_block(depot: Depot, call: Call) -> Answer:
    """Answer DeletePublicAccessBlock."""
    depot.change_bucket(_bucket(depot, call).name, access_block=None)
    return Answer(status=204)


# Tags and lifecycle


def get_bucket_tagging(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketTagging."""
    bucket = _bucket(depot, call)
    if not bucket.tags:
        raise _none("NoSuchTagSet", "The TagSet does not exist", bucket)
    return call.answer(root="Tagging", TagSet=[{"Key": name, "Value": text} for name, text in bucket.tags.items()])


def put_bucket_tagging(depot: Depot, call: Call) -> Answer:
    """Answer PutBucketTagging."""
    depot.change_bucket(_bucket(depot, call).name, tags=traits.check_tags(call.body["TagSet"], limit=50))
    return Answer(status=204)


def delete_bucket_tagging(depot: Depot, call: Call) -> Answer:
    """Answer DeleteBucketTagging."""
    depot.change_bucket(_bucket(depot, call).name, tags={})
    return Answer(status=204)


def get_bucket_lifecycle(depot: Depot, call: Call) -> Answer:
    """Answer GetBucketLifecycleConfiguration: as it was put. Nothing in the sandbox acts on it."""
    bucket = _bucket(depot, call)
    if bucket.lifecycle is None:
        raise _none("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist", bucket)
    return call.answer(root="LifecycleConfiguration", Rules=json.loads(bucket.lifecycle))


def put_bucket_lifecycle(depot: Depot, call: Call) -> Answer:
    """Answer PutBucketLifecycleConfiguration."""
    bucket = _bucket(depot, call)
    rules = call.body["Rules"]
    if not 0 < len(rules) <= _MOST_RULES:
        raise malformed()
    names = [rule["ID"] for rule in rules if rule.get("ID")]
    if len(set(names)) != len(names):
        raise Refusal("InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule")
    for number, rule in enumerate(rules):
        _check_rule(rule)
        rule.setdefault("ID", f"rule-{number + 1}")
    depot.change_bucket(bucket.name, lifecycle=json.dumps(rules))
    return call.answer()


def _check_rule(rule: dict[str, Any]) -> None:
    deeds = ("Expiration", "Transitions", "NoncurrentVersionTransitions", "NoncurrentVersionExpiration",
             "AbortIncompleteMultipartUpload")  # fmt: skip
    if ("Filter" in rule) == ("Prefix" in rule):
        raise malformed()
    if not any(name in rule for name in deeds):
        raise Refusal("InvalidRequest", "At least one action needs to be specified in a rule")
    for name in deeds:
        for deed in permissions.listed(rule.get(name, [])):
            for word, least in _SIZES.items():
                if deed.get(word, least) < least and name != "Transitions":
                    raise Refusal("InvalidArgument", f"'{word}' for {name} action must be a positive integer")


def delete_bucket_lifecycle(depot: Depot, call: Call) -> Answer:
    """Answer DeleteBucketLifecycle."""
    depot.change_bucket(_bucket(depot, call).name, lifecycle=None)
    return Answer(status=204)


# What no bucket of the sandbox has: told as S3 tells it of a bucket that was never given one

_ABSENT = {
    "GetBucketCors": ("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    "GetBucketReplication": (
        "ReplicationConfigurationNotFoundError", "The replication configuration was not found",
    ),
    "GetBucketWebsite": ("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"),
    "GetObjectLockConfiguration": (
        "ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket",
    ),
}  # fmt: skip
_EMPTY = {
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
}
ABSENT = frozenset({*_ABSENT, *_EMPTY, "GetBucketRequestPayment"})


def absent(depot: Depot, call: Call) -> Answer:
    """Answer the calls of ABSENT: there is none."""
    bucket = _bucket(depot, call)
    if call.action in _ABSENT:
        raise _none(*_ABSENT[call.action], bucket)
    if call.action in _EMPTY:
        return rest_xml.model().answer(call.action, {}, root=_EMPTY[call.action])
    return call.answer(root="RequestPaymentConfiguration", Payer="BucketOwner")
