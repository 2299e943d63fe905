"""Key pairs and security groups, on AWS and on Eucalyptus of two kinds: named after their claim, made once."""

from __future__ import annotations

import pytest

from builder.cloud.access import named, token_in
from builder.cloud.claims import TAG, Claim
from builder.cloud.instances import InstanceSpec, wait_terminated
from builder.errors import CloudConflict
from builder.remote.keys import KeyPair
from builder.sandbox.faults import client as faults

TAGS = {"Name": "one"}


def test_a_key_pair_from_its_claim_to_its_end(place, claim) -> None:
    cloud = place.cloud
    assert cloud.find_key_pair(claim) is None
    public = KeyPair.generate_rsa().public
    faults.put(place.endpoint, [{"effect": "lost", "service": "ec2", "call": "ImportKeyPair", "first": 1}])
    assert cloud.import_key_pair(claim, public, TAGS) == named(claim)
    faults.clear(place.endpoint)
    found = cloud.find_key_pair(claim)
    assert found.name == named(claim)
    assert found.tags == ({**TAGS, TAG: claim.token} if cloud.capabilities.metadata_options else {})  # of AWS alone
    for _ in range(2):
        cloud.delete_key_pair(claim)
    assert cloud.find_key_pair(claim) is None


def test_a_security_group_from_its_claim_to_its_end(place, claim, image) -> None:
    cloud = place.cloud
    assert cloud.find_security_group(claim) is None
    calls = ("CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "CreateTags")
    faults.put(place.endpoint, [{"effect": "lost", "service": "ec2", "call": call, "first": 1} for call in calls])
    group = cloud.create_security_group(claim, "of a test", TAGS)
    for cidr in ("127.0.0.1/32", "127.0.0.1/32", "198.51.100.0/24"):
        cloud.allow_ssh(group, cidr)
    faults.clear(place.endpoint)
    assert cloud.create_security_group(claim, "of a test", TAGS) == group
    found = cloud.find_security_group(claim)
    assert (found.group_id, found.name) == (group, named(claim))
    assert sorted(found.ssh_from) == ["127.0.0.1/32", "198.51.100.0/24"]
    assert found.tags == {**TAGS, TAG: claim.token}
    instance = cloud.run_instance(claim, InstanceSpec(image_id=image, security_group_ids=(group,)))
    assert cloud.describe_instance(instance).security_group_ids == [group]
    with pytest.raises(CloudConflict):
        cloud.delete_security_group(group)
    cloud.terminate_instance(instance)
    wait_terminated(cloud, instance)
    for _ in range(2):
        cloud.delete_security_group(group)
    assert cloud.find_security_group(claim) is None


def test_a_name_tells_the_claim() -> None:
    claim = Claim("k", 3)
    assert token_in(named(claim)) == claim.token
    for other in ("", claim.token, f"emi-{claim.token}0", f"emi-{claim.token[1:]}", f"emi-{claim.token.upper()}"):
        assert token_in(other) == ""
