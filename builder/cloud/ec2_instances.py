"""The calls of EC2 about instances: instances.Instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builder.cloud import records
from builder.cloud.calls import Calls, filters
from builder.cloud.claims import TAG, Claim
from builder.cloud.holdings import entries
from builder.cloud.instances import MOST_USER_DATA, InstanceRecord, InstanceSpec
from builder.errors import CloudConflict, CloudError, CloudNotFound, UsageError

_RUN = "RunInstances"


class Ec2Instances(Calls):
    """Instances of one account in one region."""

    def find_instances(self, claim: Claim) -> Sequence[InstanceRecord]:
        """Return our instances that carry the claim, whatever their state; terminated ones as long as they are shown.

        Where tags come after RunInstances it is found by its client token as well.
        """
        found = {one.instance_id: one for one in self._instances(Filters=filters(f"tag:{TAG}", claim.token))}
        if not self._tags_at_once(_RUN):
            found |= {one.instance_id: one for one in self._instances(Filters=filters("client-token", claim.token))}
        return list(found.values())

    def run_instance(self, claim: Claim, spec: InstanceSpec) -> str:
        """Launch one instance under the claim's token and return its id at once: the same call twice launches one.

        Raises CloudNotFound when the claim's instance was terminated: launch under the next generation.
        """
        if len(spec.user_data) > MOST_USER_DATA:
            raise UsageError(f"the user data have {len(spec.user_data)} bytes; {MOST_USER_DATA} is the most")
        request = records.launch(spec) | self._marks(_RUN, claim, spec.tags, "instance", "volume")
        if self.capabilities.metadata_options:
            request["MetadataOptions"] = {"HttpTokens": "required", "HttpEndpoint": "enabled"}
        try:
            answer = self._call("ec2", _RUN, **request, MinCount=1, MaxCount=1, ClientToken=claim.token)
        except CloudConflict as error:
            if not self._has_ended(claim, error):
                raise
            raise CloudNotFound(f"the instance of this claim was terminated: {error.message}") from error
        made = records.instance(answer["Instances"][0])
        self._know(made.instance_id)
        if not self._tags_at_once(_RUN):
            self.tag_instance(made.instance_id, claim, spec.tags)
        return made.instance_id

    def tag_instance(self, instance_id: str, claim: Claim, tags: Mapping[str, str]) -> None:
        """Put the tags and the claim's on an instance and its volumes, where a crash came before that."""
        self._know(instance_id)
        record = self.describe_instance(instance_id)
        ids = [instance_id, *(volume for _, volume in (record.devices if record else ()))]
        self._call("ec2", "CreateTags", ids, Resources=ids, Tags=self._tag_list(claim, tags))

    def describe_instance(self, instance_id: str) -> InstanceRecord | None:
        """Return the instance, or None when the cloud says it does not exist."""
        self._know(instance_id)
        try:
            return next(iter(self._instances(InstanceIds=[instance_id])), None)
        except CloudNotFound:
            return None

    def terminate_instance(self, instance_id: str) -> None:
        """Begin to terminate it; fine when it is gone already."""
        try:
            self._call("ec2", "TerminateInstances", InstanceIds=[instance_id])
        except CloudNotFound:
            return

    def stop_instance(self, instance_id: str, *, force: bool = False) -> None:
        """Begin to stop it; with `force` its system is not asked."""
        self._call("ec2", "StopInstances", InstanceIds=[instance_id], **({"Force": True} if force else {}))

    def start_instance(self, instance_id: str) -> None:
        """Begin to start it again, perhaps with another address."""
        self._call("ec2", "StartInstances", InstanceIds=[instance_id])

    def console_output(self, instance_id: str) -> str:
        """Return the last of what it printed on its console, at most 64 KiB; "" where there is nothing yet."""
        action = "GetConsoleOutput"
        if self.capabilities.latest_console:
            try:
                return str(self._call("ec2", action, InstanceId=instance_id, Latest=True).get("Output", ""))
            except CloudError as error:
                if error.code not in ("UnsupportedOperation", "InvalidParameterCombination"):
                    raise
        return str(self._call("ec2", action, InstanceId=instance_id).get("Output", ""))

    def _has_ended(self, claim: Claim, error: CloudConflict) -> bool:
        """Say whether the claim's token was refused because its instance has ended.

        Parameters may be compared first, and those of a security group that was made anew are others.
        """
        if error.code == "IdempotentParameterMismatch":
            found = self.find_instances(claim)
            return bool(found) and all(one.ending for one in found)
        return error.code == "IdempotentInstanceTerminated"

    def _instances(self, **request: object) -> list[InstanceRecord]:
        found = entries("instance", self._pages("DescribeInstances", "Reservations", **request))
        return [records.instance(item) for item in found]
