"""Bodies in chunks, as SDKs upload to S3 over TLS: read to the end, whatever their pieces, and never held whole."""

from __future__ import annotations

import io
import random
import socket
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth  # noqa: TID251 - signs what no SDK would send
from botocore.awsrequest import AWSRequest  # noqa: TID251 - as above
from botocore.credentials import Credentials  # noqa: TID251 - as above

from builder.sandbox.chunked import ChunkedBody
from builder.sandbox.wire import Refusal


def chunks(data, size):
    """Return the data in HTTP's chunks of `size` bytes, with an extension and a trailing field."""
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    coded = b"".join(b"%x;name=value\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return coded + b"0\r\nField: value\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_whatever_the_pieces_are_the_bytes_are_the_same(size):
    data = random.Random(1).randbytes(300).replace(b"\n", b"x") + b"\nline\nrest"
    source, ended = io.BytesIO(chunks(data, size) + b"NEXT"), []
    body = ChunkedBody(source, lambda: ended.append(True))
    found = body.read(10) + body.readline(5) + body.readline(1000)
    assert found == data[:301]
    assert body.readline(3) + body.readline(100) == b"line\n"
    assert not ended
    assert body.read(1000) + body.read(1000) + body.readline(10) == b"rest"
    assert (ended, source.read()) == ([True], b"NEXT")


@pytest.mark.parametrize(
    "coded",
    [
        b"",
        b"x\r\n",
        b"-1\r\n",
        b"5\r\nab",
        b"2\r\nabXX",
        b"2\r\nab\r\n",
        b"0\r\n",
        b"0\r\nField",
        b"2\nab\r\n0\r\n\r\n",
    ],
)
def test_what_is_broken_or_cut_off_is_refused(coded):
    with pytest.raises(Refusal, match="IncompleteBody"):
        ChunkedBody(io.BytesIO(coded), lambda: None).read(100)


@pytest.fixture(scope="module")
def secure(tmp_path_factory, request):
    running = request.getfixturevalue("sandbox")
    running.client("s3").create_bucket(Bucket="chunked")
    return running


@pytest.mark.behaviour("S3", "PutObject over TLS by an SDK", "chunks with a trailing checksum; the bytes are equal")
def test_an_sdk_uploads_over_tls(make_sandbox):
    running = make_sandbox("tls", tls=True)
    s3 = running.client("s3")
    s3.create_bucket(Bucket="bucket")
    for size in (0, 1, 100_000, 3 << 20):
        data = random.Random(size).randbytes(size)
        s3.put_object(Bucket="bucket", Key="key", Body=data, ChecksumAlgorithm="CRC32")
        assert s3.get_object(Bucket="bucket", Key="key")["Body"].read() == data


def send(running, coded, length):
    """Put an object as S3's chunks inside HTTP's over one connection, twice; return both statuses."""
    end = running.endpoint
    parts = urlsplit(f"{end.url}/chunked/key")
    headers = {"Content-Encoding": "aws-chunked", "x-amz-decoded-content-length": str(length)}
    request = AWSRequest("PUT", parts.geturl(), headers=headers)
    request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}  # the body is not signed
    S3SigV4Auth(Credentials(end.access_key, end.secret_key), "s3", end.region).add_auth(request)
    lines = {"Host": parts.netloc, "Transfer-Encoding": "chunked", **request.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    head = f"PUT {parts.path} HTTP/1.1\r\n{head}\r\n".encode()
    statuses: list[int] = []
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=60) as connection,
        connection.makefile("rb") as answers,
    ):
        for _ in range(2):
            connection.sendall(head)
            for piece in coded():
                connection.sendall(piece)
            statuses.append(int((answers.readline().split() or [0, 0])[1]))
            length = 0
            while line := answers.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split()[1])
            answers.read(length)
            if statuses[-1] != 200:
                break
    return statuses


def test_the_next_request_follows_on_the_same_connection(secure):
    data = random.Random(5).randbytes(70_000)
    inner = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    assert send(secure, lambda: [chunks(inner, 333)], len(data)) == [200, 200]
    assert secure.client("s3").get_object(Bucket="chunked", Key="key")["Body"].read() == data


def test_a_chunk_of_any_size_costs_no_memory(secure):
    size = 256 << 20
    inner = b"%x\r\n" % size
    whole = len(inner) + size + len(b"\r\n0\r\n\r\n")

    def coded():
        yield b"%x\r\n%s" % (whole, inner)
        for _ in range(256):
            yield bytes(1 << 20)
        yield b"\r\n0\r\n\r\n\r\n0\r\n\r\n"

    before, _ = secure.resident()
    assert send(secure, coded, size) == [200, 200]
    assert secure.resident()[1] - before < 48
    assert secure.client("s3").head_object(Bucket="chunked", Key="key")["ContentLength"] == size


def test_a_broken_chunk_ends_the_connection_and_changes_nothing(secure):
    secure.client("s3").put_object(Bucket="chunked", Key="key", Body=b"before")
    assert send(secure, lambda: [b"zz\r\n"], 10) == [400]
    assert secure.client("s3").get_object(Bucket="chunked", Key="key")["Body"].read() == b"before"
