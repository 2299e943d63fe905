"""Which account, region and server to speak to: plain values, so that nothing of botocore is loaded to hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from builder.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class S3Dialect:
    """How an S3 service wants to be spoken to; the defaults suit AWS, the sandbox, radosgw and, path style, Eucalyptus.

    `addressing` says where a request names its bucket: in the host (`virtual`), in the path, or as botocore finds
    (`auto`: in the path for IP addresses). `checksums` beyond Content-MD5, which is always sent, `when_supported`
    break radosgw and Walrus of old over https. `signature` `s3` (version 2) is for Eucalyptus before 4.4. With
    `drops_conditions` a PutObject with If-None-Match replaces what is there.
    """

    addressing: Literal["auto", "path", "virtual"] = "auto"
    checksums: Literal["when_required", "when_supported"] = "when_required"
    signature: Literal["s3v4", "s3"] = "s3v4"
    drops_conditions: bool = False


@dataclass(frozen=True, kw_only=True)
class QueryDialect:
    """How EC2, STS and IAM want to be spoken to, where that is not as AWS does.

    `drops` are parameters that botocore puts in by itself and the service refuses, `adds` those that it takes and
    botocore's model does not know; both by action: {"CreateVolume": ("ClientToken",)}.
    """

    signature: Literal["v4", "v2"] = "v4"
    drops: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    adds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a cloud answers and with which credentials.

    Without static keys botocore's own chain is used: the profile, the environment, the instance's role. `endpoint_url`
    None means AWS itself; `endpoints` are the URLs of a cloud whose services answer in places of their own, by
    botocore's names (ec2, s3, sts, …), and then all that it has. `ca_file` (PEM) replaces the certificate authorities
    of the system; with `verify` false certificates are not verified at all. `location` is the LocationConstraint of
    buckets that are made: None for the region, "" for none.
    """

    region: str
    endpoint_url: str | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    verify: bool = True
    location: str | None = None
    s3: S3Dialect = S3Dialect()
    query: QueryDialect = QueryDialect()

    def url(self, service: str) -> str | None:
        """Return where the service answers; None for AWS itself. Raises UsageError when this cloud is without it."""
        if not self.endpoints:
            return self.endpoint_url
        if service not in self.endpoints:
            known = ", ".join(sorted(self.endpoints))
            raise UsageError(
                f"no endpoint is configured for the service {service}; there are {known}",
                hint="Give its URL where the cloud's other URLs are; `emi clouds` says where that is.",
            )
        return self.endpoints[service]

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
