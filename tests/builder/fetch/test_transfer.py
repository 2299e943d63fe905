"""Downloads over http from a server that fails by data: what is retried, what is asked again, what is refused."""

import hashlib
import random

import pytest

from builder.errors import ChecksumMismatch, DiskFull, InputError, NetworkError, NetworkTrouble
from builder.fetch.client import BUFFER
from builder.verify import Checksum

BODY = random.Random(1).randbytes(3 * BUFFER + 1234)
OTHER = random.Random(2).randbytes(2 * BUFFER + 99)
SHA256 = hashlib.sha256(BODY).hexdigest()


def test_a_whole_download_is_one_request_and_hashed_on_the_way(site, web, tmp_path, notes):
    url = site.put("/disk.img", BODY)
    fetched = web().download(url, tmp_path)
    assert fetched.path.read_bytes() == BODY
    assert (fetched.sha256, fetched.size) == (f"sha256:{SHA256}", len(BODY))
    assert (fetched.validators.etag, fetched.validators.size) == ('"v1"', len(BODY))
    assert [request.method for request in site.requests] == ["GET"]
    assert site.requests[0].headers["Accept-Encoding"] == "identity"
    assert (notes.done, notes.of) == (len(BODY), len(BODY))


def test_an_empty_file_is_a_file(site, web, tmp_path):
    fetched = web().download(site.put("/empty", b""), tmp_path)
    assert (fetched.size, fetched.sha256) == (0, f"sha256:{hashlib.sha256().hexdigest()}")


# name: (faults, requests, ranges asked for: the first byte of each request, None for the whole file)
CUT = BUFFER + 5000
RECOVERIES = {
    "truncated body": ([{"cut": CUT}], [None, CUT]),
    "stalled server": ([{"stall": BUFFER}], [None, BUFFER]),
    "closed without an answer": ([{"silent": True}], [None, None]),
    "cut before the first byte": ([{"cut": 0}], [None, None]),
    "truncated chunked body": ([{"cut": 2 * BUFFER, "chunked": True}], [None, 2 * BUFFER]),
    "chunked throughout": ([{"chunked": True}], [None]),
    "trickle": ([{"trickle": 100_000}], [None]),
    "a shorter part than asked for": ([{"cut": CUT}, {"at_most": 5000}], [None, CUT, CUT + 5000]),
    "cut twice": ([{"cut": CUT}, {"cut": 5}], [None, CUT, CUT + 5]),
    "503": ([{"status": 503, "headers": {"Retry-After": "0"}}], [None, None]),
    "503 and a date": ([{"status": 503, "headers": {"Retry-After": "Mon, 02 Nov 2026 10:00:00 GMT"}}], [None, None]),
    "503 without a wish": ([{"status": 503}, {"status": 503, "headers": {"Retry-After": "soon"}}], [None, None, None]),
    "500": ([{"status": 500}], [None, None]),
    "502": ([{"status": 502}], [None, None]),
    "504": ([{"status": 504}], [None, None]),
    "408": ([{"status": 408}], [None, None]),
    "425": ([{"status": 425}], [None, None]),
    "429": ([{"status": 429}], [None, None]),
    "503 in the middle": ([{"cut": CUT}, {"status": 503}], [None, CUT, CUT]),
    "ranges ignored": ([{"cut": CUT}, {"no_ranges": True}], [None, CUT]),
    "wrong Content-Range": ([{"cut": CUT}, {"headers": {"Content-Range": "bytes 0-9/10"}}], [None, CUT, None]),
    "Content-Range of another size": (
        [{"cut": CUT}, {"headers": {"Content-Range": f"bytes {CUT}-{len(BODY) - 1}/{len(BODY) + 1}"}}],
        [None, CUT, None],
    ),
    "no Content-Range": ([{"cut": CUT}, {"headers": {"Content-Range": ""}}], [None, CUT, None]),
    "part of another version": ([{"cut": CUT}, {"headers": {"ETag": '"v2"'}}], [None, CUT, None]),
    "416": ([{"cut": CUT}, {"status": 416}], [None, CUT, None]),
    "file is compressed and says so": ([{"headers": {"Content-Encoding": "gzip"}}], [None]),
}


