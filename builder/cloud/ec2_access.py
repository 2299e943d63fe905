"""The calls of EC2 about key pairs and security groups: access.Access."""

from __future__ import annotations

from collections.abc import Mapping

from builder.cloud import records
from builder.cloud.access import KeyPairRecord, SecurityGroupRecord, named
from builder.cloud.calls import Calls, filters
from builder.cloud.claims import Claim, only
from builder.cloud.wait import Patience, wait_until
from builder.errors import CloudConflict, CloudError, CloudNotFound

_SETTLE = Patience(deadline=120, settle=60)


class Ec2Access(Calls):
    """Key pairs and security groups of one account in one region."""

    # Key pairs
    def find_key_pair(self, claim: Claim) -> KeyPairRecord | None:
        """Return the key pair that is named after the claim, or None."""
        found = self._pages("DescribeKeyPairs", "KeyPairs", Filters=filters("key-name", named(claim)))
        return next((records.key_pair(item) for item in found), None)

    def import_key_pair(self, claim: Claim, public: str, tags: Mapping[str, str]) -> str:
        """Import a public key (`ssh-rsa AAAA…`) under the claim's name and return that name.

        One of that name that is there already is kept: whoever calls this has asked `find_key_pair` first.
        """
        action, name = "ImportKeyPair", named(claim)
        try:
            self._call("ec2", action, KeyName=name, PublicKeyMaterial=public.encode(),
                       **self._marks(action, claim, tags, "key-pair"))  # fmt: skip
        except CloudError as error:
            if error.code != "InvalidKeyPair.Duplicate":
                raise
        return name

    def delete_key_pair(self, claim: Claim) -> None:
        """Delete the key pair that is named after the claim; fine when there is none."""
        try:
            self._call("ec2", "DeleteKeyPair", KeyName=named(claim))
        except CloudNotFound:
            return

    # Security groups
    def find_security_group(self, claim: Claim) -> SecurityGroupRecord | None:
        """Return the security group that is named after the claim, or None."""
        found = self._pages("DescribeSecurityGroups", "SecurityGroups", Filters=filters("group-name", named(claim)))
        groups = {one.group_id: one for one in map(records.security_group, found)}
        wanted = only(claim, list(groups), "security group")
        return groups[wanted] if wanted else None

    def create_security_group(self, claim: Claim, description: str, tags: Mapping[str, str]) -> str:
        """Create a group under the claim's name that lets nothing in, and return its id.

        One of that name that is there already is ours and is returned; its tags are made good.
        """
        action, name = "CreateSecurityGroup", named(claim)
        marks = self._marks(action, claim, tags, "security-group")
        try:
            made = str(self._call("ec2", action, GroupName=name, Description=description, **marks)["GroupId"])
        except CloudConflict as error:
            if error.code != "InvalidGroup.Duplicate":
                raise
            # It exists, so a describe will show it.
            found = wait_until(
                lambda: self.find_security_group(claim), lambda _: True, what=f"the group {name}", patience=_SETTLE
            )
            made = found.group_id
        self._know(made)
        self._mark_after(action, claim, tags, made)
        return made

    def allow_ssh(self, group_id: str, cidr: str) -> None:
        """Let connections from `cidr` (198.51.100.7/32) in to port 22; fine when they are already."""
        rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": cidr}]}
        try:
            self._call("ec2", "AuthorizeSecurityGroupIngress", (group_id,), GroupId=group_id, IpPermissions=[rule])
        except CloudError as error:
            if error.code != "InvalidPermission.Duplicate":
                raise

    def delete_security_group(self, group_id: str) -> None:
        """Delete the group; fine when it is gone already. Raises CloudConflict while an instance has it."""
        try:
            self._call("ec2", "DeleteSecurityGroup", GroupId=group_id)
        except CloudNotFound:
            return
