"""A real sandbox for each test file, and clients that speak to it: boto3, and a raw one that can say anything."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import random
import re
import ssl
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import boto3  # noqa: TID251 - the client that users bring
import pytest
from botocore.config import Config  # noqa: TID251 - as above
from botocore.exceptions import IncompleteReadError  # noqa: TID251 - as above
from botocore.utils import normalize_url_path  # noqa: TID251 - as above
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from builder import pool
from builder.cloud.sigv4 import UNSIGNED, Keys, Signer
from builder.digest import BLOCK
from builder.sandbox import lifecycle, settings

_LARGE = 1 << 16  # bytes of a body whose hash is not worth its time


class Raw:
    """A keep-alive connection that can say anything, signed or not."""

    def __init__(self, endpoint, *, region=None, keys=None):
        self._keys = keys or Keys(access_key=endpoint.access_key, secret_key=endpoint.secret_key)
        self._region = region or endpoint.region
        address = self._host = urlsplit(endpoint.url).netloc
        self._signers = {}
        if endpoint.ca_file:
            context = ssl.create_default_context(cafile=endpoint.ca_file)
            self.connection = http.client.HTTPSConnection(address, context=context, timeout=30)
        else:
            self.connection = http.client.HTTPConnection(address, timeout=30)

    def __del__(self):
        self.connection.close()

    def signed(self, method, path, body=b"", headers=None, *, service="ebs"):
        """Return the headers of a signed request."""
        if service not in self._signers:
            self._signers[service] = Signer(
                host=self._host, region=self._region, service=service, keys=lambda: self._keys
            )
        data = body.encode() if isinstance(body, str) else body
        place, _, query = path.partition("?")
        return self._signers[service].sign(
            method,
            place if service == "s3" else quote(normalize_url_path(place), safe="/~"),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in (headers or {}).items()},
            payload=UNSIGNED if len(data) >= _LARGE else hashlib.sha256(data).hexdigest(),
        )

    def call(self, method, path, body=b"", headers=None, *, service="ebs"):
        """Return (status, headers, body) of one request; unsigned without a service."""
        sent = self.signed(method, path, body, headers, service=service) if service else headers or {}
        self.connection.request(method, path, body, sent)
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()

    def ebs(self, method, path, body=b"", headers=None):
        """Return (status, error type, reason, body as JSON or bytes) of an EBS direct call."""
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        status, answered, data = self.call(method, path, body, headers)
        kind = answered.get("x-amzn-ErrorType")
        values = json.loads(data) if answered.get("Content-Type") == "application/json" and data else data
        return status, kind, values.get("Reason") if isinstance(values, dict) else None, values

    def ec2(self, **form):
        """Return (status, error code, body as text) of an EC2 call."""
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        body = urlencode({"Version": "2016-11-15", **form})
        status, _, data = self.call("POST", "/", body, headers, service="ec2")
        code = re.search(r"<Code>(.*?)</Code>", data.decode())
        return status, code and code[1], data.decode()

    def start(self, **values):
        """Start a snapshot and return its id."""
        status, _, _, answer = self.ebs("POST", "/snapshots", {"VolumeSize": 1, **values})
        assert status == 201, answer
        return answer["SnapshotId"]

    def put(self, snapshot_id, index, data):
        """Put a block; return as `ebs`."""
        return self.ebs("PUT", f"/snapshots/{snapshot_id}/blocks/{index}", data, put_headers(data))

    def complete(self, snapshot_id, count, **headers):
        """Complete a snapshot; return as `ebs`."""
        path = f"/snapshots/completion/{snapshot_id}"
        return self.ebs("POST", path, b"", {"x-amz-ChangedBlocksCount": str(count), **headers})

    def wait(self, snapshot_id):
        """Return when the snapshot is completed."""
        named = {"SnapshotId.1": snapshot_id}
        while "<status>completed</status>" not in self.ec2(Action="DescribeSnapshots", **named)[2]:
            time.sleep(0.02)

    def list(self, path):
        """Return (index, token) of every block that a listing of all pages names, for ListSnapshotBlocks."""
        found, page = [], ""
        while True:
            status, _, _, answer = self.ebs("GET", path + page)
            assert status == 200, answer
            found += [(block["BlockIndex"], block["BlockToken"]) for block in answer["Blocks"]]
            if "NextToken" not in answer:
                return found
            page = f"?{urlencode({'pageToken': answer['NextToken']})}"

    def read(self, snapshot_id):
        """Return every block of a completed snapshot: {index: bytes}, each held against its checksum."""
        blocks = {}
        for index, token in self.list(f"/snapshots/{snapshot_id}/blocks"):
            path = f"/snapshots/{snapshot_id}/blocks/{index}?{urlencode({'blockToken': token})}"
            status, headers, blocks[index] = self.call("GET", path)
            assert status == 200
            assert headers["x-amz-Checksum"] == digest(blocks[index])
        return blocks

    def snapshot(self, blocks, **values):
        """Make a completed snapshot of {index: bytes} and return its id."""
        snapshot_id = self.start(**values)
        for index, data in blocks.items():
            assert self.put(snapshot_id, index, data)[0] == 201
        assert self.complete(snapshot_id, len(blocks))[0] == 202
        self.wait(snapshot_id)
        return snapshot_id


def digest(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put_headers(data):
    return {
        "x-amz-Checksum": digest(data),
        "x-amz-Checksum-Algorithm": "SHA256",
        "x-amz-Data-Length": str(len(data)),
    }


def block(seed):
    """Return 512 KiB that only this seed gives."""
    return random.Random(seed).randbytes(BLOCK)


# As the VM Import/Export User Guide has it ("Required service role").
VMIMPORT_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "vmie.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:Externalid": "vmimport"}},
        }
    ],
}


def bundle(
    identity, name="disk", *, image=b"an image" * 4096, user=None, certificate=None, part_size=10_000, change=str
):
    """Return a bundle as euca2ools 3.1 would make it, by no code of ours; `change` is given the manifest's text.

    `certificate` is a PEM file in the place of the cloud's own.
    """
    header = tarfile.TarInfo(name)
    header.size = len(image)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(image))
    key, iv = random.randbytes(16), random.randbytes(16)
    encryptor, padder = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor(), PKCS7(128).padder()
    stream = encryptor.update(padder.update(gzip.compress(packed.getvalue())) + padder.finalize())
    pieces = [stream[start : start + part_size] for start in range(0, len(stream), part_size)]
    files = {f"{name}.part.{index:02}": piece for index, piece in enumerate(pieces)}
    public = x509.load_pem_x509_certificate((certificate or identity.cloud_certificate).read_bytes()).public_key()
    sealed = {half: public.encrypt(data.hex().encode(), PKCS1v15()).hex() for half, data in (("key", key), ("iv", iv))}
    parts = "".join(
        f"<part index='{index}'><filename>{file}</filename><digest algorithm='SHA1'>{hashlib.sha1(data).hexdigest()}"
        "</digest></part>"
        for index, (file, data) in enumerate(files.items())
    )
    machine = "<machine_configuration><architecture>x86_64</architecture></machine_configuration>"
    described = (
        f"<image><name>{name}</name><user>{user or identity.account}</user><type>machine</type>"
        f"<digest algorithm='SHA1'>{hashlib.sha1(packed.getvalue()).hexdigest()}</digest><size>{len(image)}</size>"
        f"<bundled_size>{len(stream)}</bundled_size>"
        f"<ec2_encrypted_key algorithm='AES-128-CBC'>{sealed['key']}</ec2_encrypted_key>"
        "<user_encrypted_key algorithm='AES-128-CBC'/>"
        f"<ec2_encrypted_iv>{sealed['iv']}</ec2_encrypted_iv><user_encrypted_iv/>"
        f"<parts count='{len(files)}'>{parts}</parts></image>"
    )
    body = change(machine + described)
    private = serialization.load_pem_private_key(identity.private_key.read_bytes(), None)
    signature = private.sign(body.encode(), PKCS1v15(), hashes.SHA1()).hex()
    made_by = "<bundler><name>euca2ools</name><version>3.1</version><release>0</release></bundler>"
    text = (
        f"<?xml version='1.0'?><manifest><version>2007-10-10</version>{made_by}{body}<signature>{signature}</signature>"
    )
    return {**files, f"{name}.manifest.xml": f"{text}</manifest>".encode()}


def refuse_cut(operation_model, response_dict, **_):
    """Raise botocore's own error for an answer whose body a kill cut off: it takes what is there for the whole."""
    body, stated = response_dict["body"], response_dict["headers"].get("content-length", "")
    told = operation_model.http["method"] != "HEAD" and isinstance(body, bytes) and stated.isdecimal()
    if told and len(body) < int(stated):
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=int(stated))


