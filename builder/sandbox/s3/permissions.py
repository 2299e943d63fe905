"""Which permission each call of S3 needs, on what, and what bucket policy, ACL and access block have to say about it.

The decision is the gate's (access/): the bucket's policy goes to it as the resource's own, with the grants of the ACL
written as statements beside it. Sources: "Actions, resources, and condition keys for Amazon S3", "How Amazon S3
authorizes a request".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from builder.sandbox.records import Bucket, S3Object
from builder.sandbox.s3 import acl
from builder.sandbox.wire import Caller, Need, Request

BUCKET, OBJECT, MAKING = "bucket", "object", "making"
_MAKING = {"PutObject", "CopyObject", "CreateMultipartUpload"}
# Calls whose permission is not their own name.
_NAMES = {
    "HeadObject": "GetObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListParts": "ListMultipartUploadParts",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketTagging": "PutBucketTagging",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
}
_OBJECT_ACLS = {"HeadObject", "GetObject", "GetObjectAttributes", "GetObjectAcl", "PutObjectAcl"}
_CONTEXT = {  # condition keys by the headers and query parameters that they are about
    "s3:x-amz-acl": "x-amz-acl",
    "s3:x-amz-copy-source": "x-amz-copy-source",
    "s3:x-amz-metadata-directive": "x-amz-metadata-directive",
    "s3:x-amz-server-side-encryption": "x-amz-server-side-encryption",
    "s3:x-amz-storage-class": "x-amz-storage-class",
    "s3:x-amz-content-sha256": "x-amz-content-sha256",
    "s3:if-none-match": "If-None-Match",
    "s3:if-match": "If-Match",
}
_QUERIES = {"s3:prefix": "prefix", "s3:delimiter": "delimiter", "s3:max-keys": "max-keys"}


def arn(bucket: str, key: str = "") -> str:
    """Return the name of a bucket or an object in policies."""
    return f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"


def service_need(action: str) -> Need:
    """Return what ListBuckets and CreateBucket need, which are about no bucket that is there."""
    return Need(action="s3:ListAllMyBuckets" if action == "ListBuckets" else f"s3:{action}", resources=("*",))


def need(name: str, bucket: Bucket, one: S3Object | None, key: str, request: Request, caller: Caller) -> Need:
    """Return the permission for the call `name` on the bucket, or on the object of that key; `one` is it, if there."""
    ruled = one is not None and name in _OBJECT_ACLS and bucket.ownership != acl.ENFORCED
    owner = one.traits.acl.owner if ruled and one is not None else bucket.account
    return Need(
        action=f"s3:{_NAMES.get(name, name)}",
        resources=(arn(bucket.name, key),),
        context=context(request, one),
        policy=policy(bucket, one if ruled else None, caller, level=MAKING if name in _MAKING else BUCKET),
        owner=owner,
    )


def context(request: Request, one: S3Object | None) -> dict[str, str]:
    """Return the condition keys that S3 knows of a request."""
    found = {name: value for name, header in _CONTEXT.items() if (value := request.header(header)) is not None}
    found |= {name: request.query[word] for name, word in _QUERIES.items() if word in request.query}
    found |= _signing(request)
    if one is not None:
        found |= {f"s3:ExistingObjectTag/{name}": value for name, value in one.traits.tags.items()}
    return found


def _signing(request: Request) -> dict[str, str]:
    """Return how the request is signed, by which policies refuse the older process."""
    authorization = request.header("Authorization")
    if authorization is not None:
        return {"s3:authType": "REST-HEADER", "s3:signatureversion": authorization.partition(" ")[0]}
    if "Signature=" not in request.raw_query:
        return {}
    version = "AWS4-HMAC-SHA256" if "X-Amz-Signature=" in request.raw_query else "AWS"
    return {"s3:authType": "REST-QUERY-STRING", "s3:signatureversion": version}


def policy(bucket: Bucket, one: S3Object | None, caller: Caller, *, level: str = BUCKET) -> str | None:
    """Return what bucket policy and ACLs together say to the caller, as one policy document, or None for nothing."""
    block = bucket.access_block or ()
    statements: list[dict[str, Any]] = []
    if bucket.policy is not None:
        document = json.loads(bucket.policy)
        mine = caller.account == bucket.account
        if mine or "RestrictPublicBuckets" not in block or not is_public(document):
            statements += listed(document.get("Statement", []))
        else:  # a public policy is only good for the owner's account; what it denies stays denied
            statements += [each for each in listed(document.get("Statement", [])) if each.get("Effect") == "Deny"]
    if bucket.ownership != acl.ENFORCED:
        public = "IgnorePublicAcls" not in block
        both = [arn(bucket.name), arn(bucket.name, "*")]
        statements += acl.statements(bucket.acl, level, both, caller.account, public=public)
        if one is not None:
            named = [arn(bucket.name, one.name.replace("$", "${$}").replace("*", "${*}").replace("?", "${?}"))]
            statements += acl.statements(one.traits.acl, OBJECT, named, caller.account, public=public)
    return json.dumps({"Version": "2012-10-17", "Statement": statements}) if statements else None


def listed(value: Any) -> list[Any]:
    """Return what a policy may write as one or as a list."""
    return value if isinstance(value, list) else [value]


# Conditions that narrow a statement to somebody: with one of them it is not public.
_NARROWING = {
    "aws:sourceip", "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceowner", "aws:sourceaccount",
    "aws:userid", "aws:principalorgid", "aws:principalarn", "aws:principalaccount", "s3:dataaccesspointarn",
    "s3:dataaccesspointaccount",
}  # fmt: skip


def is_public(document: Any) -> bool:
    """Say whether a bucket policy gives anything to everybody ("The meaning of public" in the S3 user guide)."""
    for statement in listed(document.get("Statement", [])):
        if statement.get("Effect") != "Allow":
            continue
        principal = statement.get("Principal")
        names = listed(principal.get("AWS", [])) if isinstance(principal, dict) else [principal]
        keys = {key.lower() for test in statement.get("Condition", {}).values() for key in test}
        if ("*" in names or "NotPrincipal" in statement) and not keys & _NARROWING:
            return True
    return False


def whole(needs: Sequence[Need], extra: Sequence[str]) -> list[Need]:
    """Return the needs with further actions on what the first one is about."""
    first = needs[0]
    more = [
        Need(action=f"s3:{name}", resources=first.resources, context=first.context, policy=first.policy,
             owner=first.owner)
        for name in extra
    ]  # fmt: skip
    return [*needs, *more]
