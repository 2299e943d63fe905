"""The lean client against a server that answers by script: what it sends, and what it makes of any answer."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from builder.cloud.api import BlockRef
from builder.cloud.blocks import BlockClient
from builder.cloud.pacer import Pacer
from builder.cloud.sigv4 import UNSIGNED, Keys, Signer
from builder.digest import BLOCK
from builder.errors import CloudDenied, CloudError, CloudNotFound, CloudTrouble

DATA = bytes(range(256)) * (BLOCK // 256)
SHA = hashlib.sha256(DATA).digest()
SUM = base64.b64encode(SHA).decode()
SNAP = "snap-0123456789abcdef0"
OK = (201, {"x-amz-Checksum": SUM}, b"")
GOT = (200, {"x-amz-Checksum": SUM}, DATA)


@pytest.fixture
def client():
    made = []

    def make(url, **more) -> BlockClient:
        keys = Keys(access_key="AKID", secret_key="secret", token="session")
        signer = Signer(host=url.partition("//")[2], region="us-east-1", service="ebs", keys=lambda: keys)
        made.append(BlockClient(url, signer, pacer=more.pop("pacer", Pacer(10000)), **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def refused(code: str, status: int, reason: str = "") -> tuple[int, dict[str, str], bytes]:
    body = json.dumps({"Message": "the words", "Reason": reason}).encode()
    return status, {"x-amzn-ErrorType": f"{code}:http://internal.amazon.com/"}, body


def test_a_put_is_what_the_service_model_says(client, script):
    server = script(OK)
    client(server.url).put(SNAP, 17, DATA, SHA)
    ((method, path, headers, body),) = server.heard
    assert (method, path, body) == ("PUT", f"/snapshots/{SNAP}/blocks/17", DATA)
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent["x-amz-checksum"] == SUM
    assert sent["x-amz-checksum-algorithm"] == "SHA256"
    assert sent["x-amz-data-length"] == sent["content-length"] == str(BLOCK)
    assert sent["x-amz-security-token"] == "session"
    assert sent["x-amz-content-sha256"] == SHA.hex() != UNSIGNED  # plain http: the body is signed
    signed = re.search("SignedHeaders=([^,]*)", sent["authorization"])
    assert signed
    assert {"host", "x-amz-checksum", "x-amz-security-token"} <= set(signed[1].split(";"))


def test_a_get_asks_with_its_token_and_proves_the_bytes(client, script):
    server = script(GOT)
    assert client(server.url).get(SNAP, BlockRef(index=3, token="a+b/c==")) == DATA
    assert server.heard[0][:2] == ("GET", f"/snapshots/{SNAP}/blocks/3?blockToken=a%2Bb%2Fc%3D%3D")


def test_one_connection_carries_all_that_one_thread_sends(client, script):
    server = script(OK)
    one = client(server.url)
    for index in range(5):
        one.put(SNAP, index, DATA, SHA)
    assert len(server.connections) == 1


@pytest.mark.parametrize("then", [{"Connection": "close"}, {"X-Then": "close"}], ids=["announced", "while idle"])
def test_a_connection_that_the_server_closed_is_replaced_unnoticed(client, script, then):
    server = script((201, {**OK[1], **then}, b""))
    one = client(server.url)
    for index in range(3):
        one.put(SNAP, index, DATA, SHA)
    assert [heard[1][-1] for heard in server.heard] == ["0", "1", "2"]
    assert len(server.connections) == 3


@pytest.mark.parametrize(
    ("scene", "error", "words"),
    [
        (refused("RequestThrottledException", 400, "ACCOUNT_THROTTLED"), CloudTrouble, "the words"),
        (refused("InternalServerException", 500), CloudTrouble, "the words"),
        (refused("ValidationException", 400, "INVALID_BLOCK"), CloudError, "ValidationException/INVALID_BLOCK"),
        (refused("AccessDeniedException", 403, "UNAUTHORIZED_ACCOUNT"), CloudDenied, "ebs:PutSnapshotBlock"),
        (refused("ResourceNotFoundException", 404, "SNAPSHOT_NOT_FOUND"), CloudNotFound, "the words"),
        ((403, {}, b'{"__type": "com.amazon#ExpiredTokenException", "message": "old"}'), CloudDenied, "old"),
        ((502, {}, b"<html>Bad Gateway</html>"), CloudTrouble, "HTTP 502"),
        ((200, {}, b"[]"), CloudError, "HTTP 200"),
        ((201, {"x-amz-Checksum": "other"}, b""), CloudTrouble, "another checksum"),
        ((201, {}, b""), CloudTrouble, "another checksum"),
        ("cut", CloudTrouble, "closed connection"),
        ("early", CloudTrouble, "HTTP 503"),
    ],
)
def test_what_an_answer_to_a_put_means(client, script, scene, error, words):
    server = script(scene)
    with pytest.raises(error, match=re.escape(words)) as caught:
        client(server.url).put(SNAP, 0, DATA, SHA)
    assert type(caught.value) is error
    assert len(server.heard) == 1  # one attempt: retrying is the caller's


@pytest.mark.parametrize(
    ("scene", "error"),
    [
        ((200, {"x-amz-Checksum": SUM}, DATA[:-1]), CloudTrouble),
        ((200, {"x-amz-Checksum": SUM}, DATA[:-1] + b"x"), CloudTrouble),
        ((200, {}, DATA), CloudTrouble),
        (refused("ValidationException", 400, "INVALID_BLOCK_TOKEN"), CloudError),
        ("cut", CloudTrouble),
    ],
)
def test_what_an_answer_to_a_get_means(client, script, scene, error):
    server = script(scene)
    with pytest.raises(error) as caught:
        client(server.url).get(SNAP, BlockRef(index=0, token="t"))
    assert type(caught.value) is error


def test_throttling_slows_the_pacer(client, script):
    pacer = Pacer(1000)
    server = script(refused("RequestThrottledException", 400), OK)
    one = client(server.url, pacer=pacer)
    with pytest.raises(CloudTrouble):
        one.put(SNAP, 0, DATA, SHA)
    assert pacer.rate < 1000


def test_nobody_there_is_trouble(client):
    with pytest.raises(CloudTrouble, match="refused"):
        client("http://127.0.0.1:1").put(SNAP, 0, DATA, SHA)


def test_an_untrusted_certificate_is_refused_with_advice(client, sandbox):
    with pytest.raises(CloudError, match=r"certificate of 127\.0\.0\.1 is not trusted") as caught:
        client(sandbox.endpoint.url).put(SNAP, 0, DATA, SHA)
    assert not caught.value.retryable
    assert "AWS_CA_BUNDLE" in caught.value.hint