class Sandbox:
    """One directory and its server, with clients made on demand."""

    def __init__(self, directory: Path, *, settle=0.02, **options):
        directory.mkdir(exist_ok=True)
        told = {name: options[name] for name in ("personality", "release") if name in options}
        settings.save(directory, replace(settings.load(directory, **told), settle=settle))
        self.directory = directory
        self.options = options
        self.endpoint = lifecycle.start(directory, **options)

    def raw(self, **options):
        return Raw(self.endpoint, **options)

    def client(self, service, **options):
        kept = {
            "endpoint_url": self.endpoint.service(service),
            "region_name": self.endpoint.region,
            "aws_access_key_id": self.endpoint.access_key,
            "aws_secret_access_key": self.endpoint.secret_key,
            # What is wrong must reach the sandbox, and its first answer the test.
            "config": Config(parameter_validation=False, retries={"total_max_attempts": 1}),
            "verify": str(self.endpoint.ca_file) if self.endpoint.ca_file else None,
        }
        client = boto3.client(service, **kept | options)
        client.meta.events.register("before-parse", refuse_cut)
        return client

    def restart(self):
        self.endpoint = lifecycle.start(self.directory, **self.options)

    def resident(self):
        """Return the server's resident memory in MiB, now and at its highest."""
        status = Path(f"/proc/{self.endpoint.pid}/status").read_text()
        return [int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for name in ("VmRSS", "VmHWM")]


