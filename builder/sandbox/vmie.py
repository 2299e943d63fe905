"""S3 for other services: VM Import takes on a role in the caller's account, bundles are read by an account of EC2's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from builder.sandbox.access.decide import Rights, decide, merged
from builder.sandbox.access.documents import TRUST, names_service, parse
from builder.sandbox.objects import Opened, Stretch
from builder.sandbox.records import Bucket, ImportTask, Role, Stored
from builder.sandbox.records.access import iam_key
from builder.sandbox.s3 import S3, acl, permissions
from builder.sandbox.wire import Caller, Need, Refusal

# "Required service role" in the VM Import/Export guide: whom the role must trust, by which external id.
_SERVICE, _EXTERNAL_ID = "vmie.amazonaws.com", "vmimport"
# Who reads bundles: an account that is nobody's, whose canonical id `aws-exec-read` names.
_EXEC = Caller(
    account=acl.EXEC_ACCOUNT,
    region="",
    service="s3",
    access_key="",
    arn=f"arn:aws:iam::{acl.EXEC_ACCOUNT}:root",
    principal=f"arn:aws:iam::{acl.EXEC_ACCOUNT}:root",
    root=True,
)


class BucketObjects:
    """The objects of the sandbox's S3, for imports."""

    def __init__(self, s3: S3) -> None:
        self._s3 = s3
        self._depot = s3.depot

    def role_may_read(self, task: ImportTask) -> bool:
        """Say whether the task's role exists, lets VM Import take it on, and may read the bucket and the object."""
        state, keys = self._depot.state, self._depot.gate.keys
        role = state.all(Role).get(iam_key(task.account, task.role_name))
        if role is None or not _trusts(role):
            return False
        caller = Caller(
            account=task.account,
            region=task.region,
            service="s3",
            access_key="",
            arn=f"arn:aws:sts::{task.account}:assumed-role/{role.name}/vmimport",
            user_id=role.id,
            principal=role.arn,
        )
        bucket = state.all(Bucket).get(task.bucket)
        policy = permissions.policy(bucket, None, caller) if bucket is not None else None
        owner = bucket.account if bucket is not None else None
        rights, context = keys.rights(caller), merged(keys.traits(caller))
        needs = (
            ("s3:GetBucketLocation", permissions.arn(task.bucket)),
            ("s3:ListBucket", permissions.arn(task.bucket)),
            ("s3:GetObject", permissions.arn(task.bucket, task.object_key)),
        )
        return all(
            decide(rights, Need(action=action, resources=(arn,), policy=policy, owner=owner), context).allowed
            for action, arn in needs
        )

    def bundle_may_be_read(self, bucket: str, key: str) -> bool:
        """Say whether the object is there and readable for whom the canned ACL `aws-exec-read` grants it to."""
        there = self._depot.state.all(Bucket).get(bucket)
        one = self._depot.find(bucket, key) if there is not None else None
        if there is None or one is None:
            return False
        ruled = there.ownership != acl.ENFORCED
        need = Need(
            action="s3:GetObject",
            resources=(permissions.arn(bucket, key),),
            policy=permissions.policy(there, one if ruled else None, _EXEC),
            owner=one.traits.acl.owner if ruled else there.account,
        )
        return decide(Rights(caller=_EXEC), need, {}).allowed

    @contextmanager
    def opened(self, bucket: str, key: str) -> Iterator[Opened]:
        """Give the object's bytes, which stay readable within the block. Raises FileNotFoundError."""
        try:
            held = self._depot.hold(bucket, key)
        except Refusal as refusal:
            raise FileNotFoundError(refusal.message) from refusal
        try:
            yield Opened(size=held.one.size, stretches=self._stretches(held.extents))
        finally:
            self._depot.store.release(held.one.data)

    @contextmanager
    def as_file(self, bucket: str, key: str) -> Iterator[Path]:
        """Give the object as a file within the block, not to be written to. Raises FileNotFoundError."""
        with ExitStack() as stack:
            try:
                path = stack.enter_context(self._s3.as_file(bucket, key))
            except Refusal as refusal:
                raise FileNotFoundError(refusal.message) from refusal
            yield path

    def _stretches(self, extents: Iterable[Stored]) -> Iterator[Stretch]:
        for one in extents:
            descriptor = self._depot.store.open(one.file)
            try:
                yield Stretch(descriptor=descriptor, offset=one.offset, length=one.length)
            finally:
                os.close(descriptor)


def _trusts(role: Role) -> bool:
    """Say whether the role's trust policy lets VM Import take it on."""
    context = merged({"sts:ExternalId": _EXTERNAL_ID})
    found = [
        one
        for one in parse(role.trust, TRUST).statements
        if names_service(one, _SERVICE) and one.applies("sts:AssumeRole", role.arn, context)
    ]
    return bool(found) and all(one.allow for one in found)
