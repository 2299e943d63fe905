"""Who may make volumes of a snapshot: its permissions, and the account's block on sharing with everybody."""

from __future__ import annotations

from dataclasses import replace

from builder.sandbox.cloud import EVERYBODY, Cloud
from builder.sandbox.ec2 import permission_changes, snapshots
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.ec2.encryption import change, is_default_key
from builder.sandbox.records import Snapshot
from builder.sandbox.wire import Caller, Refusal

_MOST_CHANGES = 500  # ModifySnapshotAttribute: "up to 500 modifications … in a single operation"
_ATTRIBUTE = "createVolumePermission"
_FORM = permission_changes.Form(
    structure="CreateVolumePermission",
    groups="GroupNames",
    wrong_user=lambda name: Refusal("InvalidUserID.Malformed", f'Invalid user id: "{name}"'),
    wrong_group=lambda name: Refusal("InvalidParameterValue", f"Value ({name}) for parameter group is invalid."),
)


def _modify(cloud: Cloud, caller: Caller, values: Values) -> Values:
    added, removed = _changes(values)
    with cloud.state.lock:
        snapshot = snapshots.require(cloud, caller, values["SnapshotId"])
        if added:
            _check_sharing(cloud, snapshot, added)
        kept = [one for one in snapshot.create_volume_permissions if one not in removed]
        permissions = tuple(dict.fromkeys([*kept, *added]))
        cloud.state.put(replace(snapshot, create_volume_permissions=permissions))
    return {}


def _changes(values: Values) -> tuple[list[str], list[str]]:
    """Return to whom the call gives permission, and from whom it takes it. Raises Refusal."""
    if values.get("Attribute", _ATTRIBUTE) != _ATTRIBUTE:
        raise Refusal("InvalidParameterValue", f"Value ({values['Attribute']}) for parameter attribute is invalid.")
    added, removed = permission_changes.read(values, _FORM)
    if added and removed:
        message = "Permissions cannot be added and removed in a single operation."
        raise Refusal("InvalidParameterCombination", message)
    if len(added) + len(removed) > _MOST_CHANGES:
        raise Refusal("InvalidParameterValue", f"At most {_MOST_CHANGES} permissions can be changed at once.")
    return added, removed


def _check_sharing(cloud: Cloud, snapshot: Snapshot, added: list[str]) -> None:
    blocked = cloud.ebs_settings(snapshot.account, snapshot.region).snapshot_block_public_access
    if EVERYBODY in added and blocked != "unblocked":
        message = "Snapshots cannot be shared publicly: block public access for snapshots is enabled in this Region."
        raise Refusal("OperationNotPermitted", message)
    if EVERYBODY in added and snapshot.encrypted:
        raise Refusal("OperationNotPermitted", "Encrypted snapshots cannot be shared publicly.")
    if is_default_key(snapshot):
        message = "Snapshots encrypted with the AWS managed key for EBS cannot be shared."
        raise Refusal("OperationNotPermitted", message)


def _describe(cloud: Cloud, caller: Caller, values: Values) -> Values:
    snapshot = snapshots.require(cloud, caller, values["SnapshotId"])
    match values["Attribute"]:
        case "createVolumePermission":
            named = snapshot.create_volume_permissions
            permissions = [{"Group": one} if one == EVERYBODY else {"UserId": one} for one in named]
            return {"SnapshotId": snapshot.snapshot_id, "CreateVolumePermissions": permissions}
        case "productCodes":
            return {"SnapshotId": snapshot.snapshot_id, "ProductCodes": []}
        case other:
            raise Refusal("InvalidParameterValue", f"Value ({other}) for parameter attribute is invalid.")


def _reset(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if (attribute := values["Attribute"]) != _ATTRIBUTE:
        raise Refusal("InvalidParameterValue", f"Value ({attribute}) for parameter attribute is invalid.")
    with cloud.state.lock:
        snapshot = snapshots.require(cloud, caller, values["SnapshotId"])
        cloud.state.put(replace(snapshot, create_volume_permissions=()))
    return {}


def _get_block(cloud: Cloud, caller: Caller, _: Values) -> Values:
    state = cloud.ebs_settings(caller.account, caller.region).snapshot_block_public_access
    return {"State": state, "ManagedBy": "account"}


def _enable_block(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if (state := values["State"]) not in ("block-all-sharing", "block-new-sharing"):
        raise Refusal("InvalidParameterValue", f"Value ({state}) for parameter state is invalid.")
    return {"State": change(cloud, caller, snapshot_block_public_access=state).snapshot_block_public_access}


def _disable_block(cloud: Cloud, caller: Caller, _: Values) -> Values:
    return {"State": change(cloud, caller, snapshot_block_public_access="unblocked").snapshot_block_public_access}


ACTIONS: dict[str, Handler] = {
    "DescribeSnapshotAttribute": _describe,
    "DisableSnapshotBlockPublicAccess": _disable_block,
    "EnableSnapshotBlockPublicAccess": _enable_block,
    "GetSnapshotBlockPublicAccessState": _get_block,
    "ModifySnapshotAttribute": _modify,
    "ResetSnapshotAttribute": _reset,
}
