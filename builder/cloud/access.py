"""Who may log in to an instance, and from where: key pairs and security groups, as a cloud is asked about them.

Both are named after the claim they are made under (`named`): names are unique in an account, so making one twice is
impossible, and where a cloud has no tags for them the name is what tells that they are ours.
No boto3, no cloud's name; ec2_access.py makes the calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from builder.cloud.claims import Claim

_NAMED = re.compile(r"emi-([0-9a-f]{64})")


def named(claim: Claim) -> str:
    """Return the name of the key pair, and of the security group, of a claim."""
    return f"emi-{claim.token}"


def token_in(name: str) -> str:
    """Return the token of the claim after which something is named, "" when it is not named so."""
    found = _NAMED.fullmatch(name)
    return found[1] if found else ""


@dataclass(frozen=True, kw_only=True)
class KeyPairRecord:
    """A key pair as the cloud describes it: its name and what it calls the public key's fingerprint."""

    name: str
    fingerprint: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SecurityGroupRecord:
    """A security group as the cloud describes it; `ssh_from` are the CIDRs that may reach port 22."""

    group_id: str
    name: str
    ssh_from: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class Access(Protocol):
    """The calls of EC2 about key pairs and security groups."""

    def find_key_pair(self, claim: Claim) -> KeyPairRecord | None:
        """Return the key pair that is named after the claim, or None."""

    def import_key_pair(self, claim: Claim, public: str, tags: Mapping[str, str]) -> str:
        """Import a public key (`ssh-rsa AAAA…`) under the claim's name and return that name.

        One of that name that is there already is kept: whoever calls this has asked `find_key_pair` first.
        """

    def delete_key_pair(self, claim: Claim) -> None:
        """Delete the key pair that is named after the claim; fine when there is none."""

    def find_security_group(self, claim: Claim) -> SecurityGroupRecord | None:
        """Return the security group that is named after the claim, or None."""

    def create_security_group(self, claim: Claim, description: str, tags: Mapping[str, str]) -> str:
        """Create a group under the claim's name that lets nothing in, and return its id.

        One of that name that is there already is ours and is returned; its tags are made good.
        """

    def allow_ssh(self, group_id: str, cidr: str) -> None:
        """Let connections from `cidr` (198.51.100.7/32) in to port 22; fine when they are already."""

    def delete_security_group(self, group_id: str) -> None:
        """Delete the group; fine when it is gone already. Raises CloudConflict while an instance has it."""
