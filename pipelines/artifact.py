"""What steps hand on: a closed family of frozen values, stored in the journal as JSON."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

ImageFormat = Literal["raw", "qcow2"]


class _Artifact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    noun: ClassVar[str]

    def digests(self) -> tuple[str, ...]:
        """Return every digest in the store that reading the artifact needs; none for what lies in a cloud."""
        return ()


class File(_Artifact):
    """A file in the store whose inside nobody has looked at yet: a download, an unpacked member."""

    noun: ClassVar[str] = "a file"
    kind: Literal["file"] = "file"
    digest: str = Field(description="`sha256:HEX` or, for a sparse file, `blocks:HEX`; names it in the store")
    size: int = Field(description="bytes, holes included")
    name: str = Field(description="what the publisher called it; for people and for error messages")

    def digests(self) -> tuple[str, ...]:
        """Return its digest."""
        return (self.digest,)


class ImageFile(_Artifact):
    """A disk image in the store, its format established by us."""

    noun: ClassVar[str] = "a disk image"
    kind: Literal["image-file"] = "image-file"
    digest: str = Field(description="names the file in the store: `blocks:HEX` for raw, `sha256:HEX` for qcow2")
    format: ImageFormat
    virtual_size: int = Field(description="bytes, as a guest sees the disk")
    backing: ImageFile | None = Field(
        default=None, description="what an overlay's missing clusters are read from; only overlays made by us have one"
    )
    kernel: File | None = Field(default=None, description="the kernel that a `kernel` step copied out of it")
    ramdisk: File | None = Field(default=None, description="the initramfs that belongs to that kernel")

    def digests(self) -> tuple[str, ...]:
        """Return its digest, those of its backing chain, and those of the files copied out of it."""
        beside = (part for part in (self.backing, self.kernel, self.ramdisk) if part)
        return (self.digest, *(digest for part in beside for digest in part.digests()))


class Snapshot(_Artifact):
    """A completed snapshot in a cloud."""

    noun: ClassVar[str] = "a snapshot"
    kind: Literal["snapshot"] = "snapshot"
    snapshot_id: str
    region: str
    volume_size: int = Field(description="GiB")
    content: str = Field(description="`blocks:HEX` of the bytes that were sent")
    blocks: int = Field(description="blocks of 512 KiB that hold data")
    verified: bool = Field(description="the snapshot was read back and had this content")


class MachineImage(_Artifact):
    """A registered image in a cloud: an AMI or an EMI."""

    noun: ClassVar[str] = "a registered image"
    kind: Literal["machine-image"] = "machine-image"
    image_id: str
    name: str
    region: str
    snapshot_ids: tuple[str, ...] = ()


Artifact = Annotated[File | ImageFile | Snapshot | MachineImage, Field(discriminator="kind")]
ARTIFACT: TypeAdapter[File | ImageFile | Snapshot | MachineImage] = TypeAdapter(Artifact)
