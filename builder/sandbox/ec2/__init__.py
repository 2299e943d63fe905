"""The service `ec2`: a table of the calls that are answered, one file per area.

A new area (volumes, instances, …) is a file with an `ACTIONS` table and one line below.
"""

from __future__ import annotations

from collections.abc import Iterable

from builder.sandbox.access import needs
from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2 import (
    attachments,
    attributes,
    console_output,
    copies,
    create_image,
    deprecation,
    deregister,
    encryption,
    image_copies,
    images,
    imports,
    instance_attributes,
    instance_changes,
    instance_snapshots,
    instances,
    key_pairs,
    networks,
    places,
    public_access,
    register,
    rule_changes,
    run_instances,
    security_groups,
    sharing,
    snapshots,
    tagging,
    volume_status,
    volumes,
)
from builder.sandbox.ec2.action import Handler
from builder.sandbox.eucalyptus import calls
from builder.sandbox.protocols import query
from builder.sandbox.wire import Answer, Caller, Need, Refusal, Request

ACTIONS: dict[str, Handler] = {
    **attachments.ACTIONS,
    **attributes.ACTIONS,
    **console_output.ACTIONS,
    **copies.ACTIONS,
    **create_image.ACTIONS,
    **deprecation.ACTIONS,
    **deregister.ACTIONS,
    **encryption.ACTIONS,
    **image_copies.ACTIONS,
    **images.ACTIONS,
    **imports.ACTIONS,
    **instance_attributes.ACTIONS,
    **instance_changes.ACTIONS,
    **instance_snapshots.ACTIONS,
    **instances.ACTIONS,
    **key_pairs.ACTIONS,
    **networks.ACTIONS,
    **places.ACTIONS,
    **public_access.ACTIONS,
    **register.ACTIONS,
    **rule_changes.ACTIONS,
    **run_instances.ACTIONS,
    **security_groups.ACTIONS,
    **sharing.ACTIONS,
    **snapshots.ACTIONS,
    **tagging.ACTIONS,
    **volume_status.ACTIONS,
    **volumes.ACTIONS,
}


class Ec2:
    """EC2's query protocol over the table."""

    service = "ec2"
    actions = frozenset(ACTIONS)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def action(self, request: Request) -> str:
        """Return the name of the call."""
        return request.form.get("Action", "")

    def permissions(self, action: str, request: Request, caller: Caller) -> Iterable[Need]:
        """Return what the caller must be allowed."""
        return needs.of_ec2(action, request.form, caller, self._cloud.state)

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""
        model = query.service("ec2")
        eucalyptus = self._cloud.personality.is_eucalyptus
        handler = (calls.ACTIONS.get(action) if eucalyptus else None) or ACTIONS.get(action)
        if handler is None and model.has(action):
            raise Refusal("UnsupportedOperation", f"The sandbox does not support {action}.")
        if handler is None:
            raise Refusal("InvalidAction", f"The action {action} is not valid for this web service.")
        form, more = calls.bound(self._cloud, action, request.form) if eucalyptus else (request.form, {})
        values = {**model.parse(action, form), **more}
        if values.pop("DryRun", False):
            raise Refusal("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412)
        return model.answer(action, handler(self._cloud, caller, values), request)

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as EC2 words it."""
        return query.refuse_ec2(refusal, request)
