"""The command line's verbs on instance-store bundles. Letters and words are those of euca2ools and ec2-ami-tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from builder.errors import EmiError
from pipelines.lazily import Lazily

if TYPE_CHECKING:
    from pipelines.verbs import buckets, bundles, install, making
else:
    buckets, bundles, install, making = (
        Lazily(f"pipelines.verbs.{name}") for name in ("buckets", "bundles", "install", "making")
    )

Type = Literal["machine", "kernel", "ramdisk"]
Compression = Literal["fast", "small"]  # Shape of builder.bundle.records
Acl = Literal[  # UploadOptions of pipelines.steps.upload
    "aws-exec-read",
    "authenticated-read",
    "bucket-owner-full-control",
    "bucket-owner-read",
    "private",
    "public-read",
]

ManifestFile = Annotated[Path, typer.Argument(help="The bundle's NAME.manifest.xml.", show_default=False)]
Parts = Annotated[
    Path | None,
    typer.Option("-s", "--source", metavar="DIR", help="Where the parts are; by default beside the manifest."),
]
User = Annotated[
    str | None, typer.Option("-u", "--user", metavar="ACCOUNT", help="The account, 12 digits; else the cloud's.")
]
Certificate = Annotated[
    Path | None, typer.Option("-c", "--cert", metavar="FILE", help="Your X.509 certificate; else the cloud's settings.")
]
PrivateKey = Annotated[
    Path | None, typer.Option("-k", "--privatekey", metavar="FILE", help="Its private key; else the cloud's settings.")
]
CloudCertificate = Annotated[
    Path | None, typer.Option("--ec2cert", metavar="FILE", help="The cloud's certificate; else as the cloud gives it.")
]
Architecture = Annotated[
    Literal["x86_64", "i386", "arm64"], typer.Option("-r", "--arch", help="What the image's kernel is for.")
]
CloudName = Annotated[
    str | None, typer.Option("--cloud", metavar="NAME", help="The cloud it is for; `emi run` has the same.")
]
ImageName = Annotated[str, typer.Option("-n", "--name", metavar="NAME", help="The image's name in the cloud.")]
Description = Annotated[str, typer.Option("--description", metavar="TEXT", help="The image's description.")]
Virtualization = Annotated[
    Literal["hvm", "paravirtual"] | None,
    typer.Option("--virtualization-type", help="By default paravirtual with a kernel, hvm without."),
]
Kernel = Annotated[str | None, typer.Option("--kernel", metavar="ID", help="The kernel that it is to boot with.")]
Ramdisk = Annotated[str | None, typer.Option("--ramdisk", metavar="ID", help="The ramdisk that it is to boot with.")]
KernelToInstall = Annotated[
    str | None, typer.Option("--kernel", metavar="FILE|ID", help="The kernel: a file to install before it, or an id.")
]
RamdiskToInstall = Annotated[
    str | None, typer.Option("--ramdisk", metavar="FILE|ID", help="The ramdisk: a file to install before it, or an id.")
]
Mappings = Annotated[
    list[str] | None,
    typer.Option("-B", "--block-device-mapping", metavar="VIRTUAL=DEVICE", help="ephemeral0=sdb; repeatable."),
]
Platform = Annotated[Literal["windows"] | None, typer.Option("--platform", help="windows, for clouds that ask for it.")]
Compressed = Annotated[Compression, typer.Option("--compression", help="small is slower, for slow lines.")]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Only show which steps it takes.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for another run of the same instead of refusing.")]
Unsigned = Annotated[bool, typer.Option("--unsigned", help="Take it whoever signed it, and if nobody did.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, for programs.")]


def bundle(
    image: Annotated[Path, typer.Argument(help="A disk image, a kernel or a ramdisk.", show_default=False)],
    *,
    prefix: Annotated[
        str | None, typer.Option("-p", "--prefix", metavar="NAME", help="The bundle's name; by default the file's.")
    ] = None,
    destination: Annotated[
        Path, typer.Option("-d", "--destination", metavar="DIR", help="Where manifest and parts go.")
    ] = Path(),
    arch: Architecture = "x86_64",
    kind: Annotated[
        Type, typer.Option("--type", help="What the file is; euca2ools' `--kernel true` says it too.")
    ] = "machine",
    disk_format: Annotated[
        Literal["raw", "qcow2"] | None, typer.Option("--format", help="The file's, where its first bytes do not tell.")
    ] = None,
    kernel: Kernel = None,
    ramdisk: Ramdisk = None,
    mapping: Mappings = None,
    product_code: Annotated[
        list[str] | None, typer.Option("--product-code", metavar="CODE", help="A product code; repeatable.")
    ] = None,
    part_size: Annotated[str, typer.Option("--part-size", metavar="SIZE", help="Of each part but the last.")] = "10MiB",
    compression: Compressed = "fast",
    reproducible: Annotated[
        bool, typer.Option("--reproducible", help="The same parts each time, not a key drawn by chance.")
    ] = False,
    user: User = None,
    cert: Certificate = None,
    privatekey: PrivateKey = None,
    ec2cert: CloudCertificate = None,
    cloud: CloudName = None,
    json: AsJson = False,
) -> None:
    """Make a bundle of an image file: encrypted parts and a signed manifest (euca-bundle-image, ec2-bundle-image)."""
    making.bundle(
        image,
        destination,
        said={
            "architecture": arch,
            "disk_format": disk_format,
            "kind": kind,
            "boots": {"kernel": kernel, "ramdisk": ramdisk},
            "mappings": mapping or [],
            "product_codes": product_code or [],
        },
        shape={"name": prefix, "compression": compression, "part_size": part_size},
        reproducible=reproducible,
        identity=_identity(user, cert, privatekey, ec2cert, cloud),
        as_json=json,
    )


def unbundle(
    manifest: ManifestFile,
    *,
    destination: Annotated[
        Path, typer.Option("-d", "--destination", metavar="DIR", help="Where the image goes, under its own name.")
    ] = Path(),
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="The file to write instead; it must not exist yet.")
    ] = None,
    source: Parts = None,
    cert: Annotated[
        Path | None,
        typer.Option("-c", "--cert", metavar="FILE", help="The certificate that must have signed it."),
    ] = None,
    privatekey: PrivateKey = None,
    unsigned: Unsigned = False,
    cloud: CloudName = None,
    json: AsJson = False,
) -> None:
    """Get the image out of a bundle, every digest and the signature checked (euca-unbundle, ec2-unbundle)."""
    identity = _identity(None, cert, privatekey, None, cloud)
    bundles.unbundle(
        manifest,
        to=to,
        destination=destination,
        source=source,
        unsigned=unsigned,
        identity=identity,
        as_json=json,
    )


def bundle_info(
    manifest: ManifestFile,
    *,
    source: Parts = None,
    cert: Certificate = None,
    privatekey: PrivateKey = None,
    ec2cert: CloudCertificate = None,
    cloud: CloudName = None,
    json: AsJson = False,
) -> None:
    """Show what a manifest says and what of it holds: parts, digests, keys, signature; 3 where something does not."""
    identity = _identity(None, cert, privatekey, ec2cert, cloud)
    bundles.info(manifest, source=source, identity=identity, as_json=json)


def upload(
    manifest: ManifestFile,
    to: Annotated[str, typer.Argument(metavar="BUCKET[/PREFIX]", help="Where it goes.", show_default=False)],
    *,
    source: Annotated[
        Path | None,
        typer.Option("-d", "--directory", metavar="DIR", help="Where the parts are; by default beside the manifest."),
    ] = None,
    acl: Annotated[Acl | None, typer.Option("--acl", help="By default the one that lets the cloud read it.")] = None,
    location: Annotated[str | None, typer.Option("--location", help="Where to make the bucket, if need be.")] = None,
    cloud: CloudName = None,
    json: AsJson = False,
) -> None:
    """Put a bundle into a bucket, the manifest last; what is there already is not sent again (euca-upload-bundle)."""
    buckets.upload(manifest, to, source=source, acl=acl, location=location, cloud=cloud, as_json=json)


def fetch_bundle(
    manifest: Annotated[str, typer.Argument(metavar="BUCKET/MANIFEST", help="The manifest's key.", show_default=False)],
    *,
    destination: Annotated[
        Path, typer.Option("-d", "--directory", metavar="DIR", help="Where manifest and parts go.")
    ] = Path(),
    cloud: CloudName = None,
    json: AsJson = False,
) -> None:
    """Get a bundle out of a bucket, each part checked as it arrives (euca-download-bundle, ec2-download-bundle)."""
    buckets.fetch(manifest, destination, cloud=cloud, as_json=json)


def migrate_manifest(
    manifest: ManifestFile,
    *,
    kernel: Kernel = None,
    ramdisk: Ramdisk = None,
    no_mapping: Annotated[bool, typer.Option("--no-mapping", help="Leave kernel and ramdisk as they are.")] = False,
    made_by: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help="The cloud whose account made it; by default --cloud.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option("-c", "--cert", metavar="FILE", help="The certificate it was made with.")
    ] = None,
    privatekey: Annotated[
        Path | None, typer.Option("-k", "--privatekey", metavar="FILE", help="Its private key, which opens the bundle.")
    ] = None,
    unsigned: Unsigned = False,
    user: User = None,
    ec2cert: CloudCertificate = None,
    cloud: CloudName = None,
    json: AsJson = False,
) -> None:
    """Make a manifest fit for another cloud or region; the parts stay as they are (ec2-migrate-manifest)."""
    bundles.migrate_manifest(
        manifest,
        boots={"kernel": kernel, "ramdisk": ramdisk},
        mapped=not no_mapping,
        unsigned=unsigned,
        made_by=_identity(None, cert, privatekey, None, made_by or cloud),
        identity=_identity(user, None, None, ec2cert, cloud),
        as_json=json,
    )


def install_image(
    image: Annotated[Path, typer.Argument(help="A disk image, packed or not.", show_default=False)],
    name: ImageName,
    bucket: Annotated[str, typer.Option("-b", "--bucket", metavar="BUCKET[/PREFIX]", help="Where the bundle goes.")],
    *,
    description: Description = "",
    arch: Architecture = "x86_64",
    virtualization: Virtualization = None,
    kernel: KernelToInstall = None,
    ramdisk: RamdiskToInstall = None,
    mapping: Mappings = None,
    platform: Platform = None,
    compression: Compressed = "fast",
    plan: OnlyPlan = False,
    wait: Wait = False,
    cloud: CloudName = None,
    json: AsJson = False,
) -> None:
    """Bundle, upload and register an image in one go (euca-install-image); run again, it carries on where it was."""
    where, _, prefix = bucket.rstrip("/").partition("/")
    made_of: dict[str, Any] = {"name": name, "bucket": where, "prefix": prefix, "description": description}
    made_of |= {"architecture": arch, "compression": compression}
    made_of["virtualization"] = virtualization or ("paravirtual" if kernel else "hvm")
    made_of |= {"platform": platform} if platform else {}
    beside = {"kernel": kernel, "ramdisk": ramdisk}
    made_of["block_device_mappings"] = mapping or []
    install.install(image, made_of, beside, only_plan=plan, cloud=cloud, wait=wait, as_json=json)


def register(
    manifest: Annotated[str, typer.Argument(metavar="BUCKET/MANIFEST", help="The manifest's key.", show_default=False)],
    name: ImageName,
    *,
    description: Description = "",
    virtualization: Virtualization = None,
    kernel: Kernel = None,
    ramdisk: Ramdisk = None,
    platform: Platform = None,
    plan: OnlyPlan = False,
    wait: Wait = False,
    cloud: CloudName = None,
    json: AsJson = False,
) -> None:
    """Register a bundle that lies in a bucket, as machine, kernel or ramdisk (euca-register, ec2-register)."""
    made_of: dict[str, Any] = {"name": name, "description": description, "platform": platform}
    made_of |= {"kernel_id": kernel, "ramdisk_id": ramdisk}
    made_of["virtualization"] = virtualization or ("paravirtual" if kernel else None)
    install.register(manifest, made_of, only_plan=plan, cloud=cloud, wait=wait, as_json=json)


def _without_run(verb: Callable[..., None]) -> Callable[..., None]:
    """Return the verb with its errors' advice as it is for what has no run: the same command carries on."""

    @wraps(verb)
    def told(*words: Any, **options: Any) -> None:
        try:
            verb(*words, **options)
        except EmiError as error:
            again = "the same command again"
            hint = (error.hint or "").replace("`emi resume`", again)
            error.hint = again.capitalize() + hint.removeprefix(again) if hint.startswith(again) else hint
            raise

    return told


def _identity(
    user: str | None, cert: Path | None, privatekey: Path | None, ec2cert: Path | None, cloud: str | None
) -> dict[str, Any]:
    return {"user": user, "cert": cert, "privatekey": privatekey, "ec2cert": ec2cert, "cloud": cloud}


VERBS: Sequence[Callable[..., None]] = (
    install_image,
    _without_run(bundle),
    _without_run(upload),
    register,
    _without_run(fetch_bundle),
    _without_run(unbundle),
    _without_run(bundle_info),
    _without_run(migrate_manifest),
)
