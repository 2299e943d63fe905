"""Who makes a bundle, and for which cloud: an account, its X.509 certificate and key, and the cloud's certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from builder.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BundlingIdentity:
    """What a manifest needs to know of its maker and its reader; certificates and key are PEM.

    `account` has 12 digits. Without the user's certificate and key a bundle can be made all the same: it is then
    unsigned and only the cloud can open it.
    """

    account: str
    user_certificate: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    cloud_certificate: bytes


def nobody() -> NoReturn:
    """Raise UsageError: this target is configured for no bundles at all."""
    raise UsageError(
        "no certificates for bundles are configured for this cloud",
        hint="Set EC2_USER_ID, EC2_CERT, EC2_PRIVATE_KEY and EUCALYPTUS_CERT.",
    )
