"""CreateKeyPair, ImportKeyPair, DescribeKeyPairs, DeleteKeyPair: real keys, of which the public half is kept."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from builder.sandbox.cloud import Cloud, new_id
from builder.sandbox.ec2.action import Handler, Values, check_filters, matches, tag_list
from builder.sandbox.ec2.tags import specified
from builder.sandbox.records import KeyPair
from builder.sandbox.wire import Caller, Refusal

_MOST_NAME = 255  # characters (CreateKeyPair, KeyName: ASCII)
_FILTERS = ("fingerprint", "key-name", "key-pair-id")
_RSA_SIZES = (1024, 2048, 4096)  # bits that ImportKeyPair takes


@dataclass(frozen=True, kw_only=True)
class _Public:
    key_type: str
    text: str
    fingerprint: str


def require(cloud: Cloud, caller: Caller, key_pair_id: str) -> KeyPair:
    """Return the caller's key pair of that id. Raises Refusal."""
    found = cloud.state.all(KeyPair).get(key_pair_id)
    if found is None or (found.account, found.region) != (caller.account, caller.region):
        raise Refusal("InvalidKeyPair.NotFound", f"The key pair ID '{key_pair_id}' does not exist")
    return found


def named(cloud: Cloud, caller: Caller, name: str) -> KeyPair | None:
    """Return the caller's key pair of that name, or None."""
    return next((one for one in _mine(cloud, caller) if one.name == name), None)


def _mine(cloud: Cloud, caller: Caller) -> list[KeyPair]:
    mine = (caller.account, caller.region)
    return [one for one in list(cloud.state.all(KeyPair).values()) if (one.account, one.region) == mine]


def _create(cloud: Cloud, caller: Caller, values: Values) -> Values:
    if (wanted := values.get("KeyFormat", "pem")) != "pem":
        raise Refusal("UnsupportedOperation", f"The sandbox writes keys as pem, not as {wanted}.")
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    match values.get("KeyType", "rsa"):
        case "rsa":
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            shape = serialization.PrivateFormat.TraditionalOpenSSL
            # EC2's guide: openssl pkcs8 -topk8 -nocrypt -outform DER | openssl sha1 -c
            inside = private.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            fingerprint = hashlib.sha1(inside).hexdigest()  # noqa: S324 - the fingerprint that EC2 shows
        case "ed25519":
            private = ed25519.Ed25519PrivateKey.generate()
            shape, fingerprint = serialization.PrivateFormat.OpenSSH, ""
        case other:
            raise Refusal("InvalidParameterValue", f"Value ({other}) for parameter keyType is invalid.")
    material = private.private_bytes(serialization.Encoding.PEM, shape, serialization.NoEncryption())
    public = _public(private.public_key())
    if fingerprint:
        public = _Public(key_type=public.key_type, text=public.text, fingerprint=_colons(fingerprint))
    pair = _keep(cloud, caller, values, public)
    return {**_shape(pair), "KeyMaterial": material.decode()}


def _import(cloud: Cloud, caller: Caller, values: Values) -> Values:
    given = values["PublicKeyMaterial"]
    try:
        key = serialization.load_ssh_public_key(given if isinstance(given, bytes) else base64.b64decode(given))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size not in _RSA_SIZES:
        raise Refusal("InvalidKey.Format", f"An RSA key of {key.key_size} bits: 1024, 2048 and 4096 are supported")
    if not isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise Refusal("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
    return _shape(_keep(cloud, caller, values, _public(key)))


def _public(key: rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> _Public:
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    if isinstance(key, rsa.RSAPublicKey):
        # EC2's guide: ssh-keygen -ef KEY -m PEM | openssl rsa -RSAPublicKey_in -outform DER | openssl md5 -c
        inside = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        fingerprint = _colons(hashlib.md5(inside).hexdigest())  # noqa: S324 - the fingerprint that EC2 shows
        return _Public(key_type="rsa", text=text, fingerprint=fingerprint)
    digest = hashlib.sha256(base64.b64decode(text.split()[1])).digest()
    return _Public(key_type="ed25519", text=text, fingerprint=base64.b64encode(digest).decode())


def _colons(digest: str) -> str:
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def _keep(cloud: Cloud, caller: Caller, values: Values, public: _Public) -> KeyPair:
    name = values["KeyName"]
    if not name.isascii() or len(name) > _MOST_NAME:
        raise Refusal("InvalidParameterValue", f"A key pair's name has at most {_MOST_NAME} ASCII characters.")
    pair = KeyPair(
        key_pair_id=new_id("key"),
        account=caller.account,
        region=caller.region,
        name=name,
        key_type=public.key_type,
        public_key=public.text,
        fingerprint=public.fingerprint,
        creation_time=time.time(),
        tags=specified(values.get("TagSpecifications", ()), "key-pair"),
    )
    with cloud.state.lock:
        if named(cloud, caller, name) is not None:
            raise Refusal("InvalidKeyPair.Duplicate", f"The keypair '{name}' already exists.")
        cloud.state.put(pair)
    return pair


def _shape(pair: KeyPair) -> Mapping[str, object]:
    return {
        "KeyFingerprint": pair.fingerprint,
        "KeyName": pair.name,
        "KeyPairId": pair.key_pair_id,
        "Tags": tag_list(pair.tags),
    }


def _describe(cloud: Cloud, caller: Caller, values: Values) -> Values:
    filters = values.get("Filters", [])
    check_filters(filters, _FILTERS)
    found = _mine(cloud, caller)
    names, ids = values.get("KeyNames", []), values.get("KeyPairIds", [])
    for name in names:
        if name not in {one.name for one in found}:
            raise Refusal("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    for key_pair_id in ids:
        require(cloud, caller, key_pair_id)
    shown = []
    for one in found:
        traits = {"fingerprint": [one.fingerprint], "key-name": [one.name], "key-pair-id": [one.key_pair_id]}
        if (not (names or ids) or one.name in names or one.key_pair_id in ids) and matches(traits, one.tags, filters):
            public = one.public_key if values.get("IncludePublicKey") else None
            more = {"KeyType": one.key_type, "CreateTime": one.creation_time, "PublicKey": public}
            shown.append({**_shape(one), **more})
    return {"KeyPairs": shown}


def _delete(cloud: Cloud, caller: Caller, values: Values) -> Values:
    name, key_pair_id = values.get("KeyName"), values.get("KeyPairId")
    if not name and not key_pair_id:
        raise Refusal("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
    with cloud.state.lock:
        pair = named(cloud, caller, name) if name else cloud.state.all(KeyPair).get(key_pair_id or "")
        if pair is None or (pair.account, pair.region) != (caller.account, caller.region):
            return {"Return": True}  # EC2 says so of one that is not there as well
        cloud.state.remove(pair)
    return {"Return": True, "KeyPairId": pair.key_pair_id}


ACTIONS: dict[str, Handler] = {
    "CreateKeyPair": _create,
    "DeleteKeyPair": _delete,
    "DescribeKeyPairs": _describe,
    "ImportKeyPair": _import,
}
