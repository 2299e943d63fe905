"""Eucalyptus as its users meet it: boto3 with the settings that it needs, against a sandbox of that personality."""

from __future__ import annotations

import itertools
import time

import pytest
from botocore.config import Config  # noqa: TID251 - the client that users bring
from botocore.exceptions import ClientError  # noqa: TID251 - as above

from builder.sandbox import lifecycle

_NUMBERS = itertools.count()
EUCALYPTUS = Config(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    parameter_validation=False,
    retries={"total_max_attempts": 1},
)


class Clients:
    """boto3's clients of one sandbox, for its first account or another's keys."""

    def __init__(self, running, **keys):
        self.running = running
        self.account = None  # the first one
        self.client = lambda service: running.client(service, **keys)
        self.ec2 = running.client("ec2", **keys)
        self.s3 = running.client("s3", config=EUCALYPTUS, **keys)

    @property
    def identity(self):
        """What the account bundles with."""
        return lifecycle.identity(self.running.directory, self.account)

    def described(self, image_id):
        """Return an image's description once it is pending no more."""
        while (image := self.ec2.describe_images(ImageIds=[image_id])["Images"][0])["State"] == "pending":
            time.sleep(0.02)
        return image

    def bucket(self):
        name = f"bucket-{next(_NUMBERS)}"
        self.s3.create_bucket(Bucket=name)
        return name

    def upload(self, files, *, prefix="", bucket=None, acl="aws-exec-read"):
        """Put a bundle's files and return the location of its manifest."""
        bucket = bucket or self.bucket()
        for name, data in files.items():
            self.s3.put_object(Bucket=bucket, Key=prefix + name, Body=data, **({"ACL": acl} if acl else {}))
        return f"{bucket}/{prefix}{name}"


@pytest.fixture(scope="session")
def sandbox_options():
    """The newest release that there was."""
    return {"personality": "eucalyptus"}


@pytest.fixture(scope="module")
def cloud(sandbox):
    """Clients of a sandbox like Eucalyptus 5.1, with its administrators' keys."""
    return Clients(sandbox)


@pytest.fixture(scope="module")
def second(sandbox):
    """Clients with the keys of another account, whose users are no administrators."""
    made = lifecycle.add_account(sandbox.directory, "second")
    clients = Clients(sandbox, aws_access_key_id=made.access_key, aws_secret_access_key=made.secret_key)
    clients.account = made.account
    return clients


@pytest.fixture(scope="session")
def eucalyptus_config():
    """How boto3 speaks to Eucalyptus' object storage."""
    return EUCALYPTUS


@pytest.fixture(scope="session")
def refusal():
    """Return (code, status, message) of a call that must be refused."""

    def run(call, **parameters):
        with pytest.raises(ClientError) as caught:
            call(**parameters)
        answer = caught.value.response
        return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]

    return run


@pytest.fixture
def cloud_of(make_sandbox):
    """Make a sandbox of another release and return its clients: cloud_of("4.4")."""
    return lambda release: Clients(make_sandbox(f"of-{release}", personality="eucalyptus", release=release))
