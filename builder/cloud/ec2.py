"""What AWS and Eucalyptus have in common: the calls of EC2 about images and about what an account has.

Machines are in ec2_volumes.py, ec2_instances.py and ec2_access.py; how a call is made is in calls.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builder.cloud import records
from builder.cloud.api import ImageRecord
from builder.cloud.calls import filters
from builder.cloud.claims import TAG, Claim
from builder.cloud.ec2_access import Ec2Access
from builder.cloud.ec2_instances import Ec2Instances
from builder.cloud.ec2_volumes import Ec2Volumes
from builder.cloud.holdings import KINDS, Holding, entries, holding
from builder.cloud.s3 import S3
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudConflict, CloudNotFound

_NAME_SETTLE = Patience(deadline=120, settle=60)


class Ec2(Ec2Volumes, Ec2Instances, Ec2Access):
    """One account in one region. Nothing is loaded, looked up or connected before the first call."""

    @property
    def s3(self) -> S3:
        """Its object store, with the same credentials. Nothing is connected before the first call."""
        return self._s3

    # What is there, whoever made it
    def holdings(self, kind: str) -> Sequence[Holding]:
        """Return what the account has of a type (a name of holdings.KINDS), without what is about to be gone.

        Of types that may be asked for so (`Kind.filtered`) only what carries a tag named as a claim's.
        """
        row = KINDS[kind]
        request = {**row.owned, **({"Filters": filters("tag-key", TAG)} if row.filtered else {})}
        found = [holding(kind, item) for item in entries(kind, self._pages(row.listed, row.member, **request))]
        own = self.account()
        return [one for one in found if one.state not in row.over and one.owner in ("", own)]

    def drop(self, holding: Holding) -> None:
        """Remove it; fine when it is gone already. Raises CloudConflict when something uses it."""
        row = KINDS[holding.kind]
        what: Any = [holding.id] if row.parameter.endswith("s") else holding.id
        try:
            self._call("ec2", row.removed, **{row.parameter: what})
        except CloudNotFound:
            return

    # Images
    def find_images(self, claim: Claim) -> Sequence[ImageRecord]:
        """Return our own images that carry the claim's tag."""
        return self._images(Owners=["self"], Filters=filters(f"tag:{TAG}", claim.token))

    def image_by_name(self, name: str) -> ImageRecord | None:
        """Return our account's image of that name, or None."""
        return next(iter(self._images(Owners=["self"], Filters=filters("name", name))), None)

    def describe_image(self, image_id: str) -> ImageRecord | None:
        """Return the image, or None when the cloud says it does not exist."""
        try:
            return next(iter(self._images(ImageIds=[image_id])), None)
        except CloudNotFound:
            return None

    def images_of(self, owner: str, image_type: str) -> Sequence[ImageRecord]:
        """Return the images of an account (an id, or EC2's words `amazon`, `self`) of a type that we may use."""
        return self._images(Owners=[owner], Filters=filters("image-type", image_type))

    def deregister_image(self, image_id: str) -> None:
        """Deregister it; fine when it is gone already."""
        try:
            self._call("ec2", "DeregisterImage", ImageId=image_id)
        except CloudNotFound:
            return

    def _holder(self, name: str, error: CloudConflict) -> ImageRecord:
        """Return the image that holds a name which RegisterImage just called taken; a describe may lag behind it."""
        try:
            return wait_until(
                lambda: self.image_by_name(name),
                lambda _: True,
                what=f"the image named {name!r}",
                patience=_NAME_SETTLE,
            )
        except CloudNotFound:
            raise CloudConflict(
                f"{error.message}; but no describe shows the image {name!r}",
                hint="It may be disabled, or deregistered moments ago: wait a little or choose another name.",
            ) from error

    def _images(self, **request: Any) -> Sequence[ImageRecord]:
        return [records.image(item) for item in self._pages("DescribeImages", "Images", **request)]
