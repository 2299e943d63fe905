"""The step kind `migrate-manifest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from builder import durable
from builder.bundle import manifest, migrate
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.records import Manifest
from builder.cloud.counterparts import counterpart
from builder.cloud.identity import BundlingIdentity
from builder.errors import UsageError
from pipelines.artifact import Bundle, MachineImage
from pipelines.step import Foreseen, Inputs, LocalStep, Options, Outside, Reference, Work

_Table = Mapping[str, str | None]


class MigrateManifestOptions(Options):
    """Where the bundle comes from, and which kernel and ramdisk it boots with here."""

    cloud: str | None = Field(
        default=None, description="the cloud whose account made the bundle, as --cloud names it; by default the run's"
    )
    kernels: dict[str, str | None] | None = Field(
        default=None,
        description="which kernel takes the place of which: `{aki-9ba0f1de: eki-12345678}`, null for none; the one here"
        " of the same owner and key when left out",
    )
    ramdisks: dict[str, str | None] | None = Field(default=None, description="the same for ramdisks")
    kernel: Annotated[str | None, Reference(MachineImage)] = Field(
        default=None, description="the step that registered the kernel to boot with, instead of `kernels`"
    )
    ramdisk: Annotated[str | None, Reference(MachineImage)] = Field(
        default=None, description="the step that registered the ramdisk to boot with, instead of `ramdisks`"
    )
    unsigned: bool = Field(
        default=False, description="take a manifest that was not signed by that account, or by nobody, as well"
    )


class MigrateManifest(LocalStep[MigrateManifestOptions]):
    """Make a bundle fit for the cloud of the run, by its manifest alone: the parts stay as they are.

    The key that opens the parts is encrypted anew, for this cloud's certificate and the account's; account, kernel and
    ramdisk are those of this cloud; and the manifest is signed anew. It is verified before, by the certificate of
    whoever made it, and after. This needs the private key of whoever made the bundle: `cloud` says where. For a kernel
    or ramdisk of which nothing says what takes its place, both clouds are asked: it is the image here that has the same
    owner, type and manifest's key, as for ec2-migrate-manifest. None or several is an error.
    """

    options = MigrateManifestOptions
    accepts = (Bundle,)
    returns = Bundle

    def check(self, options: MigrateManifestOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        return [
            f"`{what}` and `{what}s` each say which {what} to boot with; give one of them"
            for what in ("kernel", "ramdisk")
            if getattr(options, what) and getattr(options, f"{what}s") is not None
        ]

    def foresee(self, options: MigrateManifestOptions, source: Foreseen) -> Foreseen:
        """Return what can be told of the bundle, of which nothing changes that is asked for later."""
        return Foreseen(bundle=source.bundle)

    def pin(self, options: MigrateManifestOptions, outside: Outside) -> Mapping[str, Any]:
        """Return for whom the manifest is made: account, and the certificates' digests (SHA-256, hex)."""
        here = outside.site(None).bundling()
        pins = {"account": here.account, "cloud_certificate": _cloud_certificate(here).sha256}
        user = _user_certificate(here)
        return {**pins, "user_certificate": user.sha256} if user else pins

    def build(self, options: MigrateManifestOptions, inputs: Inputs, work: Work) -> Bundle:
        """Write the manifest anew and hand the parts on."""
        bundle = inputs.source
        assert isinstance(bundle, Bundle)
        data, where = work.store.path(bundle.manifest).read_bytes(), bundle.manifest.name
        there, here = (work.outside.site(name).bundling() for name in (options.cloud, None))
        key = _private_key(there)
        if key is None:
            raise UsageError(
                f"the private key of account {there.account} is not configured: nothing else opens {where}",
                hint="Name the cloud whose account made the bundle as `cloud`, and set its private key.",
            )
        boots = _boots(options, inputs, manifest.read(data, where=where), work.outside)
        changes = migrate.Changes(
            cloud=_cloud_certificate(here),
            user=_user_certificate(here),
            sign_with=_private_key(here),
            account=here.account,
            kernels=boots["kernel"],
            ramdisks=boots["ramdisk"],
        )
        signed_by = None if options.unsigned else _signer(there, where)
        made = work.scratch / where
        durable.write_file(made, migrate.migrate(data, changes, key, where=where, signed_by=signed_by))
        return bundle.model_copy(update={"manifest": work.store.seal_file(made, name=where)})


def _boots(
    options: MigrateManifestOptions, inputs: Inputs, before: Manifest, outside: Outside
) -> Mapping[str, _Table | None]:
    """Return, for kernel and ramdisk, what takes the place of which; None: it stays."""
    named = {"kernel": before.kernel_id, "ramdisk": before.ramdisk_id}
    tables = {"kernel": options.kernels, "ramdisk": options.ramdisks}
    there, here = outside.site(options.cloud), outside.site(None)
    found: dict[str, _Table | None] = {}
    for what, old in named.items():
        registered = inputs.named.get(what)
        if old is None or before.type != "machine":
            found[what] = None
        elif isinstance(registered, MachineImage):
            found[what] = {old: registered.image_id}
        elif tables[what] is not None:
            found[what] = tables[what]
        elif there.identity != here.identity:
            found[what] = {old: counterpart(old, there.cloud, here.cloud)}
        else:
            found[what] = None
    return found


def _signer(there: BundlingIdentity, where: str) -> Certificate:
    certificate = _user_certificate(there)
    if certificate is None:
        raise UsageError(
            f"the certificate of account {there.account} is not configured: nobody can tell who signed {where}",
            hint="Set it for that cloud, or take the manifest all the same: `unsigned: true`.",
        )
    return certificate


def _cloud_certificate(identity: BundlingIdentity) -> Certificate:
    return Certificate.load(identity.cloud_certificate, "the cloud's certificate")


def _user_certificate(identity: BundlingIdentity) -> Certificate | None:
    pem = identity.user_certificate
    return Certificate.load(pem, f"the certificate of account {identity.account}") if pem else None


def _private_key(identity: BundlingIdentity) -> PrivateKey | None:
    pem = identity.private_key
    return PrivateKey.load(pem, f"of account {identity.account}") if pem else None
