"""Who makes a bundle, and for which cloud: an account, its X.509 certificate and key, and the cloud's certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from builder.errors import UsageError

_LARGEST = 1 << 20  # bytes of a file that is taken for a certificate or a key


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


@dataclass(frozen=True)
class Said:
    """A setting's value, and who says so: `EC2_CERT`, or `/home/me/.euca/lab.ini:7`."""

    value: str = field(repr=False)  # it may be a secret
    where: str


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where what a bundle needs is said to be: an account's number, and the names of PEM files; None for nowhere.

    `settable` says by field where else each could be said, for the error of one that is missing.
    """

    account: Said | None = None
    user_certificate: Said | None = None
    private_key: Said | None = None
    cloud_certificate: Said | None = None
    settable: Mapping[str, str] = field(default_factory=dict)


# What euca2ools looks at; ec2-ami-tools had most of them from the same eucarc.
ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "account": ("EC2_USER_ID",),
    "user_certificate": ("EC2_CERT", "EUCA_CERT"),
    "private_key": ("EC2_PRIVATE_KEY", "EUCA_PRIVATE_KEY"),
    "cloud_certificate": ("EUCALYPTUS_CERT",),
}


def said_in(environment: Mapping[str, str]) -> dict[str, Said]:
    """Return what environment variables say of a bundle's certificates, by the fields of Sources."""
    found = {}
    for name, variables in ENVIRONMENT.items():
        for variable in reversed(variables):
            if environment.get(variable):
                found[name] = Said(environment[variable], variable)
    return found


def read(
    sources: Sources,
    *,
    ask_account: Callable[[], str] | None = None,
    ask_certificate: Callable[[], bytes] | None = None,
) -> BundlingIdentity:
    """Return the identity that the sources describe; what they leave open is asked of the cloud, where that can be.

    Raises UsageError that names what is missing and where it can be said, or which file cannot be read and who named
    it; and what the cloud raises.
    """
    certificate = _pem(sources.cloud_certificate, "CERTIFICATE")
    if certificate is None:
        if ask_certificate is None:
            _missing(sources, "cloud_certificate", "the cloud's certificate")
        certificate = ask_certificate()
    return BundlingIdentity(
        account=_account(sources, ask_account),
        user_certificate=_pem(sources.user_certificate, "CERTIFICATE"),
        private_key=_pem(sources.private_key, "PRIVATE KEY"),
        cloud_certificate=certificate,
    )


def nobody() -> NoReturn:
    """Raise UsageError: this target is configured for no bundles at all."""
    raise UsageError(
        "no certificates for bundles are configured for this cloud",
        hint="Set EC2_USER_ID, EC2_CERT, EC2_PRIVATE_KEY and EUCALYPTUS_CERT.",
    )


def _account(sources: Sources, ask: Callable[[], str] | None) -> str:
    if sources.account is None:
        return ask() if ask else _missing(sources, "account", "the account's number")
    number = sources.account.value.replace("-", "").strip()
    if len(number) != 12 or not (number.isascii() and number.isdecimal()):
        raise UsageError(
            f"{sources.account.where}: {number!r} is no account's number",
            hint="It has 12 digits; hyphens between them do not matter.",
        )
    return number


def _pem(said: Said | None, label: str) -> bytes | None:
    if said is None:
        return None
    path = Path(said.value).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL; RuntimeError: a user without a home
        words = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{said.where} names {path}, which cannot be read: {words}", hint="Correct the path."
        ) from error
    if len(data) > _LARGEST or f"{label}-----".encode() not in data:
        raise UsageError(
            f"{said.where} names {path}, in which there is no PEM of a {label.lower()}",
            hint=f"The file must hold a line `-----BEGIN … {label}-----`.",
        )
    return data


def _missing(sources: Sources, name: str, what: str) -> NoReturn:
    places = sources.settable.get(name) or " or ".join(ENVIRONMENT[name])
    raise UsageError(f"bundles need {what}, which nothing says", hint=f"Say it in {places}.")
