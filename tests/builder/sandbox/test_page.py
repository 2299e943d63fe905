"""The page at `/` for a browser: read by a real one, and in nobody's way."""

from __future__ import annotations

import re
import zlib

import pytest

from builder import proc

HTML = {"Accept": "text/html,application/xhtml+xml"}
NASTY = '<script>document.title="owned"</script>'


def browse(url, tmp_path, *words):
    """Open the page in headless Chromium; return its document once scripts, if there were any, had run."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    profile = f"--user-data-dir={tmp_path / 'chromium'}"
    words = [*options, profile, "--virtual-time-budget=2000", *words, url]
    return proc.run(["chromium", *words], timeout=120, environment={"HOME": str(tmp_path)}).stdout.decode()


@pytest.fixture(scope="module")
def filled(sandbox):
    """A sandbox with an image whose tag is a script."""
    ec2, raw = sandbox.client("ec2"), sandbox.raw()
    snapshot_id = raw.snapshot({}, Description=NASTY, Tags=[{"Key": NASTY, "Value": '"><img src=x onerror=alert(1)>'}])
    device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id}}
    ec2.register_image(Name="an image", RootDeviceName="/dev/xvda", BlockDeviceMappings=[device])
    raw.ec2(Action="DescribeSnapshots", **{"SnapshotId.1": "snap-0123456789abcdef0"})
    return snapshot_id


@pytest.mark.behaviour("Operation", "the page at /", "Chromium shows what is in it; a tag that is a script is text")
def test_a_browser_shows_what_is_in_it(sandbox, filled, tmp_path):
    document = browse(sandbox.endpoint.plain_url, tmp_path, "--dump-dom")
    assert f"<title>emi sandbox {sandbox.endpoint.plain_url[7:]}</title>" in document  # and not "owned"
    assert len(re.findall(rf"<td[^>]*>{filled}</td>", document)) == 2  # as a snapshot, and as an image's
    assert "&lt;script&gt;" in document
    assert re.search(r'<td class="state good">completed</td>', document)
    assert re.search(r'<td class="state bad">400 InvalidSnapshot.NotFound</td>', document)
    for nobody in ("<script", "<img", "onerror=alert(1)>"):
        assert nobody not in document
    assert re.findall(r'(?:src|href|action)="(?!#|data:,")', document) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_painted_in_light_and_dark(sandbox, filled, tmp_path, scheme):
    words = ["--window-size=1000,800", f"--screenshot={tmp_path / 'page.png'}"]
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse(sandbox.endpoint.plain_url, tmp_path, *words, *dark)
    corner = pixels(tmp_path / "page.png")
    assert (min(corner) > 200) if scheme == "light" else (max(corner) < 60)


def pixels(file):
    """Return the first pixel of a PNG, of which Chromium writes 8-bit RGB or RGBA."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    packed, at = b"", 8
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        packed += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    row = zlib.decompress(packed)[:4]
    return row[1:4]  # after the filter byte: the first pixel has nobody to its left


@pytest.mark.behaviour("Operation", "GET / with a signature", "is still S3's ListBuckets, also when it accepts HTML")
def test_a_signed_request_is_the_services(sandbox, raw):
    status, headers, body = raw.call("GET", "/", headers=HTML, service="s3")
    assert (status, b"ListAllMyBucketsResult" in body, headers["Content-Type"]) == (200, True, "application/xml")
    status, _, body = raw.call("GET", "/?Action=DescribeRegions&Version=2016-11-15", headers=HTML, service="ec2")
    assert (status, b"DescribeRegionsResponse" in body) == (200, True)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),  # does not ask for HTML
        ("GET", "/?Action=DescribeRegions", HTML),
        ("POST", "/", HTML),
        ("GET", "/bucket", HTML),
        ("PUT", "/", HTML),
    ],
)
def test_an_unsigned_request_that_is_no_browsers_is_refused_as_the_services_do(raw, method, path, headers):
    status, answered, body = raw.call(method, path, headers=headers, service=None)
    assert status in (400, 403, 404, 405, 501)
    assert "html" not in answered["Content-Type"]
    assert b"<html" not in body


def test_the_browser_may_load_and_run_nothing(raw):
    status, headers, _ = raw.call("GET", "/", headers=HTML, service=None)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    status, headers, rest = raw.call("HEAD", "/", headers=HTML, service=None)
    assert (status, rest, int(headers["Content-Length"]) > 1000) == (200, b"", True)


def test_it_tells_no_secret(sandbox, raw):
    body = raw.call("GET", "/", headers=HTML, service=None)[2].decode()
    contents = raw.call("GET", "/_sandbox/contents", service=None)[2].decode()
    for text in (body, contents):
        assert sandbox.endpoint.secret_key not in text
        assert sandbox.endpoint.access_key not in text


def test_it_is_not_a_call(sandbox, raw):
    before = (sandbox.directory / "calls.jsonl").stat().st_size
    raw.call("GET", "/", headers=HTML, service=None)
    assert (sandbox.directory / "calls.jsonl").stat().st_size == before
