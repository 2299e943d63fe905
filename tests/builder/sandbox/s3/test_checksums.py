"""Checksums: what a client says of a body is held against it, kept, and told again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import zlib
from urllib.parse import urlsplit

import pytest
from awscrt import checksums as crt
from botocore.config import Config  # noqa: TID251 - the client that users bring

from builder.cloud.sigv4 import Keys, Signer

AREA = "S3 objects"
DATA = b"what is said is held against what came" * 1000


def b64(value, size=None):
    return base64.b64encode(value if size is None else value.to_bytes(size, "big")).decode()


SUMS = {
    "CRC32": b64(zlib.crc32(DATA), 4),
    "CRC32C": b64(crt.crc32c(DATA), 4),
    "CRC64NVME": b64(crt.crc64nvme(DATA), 8),
    "SHA1": b64(hashlib.sha1(DATA).digest()),
    "SHA256": b64(hashlib.sha256(DATA).digest()),
    "SHA512": b64(hashlib.sha512(DATA).digest()),
    "MD5": b64(hashlib.md5(DATA).digest()),
    "XXHASH64": b64(crt.XXHash.compute_xxhash64(DATA)),
    "XXHASH3": b64(crt.XXHash.compute_xxhash3_64(DATA)),
    "XXHASH128": b64(crt.XXHash.compute_xxhash3_128(DATA)),
}


@pytest.mark.behaviour(AREA, "PutObject with x-amz-checksum-*", "every algorithm is verified, kept and told on demand")
@pytest.mark.parametrize("algorithm", SUMS)
def test_right_and_wrong(s3, bucket, http_call, algorithm):
    name = f"x-amz-checksum-{algorithm.lower()}"
    status, headers, _ = http_call("PUT", f"/{bucket}/k", DATA, {name: SUMS[algorithm]})
    assert (status, headers[name], headers["x-amz-checksum-type"]) == (200, SUMS[algorithm], "FULL_OBJECT")
    _, headers, _ = http_call("HEAD", f"/{bucket}/k")
    assert name not in headers  # told only on demand
    _, headers, body = http_call("GET", f"/{bucket}/k", b"", {"x-amz-checksum-mode": "ENABLED"})
    assert (headers[name], body) == (SUMS[algorithm], DATA)
    wrong = b64(bytes(len(base64.b64decode(SUMS[algorithm]))))
    status, _, body = http_call("PUT", f"/{bucket}/wrong", DATA, {name: wrong})
    assert (status, b"<Code>BadDigest</Code>" in body) == (400, True)
    for nonsense in ("AAAA", "not base64!", ""):
        status, _, body = http_call("PUT", f"/{bucket}/wrong", DATA, {name: nonsense})
        assert (status, b"<Code>InvalidRequest</Code>" in body) == (400, True)
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


@pytest.mark.behaviour(AREA, "PutObject with Content-MD5", "BadDigest for another body, InvalidDigest when it is none")
def test_content_md5(s3, bucket, http_call, stored):
    right = b64(hashlib.md5(DATA).digest())
    assert http_call("PUT", f"/{bucket}/k", DATA, {"Content-MD5": right})[0] == 200
    before = stored()
    status, _, body = http_call("PUT", f"/{bucket}/k", DATA + b"!", {"Content-MD5": right})
    assert (status, b"<Code>BadDigest</Code>" in body) == (400, True)
    status, _, body = http_call("PUT", f"/{bucket}/k", DATA, {"Content-MD5": "AAAA"})
    assert (status, b"<Code>InvalidDigest</Code>" in body) == (400, True)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == DATA
    assert stored() == before


@pytest.mark.behaviour(AREA, "PutObject", "CRC64NVME is computed and kept when the client says nothing")
def test_the_default(sandbox, bucket):
    quiet = sandbox.client("s3", config=Config(request_checksum_calculation="when_required"))
    assert quiet.put_object(Bucket=bucket, Key="k", Body=DATA)["ChecksumCRC64NVME"] == SUMS["CRC64NVME"]
    head = quiet.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (SUMS["CRC64NVME"], "FULL_OBJECT")


@pytest.mark.behaviour(AREA, "PutObject, GetObject", "boto3 verifies what it sends and gets, by each algorithm")
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
@pytest.mark.parametrize("port", ["plain", "tls"])
def test_boto3(s3, bucket, tls_s3, algorithm, port):
    if port == "tls":  # where it sends chunks with a trailer
        s3, bucket = tls_s3, f"{bucket}-{algorithm.lower()}"
        s3.create_bucket(Bucket=bucket)
    put = s3.put_object(Bucket=bucket, Key="k", Body=DATA, ChecksumAlgorithm=algorithm)
    assert put[f"Checksum{algorithm}"] == SUMS[algorithm]
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == DATA
    assert got[f"Checksum{algorithm}"] == SUMS[algorithm]
    assert "ContentEncoding" not in got  # aws-chunked was for the way only


def chunked(sizes, data=DATA, trailer=""):
    """Return `data` in aws-chunked coding, in chunks of these sizes again and again."""
    body, start, turn = b"", 0, 0
    while start < len(data):
        piece = data[start : start + sizes[turn % len(sizes)]]
        body += f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        start, turn = start + len(piece), turn + 1
    return body + b"0\r\n" + trailer.encode() + b"\r\n"


def streamed(trailer, size):
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "Content-Encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(size),
    }
    return headers | {"x-amz-trailer": trailer}


@pytest.mark.behaviour(AREA, "PutObject, aws-chunked", "bodies in chunks of any size, with a checksum in the trailer")
@pytest.mark.parametrize("sizes", [[8192], [1, 65536, 3], [1 << 20], [7]])
def test_trailers(s3, bucket, stream_call, sizes):
    trailer = f"x-amz-checksum-crc32c:{SUMS['CRC32C']}\r\n"
    status, headers, _ = stream_call(
        f"/{bucket}/k", chunked(sizes, trailer=trailer), streamed("x-amz-checksum-crc32c", len(DATA))
    )
    assert (status, headers["x-amz-checksum-crc32c"]) == (200, SUMS["CRC32C"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == DATA


_GOOD = chunked([999], trailer=f"x-amz-checksum-crc32c:{SUMS['CRC32C']}\r\n")
WRONG_STREAMS = {
    "a wrong checksum": (chunked([999], trailer="x-amz-checksum-crc32c:AAAAAA==\r\n"), len(DATA), "BadDigest"),
    "no trailer": (chunked([999]), len(DATA), "MalformedTrailerError"),
    "too short": (
        chunked([999], trailer=f"x-amz-checksum-crc32c:{SUMS['CRC32C']}\r\n"),
        len(DATA) + 1,
        "IncompleteBody",
    ),
    "too long": (
        chunked([999], trailer=f"x-amz-checksum-crc32c:{SUMS['CRC32C']}\r\n"),
        len(DATA) - 1,
        "IncompleteBody",
    ),
    "a bad head": (b"zz\r\n" + DATA, len(DATA), "InvalidChunkSizeError"),
    "cut off": (chunked([999])[:20_000], len(DATA), "IncompleteBody"),
}


@pytest.mark.behaviour(AREA, "PutObject, aws-chunked", "a torn or wrong stream is refused and leaves nothing")
@pytest.mark.parametrize("case", WRONG_STREAMS)
def test_wrong_streams(s3, bucket, stream_call, stored, case):
    body, size, code = WRONG_STREAMS[case]
    before = stored()
    status, _, answer = stream_call(f"/{bucket}/k", body, streamed("x-amz-checksum-crc32c", size))
    assert (status, f"<Code>{code}</Code>" in answer.decode()) == (400, True), answer
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert stored() == before


@pytest.fixture
def stream_call(sandbox):
    """Put a body that is already coded; its signature covers the headers. `code` makes it from the signed headers."""

    def call(path, body, headers, *, code=None):
        raw = sandbox.raw()
        keys = Keys(access_key=sandbox.endpoint.access_key, secret_key=sandbox.endpoint.secret_key)
        host = urlsplit(sandbox.endpoint.url).netloc
        signer = Signer(host=host, region=sandbox.endpoint.region, service="s3", keys=lambda: keys)
        lower = {name.lower(): value for name, value in headers.items()}
        signed = signer.sign("PUT", path, query={}, headers=lower, payload=headers["x-amz-content-sha256"])
        raw.connection.request("PUT", path, body if code is None else code(signed), signed)
        response = raw.connection.getresponse()
        return response.status, response.headers, response.read()

    return call


def signed_chunks(headers, secret, sizes, *, trailer, spoil=None):
    """Return DATA in signed chunks, as "transferring a payload in multiple chunks" has it; chunk `spoil` is bent."""
    found = re.search(
        r"Credential=[^/]+/((\d+)/([^/]+)/s3/aws4_request).*Signature=([0-9a-f]{64})", headers["authorization"]
    )
    scope, day, region, last = found.groups()
    key = f"AWS4{secret}".encode()
    for word in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    empty, body, start, number = hashlib.sha256(b"").hexdigest(), b"", 0, 0

    def sign(kind, covered):
        text = f"AWS4-HMAC-SHA256-{kind}\n{headers['x-amz-date']}\n{scope}\n{last}\n{covered}"
        return hmac.digest(key, text.encode(), "sha256").hex()

    while True:
        piece = DATA[start : start + sizes[number % len(sizes)]]
        last = sign("PAYLOAD", f"{empty}\n{hashlib.sha256(piece).hexdigest()}")
        sent = piece if number != spoil else bytes(len(piece))
        body += f"{len(piece):x};chunk-signature={last}\r\n".encode() + sent + (b"\r\n" if piece else b"")
        start, number = start + len(piece), number + 1
        if not piece:
            break
    line = f"x-amz-checksum-sha256:{trailer}\n"
    last = sign("TRAILER", hashlib.sha256(line.encode()).hexdigest())
    return body + f"x-amz-checksum-sha256:{trailer}\r\nx-amz-trailer-signature:{last}\r\n\r\n".encode()


@pytest.mark.behaviour(AREA, "PutObject, aws-chunked", "signed chunks and trailers are verified, each of them")
@pytest.mark.parametrize(("spoil", "code"), [(None, None), (0, "SignatureDoesNotMatch"), (2, "SignatureDoesNotMatch")])
def test_signed_chunks(s3, sandbox, bucket, stream_call, spoil, code):
    headers = {
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(len(DATA)),
        "x-amz-trailer": "x-amz-checksum-sha256",
    }

    def body(signed):
        secret = sandbox.endpoint.secret_key
        return signed_chunks(signed, secret, [8192, 12_000], trailer=SUMS["SHA256"], spoil=spoil)

    status, _, answer = stream_call(f"/{bucket}/k", b"", headers, code=body)
    if code is None:
        assert status == 200, answer
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == DATA
    else:
        assert (status, f"<Code>{code}</Code>" in answer.decode()) == (403, True), answer
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.behaviour(AREA, "PutObject", "a body that is not the one signed is XAmzContentSHA256Mismatch")
def test_another_body(s3, sandbox, bucket):
    raw = sandbox.raw()
    headers = raw.signed("PUT", f"/{bucket}/k", b"one", service="s3")
    raw.connection.request("PUT", f"/{bucket}/k", b"two", headers)
    response = raw.connection.getresponse()
    assert (response.status, b"<Code>XAmzContentSHA256Mismatch</Code>" in response.read()) == (400, True)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.behaviour(AREA, "PutObject", "two checksums, or an algorithm without its value: InvalidRequest")
@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-crc32": SUMS["CRC32"], "x-amz-checksum-sha1": SUMS["SHA1"]},
        {"x-amz-sdk-checksum-algorithm": "CRC32"},
        {"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": SUMS["CRC32"]},
    ],
)
def test_contradictions(s3, bucket, http_call, headers):
    status, _, body = http_call("PUT", f"/{bucket}/k", DATA, headers)
    assert (status, b"<Code>InvalidRequest</Code>" in body) == (400, True)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.behaviour(AREA, "CopyObject", "the checksum is copied, or computed anew by another algorithm")
def test_copies(s3, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=DATA, ChecksumAlgorithm="SHA256")
    source = f"{bucket}/a"
    assert (
        s3.copy_object(Bucket=bucket, Key="b", CopySource=source)["CopyObjectResult"]["ChecksumSHA256"]
        == SUMS["SHA256"]
    )
    anew = s3.copy_object(Bucket=bucket, Key="c", CopySource=source, ChecksumAlgorithm="CRC32C")
    assert anew["CopyObjectResult"]["ChecksumCRC32C"] == SUMS["CRC32C"]
    assert s3.head_object(Bucket=bucket, Key="c", ChecksumMode="ENABLED")["ChecksumCRC32C"] == SUMS["CRC32C"]
