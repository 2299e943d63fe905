"""Access control lists: canned ones, grants in headers and in XML, and what each grant is worth in policy actions.

Source: "Access control list (ACL) overview" in the S3 user guide.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from builder.sandbox.protocols.rest_xml import S3Refusal, malformed
from builder.sandbox.records import Acl, Bucket, Grant
from builder.sandbox.wire import Refusal

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOG_DELIVERY = "http://acs.amazonaws.com/groups/s3/LogDelivery"
# The canonical id that aws-exec-read grants to: EC2's own account for image bundles (za-team).
EXEC_ACCOUNT = "aws-exec-read"
EXEC = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c"
ENFORCED = "BucketOwnerEnforced"
PUBLIC = frozenset({ALL_USERS, AUTHENTICATED})
_ID = re.compile(r"[0-9a-f]{64}")
_HEADERS = {
    "GrantFullControl": "FULL_CONTROL",
    "GrantRead": "READ",
    "GrantReadACP": "READ_ACP",
    "GrantWrite": "WRITE",
    "GrantWriteACP": "WRITE_ACP",
}
_CANNED: dict[str, tuple[tuple[str, str], ...]] = {  # beside FULL_CONTROL for the owner: (permission, whom)
    "private": (),
    "public-read": (("READ", ALL_USERS),),
    "public-read-write": (("READ", ALL_USERS), ("WRITE", ALL_USERS)),
    "authenticated-read": (("READ", AUTHENTICATED),),
    "aws-exec-read": (("READ", EXEC),),
    "log-delivery-write": (("WRITE", LOG_DELIVERY), ("READ_ACP", LOG_DELIVERY)),
    "bucket-owner-read": (("READ", "bucket-owner"),),
    "bucket-owner-full-control": (("FULL_CONTROL", "bucket-owner"),),
}
_WORTH = {
    "bucket": {
        "READ": ("s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"),
        "WRITE": ("s3:PutObject", "s3:DeleteObject"),
        "READ_ACP": ("s3:GetBucketAcl",),
        "WRITE_ACP": ("s3:PutBucketAcl",),
    },
    "object": {
        "READ": ("s3:GetObject", "s3:GetObjectAttributes"),
        "WRITE": (),
        "READ_ACP": ("s3:GetObjectAcl",),
        "WRITE_ACP": ("s3:PutObjectAcl",),
    },
}


# Who makes an object may say who gets at it.
_WORTH["making"] = {**_WORTH["bucket"], "WRITE": (*_WORTH["bucket"]["WRITE"], "s3:PutObjectAcl")}


def canonical_id(account: str) -> str:
    """Return the account's canonical user id: 64 hex digits, the same in every sandbox."""
    if account == EXEC_ACCOUNT:
        return EXEC
    return hashlib.sha256(f"sandbox account {account}".encode()).hexdigest()


def private(account: str) -> Acl:
    """Return the ACL that gives everything to its owner and nothing to others."""
    return canned("private", owner=account, bucket_owner=account)


def canned(name: str, *, owner: str, bucket_owner: str) -> Acl:
    """Return a canned ACL. Raises Refusal (InvalidArgument)."""
    if name not in _CANNED:
        raise S3Refusal("InvalidArgument", "", ArgumentName="x-amz-acl", ArgumentValue=name)
    grants = [Grant(permission="FULL_CONTROL", grantee=canonical_id(owner))]
    for permission, whom in _CANNED[name]:
        if whom != "bucket-owner":
            grants.append(Grant(permission=permission, **{"group" if "/" in whom else "grantee": whom}))
        elif owner != bucket_owner:
            grants.append(Grant(permission=permission, grantee=canonical_id(bucket_owner)))
    return Acl(owner=owner, grants=tuple(grants))


