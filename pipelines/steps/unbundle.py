"""The step kind `unbundle`."""

from __future__ import annotations

from typing import BinaryIO

from pydantic import Field

from builder.bundle import check, keys, manifest
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.unbundle import MAX_SIZE, unbundle
from builder.cloud.identity import BundlingIdentity
from builder.errors import UsageError
from pipelines.artifact import Bundle, ImageFile
from pipelines.step import Inputs, LocalStep, Options, Work
from pipelines.values import Size


class UnbundleOptions(Options):
    """Whose bundle it is, and how large the image may be."""

    cloud: str | None = Field(
        default=None, description="the cloud whose account made the bundle, as --cloud names it; by default the run's"
    )
    unsigned: bool = Field(
        default=False, description="take a bundle that was not signed by that account, or by nobody, as well"
    )
    max_size: Size = Field(default=MAX_SIZE, description="the most that may come out; larger is refused as a bomb")


class Unbundle(LocalStep[UnbundleOptions]):
    """Get the image out of a bundle: decrypted with the account's private key, unpacked, and verified.

    Held against the manifest are the digest of each part, that of the tar inside, and the sizes; and the manifest
    against the certificate of the account, unless `unsigned` is set. The image has the bytes that were bundled, and
    holes for zeros; manifests and parts of euca2ools and ec2-ami-tools of all times are read. `fetch-bundle` brings a
    bundle here, from a bucket or from this machine.
    """

    options = UnbundleOptions
    accepts = (Bundle,)
    returns = ImageFile

    def build(self, options: UnbundleOptions, inputs: Inputs, work: Work) -> ImageFile:
        """Write the image and seal it."""
        bundle = inputs.source
        assert isinstance(bundle, Bundle)
        identity = work.outside.site(options.cloud).bundling()
        data = work.store.path(bundle.manifest).read_bytes()
        where = bundle.manifest.name
        if not options.unsigned:
            _require_signature(data, identity, where)
        says = manifest.read(data, where=where)
        made = work.scratch / "image.raw"
        key = keys.decrypt(says, _private_key(identity))

        def open_part(index: int) -> BinaryIO:
            return open(work.store.path(bundle.parts[index]), "rb")

        unbundle(says, open_part, key, made, max_size=options.max_size, progress=work.progress)
        return work.store.seal_image(made, format="raw", virtual_size=says.size)


def _private_key(identity: BundlingIdentity) -> PrivateKey:
    if identity.private_key is None:
        raise UsageError(
            f"the private key of account {identity.account} is not configured: nothing else opens its bundles",
            hint="Set EC2_PRIVATE_KEY, or name the cloud whose account made the bundle.",
        )
    return PrivateKey.load(identity.private_key, f"of account {identity.account}")


def _require_signature(data: bytes, identity: BundlingIdentity, where: str) -> None:
    if identity.user_certificate is None:
        raise UsageError(
            f"the certificate of account {identity.account} is not configured: nobody can tell who signed {where}",
            hint="Set EC2_CERT, or take it all the same: `unsigned: true`.",
        )
    certificate = Certificate.load(identity.user_certificate, f"the certificate of account {identity.account}")
    check.require_signature(data, certificate, where=where)
