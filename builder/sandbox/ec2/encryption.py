"""Encryption as a property of volumes and snapshots: kept, inherited and described; the bytes lie in the clear.

There is no KMS here: a key is a name, and whether it exists or may be used is not asked.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import replace

from builder.sandbox.cloud import Cloud
from builder.sandbox.ec2.action import Handler, Values
from builder.sandbox.records import EbsSettings, Snapshot, Volume
from builder.sandbox.wire import Caller, Refusal

_DEFAULT_ALIAS = "alias/aws/ebs"  # the key that AWS manages for EBS in every account and region
_KEY_ID = re.compile(r"(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_KEY_ARN = re.compile(rf"arn:aws:kms:[a-z0-9-]+:\d{{12}}:key/{_KEY_ID.pattern}")


def decide(
    cloud: Cloud, caller: Caller, values: Values, *, inherited: Snapshot | Volume | None = None
) -> tuple[bool, str | None]:
    """Return whether what a call makes is encrypted and with which key (an ARN), by its Encrypted and KmsKeyId.

    `inherited` is what it is made of, whose encryption cannot be taken off; the account's setting may add it. Raises
    Refusal.
    """
    wanted, key = values.get("Encrypted"), values.get("KmsKeyId")
    if key and not wanted:
        message = "The parameter KmsKeyId requires the parameter Encrypted to be set."
        raise Refusal("InvalidParameterDependency", message)
    if wanted is False and inherited is not None and inherited.encrypted:
        message = "The parameter Encrypted cannot be false for what is made of an encrypted snapshot."
        raise Refusal("InvalidParameterCombination", message)
    settings = cloud.ebs_settings(caller.account, caller.region)
    if key:
        return True, key_arn(caller.account, caller.region, key)
    if inherited is not None and inherited.encrypted and _stays(caller, inherited):
        return True, inherited.kms_key_id
    if wanted or settings.encryption_by_default or (inherited is not None and inherited.encrypted):
        return True, settings.default_kms_key_id or key_arn(caller.account, caller.region)
    return False, None


def _stays(caller: Caller, inherited: Snapshot | Volume) -> bool:
    return (inherited.account, inherited.region) == (caller.account, caller.region)


def key_arn(account: str, region: str, key: str = _DEFAULT_ALIAS) -> str:
    """Return the ARN of the KMS key that a call names. Raises Refusal for an alias, except that of AWS's own key."""
    if _KEY_ARN.fullmatch(key):
        return key
    prefix = f"arn:aws:kms:{region}:{account}:"
    name = key.removeprefix(prefix)
    if name == _DEFAULT_ALIAS:
        return f"{prefix}key/{uuid.uuid5(uuid.NAMESPACE_URL, prefix + _DEFAULT_ALIAS)}"
    if _KEY_ID.fullmatch(name):
        return f"{prefix}key/{name}"
    if name.startswith("alias/"):
        raise Refusal("UnsupportedOperation", f"The sandbox has no KMS: it knows no alias but {_DEFAULT_ALIAS}.")
    raise Refusal("InvalidParameterValue", f"Value ({key}) for parameter KmsKeyId is invalid.")


def is_default_key(snapshot: Snapshot) -> bool:
    """Say whether the snapshot is encrypted with AWS's own key, which other accounts cannot use."""
    return snapshot.encrypted and snapshot.kms_key_id == key_arn(snapshot.account, snapshot.region)


def _get_by_default(cloud: Cloud, caller: Caller, _: Values) -> Values:
    enabled = cloud.ebs_settings(caller.account, caller.region).encryption_by_default
    return {"EbsEncryptionByDefault": enabled, "SseType": "sse-ebs"}


def _switch(cloud: Cloud, caller: Caller, *, on: bool) -> Values:
    change(cloud, caller, encryption_by_default=on)
    return {"EbsEncryptionByDefault": on}


def change(cloud: Cloud, caller: Caller, **settings: bool | str | None) -> EbsSettings:
    """Change what the account has set for EBS in the region, and return it."""
    with cloud.state.lock:
        changed = replace(cloud.ebs_settings(caller.account, caller.region), **settings)  # type: ignore[arg-type]
        cloud.state.put(changed)
    return changed


def _default_key(cloud: Cloud, caller: Caller) -> Values:
    kept = cloud.ebs_settings(caller.account, caller.region).default_kms_key_id
    return {"KmsKeyId": kept or _DEFAULT_ALIAS}


def _modify_default_key(cloud: Cloud, caller: Caller, values: Values) -> Values:
    change(cloud, caller, default_kms_key_id=key_arn(caller.account, caller.region, values["KmsKeyId"]))
    return _default_key(cloud, caller)


def _reset_default_key(cloud: Cloud, caller: Caller, _: Values) -> Values:
    change(cloud, caller, default_kms_key_id=None)
    return _default_key(cloud, caller)


ACTIONS: dict[str, Handler] = {
    "DisableEbsEncryptionByDefault": lambda cloud, caller, _: _switch(cloud, caller, on=False),
    "EnableEbsEncryptionByDefault": lambda cloud, caller, _: _switch(cloud, caller, on=True),
    "GetEbsDefaultKmsKeyId": lambda cloud, caller, _: _default_key(cloud, caller),
    "GetEbsEncryptionByDefault": _get_by_default,
    "ModifyEbsDefaultKmsKeyId": _modify_default_key,
    "ResetEbsDefaultKmsKeyId": _reset_default_key,
}
