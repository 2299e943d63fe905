"""Redirects, proxies, TLS and credentials; and every failure in our own words."""

import re
import socket
import ssl

import pytest
import urllib3.exceptions as theirs

from builder.errors import NetworkError, NetworkTrouble, UsageError
from builder.fetch.client import Client, Limits
from builder.fetch.refusal import translate


def redirect(fault, to, status=302):
    return fault(status=status, headers={"Location": to})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_relative_and_absolute(status, site, web, fault):
    site.put("/end", b"here")
    site.put("/middle", b"", redirect(fault, site.base + "/end", status))
    assert web().read(site.put("/start", b"", redirect(fault, "middle", status))) == b"here"


def test_from_http_to_https_is_followed(site, secure, authority, web, fault, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    url = site.put("/start", b"", redirect(fault, secure.put("/end", b"safe")))
    assert web().read(url) == b"safe"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/again", ": more than 10 redirects, the last one to {base}/again"),
        ("file:///etc/passwd", " redirects to file:///etc/passwd, which is not followed: only http and https are"),
        ("ftp://127.0.0.1/x", " redirects to ftp://127.0.0.1/x, which is not followed: only http and https are"),
        ("http://127.0.0.1:99999/", " redirects to what is no URL: a URL cannot be read: Port out of range 0-65535"),
        (
            "gopher://u:secret@127.0.0.1/x?Signature=abc",
            " redirects to gopher://127.0.0.1/x, which is not followed: only http and https are",
        ),
    ],
)
def test_redirects_that_are_not_followed(target, message, site, web, fault):
    site.put("/again", b"", *[redirect(fault, "/again")] * 20)
    url = site.put("/start", b"", redirect(fault, target))
    with pytest.raises(NetworkError) as caught:
        web().read(url)
    assert type(caught.value) is NetworkError
    assert caught.value.message == url + message.format(base=site.base)
    assert len(site.requests) == (11 if target == "/again" else 1)