@pytest.mark.parametrize("name", RECOVERIES)
def test_what_passes_is_retried_and_only_the_rest_is_asked_for(name, site, web, fault, tmp_path, notes):
    faults, ranges = RECOVERIES[name]
    url = site.put("/disk.gz", BODY, *(fault(**entry) for entry in faults))
    fetched = web().download(url, tmp_path)
    assert fetched.path.read_bytes() == BODY
    assert fetched.sha256 == f"sha256:{SHA256}"
    asked = [request.headers.get("Range") for request in site.requests]
    # Before the first cut whole buffers are read: what a FIN or a timeout cuts may lose less than one.
    for wanted, found in zip(ranges, asked, strict=True):
        assert (wanted is None) == (found is None), asked
        if wanted is not None:
            first = int(found.removeprefix("bytes=").removesuffix("-"))
            assert wanted - BUFFER < first <= wanted
    assert notes.done == len(BODY)


def test_a_reset_loses_at_most_one_buffer(site, web, fault, tmp_path):
    url = site.put("/disk.img", BODY, fault(cut=CUT, reset=True, trickle=4096))
    assert web().download(url, tmp_path).path.read_bytes() == BODY
    assert len(site.requests) == 2


def test_a_long_download_with_many_cuts_ends(site, web, fault, tmp_path):
    url = site.put("/disk.img", BODY, *[fault(cut=10_000)] * 40)
    assert web(attempts=2).download(url, tmp_path).path.read_bytes() == BODY
    assert len(site.requests) == 41
    assert site.sent == len(BODY)


@pytest.mark.parametrize(
    ("validators", "condition"),
    [
        ({}, '"v1"'),
        ({"etag": None}, "Mon, 02 Nov 2026 10:00:00 GMT"),
        ({"etag": 'W/"v1"'}, "Mon, 02 Nov 2026 10:00:00 GMT"),
        ({"etag": 'W/"v1"', "modified": None}, None),
        ({"etag": None, "modified": None}, None),
        ({"etag": None, "modified": "Fri, 01 Jan 2100 00:00:00 GMT"}, None),  # changed within the second, or a lie
        ({"etag": None, "modified": "yesterday"}, None),
    ],
)
def test_a_part_is_asked_for_only_of_a_version_that_can_be_named(validators, condition, site, web, fault, tmp_path):
    url = site.put("/disk.img", BODY, fault(cut=CUT), **validators)
    assert web().download(url, tmp_path).path.read_bytes() == BODY
    assert site.requests[1].headers.get("If-Range") == condition
    assert ("Range" in site.requests[1].headers) == (condition is not None)


def test_a_file_that_changed_after_a_cut_is_read_anew(site, web, fault, tmp_path, notes):
    url = site.put("/disk.img", BODY, fault(cut=CUT), fault(becomes=OTHER, etag='"v2"'))
    fetched = web().download(url, tmp_path)
    assert fetched.path.read_bytes() == OTHER
    assert fetched.validators.etag == '"v2"'
    assert notes.done == len(OTHER)


def test_zeros_become_holes_whatever_the_cuts(site, web, fault, tmp_path):
    content = bytes(4 * BUFFER) + b"x" + bytes(4 * BUFFER)
    url = site.put("/disk.raw", content, fault(cut=BUFFER + 7), fault(cut=4 * BUFFER))
    fetched = web().download(url, tmp_path)
    assert fetched.path.read_bytes() == content
    assert fetched.path.stat().st_blocks * 512 <= 4 * BUFFER


