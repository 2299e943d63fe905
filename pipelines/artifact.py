"""What steps hand on: a closed family of frozen values, stored in the journal as JSON."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

ImageFormat = Literal["raw", "qcow2"]


class _Artifact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    noun: ClassVar[str]

    def digests(self) -> tuple[str, ...]:
        """Return every digest in the store that reading the artifact needs; none for what lies in a cloud."""
        return ()

    def identity(self) -> dict[str, Any]:
        """Return, as JSON values, what of it counts in the keys of the steps that take it: all that does not pass."""
        return self.model_dump(mode="json")


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


class Window(BaseModel):
    """Where in its file's disk an image lies that is not the whole of it: a partition, of which no copy is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    offset: int = Field(ge=0, description="bytes from the start of the file's disk")
    disk_size: int = Field(description="bytes of the file's whole disk")


class ImageFile(_Artifact):
    """A disk image in the store, its format established by us; with a window it is a part of the file's disk."""

    noun: ClassVar[str] = "a disk image"
    kind: Literal["image-file"] = "image-file"
    digest: str = Field(description="names the file in the store: `blocks:HEX` for raw, `sha256:HEX` for qcow2")
    format: ImageFormat
    virtual_size: int = Field(description="bytes, as a guest sees the disk")
    window: Window | None = Field(default=None, description="which part of the file's disk it is, when not all of it")
    backing: ImageFile | None = Field(
        default=None, description="what an overlay's missing clusters are read from; only overlays made by us have one"
    )
    kernel: File | None = Field(default=None, description="the kernel that a `kernel` step copied out of it")
    ramdisk: File | None = Field(default=None, description="the initramfs that belongs to that kernel")

    def digests(self) -> tuple[str, ...]:
        """Return its digest, those of its backing chain, and those of the files copied out of it."""
        beside = (part for part in (self.backing, self.kernel, self.ramdisk) if part)
        return (self.digest, *(digest for part in beside for digest in part.digests()))

    @property
    def offset(self) -> int:
        """Where in the file's disk the image begins, in bytes."""
        return self.window.offset if self.window else 0

    def part(self, offset: int, size: int) -> ImageFile:
        """Return bytes `offset` to `offset + size` of this image as an image: the same file, nothing is copied."""
        if (offset, size) == (0, self.virtual_size):
            return self
        if offset < 0 or size <= 0 or offset + size > self.virtual_size:
            raise ValueError(f"{size} bytes from {offset} do not lie within {self.virtual_size}")
        window = Window(offset=self.offset + offset, disk_size=self.whole().virtual_size)
        return self.model_copy(update={"virtual_size": size, "window": window})

    def whole(self) -> ImageFile:
        """Return the file's whole disk, without what was copied out of it: what lies below an overlay."""
        size = self.window.disk_size if self.window else self.virtual_size
        return self.model_copy(update={"virtual_size": size, "window": None, "kernel": None, "ramdisk": None})


class Bundle(_Artifact):
    """An instance-store bundle in the store: a manifest and the parts it names."""

    noun: ClassVar[str] = "a bundle"
    kind: Literal["bundle"] = "bundle"
    manifest: File = Field(description="the manifest; its name is that of the object that it becomes")
    parts: tuple[File, ...] = Field(description="in the manifest's order, named `sha1:HEX` as the manifest does")
    type: Literal["machine", "kernel", "ramdisk"]
    architecture: str
    size: int = Field(description="bytes of the image inside")

    def digests(self) -> tuple[str, ...]:
        """Return the digests of the manifest and of every part."""
        return (self.manifest.digest, *(part.digest for part in self.parts))


class BundleLocation(_Artifact):
    """A bundle that lies in a bucket, its manifest put there last."""

    noun: ClassVar[str] = "an uploaded bundle"
    kind: Literal["bundle-location"] = "bundle-location"
    bucket: str
    manifest_key: str = Field(description="the manifest's key; BUCKET/KEY is what RegisterImage calls the location")
    region: str
    type: Literal["machine", "kernel", "ramdisk"]
    architecture: str
    manifest_sha256: str = Field(description="hex, of the manifest that lies there")
    keys: tuple[str, ...] = Field(description="the parts' keys")

    @property
    def location(self) -> str:
        """What RegisterImage takes as ImageLocation."""
        return f"{self.bucket}/{self.manifest_key}"


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


class Helper(_Artifact):
    """A running instance that lets us in, for as long as it is leased: how to reach it. It holds no secret.

    Which one it is counts in nobody's key.
    """

    noun: ClassVar[str] = "a helper instance"
    kind: Literal["helper"] = "helper"
    instance_id: str
    address: str = Field(description="where its SSH answers")
    port: int = 22
    user: str
    key_file: str = Field(description="path of the private key's file; a relative one begins in EMI_HOME")
    host_keys: tuple[str, ...] = Field(description="public host keys that may answer: `ssh-ed25519 AAAA…`")
    known_hosts: str | None = Field(default=None, description="a file that is asked where no host key is pinned")
    zone: str = Field(description="its availability zone: a volume must lie in the same one")
    ours: bool = Field(default=True, description="launched by emi, so that it may be restarted and terminated")

    def identity(self) -> dict[str, Any]:
        """Return its kind alone."""
        return {"kind": self.kind}


class Volume(_Artifact):
    """A volume for as long as it is leased; with `content` it is the result of a step that wrote into it.

    Such a result holds as long as the volume does and nothing else is written into it. What counts in keys is what
    a snapshot of it is made of, not which volume it is nor where it is attached.
    """

    noun: ClassVar[str] = "a volume"
    kind: Literal["volume"] = "volume"
    volume_id: str
    size: int = Field(description="GiB")
    zone: str
    encrypted: bool = False
    kms_key_id: str | None = None
    helper: Helper | None = Field(default=None, description="the instance that it is attached to")
    device: str = Field(default="", description="its block device there: `/dev/…`; empty where it is not attached")
    boot: str = Field(default="", description="the start of that instance (boot id) in which the device has that name")
    content: str | None = Field(default=None, description="`blocks:HEX` of the bytes that were written and read back")
    blocks: int | None = Field(default=None, description="blocks of 512 KiB of them that hold data")
    content_size: int | None = Field(default=None, description="how many bytes those are; zeros follow")

    def identity(self) -> dict[str, Any]:
        """Return what does not pass with the volume."""
        kept = {"kind", "size", "encrypted", "kms_key_id", "content"}
        return self.model_dump(mode="json", include=kept)

    def at(self, lease: Volume) -> Volume:
        """Return it as it is reached now, where `lease` says that it is attached."""
        reached = {"helper": lease.helper, "device": lease.device, "boot": lease.boot, "zone": lease.zone}
        return self.model_copy(update=reached)


TRANSIENT = (Helper, Volume)  # what passes when the lease that it is or lies in is released

AnyArtifact = File | ImageFile | Bundle | BundleLocation | Snapshot | MachineImage | Helper | Volume
ARTIFACT: TypeAdapter[AnyArtifact] = TypeAdapter(Annotated[AnyArtifact, Field(discriminator="kind")])