def test_from_https_to_http_is_refused(site, secure, authority, web, fault, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    url = secure.put("/start", b"", redirect(fault, site.put("/end", b"read by anyone")))
    with pytest.raises(NetworkError) as caught:
        web().read(url)
    assert caught.value.message == f"{url} redirects from https to {site.base}/end: the way there would not be secure"
    assert (len(secure.requests), len(site.requests)) == (1, 0)


def test_a_user_and_password_go_to_their_own_origin_and_into_no_message(
    site, secure, authority, web, fault, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    site.put("/here", b"", redirect(fault, "/there"))
    site.put("/there", b"", redirect(fault, secure.base + "/missing"))
    url = f"{site.base}/here".replace("http://", "http://user:p%40ss@")
    with pytest.raises(NetworkError) as caught:
        web().read(url)
    assert caught.value.message == f"{site.base}/here: the server answered 404 Not Found"
    given = [request.headers.get("Authorization") for request in (*site.requests, *secure.requests)]
    assert given == ["Basic dXNlcjpwQHNz", "Basic dXNlcjpwQHNz", None]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_usual_variables_name_an_authority(variable, secure, authority, web, monkeypatch):
    monkeypatch.setenv(variable, str(authority.bundle))
    assert web().read(secure.put("/file", b"proven")) == b"proven"


def test_an_unknown_authority_is_refused_at_once(secure, web, notes):
    url = secure.put("/file", b"")
    with pytest.raises(NetworkError) as caught:
        web().read(url)
    assert type(caught.value) is NetworkError
    assert caught.value.message.startswith(f"{url}: the server's certificate is refused: unable to get local issuer")
    assert "SSL_CERT_FILE" in caught.value.hint
    assert (notes.texts, secure.requests) == ([], [])


def test_a_certificate_for_another_name_is_refused(secure, authority, web, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    url = secure.put("/file", b"").replace("127.0.0.1", "localhost")
    with pytest.raises(NetworkError, match="certificate is refused: Hostname mismatch") as caught:
        web().read(url)
    assert type(caught.value) is NetworkError


def test_https_to_a_plain_server_is_not_retried(site, web, notes):
    url = site.put("/file", b"").replace("http://", "https://")
    with pytest.raises(NetworkError, match="TLS failed") as caught:
        web().read(url)
    assert type(caught.value) is NetworkError
    assert notes.texts == []


def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError) as caught:
        Client(Limits())
    assert caught.value.message == f"the certificates in {tmp_path}/none.pem cannot be read: No such file or directory"
    assert caught.value.hint == "Correct or unset SSL_CERT_FILE."


def test_nobody_listening_is_retried(web, notes):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/x"
        with pytest.raises(NetworkTrouble) as caught:
            web().read(url)
    expected = f"{url}: cannot connect (Connection refused); given up after 3 attempts in "
    assert re.fullmatch(re.escape(expected) + r"\d+ s", caught.value.message)
    assert len(notes.texts) == 2


def test_http_goes_through_a_proxy_with_its_password(site, proxy, web, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy.base.replace("http://", "http://user:secret@"))
    proxy.base = "http://origin.test"  # never resolved: the proxy serves it
    proxy.put("/file", b"by proxy")
    assert web().read("http://origin.test/file") == b"by proxy"
    assert proxy.requests[0].path == "http://origin.test/file"
    assert proxy.requests[0].headers["Proxy-Authorization"] == "Basic dXNlcjpzZWNyZXQ="


def test_https_goes_through_a_tunnel(secure, proxy, authority, web, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    monkeypatch.setenv("HTTPS_PROXY", proxy.base.removeprefix("http://"))
    assert web().read(secure.put("/file", b"tunnelled")) == b"tunnelled"
    assert [request.method for request in proxy.requests] == ["CONNECT"]


def test_no_proxy_is_believed(site, proxy, web, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy.base)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert web().read(site.put("/file", b"direct")) == b"direct"
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("status", "message", "requests"),
    [
        (407, "the proxy refused: Tunnel connection failed: 407 Proxy Authentication Required", 1),
        (403, "the proxy refused: Tunnel connection failed: 403 Forbidden", 1),
        (
            503,
            "the proxy failed: Tunnel connection failed: 503 Service Unavailable",
            3,
        ),
    ],
)
def test_a_proxy_that_refuses(status, message, requests, secure, proxy, web, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", proxy.base.replace("http://", "http://user:secret@"))
    proxy.refuse.extend([status] * 9)
    url = secure.put("/file", b"")
    with pytest.raises(NetworkError) as caught:
        web().read(url)
    assert caught.value.retryable == (status == 503)
    said, _, attempts = caught.value.message.partition("; given up after ")
    assert said == f"{url} (through the proxy {proxy.base}): {message}"
    assert attempts.startswith("3 attempts in " if status == 503 else "")
    assert len(proxy.requests) == requests


def test_a_proxy_that_is_not_there_or_no_proxy(web, monkeypatch):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(NetworkTrouble, match=r"\(through the proxy .*cannot connect \(Connection refused\)"):
            web().read("http://origin.test/x")
    monkeypatch.setenv("http_proxy", "socks5://u:secret@127.0.0.1:1")
    with pytest.raises(UsageError) as caught:
        web().read("http://origin.test/x")
    assert caught.value.message == "the proxy socks5://127.0.0.1:1 is neither http: nor https:"


def unresolved(number):
    error = theirs.NameResolutionError("host.test", None, socket.gaierror(number, "no such name"))
    error.__cause__ = socket.gaierror(number, "no such name")
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (unresolved(socket.EAI_NONAME), NetworkError, "the host's name cannot be resolved (no such name)"),
        (unresolved(socket.EAI_AGAIN), NetworkTrouble, "the host's name cannot be resolved (no such name)"),
        (theirs.ConnectTimeoutError(), NetworkTrouble, "cannot connect (no answer in time)"),
        (theirs.ReadTimeoutError(None, None, ""), NetworkTrouble, "the server fell silent"),
        (TimeoutError(), NetworkTrouble, "the server fell silent"),
        (
            theirs.ProtocolError("x", ConnectionResetError(104, "Connection reset by peer")),
            NetworkTrouble,
            "the connection was cut (x, 104)",
        ),
        (
            theirs.SSLError(ssl.SSLEOFError(8, "EOF")),
            NetworkTrouble,
            "the connection was cut while TLS was being set up",
        ),
        (theirs.SSLError("odd"), NetworkError, "TLS failed: odd"),
        (theirs.LocationParseError("x"), NetworkError, "Failed to parse: x"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            NetworkTrouble,
            "the connection was cut (Connection reset by peer)",
        ),
    ],
)
def test_their_errors_in_our_words(error, kind, message):
    found = translate(error, "URL")
    assert type(found) is kind
    if not isinstance(error, theirs.ProtocolError):
        assert found.message == f"URL: {message}"


def test_every_one_of_their_errors_has_a_translation():
    def every(kind):
        yield kind
        for below in kind.__subclasses__():
            yield from every(below)

    kinds = [kind for kind in every(theirs.HTTPError) if kind.__module__ == "urllib3.exceptions"]
    assert len(kinds) > 20
    for kind in kinds:
        error = kind.__new__(kind)
        error.original_error = OSError("Tunnel connection failed: 407")
        error.length, error.partial, error.expected = 1, 1, 1
        assert isinstance(translate(error, "URL"), NetworkError), kind


def test_a_host_that_is_no_name_is_said_without_a_trace(web):
    url = f"http://{'a' * 64}.test/x"
    with pytest.raises(NetworkError) as caught:
        web().read(url)
    assert caught.value.message.startswith(f"{url}: ")
