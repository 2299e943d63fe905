"""Buckets: making, finding, listing and removing them."""

from __future__ import annotations

import ipaddress
import re
import time

from builder.sandbox.eucalyptus import objectstorage
from builder.sandbox.protocols.rest_xml import S3Refusal
from builder.sandbox.records import Bucket, Part, S3Object, Upload
from builder.sandbox.s3 import acl, traits
from builder.sandbox.s3.depot import Call, Depot
from builder.sandbox.s3.multipart import parts_of
from builder.sandbox.s3.permissions import arn
from builder.sandbox.wire import Answer, Refusal

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_FORBIDDEN = re.compile(r"(?:xn--|sthree-|amzn-s3-demo-).*|.*(?:-s3alias|--ol-s3|\.mrap|--x-s3|--table-s3)")
_PLACE = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
_MOST = 10_000  # buckets of one account; S3's default quota
FIRST_REGION = "us-east-1"


def create_bucket(depot: Depot, call: Call) -> Answer:
    """Answer CreateBucket."""
    name, values = call.address.bucket, call.values
    _check_name(name)
    traits.check_supported(values)
    like = depot.cloud.personality
    region = _stated(call) or "" if like.is_eucalyptus else _region(call)
    ownership = values.get("ObjectOwnership", "ObjectWriter" if like.is_eucalyptus else "BucketOwnerEnforced")
    if ownership not in ("BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"):
        raise S3Refusal("InvalidArgument", "Invalid x-amz-object-ownership", ArgumentName="x-amz-object-ownership")
    asked = acl.from_headers(values, owner=call.caller.account, bucket_owner=call.caller.account)
    if asked is not None and ownership == acl.ENFORCED and values.get("ACL") != "private":
        message = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
        raise Refusal("InvalidBucketAclWithObjectOwnership", message)
    if asked is not None and acl.is_public(asked) and not like.is_eucalyptus:  # a new bucket blocks public access
        raise Refusal("AccessDenied", "Access Denied", status=403)
    with depot.state.lock:
        _check_free(depot, call)
        depot.state.put(
            Bucket(
                name=name,
                account=call.caller.account,
                region=region,
                creation_time=time.time(),
                acl=asked or acl.private(call.caller.account),
                ownership=ownership,
                access_block=None if like.is_eucalyptus else Bucket.access_block,
            )
        )
    return Answer(headers={"Location": f"/{name}", "x-amz-bucket-arn": arn(name)})


def _check_name(name: str) -> None:
    """Raise Refusal for what "General purpose bucket naming rules" forbids."""
    try:
        address = bool(ipaddress.IPv4Address(name))
    except ValueError:
        address = False
    if address or not _NAME.fullmatch(name) or _FORBIDDEN.fullmatch(name) or ".-" in name or "-." in name:
        raise S3Refusal("InvalidBucketName", "The specified bucket is not valid.", BucketName=name)


def _region(call: Call) -> str:
    """Return the region that the bucket is to be in. Raises Refusal."""
    asked = _stated(call)
    if asked == "EU":
        asked = "eu-west-1"
    if asked == FIRST_REGION or (asked is not None and not _PLACE.fullmatch(asked)):
        message = "The specified location-constraint is not valid"
        raise S3Refusal("InvalidLocationConstraint", message, LocationConstraint=asked)
    if call.caller.region == FIRST_REGION:  # the one endpoint that makes buckets anywhere
        return asked or FIRST_REGION
    if asked != call.caller.region:
        message = (
            f"The {asked or 'unspecified'} location constraint is incompatible for the region specific endpoint this "
            "request was sent to."
        )
        raise Refusal("IllegalLocationConstraintException", message)
    return call.caller.region


def _stated(call: Call) -> str | None:
    """Return the location constraint that the call brings; Eucalyptus keeps any and does nothing with it."""
    if not call.request.length:
        return None
    body = call.body
    if body.get("Location") or body.get("Bucket"):
        raise Refusal("NotImplemented", "The sandbox has no directory buckets", status=501)
    asked: str | None = body.get("LocationConstraint")
    return asked


def _check_free(depot: Depot, call: Call) -> None:
    there = depot.state.all(Bucket).get(call.address.bucket)
    if there is not None:
        if there.account != call.caller.account:
            message = (
                "The requested bucket name is not available. The bucket namespace is shared by all users of the "
                "system. Please select a different name and try again."
            )
            raise S3Refusal("BucketAlreadyExists", message, status=409, BucketName=there.name)
        message = "Your previous request to create the named bucket succeeded and you already own it."
        raise S3Refusal("BucketAlreadyOwnedByYou", message, status=409, BucketName=there.name)
    owned = sum(one.account == call.caller.account for one in depot.state.all(Bucket).values())
    if owned >= (objectstorage.MOST_BUCKETS if depot.cloud.personality.is_eucalyptus else _MOST):
        raise Refusal("TooManyBuckets", "You have attempted to create more buckets than allowed")


def head_bucket(depot: Depot, call: Call) -> Answer:
    """Answer HeadBucket."""
    bucket = depot.bucket(call.address.bucket)
    return call.answer(BucketRegion=bucket.region or None, BucketArn=arn(bucket.name), AccessPointAlias=False)


def delete_bucket(depot: Depot, call: Call) -> Answer:
    """Answer DeleteBucket; unfinished uploads go with it, objects do not."""
    name = call.address.bucket
    with depot.state.lock:
        bucket = depot.bucket(name)
        if depot.state.scan(S3Object, f"{name}/", f"{name}0", 1):
            message = "The bucket you tried to delete is not empty"
            raise S3Refusal("BucketNotEmpty", message, status=409, BucketName=name)
        uploads = [one for one in depot.state.all(Upload).values() if one.bucket == name]
        parts: list[Part] = [part for upload in uploads for part in parts_of(depot, upload)]
        depot.state.remove(bucket, *uploads, *parts)
    for part in parts:
        depot.store.remove(part.upload_id, part.extents)
    return Answer(status=204)


def list_buckets(depot: Depot, call: Call) -> Answer:
    """Answer ListBuckets: the caller's, by name."""
    values = call.values
    limit, prefix, token = values.get("MaxBuckets"), values.get("Prefix", ""), values.get("ContinuationToken")
    if limit is not None and not 1 <= limit <= _MOST:
        message = f"Argument max-buckets must be an integer between 1 and {_MOST}"
        raise S3Refusal("InvalidArgument", message, ArgumentName="max-buckets", ArgumentValue=limit)
    mine = [one for one in list(depot.state.all(Bucket).values()) if one.account == call.caller.account]
    wanted = values.get("BucketRegion")
    found = sorted(
        (one for one in mine if one.name.startswith(prefix) and wanted in (None, one.region)), key=lambda one: one.name
    )
    found = [one for one in found if token is None or one.name > token]
    shown = found[:limit] if limit is not None else found
    paged = limit is not None or token is not None or wanted is not None
    return call.answer(
        root="ListAllMyBucketsResult",
        Owner={"ID": acl.canonical_id(call.caller.account)},
        Buckets=[
            {
                "Name": one.name,
                "CreationDate": one.creation_time,
                "BucketRegion": one.region if paged else None,
                "BucketArn": arn(one.name) if paged else None,
            }
            for one in shown
        ],
        ContinuationToken=shown[-1].name if len(shown) < len(found) else None,
        Prefix=prefix or None,
    )
