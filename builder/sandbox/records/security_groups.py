"""Security groups: their records only, nothing is filtered by them (every address is one of this machine)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.sandbox.records.base import Record


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a security group: from (`egress`: to) exactly one of an IPv4 range, an IPv6 range, or a group.

    `protocol` is tcp, udp, icmp, icmpv6, a number, or -1 for all; ports are the ICMP type and code there, -1 for any.
    """

    rule_id: str
    egress: bool
    protocol: str
    from_port: int = -1
    to_port: int = -1
    cidr: str | None = None
    cidr6: str | None = None
    group_id: str | None = None
    description: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def meaning(self) -> tuple[object, ...]:
        """What makes two rules of a group the same one."""
        return (self.egress, self.protocol, self.from_port, self.to_port, self.cidr, self.cidr6, self.group_id)


@dataclass(frozen=True, kw_only=True)
class SecurityGroup(Record):
    """A security group's record; `vpc_id` is None where there are no VPCs."""

    group_id: str
    account: str
    region: str
    name: str
    description: str
    vpc_id: str | None = None
    rules: tuple[Rule, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The group's id."""
        return self.group_id
