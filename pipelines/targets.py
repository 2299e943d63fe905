"""Which cloud a run works against: `sandbox` (the embedded one), or `aws` as the environment and profiles configure it.

    sandbox                  started and kept if it is not running; the default while nothing else is configured
    sandbox:eucalyptus       a second one, which behaves as Eucalyptus does
    aws                      the default AWS profile or environment, its region
    aws:PROFILE              that profile
    aws:PROFILE@REGION       that profile, another region (PROFILE may be empty)

`EMI_CLOUD` names the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from builder.cloud.api import Call, Cloud
from builder.cloud.aws import Aws, Settings
from builder.cloud.eucalyptus import Eucalyptus, query_dialect, s3_dialect
from builder.cloud.identity import BundlingIdentity, nobody
from builder.cloud.releases import Release
from builder.errors import UsageError
from builder.progress import SILENT, Progress
from builder.sandbox import lifecycle
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


def choose(name: str | None) -> str:
    """Return the name of the cloud to use: the given one, EMI_CLOUD, or the sandbox. Raises UsageError."""
    chosen = name or os.environ.get("EMI_CLOUD") or SANDBOX
    if chosen not in (SANDBOX, f"{SANDBOX}:{EUCALYPTUS}") and chosen.partition(":")[0] != "aws":
        raise UsageError(
            f"no cloud named `{chosen}`",
            hint="Use --cloud sandbox, sandbox:eucalyptus, aws, aws:PROFILE or aws:PROFILE@REGION.",
        )
    return chosen


def open_target(
    name: str, home: Home, *, on_call: Callable[[Call], None] = lambda _: None, progress: Progress = SILENT
) -> Target:
    """Return the cloud of that name, ready for calls; starts the sandbox when it is the one and does not run.

    Raises UsageError for a name or region that is not configured, and what the cloud raises.
    """
    kind, _, rest = name.partition(":")
    if kind == SANDBOX:
        return _sandbox(name, home, like=rest, on_call=on_call, progress=progress)
    profile, _, region = rest.partition("@")
    cloud = Aws(Settings.of_profile(profile or None, region or None), on_call=on_call, progress=progress)
    return Target(name=name, identity=f"aws/{cloud.account()}/{cloud.region}", cloud=cloud)


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
