"""Which account, region and server to speak to: plain values, so that nothing of botocore is loaded to hold them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a cloud answers and with which credentials.

    Without static keys botocore's own chain is used: the profile, the environment, the instance's role. `endpoint_url`
    None means AWS itself; `ca_file` (PEM) replaces the certificate authorities of the system.
    """

    region: str
    endpoint_url: str | None = None
    profile: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def of_profile(cls, profile: str | None, region: str | None) -> Settings:
        """Return the settings of an AWS profile (None: the default one), in its region unless another is given.

        Raises UsageError when there is no such profile or no region is configured.
        """
        from builder.cloud.session import configured_region  # botocore costs 0.15 s that `emi --help` does not owe

        chosen = region or configured_region(profile)
        if not chosen:
            raise UsageError(
                f"no region is configured for {f'the profile {profile}' if profile else 'the default AWS profile'}",
                hint="Set AWS_REGION, give the profile a region, or use --cloud aws:PROFILE@REGION.",
            )
        return cls(region=chosen, profile=profile)
