"""Accounts, identities, their keys and policies, and sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class Account(Record):
    """An account beside the directory's first one, with its root's access key."""

    account: str
    name: str
    access_key: str
    secret_key: str = field(repr=False)
    creation_time: float

    @property
    def key(self) -> str:
        """The account's id."""
        return self.account


@dataclass(frozen=True, kw_only=True)
class Holder:
    """What a user, a group and a role have in common: `attached` are ARNs, `inline` documents by their names."""

    account: str
    name: str
    id: str
    path: str = "/"
    creation_time: float
    attached: tuple[str, ...] = ()
    inline: Mapping[str, str] = field(default_factory=dict)
    boundary: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The account and the name, whose case does not count."""
        return iam_key(self.account, self.name)


@dataclass(frozen=True, kw_only=True)
class User(Holder, Record):
    """A user."""

    groups: tuple[str, ...] = ()

    @property
    def arn(self) -> str:
        """The user's ARN."""
        return f"arn:aws:iam::{self.account}:user{self.path}{self.name}"


@dataclass(frozen=True, kw_only=True)
class Group(Holder, Record):
    """A group; its members name it."""

    @property
    def arn(self) -> str:
        """The group's ARN."""
        return f"arn:aws:iam::{self.account}:group{self.path}{self.name}"


@dataclass(frozen=True, kw_only=True)
class Role(Holder, Record):
    """A role; `trust` says who may take it on, `longest` for how many seconds at most."""

    trust: str
    description: str = ""
    longest: int = 3600

    @property
    def arn(self) -> str:
        """The role's ARN."""
        return f"arn:aws:iam::{self.account}:role{self.path}{self.name}"


@dataclass(frozen=True, kw_only=True)
class AccessKey(Record):
    """A user's access key."""

    access_key: str
    secret_key: str = field(repr=False)
    account: str
    user: str
    active: bool = True
    creation_time: float

    @property
    def key(self) -> str:
        """The access key id."""
        return self.access_key


@dataclass(frozen=True, kw_only=True)
class SigningCertificate(Record):
    """An X.509 certificate (PEM) that somebody uploaded, for a user or, with "", the account's root."""

    certificate_id: str
    account: str
    user: str
    body: str
    active: bool = True
    upload_time: float

    @property
    def key(self) -> str:
        """The certificate's id."""
        return self.certificate_id


@dataclass(frozen=True, kw_only=True)
class InstanceProfile(Record):
    """An instance profile, with its role's name."""

    account: str
    name: str
    id: str
    path: str = "/"
    role: str | None = None
    creation_time: float
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The account and the name, whose case does not count."""
        return iam_key(self.account, self.name)

    @property
    def arn(self) -> str:
        """The profile's ARN."""
        return f"arn:aws:iam::{self.account}:instance-profile{self.path}{self.name}"


@dataclass(frozen=True, kw_only=True)
class PolicyVersion:
    """One version of a managed policy."""

    number: int
    document: str
    creation_time: float


@dataclass(frozen=True, kw_only=True)
class Policy(Record):
    """A managed policy of an account; `made` is how many versions it ever had."""

    account: str
    name: str
    id: str
    path: str = "/"
    description: str = ""
    creation_time: float
    versions: tuple[PolicyVersion, ...]
    default: int = 1
    made: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The policy's ARN."""
        return self.arn

    @property
    def arn(self) -> str:
        """The policy's ARN."""
        return f"arn:aws:iam::{self.account}:policy{self.path}{self.name}"

    @property
    def document(self) -> str:
        """The document of the default version."""
        return next(one.document for one in self.versions if one.number == self.default)


@dataclass(frozen=True, kw_only=True)
class Session(Record):
    """Credentials of STS: `principal` is the ARN whose policies count, `policies` the session's own documents.

    `role` says that a role was taken on (which limits what may be taken on from there), `root` that it is the account's
    root under a session's credentials.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(repr=False)
    account: str
    arn: str
    user_id: str
    principal: str
    role: bool = False
    root: bool = False
    policies: tuple[str, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    start_time: float
    expiry: float

    @property
    def key(self) -> str:
        """The access key id."""
        return self.access_key


def iam_key(account: str, name: str) -> str:
    """Return the key of something that IAM knows by its name."""
    return f"{account}/{name.lower()}"
