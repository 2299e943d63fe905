"""Parts of a result: the files that a step put beside its image. Another step takes one by writing ID.PART."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.errors import InputError
from pipelines.artifact import AnyArtifact, File, ImageFile

PARTS: Mapping[str, type[AnyArtifact]] = {"kernel": File, "ramdisk": File}  # fields of ImageFile


def split(reference: str) -> tuple[str, str | None]:
    """Return the id of the step that a reference names, and the part of its result, or None for the whole."""
    id_, dot, part = reference.partition(".")
    return id_, part if dot else None


def pick(reference: str, results: Mapping[str, Any]) -> Any:
    """Return what a reference names among what stands for results, by id. Raises InputError when there is no such part.

    That a step can have the part is known when the recipe is read; that it has none is known when the guest was seen:
    a kernel may carry its initramfs within itself.
    """
    id_, part = split(reference)
    result = results[id_]
    if part is None:
        return result
    found: File | None = getattr(result, part) if isinstance(result, ImageFile) else None
    if found is None:
        raise InputError(
            f"there is no `{reference}`: the guest has none that belongs to its kernel",
            hint="A kernel that was built with its initramfs boots without another: leave the reference out.",
        )
    return found
