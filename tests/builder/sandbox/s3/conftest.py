"""S3 as users meet it: boto3 against the file's sandbox, a bucket for each test, a second account."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random

import boto3  # noqa: TID251 - the client that users bring
import pytest
from botocore import UNSIGNED  # noqa: TID251 - as above
from botocore.config import Config  # noqa: TID251 - as above
from botocore.exceptions import ClientError  # noqa: TID251 - as above

from builder.sandbox import lifecycle

_NUMBERS = itertools.count()
ONCE = {"total_max_attempts": 1}


@pytest.fixture(scope="module")
def s3(sandbox):
    return sandbox.client("s3")


@pytest.fixture
def bucket(s3):
    """A new bucket."""
    name = f"bucket-{next(_NUMBERS)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def loose(s3):
    """A new bucket where ACLs count and the public is not kept out, as S3's all were before April 2023."""
    name = f"loose-{next(_NUMBERS)}"
    s3.create_bucket(Bucket=name, ObjectOwnership="ObjectWriter")
    s3.delete_public_access_block(Bucket=name)
    return name


@pytest.fixture
def stored(sandbox):
    """Return the names of all files that hold objects' bytes."""
    return lambda: {entry.name for entry in (sandbox.directory / "s3" / "data").iterdir()}


@pytest.fixture(scope="session")
def noise():
    """Return bytes that only this seed gives."""
    return lambda size, seed=0: random.Random(seed).randbytes(size)


@pytest.fixture(scope="session")
def refused():
    """Return the whole error of a call that must fail: its code, status and the other fields."""

    def run(call, **parameters):
        with pytest.raises(ClientError) as caught:
            call(**parameters)
        answer = caught.value.response
        return {**answer["Error"], "Status": answer["ResponseMetadata"]["HTTPStatusCode"]}

    return run


@pytest.fixture(scope="module")
def stranger(sandbox):
    """The root keys of a second account, and its number."""
    made = lifecycle.add_account(sandbox.directory, "other")
    return {"aws_access_key_id": made.access_key, "aws_secret_access_key": made.secret_key}, made.account


@pytest.fixture(scope="module")
def other(sandbox, stranger):
    """S3 as the second account sees it."""
    return sandbox.client("s3", **stranger[0])


@pytest.fixture(scope="module")
def anonymous(sandbox):
    """S3 as anybody sees it, without keys."""
    return sandbox.client("s3", config=Config(signature_version=UNSIGNED, retries=ONCE))


@pytest.fixture(scope="module")
def tls_s3(tmp_path_factory):
    """S3 of a sandbox of its own, over its TLS port."""
    directory = tmp_path_factory.mktemp("tls")
    endpoint = lifecycle.start(directory, tls=True)
    yield boto3.client(
        "s3",
        endpoint_url=endpoint.tls_url,
        region_name=endpoint.region,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        config=Config(retries=ONCE),
        verify=str(endpoint.ca_file),
    )
    lifecycle.stop(directory)


@pytest.fixture
def http_call(sandbox):
    """Make one signed request as it is given: call(method, path, body, headers, keys=…) -> (status, headers, body)."""

    def call(method, path, body=b"", headers=None, *, region=None, service="s3"):
        return sandbox.raw(region=region).call(method, path, body, headers, service=service)

    return call


@pytest.fixture(scope="session")
def checksum_of():
    """Return the Content-MD5 of a body."""
    return lambda body: base64.b64encode(hashlib.md5(body).digest()).decode()
