"""Our signatures are botocore's, header by header."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from botocore.auth import SigV4Auth  # noqa: TID251 - the oracle
from botocore.awsrequest import AWSRequest  # noqa: TID251
from botocore.credentials import Credentials  # noqa: TID251

from builder.cloud.sigv4 import UNSIGNED, Keys, Signer, encode_query

NOW = dt.datetime(2026, 3, 1, 23, 59, 58, tzinfo=dt.UTC)
PUT = {
    "content-type": "application/octet-stream",
    "x-amz-checksum": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "x-amz-checksum-algorithm": "SHA256",
    "x-amz-data-length": "524288",
}


class BotocoreSigner(SigV4Auth):
    """botocore's signer with its clock stopped and the payload's hash given."""

    hashed = UNSIGNED

    def payload(self, request):
        return self.hashed

    def _modify_request_before_signing(self, request):
        super()._modify_request_before_signing(request)
        request.headers["X-Amz-Content-SHA256"] = self.hashed


@pytest.mark.parametrize(
    ("request_parts", "payload"),
    [
        (("PUT", "/snapshots/snap-0123456789abcdef0/blocks/17", {}, PUT), UNSIGNED),
        (("PUT", "/snapshots/snap-0123456789abcdef0/blocks/17", {}, PUT), "ab" * 32),
        (("GET", "/snapshots/snap-0123456789abcdef0/blocks/0", {"blockToken": "a+b/c=="}, {}), UNSIGNED),
        (
            ("GET", "/snapshots/snap-0123456789abcdef0/blocks", {"pageToken": "x y~z", "maxResults": "100"}, {}),
            "00" * 32,
        ),
    ],
)
@pytest.mark.parametrize(
    ("token", "host"), [(None, "ebs.us-east-1.amazonaws.com"), ("a/session+token==", "127.0.0.1:4566")]
)
def test_the_signature_is_botocores(monkeypatch, request_parts, payload, token, host):
    method, path, query, headers = request_parts
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOW.replace(tzinfo=None), raising=False)
    oracle = BotocoreSigner(Credentials("AKID", "secret", token), "ebs", "us-east-1")
    oracle.hashed = payload
    url = f"https://{host}{path}" + (f"?{encode_query(query)}" if query else "")
    request = AWSRequest(method=method, url=url, headers=headers)
    oracle.add_auth(request)
    signer = Signer(
        host=host,
        region="us-east-1",
        service="ebs",
        keys=lambda: Keys(access_key="AKID", secret_key="secret", token=token),
    )
    signed = signer.sign(method, path, query=query, headers=headers, payload=payload, now=NOW.timestamp())
    assert request.headers["X-Amz-Date"] == signed["x-amz-date"]
    assert signed["authorization"] == request.headers["Authorization"]


def test_the_cached_key_follows_the_day_and_the_secret():
    keys = [Keys(access_key="A", secret_key="one")]
    signer = Signer(host="h", region="r", service="ebs", keys=lambda: keys[0])

    def signature(now: float) -> str:
        return signer.sign("GET", "/", query={}, headers={}, now=now)["authorization"]

    def fresh(now: float) -> str:
        other = Signer(host="h", region="r", service="ebs", keys=lambda: keys[0])
        return other.sign("GET", "/", query={}, headers={}, now=now)["authorization"]

    today, tomorrow = time.time(), time.time() + 86400
    assert signature(today) == fresh(today)
    assert signature(tomorrow) == fresh(tomorrow) != signature(today)
    keys[0] = Keys(access_key="A", secret_key="two")
    assert signature(today) == fresh(today)
