"""Which kernel or ramdisk of one region or cloud is the same as one of another: as ec2-migrate-manifest finds it."""

from __future__ import annotations

from builder.cloud.api import Cloud
from builder.errors import UsageError


def counterpart(image_id: str, there: Cloud, here: Cloud) -> str:
    """Return the id of the image `here` that is what `image_id` is `there`: same owner, same type, same key.

    The key is that of its manifest without the bucket, which every region has its own of. (ec2-ami-tools 1.5.3,
    mapids.rb.) Only reads. Raises UsageError when there is none, or more than one: nothing is guessed.
    """
    known = there.describe_image(image_id)
    if known is None:
        raise UsageError(f"{image_id} is not to be found in the cloud that the bundle comes from", hint=_TABLE)
    key = _key(known.image_location)
    same = [found for found in here.images_of(known.owner_id, known.image_type) if _key(found.image_location) == key]
    what = f"{known.image_type} of account {known.owner_id} whose manifest has the key {key}, as {image_id} has,"
    if not same:
        raise UsageError(f"there is no {what} in this cloud", hint=_TABLE)
    if len(same) > 1:
        ids = ", ".join(sorted(found.image_id for found in same))
        raise UsageError(f"there are {len(same)}, {ids}: each a {what} in this cloud", hint=_TABLE)
    return same[0].image_id


_TABLE = "Say which takes its place: `kernels` and `ramdisks` in a recipe, --kernel and --ramdisk on the command line."


def _key(location: str) -> str:
    return location.lstrip("/").partition("/")[2]