# name: (faults, class, message after the URL, requests)
REFUSALS = {
    "404": ([{"status": 404}], NetworkError, ": the server answered 404 Not Found", 1),
    "403": ([{"status": 403}], NetworkError, ": the server answered 403 Forbidden", 1),
    "401": ([{"status": 401}], NetworkError, ": the server answered 401 Unauthorized", 1),
    "410": ([{"status": 410}], NetworkError, ": the server answered 410 Gone", 1),
    "501": ([{"status": 501}], NetworkError, ": the server answered 501 Not Implemented", 1),
    "499": ([{"status": 499}], NetworkError, ": the server answered 499", 1),
    "204": ([{"status": 204}], NetworkError, ": the server answered 204 No Content", 1),
    "206 unasked": (
        [{"status": 206, "headers": {"Content-Range": "bytes 0-0/9"}}],
        NetworkError,
        ": the server answered 206 Partial Content",
        1,
    ),
    "redirect to nowhere": ([{"status": 302}], NetworkError, ": the server answered 302 Found", 1),
    "asks for an hour": (
        [{"status": 503, "headers": {"Retry-After": "3600"}}],
        NetworkError,
        ": the server answered 503 Service Unavailable and asks to come back in 3600 s",
        1,
    ),
    "compressed on the way": (
        [{"gzip": True}],
        NetworkError,
        ": the server compresses the file on the way (Content-Encoding: gzip)",
        1,
    ),
    "always 503": (
        [{"status": 503}] * 9,
        NetworkTrouble,
        ": the server answered 503 Service Unavailable",
        3,
    ),
    "always silent": ([{"stall": 0}] * 9, NetworkTrouble, ": the server fell silent", 3),
    "always cut": (
        [{"cut": 0}] * 9,
        NetworkTrouble,
        ": the connection was cut (before the end of the file)",
        3,
    ),
    # The first cut brings something, so it does not count; the three after it bring no byte more.
    "always cut at the same byte, without ranges": (
        [{"cut": CUT, "no_ranges": True}] * 9,
        NetworkTrouble,
        ": the connection was cut (before the end of the file)",
        4,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name, site, web, fault, tmp_path):
    faults, kind, message, requests = REFUSALS[name]
    url = site.put("/disk.img", BODY, *(fault(**entry) for entry in faults))
    with pytest.raises(NetworkError) as caught:
        web().download(url, tmp_path)
    assert type(caught.value) is kind
    said, _, attempts = caught.value.message.partition("; given up after ")
    assert said == url + message
    assert bool(attempts) == kind.retryable
    assert len(site.requests) == requests


def test_a_wrong_checksum_keeps_nothing_and_asks_once(site, web, tmp_path):
    url = site.put("/disk.img", BODY)
    wrong = Checksum(algorithm="sha512", value="0" * 128, source="https://example.net/SHA512SUMS")
    with pytest.raises(ChecksumMismatch) as caught:
        web().download(url, tmp_path, expected=wrong)
    found = hashlib.sha512(BODY).hexdigest()
    expected = f"{url}: sha512 is {found}, expected {'0' * 128} (https://example.net/SHA512SUMS)"
    assert caught.value.message == expected
    assert list(tmp_path.iterdir()) == []
    assert len(site.requests) == 1


def test_a_file_that_cannot_fit_is_refused_before_its_bytes_come(site, web, fault, tmp_path):
    url = site.put("/disk.img", BODY, fault(headers={"Content-Length": str(1 << 60)}))
    with pytest.raises(DiskFull) as caught:
        web().download(url, tmp_path)
    assert caught.value.message.endswith("free, and the download is 1048576 TiB large")
    assert list(tmp_path.iterdir()) == []
    assert len(site.requests) == 1


def test_small_files_are_bounded(site, web, fault):
    url = site.put("/SHA256SUMS", b"x" * 100, fault(status=503), fault(cut=50))
    assert web().read(url) == b"x" * 100
    with pytest.raises(InputError) as caught:
        web().read(url, limit=99)
    assert caught.value.message == f"{url} is larger than 99 bytes: not a checksum file or signature"


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_server_without_head_is_asked_for_one_byte(status, site, web, fault):
    url = site.put("/disk.img", BODY, fault(status=status))
    found = web().probe(url)
    assert (found.etag, found.size) == ('"v1"', len(BODY))
    asked = [(request.method, request.headers.get("Range")) for request in site.requests]
    assert asked == [("HEAD", None), ("GET", "bytes=0-0")]


def test_a_probe_reads_nothing_and_gives_up_on_what_is_not_there(site, web):
    url = site.put("/disk.img", BODY)
    assert web().probe(url).size == len(BODY)
    assert site.sent == 0
    with pytest.raises(NetworkError, match="answered 404 Not Found"):
        web().probe(url + "x")
    assert [request.method for request in site.requests] == ["HEAD", "HEAD"]
