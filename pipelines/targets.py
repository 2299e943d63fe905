"""Which cloud a run works against: a sandbox, or one that is configured on this machine.

    sandbox                  started and kept if it is not running; the default while nothing else is chosen
    sandbox:eucalyptus       a second one, which behaves as Eucalyptus does
    any other name           see configured.py: aws, aws:PROFILE@REGION, euca:USER@REGION, eucarc, one of clouds.yaml

`EMI_CLOUD` names the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from builder.cloud.api import Call, Cloud
from builder.cloud.aws import Aws, Settings
from builder.cloud.config.found import Configured
from builder.cloud.eucalyptus import Eucalyptus, query_dialect, s3_dialect
from builder.cloud.identity import BundlingIdentity, nobody
from builder.cloud.identity import read as read_identity
from builder.cloud.releases import Release
from builder.progress import SILENT, Progress
from builder.sandbox import lifecycle
from pipelines import configured
from pipelines.home import Home

SANDBOX = "sandbox"
EUCALYPTUS = "eucalyptus"
_SERVICES = ("ec2", "s3", "sts", "iam", "bootstrap")


@dataclass(frozen=True, kw_only=True)
class Target:
    """One account in one region of one cloud; `identity` names it in keys.

    `bundling` returns for whom and by whom bundles are made for it. It reads files, and asks the cloud for its
    certificate where no file has that, at its first call; it raises UsageError that names what is not configured.
    """

    name: str
    identity: str
    cloud: Cloud
    bundling: Callable[[], BundlingIdentity] = nobody


def is_sandbox(name: str) -> bool:
    """Say whether the name is that of an embedded cloud."""
    return name in (SANDBOX, f"{SANDBOX}:{EUCALYPTUS}")


def choose(name: str | None) -> str:
    """Return the name of the cloud to use: the given one, EMI_CLOUD, or the sandbox; a file in it made absolute.

    Raises UsageError for one that is not configured.
    """
    chosen = name or os.environ.get("EMI_CLOUD") or SANDBOX
    if is_sandbox(chosen):
        return chosen
    kind, _, file = chosen.partition(":")
    if kind == "eucarc" and file:
        chosen = f"{kind}:{Path(file).expanduser().absolute()}"  # a run may be resumed from another directory
    return configured.find(chosen).name


def open_target(
    name: str,
    home: Home,
    *,
    on_call: Callable[[Call], None] = lambda _: None,
    progress: Progress = SILENT,
    warn: Callable[[str], None] | None = None,
) -> Target:
    """Return the cloud of that name, ready for calls; starts the sandbox when it is the one and does not run.

    `warn` is told what is dangerous in how the cloud is configured; by default `progress` notes it. Raises UsageError
    for a name or region that is not configured, and what the cloud raises.
    """
    if is_sandbox(name):
        return _sandbox(name, home, like=name.partition(":")[2], on_call=on_call, progress=progress)
    found = configured.find(name).load()
    told = warn or progress.note
    for warning in found.warnings:
        told(f"{name}: {warning}")
    return connect(name, found, on_call=on_call, progress=progress, warn=told)


def connect(
    name: str,
    found: Configured,
    *,
    on_call: Callable[[Call], None] = lambda _: None,
    progress: Progress = SILENT,
    warn: Callable[[str], None] = lambda _: None,
) -> Target:
    """Return the cloud that was found, ready for calls. Its account is asked of it where nothing says that."""
    made = cloud(found, on_call=on_call, progress=progress)
    sources, settings = found.sources, found.settings
    certificate = None
    if isinstance(made, Eucalyptus) and "bootstrap" in settings.endpoints:
        certificate = _asking(made, settings, lambda warning: warn(f"{name}: {warning}"))
    # Accounts of Eucalyptus are numbered by each cloud for itself, so its address is part of the name.
    url = settings.endpoints.get("ec2") or settings.endpoint_url
    words = (found.kind, urlsplit(url).netloc if url else "", made.account(), made.region)
    return Target(
        name=name,
        identity="/".join(filter(None, words)),
        cloud=made,
        bundling=lambda: read_identity(sources, ask_account=made.account, ask_certificate=certificate),
    )


def _asking(cloud: Eucalyptus, settings: Settings, warn: Callable[[str], None]) -> Callable[[], bytes]:
    """Return what asks the cloud for its certificate, and warns where somebody else could answer.

    Whoever puts another certificate in its place can read every bundle that is made for it.
    """
    url = settings.endpoints["bootstrap"]

    def ask() -> bytes:
        certificate = cloud.bundling_certificate()
        if not (settings.verify and url.startswith("https:")):
            warn(
                f"the cloud's certificate for bundles came from {url}, unverified: whoever can change what passes on"
                " the way there can read the bundle; have it as a file that you trust"
            )
        return certificate

    return ask


def cloud(
    found: Configured,
    *,
    on_call: Callable[[Call], None] = lambda _: None,
    progress: Progress = SILENT,
    retry: float | None = None,
) -> Aws | Eucalyptus:
    """Return the cloud that was found. Nothing is asked of it; `retry` as Ec2 has it."""
    if found.kind == "aws":
        return Aws(found.settings, on_call=on_call, progress=progress, retry=retry)
    said = found.sources.account
    return Eucalyptus(
        found.settings,
        release=found.release,
        account=said.value.replace("-", "") if said else "",
        on_call=on_call,
        progress=progress,
        retry=retry,
    )


def _sandbox(name: str, home: Home, *, like: str, on_call: Callable[[Call], None], progress: Progress) -> Target:
    directory = home.sandbox_eucalyptus if like else home.sandbox
    endpoint = lifecycle.start(directory, personality=like or None)
    release = Release.parse(endpoint.release) if endpoint.personality == EUCALYPTUS else None
    settings = Settings(
        region=endpoint.region,
        endpoint_url=endpoint.url,
        endpoints={service: endpoint.service(service) for service in _SERVICES} if release else {},
        access_key=endpoint.access_key,
        secret_key=endpoint.secret_key,
        ca_file=endpoint.ca_file,
    )

    def bundling() -> BundlingIdentity:
        files = lifecycle.identity(directory)
        return BundlingIdentity(
            account=files.account,
            user_certificate=files.certificate.read_bytes(),
            private_key=files.private_key.read_bytes(),
            cloud_certificate=files.cloud_certificate.read_bytes(),
        )

    cloud: Cloud = Aws(settings, on_call=on_call, progress=progress)
    if release:
        settings = replace(settings, s3=s3_dialect(release), query=query_dialect(release))
        cloud = Eucalyptus(settings, release=release, on_call=on_call, progress=progress)
    # As it always was for the first one: what is in a key must stay.
    identity = f"{name.replace(':', '-')}/{endpoint.region}"
    return Target(name=name, identity=identity, cloud=cloud, bundling=bundling)
