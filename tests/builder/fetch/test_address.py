"""What a URL may be, what is read instead of it, and what of it may be shown; and files of this machine."""

import os
import random

import pytest

from builder.errors import InputError, UsageError
from builder.fetch import resolve

MIRRORS = (
    ("https://cloud.debian.org/", "http://127.0.0.1:8080/debian/"),
    ("https://cloud.debian.org/images/", "file:///srv/images/"),
)


@pytest.mark.parametrize(
    ("url", "actual"),
    [
        ("https://example.net/a/disk.img", "https://example.net/a/disk.img"),
        ("https://cloud.debian.org/other/SHA256SUMS", "http://127.0.0.1:8080/debian/other/SHA256SUMS"),
        ("https://cloud.debian.org/images/disk.img", "file:///srv/images/disk.img"),
        ("file:///srv/a%20b", "file:///srv/a%20b"),
        ("file://localhost/srv/a", "file://localhost/srv/a"),
    ],
)
def test_mirrors_by_the_longest_prefix(url, actual):
    assert resolve(url, MIRRORS).actual == actual


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("disk.img", "'disk.img' has no scheme"),
        ("/srv/disk.img", "'/srv/disk.img' has no scheme"),
        ("ftp://example.net/x", "'ftp://example.net/x' has the scheme ftp:"),
        ("https:///disk.img", "'https:///disk.img' names no host"),
        ("file://example.net/x", "'file://example.net/x' names no file on this machine"),
        ("https://user:secret@:80/x", "'https://:80/x' names no host"),
        ("https://user:secret@host:http/x", "a URL cannot be read: Port could not be cast to integer value as 'http'"),
        ("https://[::1/x", "a URL cannot be read: Invalid IPv6 URL"),
    ],
)
def test_what_is_no_url(url, message):
    with pytest.raises(UsageError) as caught:
        resolve(url)
    assert caught.value.message == message


def test_messages_name_both_and_no_password():
    mirrors = [("https://u:secret@example.net/", "http://v:secret@127.0.0.1/m/")]
    address = resolve("https://u:secret@example.net/disk%20one.img?x=1", mirrors)
    assert str(address) == "https://example.net/disk%20one.img?x=1 (read from http://127.0.0.1/m/disk%20one.img?x=1)"
    assert address.name == "disk one.img"


def test_a_local_file_is_copied_with_its_holes(web, tmp_path, notes):
    local = tmp_path / "disk 1.raw"
    with open(local, "wb") as file:
        file.truncate(64 << 20)
        file.seek(10 << 20)
        file.write(b"data")
    fetched = web().download(f"file://{tmp_path}/disk%201.raw", tmp_path)
    assert fetched.path.read_bytes() == local.read_bytes()
    assert fetched.path.stat().st_blocks * 512 <= 2 << 20
    assert notes.done == notes.of == 64 << 20
    assert fetched.validators == web().probe(f"file://{tmp_path}/disk%201.raw")
    assert fetched.validators.last_modified == str(local.stat().st_mtime_ns)


def test_a_mirror_may_be_a_folder(web, tmp_path):
    (tmp_path / "SHA256SUMS").write_bytes(random.Random(1).randbytes(10))
    read = web([("https://example.net/", f"file://{tmp_path}/")]).read("https://example.net/SHA256SUMS")
    assert read == (tmp_path / "SHA256SUMS").read_bytes()


@pytest.mark.parametrize("verb", ["read", "probe", "download"])
def test_local_files_that_are_none(verb, web, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    arguments = [tmp_path] if verb == "download" else []
    for name, message in (("none", ": No such file or directory"), ("pipe", " is not a regular file")):
        with pytest.raises(InputError) as caught:
            getattr(web(), verb)(f"file://{tmp_path}/{name}", *arguments)
        assert caught.value.message == f"file://{tmp_path}/{name}{message}"