@pytest.fixture(scope="session")
def sandbox_options():
    """How the sandbox of a test file is started; directories of tests may say otherwise."""
    return {}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory, sandbox_options):
    running = Sandbox(tmp_path_factory.mktemp("sandbox"), **sandbox_options)
    yield running
    lifecycle.stop(running.directory)


@pytest.fixture
def make_sandbox(tmp_path):
    """Make sandboxes of the test's own: make_sandbox("name", tls=True)."""
    made = []

    def make(name="own", **options):
        made.append(Sandbox(tmp_path / name, **options))
        return made[-1]

    yield make
    for running in made:
        lifecycle.stop(running.directory)


@pytest.fixture
def raw(sandbox):
    return sandbox.raw()


@pytest.fixture(scope="module")
def ec2(sandbox):
    return sandbox.client("ec2")


@pytest.fixture(scope="module")
def ebs(sandbox):
    return sandbox.client("ebs")


@pytest.fixture(scope="module")
def completed(sandbox):
    """A completed snapshot of 1 GiB with three blocks."""
    return sandbox.raw().snapshot({index: block(index) for index in (0, 7, 2047)})


@pytest.fixture
def code_of():
    """Return the error code that a boto3 call ends with."""

    def run(call, **parameters):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - every client has its own class
            call(**parameters)
        return caught.value.response["Error"]["Code"]

    return run


@pytest.fixture(scope="session")
def blocks():
    return block


@pytest.fixture
def headers_for():
    return put_headers


@pytest.fixture
def checksum():
    return digest


@pytest.fixture
def together():
    """Run calls at the same time and return their results in order."""

    def run(*calls):
        return list(pool.in_order(lambda call: call(), calls, workers=len(calls)))

    return run


@pytest.fixture(scope="session")
def bundled():
    """Return the files of a bundle: bundled(identity, …) -> {name: bytes}, its manifest last."""
    return bundle


@pytest.fixture(scope="session")
def vmimport_trust():
    """The trust policy of the role that VM Import takes on."""
    return VMIMPORT_TRUST
