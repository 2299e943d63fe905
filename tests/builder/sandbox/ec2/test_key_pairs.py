"""Key pairs: real keys, whose fingerprints are those that EC2's guide computes with OpenSSL and ssh-keygen."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest
from cryptography.hazmat.primitives import serialization

AREA = "EC2 key pairs"
MISSING = [(AREA, "CreateKeyPair", "KeyFormat ppk: UnsupportedOperation")]


@pytest.fixture
def name():
    return f"key {time.time_ns()}"


def described(ec2, name, **more):
    (pair,) = ec2.describe_key_pairs(KeyNames=[name], **more)["KeyPairs"]
    return pair


def public_of(private):
    return private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


@pytest.mark.behaviour(AREA, "CreateKeyPair", "an RSA key of 2048 bits whose SHA-1 fingerprint is of its PKCS#8 form")
def test_an_rsa_key_is_created(ec2, name):
    made = ec2.create_key_pair(KeyName=name)
    assert made["KeyMaterial"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    private = serialization.load_pem_private_key(made["KeyMaterial"].encode(), None)
    inside = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert private.key_size == 2048
    assert made["KeyFingerprint"] == ":".join(f"{byte:02x}" for byte in hashlib.sha1(inside).digest())
    pair = described(ec2, name, IncludePublicKey=True)
    assert (pair["KeyType"], pair["KeyPairId"]) == ("rsa", made["KeyPairId"])
    assert pair["KeyFingerprint"] == made["KeyFingerprint"]
    assert pair["PublicKey"].encode() == public_of(private)
    assert not {"KeyMaterial", "PublicKey"} & set(described(ec2, name))


@pytest.mark.behaviour(AREA, "CreateKeyPair", "an ED25519 key in OpenSSH's form, with OpenSSH's SHA-256 fingerprint")
@pytest.mark.behaviour(AREA, "ImportKeyPair", "RSA has the MD5 fingerprint of its DER form, ED25519 that of OpenSSH")
def test_keys_are_imported(ec2, name):
    made = ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    private = serialization.load_ssh_private_key(made["KeyMaterial"].encode(), None)
    blob = base64.b64decode(public_of(private).split()[1])
    assert made["KeyFingerprint"] == base64.b64encode(hashlib.sha256(blob).digest()).decode()
    same = ec2.import_key_pair(KeyName=f"{name} again", PublicKeyMaterial=public_of(private))
    assert same["KeyFingerprint"] == made["KeyFingerprint"]
    rsa = serialization.load_pem_private_key(ec2.create_key_pair(KeyName=f"{name} rsa")["KeyMaterial"].encode(), None)
    tags = [{"ResourceType": "key-pair", "Tags": [{"Key": "k", "Value": "v"}]}]
    text = public_of(rsa) + b" somebody@somewhere"
    imported = ec2.import_key_pair(KeyName=f"{name} imported", PublicKeyMaterial=text, TagSpecifications=tags)
    public = rsa.public_key()
    inside = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert imported["KeyFingerprint"] == ":".join(f"{byte:02x}" for byte in hashlib.md5(inside).digest())
    assert described(ec2, f"{name} imported")["Tags"] == [{"Key": "k", "Value": "v"}]
    ec2.create_tags(Resources=[imported["KeyPairId"]], Tags=[{"Key": "k", "Value": "w"}])
    assert described(ec2, f"{name} imported")["Tags"] == [{"Key": "k", "Value": "w"}]


@pytest.mark.behaviour(
    AREA, "DescribeKeyPairs, DeleteKeyPair", "a deleted key pair is gone; deleting it again succeeds"
)
def test_a_key_pair_is_deleted(ec2, name, code_of):
    made = ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    assert code_of(ec2.create_key_pair, KeyName=name) == "InvalidKeyPair.Duplicate"
    filters = [{"Name": "fingerprint", "Values": [made["KeyFingerprint"]]}]
    assert [one["KeyName"] for one in ec2.describe_key_pairs(Filters=filters)["KeyPairs"]] == [name]
    assert ec2.delete_key_pair(KeyName=name)["KeyPairId"] == made["KeyPairId"]
    assert code_of(ec2.describe_key_pairs, KeyNames=[name]) == "InvalidKeyPair.NotFound"
    assert ec2.delete_key_pair(KeyName=name)["Return"] is True


@pytest.mark.parametrize(
    ("material", "code"),
    [
        (b"ssh-rsa AAAA", "InvalidKey.Format"),
        (b"-----BEGIN RSA PRIVATE KEY-----", "InvalidKey.Format"),
        (b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=", "InvalidKey.Format"),
    ],
)
def test_what_is_no_key_is_refused(ec2, name, code_of, material, code):
    assert code_of(ec2.import_key_pair, KeyName=name, PublicKeyMaterial=material) == code
    assert code_of(ec2.describe_key_pairs, KeyNames=[name]) == "InvalidKeyPair.NotFound"
    assert code_of(ec2.create_key_pair, KeyName=name, KeyFormat="ppk") == "UnsupportedOperation"
    assert code_of(ec2.create_key_pair, KeyName=name, KeyType="dsa") == "InvalidParameterValue"
    assert code_of(ec2.delete_key_pair) == "MissingParameter"


@pytest.mark.behaviour("EC2 instances (records only)", "RunInstances", "the key pair that is named must be there")
def test_an_instance_has_its_key(ec2, name, completed, code_of):
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": completed}}]
    image_id = ec2.register_image(Name=name, RootDeviceName="/dev/xvda", BlockDeviceMappings=devices)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})
    wish = {"ImageId": image_id, "MinCount": 1, "MaxCount": 1, "KeyName": name}
    assert code_of(ec2.run_instances, **wish) == "InvalidKeyPair.NotFound"
    ec2.create_key_pair(KeyName=name, KeyType="ed25519")
    assert ec2.run_instances(**wish)["Instances"][0]["KeyName"] == name