def from_headers(values: Mapping[str, Any], *, owner: str, bucket_owner: str) -> Acl | None:
    """Return the ACL that x-amz-acl or x-amz-grant-* headers ask for, or None. Raises Refusal."""
    stated = {name: values[name] for name in _HEADERS if name in values}
    if "ACL" in values:
        if stated:
            raise Refusal("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
        return canned(values["ACL"], owner=owner, bucket_owner=bucket_owner)
    if not stated:
        return None
    grants = [_grantee(word, _HEADERS[name]) for name, text in stated.items() for word in text.split(",")]
    return Acl(owner=owner, grants=tuple(grants))


def _grantee(word: str, permission: str) -> Grant:
    kind, _, value = (part.strip().strip('"') for part in word.partition("="))
    match kind.lower():
        case "id" if _ID.fullmatch(value):
            return Grant(permission=permission, grantee=value)
        case "uri" if value in (ALL_USERS, AUTHENTICATED, LOG_DELIVERY):
            return Grant(permission=permission, group=value)
        case "id" | "uri":
            raise S3Refusal("InvalidArgument", f"Invalid {kind.lower()}", ArgumentName=kind, ArgumentValue=value)
        case "emailaddress":
            message = "The e-mail address you provided does not match any account on record."
            raise Refusal("UnresolvableGrantByEmailAddress", message)
        case _:
            message = "Argument format not recognized"
            raise S3Refusal("InvalidArgument", message, ArgumentName=permission, ArgumentValue=word)


def from_body(policy: Mapping[str, Any], *, owner: str) -> Acl:
    """Return the ACL of an AccessControlPolicy. Raises Refusal; the owner cannot be changed."""
    stated = policy.get("Owner", {}).get("ID")
    if stated is None or "Grants" not in policy:
        raise malformed()
    if stated != canonical_id(owner):
        raise Refusal("AccessDenied", "Access Denied", status=403)
    grants = []
    for one in policy["Grants"]:
        grantee, permission = one.get("Grantee", {}), one.get("Permission")
        if permission not in {*_HEADERS.values()}:
            raise malformed()
        kinds = {"CanonicalUser": ("id", "ID"), "Group": ("uri", "URI"), "AmazonCustomerByEmail": ("emailAddress", "")}
        word, member = kinds.get(grantee.get("Type", ""), ("", ""))
        if not word:
            raise malformed()
        grants.append(_grantee(f'{word}="{grantee.get(member, "")}"', permission))
    return Acl(owner=owner, grants=tuple(grants))


def check_allowed(bucket: Bucket, acl: Acl | None, values: Mapping[str, Any]) -> None:
    """Raise Refusal when the bucket takes no ACLs, or no public ones. `values` are the request's, `acl` is of them."""
    if acl is None:
        return
    if bucket.ownership == ENFORCED and values.get("ACL") != "bucket-owner-full-control":
        everything = acl.grants == private(bucket.account).grants and values.get("ACL") is None
        if not everything:
            raise Refusal("AccessControlListNotSupported", "The bucket does not allow ACLs")
    if "BlockPublicAcls" in (bucket.access_block or ()) and is_public(acl):
        raise Refusal("AccessDenied", "Access Denied", status=403)


def is_public(acl: Acl) -> bool:
    """Say whether the list grants anything to everybody, or to everybody who has an account."""
    return any(grant.group in PUBLIC for grant in acl.grants)


def answer(acl: Acl) -> dict[str, Any]:
    """Return the list by the names of GetBucketAcl's and GetObjectAcl's answers."""
    grants = []
    for grant in acl.grants:
        whom = {"URI": grant.group, "Type": "Group"} if grant.group else {"ID": grant.grantee, "Type": "CanonicalUser"}
        grants.append({"Grantee": whom, "Permission": grant.permission})
    return {"Owner": {"ID": canonical_id(acl.owner)}, "Grants": grants}


def statements(acl: Acl, level: str, resources: list[str], account: str, *, public: bool) -> Iterator[dict[str, Any]]:
    """Yield what the list gives to an account ("" is anybody) as statements of a resource's policy.

    `level` is bucket, object, or making (of a bucket, for calls that make an object); `public` False leaves out what is
    granted to everybody (IgnorePublicAcls).
    """
    for grant in acl.grants:
        meant = grant.group == ALL_USERS or (grant.group == AUTHENTICATED and bool(account))
        if not (public and meant) and not (account and grant.grantee == canonical_id(account)):
            continue
        worth = _WORTH[level]
        names = [grant.permission] if grant.permission != "FULL_CONTROL" else list(worth)
        if actions := [action for name in names for action in worth.get(name, ())]:
            yield {"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": resources}
