"""The step `download`: what it pins, what it adopts without a request, and what it refuses."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess  # noqa: TID251 - gpg signs here; emi only verifies
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import ValidationError

from builder import pool
from builder.errors import ChecksumMismatch, InputError, NetworkError, SignatureInvalid, UsageError
from pipelines.artifact import File
from pipelines.kinds import load
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.download import DownloadOptions
from pipelines.store import FileStore

STEP = load("download")
BODY = b"the publisher's image " * 1000
SHA256, SHA512 = hashlib.sha256(BODY).hexdigest(), hashlib.sha512(BODY).hexdigest()
MODIFIED = "Mon, 02 Nov 2026 10:00:00 GMT"


@dataclass
class Site:
    """Files of a server, with their ETags, and the requests it saw."""

    base: str = ""
    files: dict[str, tuple[bytes, str | None]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def put(self, name: str, content: bytes, etag: str | None = '"v1"') -> str:
        self.files[f"/{name}"] = (content, etag)
        return f"{self.base}/{name}"

    def requests(self) -> list[str]:
        """Return the requests since the last time."""
        found, self.seen[:] = list(self.seen), []
        return found


@pytest.fixture
def site():
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            site.seen.append(f"{self.command} {self.path}")
            content, etag = site.files.get(self.path, (None, None))
            self.send_response_only(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            if etag:
                self.send_header("ETag", etag)
                self.send_header("Last-Modified", MODIFIED)
            self.end_headers()
            if self.command == "GET" and content:
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.base = f"http://127.0.0.1:{server.server_address[1]}"
        running = pool.Background(lambda: server.serve_forever(0.02))
        yield site
        server.shutdown()
        running.result(10)


@dataclass
class Notes:
    texts: list[str] = field(default_factory=list)

    def total(self, count):
        pass

    def advance(self, count):
        pass

    def note(self, text):
        self.texts.append(text)


@dataclass
class Bench:
    """Runs the step as the runner does: check, pin, JSON, build."""

    place: Path
    outside: Outside
    notes: Notes = field(default_factory=Notes)

    def pin(self, **options):
        options = DownloadOptions(**options)
        assert list(STEP.check(options)) == []
        pins = STEP.pin(options, self.outside)
        assert json.loads(json.dumps(pins)) == pins
        assert STEP.expect(options, pins) == pins.get("size")
        return pins

    def build(self, pins, **options):
        scratch = self.place / "scratch"
        scratch.mkdir(exist_ok=True)
        self.notes.texts.clear()
        work = Work(scratch=scratch, outside=self.outside, pins=pins, progress=self.notes)
        return STEP.build(DownloadOptions(**options), Inputs(), work)

    def run(self, **options):
        return self.build(self.pin(**options), **options)


@pytest.fixture
def bench(tmp_path):
    for name in ("recipes", "cache"):
        (tmp_path / name).mkdir()
    store = FileStore(tmp_path / "objects")
    return Bench(tmp_path, Outside(recipe_directory=tmp_path / "recipes", cache=tmp_path / "cache", store=store))


@pytest.fixture(scope="module")
def gpg(tmp_path_factory):
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)

    def run(*words, stdin=b""):
        command = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
        return subprocess.run([*command, *words], input=stdin, capture_output=True, check=True).stdout

    run("--quick-gen-key", "publisher <publisher@example.net>", "ed25519", "sign", "never")
    yield run
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


def test_an_inline_checksum_is_pinned_and_what_the_store_holds_is_not_asked_for(site, bench):
    options = {"url": site.put("disk.img", BODY), "checksum": f"sha256:{SHA256}"}
    pins = bench.pin(**options)
    assert pins == {"checksum": f"sha256:{SHA256}", "size": len(BODY)}
    file = bench.build(pins, **options)
    assert file == File(digest=f"sha256:{SHA256}", size=len(BODY), name="disk.img")
    assert bench.outside.store.path(file).read_bytes() == BODY
    assert site.requests() == ["HEAD /disk.img", "GET /disk.img"]
    assert bench.pin(**options) == pins
    assert bench.build(pins, **options) == file
    assert site.requests() == []
    assert bench.notes.texts == ["disk.img is in the store already: not fetched again"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_checksum_file_is_resolved_to_the_digest(algorithm, site, bench):
    digest = {"sha256": SHA256, "sha512": SHA512}[algorithm]
    sums = site.put("SUMS", f"{'0' * len(digest)}  other\n{digest} *disk.img\n".encode())
    options = {"url": site.put("disk.img", BODY), "checksum": sums}
    assert bench.pin(**options) == {"checksum": f"{algorithm}:{digest}", "size": len(BODY)}
    file = bench.run(**options)
    assert file.digest == f"sha256:{SHA256}"
    site.requests()
    assert bench.run(**options) == file
    assert site.requests() == ["GET /SUMS"]


def test_without_a_checksum_the_servers_version_is_pinned_and_remembered(site, bench):
    options = {"url": site.put("disk.img", BODY)}
    pins = bench.pin(**options)
    assert pins == {"etag": '"v1"', "last_modified": MODIFIED, "size": len(BODY)}
    file = bench.build(pins, **options)
    assert bench.notes.texts == ["no checksum given for disk.img: nothing proves that these are the publisher's bytes"]
    site.requests()
    assert bench.run(**options) == file
    assert site.requests() == ["HEAD /disk.img"]
    site.put("disk.img", BODY[::-1], '"v2"')
    changed = bench.pin(**options)
    assert changed["etag"] == '"v2"'
    assert bench.build(changed, **options).digest == f"sha256:{hashlib.sha256(BODY[::-1]).hexdigest()}"


def test_a_size_alone_tells_no_version_from_the_next(site, bench):
    options = {"url": site.put("disk.img", BODY, None)}
    assert bench.pin(**options) == {"size": len(BODY)}
    bench.run(**options)
    site.put("disk.img", BODY[::-1], None)
    assert bench.run(**options).digest == f"sha256:{hashlib.sha256(BODY[::-1]).hexdigest()}"


def test_what_the_cache_forgot_costs_a_question_and_no_download(site, bench):
    options = {"url": site.put("disk.img", BODY), "checksum": f"sha256:{SHA256}"}
    file = bench.run(**options)
    for path in (bench.place / "cache" / "downloads").iterdir():
        path.unlink()
    site.requests()
    assert bench.run(**options) == file
    assert site.requests() == ["HEAD /disk.img"]


def test_a_file_that_changes_between_plan_and_run_is_refused(site, bench):
    options = {"url": site.put("disk.img", BODY)}
    pins = bench.pin(**options)
    site.put("disk.img", BODY, '"v2"')
    with pytest.raises(InputError) as caught:
        bench.build(pins, **options)
    url = options["url"]
    assert caught.value.message == f'{url} changed after this run began: its ETag was "v1", and now is "v2"'


def test_a_local_file_is_known_by_its_size_and_time(bench, tmp_path):
    local = tmp_path / "disk.img"
    local.write_bytes(BODY)
    options = {"url": f"file://{local}", "name": "my.img"}
    pins = bench.pin(**options)
    assert pins == {"last_modified": str(local.stat().st_mtime_ns), "size": len(BODY)}
    file = bench.build(pins, **options)
    assert file == File(digest=f"sha256:{SHA256}", size=len(BODY), name="my.img")
    assert bench.build(pins, **options) == file
    assert bench.notes.texts == ["my.img is in the store already: not fetched again"]
    local.write_bytes(BODY[::-1])
    os.utime(local, ns=(1, 1))
    assert bench.build(pins, **options) == file  # the version that was pinned is in the store
    shutil.rmtree(bench.place / "cache" / "downloads")
    with pytest.raises(InputError, match="changed after this run began: its date was"):
        bench.build(pins, **options)


def test_a_wrong_checksum_names_the_mirror_and_the_checksum_file(site, bench):
    site.put("m/disk.img", b"stale")
    site.put("m/SHA256SUMS", f"{SHA256}  disk.img\n".encode())
    mirrors = [("https://publisher.example/", f"{site.base}/m/")]
    bench.outside = Outside(
        recipe_directory=bench.place, cache=bench.outside.cache, mirrors=mirrors, store=bench.outside.store
    )
    options = {"url": "https://publisher.example/disk.img", "checksum": "https://publisher.example/SHA256SUMS"}
    with pytest.raises(ChecksumMismatch) as caught:
        bench.run(**options)
    found = hashlib.sha256(b"stale").hexdigest()
    assert caught.value.message == (
        f"https://publisher.example/disk.img (read from {site.base}/m/disk.img): sha256 is {found}, expected {SHA256}"
    )
    assert list((bench.place / "scratch").iterdir()) == []
    assert list((bench.place / "objects").rglob("sha256-*")) == []


def test_a_signed_checksum_file(site, bench, gpg):
    (bench.place / "recipes" / "keys.asc").write_bytes(gpg("--armor", "--export"))
    sums = f"{SHA256}  disk.img\n".encode()
    options = {"url": site.put("disk.img", BODY), "checksum": site.put("SHA256SUMS", sums), "keyring": "keys.asc"}
    signed = {**options, "signature": site.put("SHA256SUMS.gpg", gpg("--detach-sign", stdin=sums))}
    assert bench.run(**signed).digest == f"sha256:{SHA256}"
    site.put("SHA256SUMS", sums + b"# changed\n")
    with pytest.raises(SignatureInvalid) as caught:
        bench.pin(**signed)
    assert caught.value.message.startswith(
        f"{site.base}/SHA256SUMS, signature {site.base}/SHA256SUMS.gpg, keyring {bench.place}/recipes/keys.asc: "
        "the signature does not fit the data: key "
    )
    site.put("SHA256SUMS", gpg("--clearsign", stdin=sums))
    pins = bench.pin(**options)
    assert (pins["checksum"], set(pins)) == (f"sha256:{SHA256}", {"checksum", "keyring", "size"})
    site.put("SHA256SUMS", sums)
    with pytest.raises(SignatureInvalid, match="there is no signature in it"):
        bench.pin(**options)


@pytest.mark.parametrize("checksum", [None, f"sha256:{SHA256}"])
def test_a_signed_file_is_proven_also_when_the_store_holds_it(checksum, site, bench, gpg):
    (bench.place / "recipes" / "keys.gpg").write_bytes(gpg("--export"))
    signature = site.put("disk.img.sig", gpg("--detach-sign", stdin=BODY))
    options = {"url": site.put("disk.img", BODY), "signature": signature, "keyring": "keys.gpg", "checksum": checksum}
    bench.run(**options)
    assert "no checksum" not in " ".join(bench.notes.texts)
    site.put("disk.img.sig", gpg("--detach-sign", stdin=b"another"))
    with pytest.raises(SignatureInvalid, match="the signature does not fit the data"):
        bench.run(**options)
    assert bench.outside.store.contains(f"sha256:{SHA256}")


def test_a_keyring_that_leads_out_of_the_folder(site, bench, tmp_path):
    (bench.place / "recipes" / "keys.gpg").symlink_to("/etc/passwd")
    options = {"url": site.put("x", b""), "signature": f"{site.base}/x.sig", "keyring": "keys.gpg"}
    with pytest.raises(UsageError) as caught:
        bench.pin(**options)
    assert caught.value.message == f"keyring 'keys.gpg' leads out of the recipe's folder {bench.place}/recipes"
    with pytest.raises(UsageError) as caught:
        bench.pin(**{**options, "keyring": "none.gpg"})
    assert caught.value.message == f"keyring {bench.place}/recipes/none.gpg: No such file or directory"
    assert site.requests() == []


def test_a_file_that_is_not_there_is_found_out_by_the_plan(site, bench):
    with pytest.raises(NetworkError) as caught:
        bench.pin(url=f"{site.base}/disk.img", checksum=f"sha256:{SHA256}")
    assert caught.value.message == f"{site.base}/disk.img: the server answered 404 Not Found"
    assert site.requests() == ["HEAD /disk.img"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "disk.img"}, "'disk.img' has no scheme. Use a URL with http:, https: or file:///absolute/path."),
        (
            {"url": "ftp://h/x"},
            "'ftp://h/x' has the scheme ftp:. Use a URL with http:, https: or file:///absolute/path.",
        ),
        ({"checksum": "md5:00"}, "checksum 'md5:00' does not begin with sha256:, sha384: or sha512:"),
        (
            {"checksum": "s3://h/SUMS"},
            "'s3://h/SUMS' has the scheme s3:. Use a URL with http:, https: or file:///absolute/path.",
        ),
        ({"signature": "http://h/x.sig"}, "signature needs a keyring: the file with the publisher's public keys"),
        (
            {"keyring": "keys.gpg"},
            "keyring has nothing to check: give a signature, or the URL of a clearsigned checksum file",
        ),
        (
            {"keyring": "../keys.gpg", "checksum": "http://h/SUMS"},
            "keyring '../keys.gpg' is not a path inside the recipe's folder",
        ),
        (
            {"keyring": "/etc/keys.gpg", "checksum": "http://h/SUMS"},
            "keyring '/etc/keys.gpg' is not a path inside the recipe's folder",
        ),
        ({"name": "../x"}, "name '../x' is not a file name"),
    ],
)
def test_what_is_wrong_with_the_options(options, problem):
    assert list(STEP.check(DownloadOptions(**{"url": "http://h/x", **options}))) == [problem]


@pytest.mark.parametrize("options", [{}, {"url": 1}, {"url": "x", "checksums": "y"}, {"url": "x", "attempts": 0}])
def test_the_options_are_closed(options):
    with pytest.raises(ValidationError):
        DownloadOptions(**options)
