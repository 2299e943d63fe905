"""One HTTP request at a time: proxies, TLS, redirects, and every failure in our own words.

urllib3 carries the bytes: it is in the lock already (through botocore), does what http.client leaves to its users
(CONNECT through proxies, one timeout to connect and one for silence, chunked bodies, errors by class), and measured
equal to http.client's readinto: 370 MB/s with TLS, hash and file on one core. Its own retries and redirects are off:
what may be asked again, and where a redirect may lead, is decided here and in transfer.py.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import make_headers

from builder.errors import NetworkError, UsageError
from builder.fetch.address import Address, origin, shown
from builder.fetch.refusal import refusal, translate

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10
# Bytes per read. Measured with TLS: 256 KiB is as fast as 1 MiB, and what a reset can lose is a quarter.
BUFFER = 256 * 1024
# Where other tools look for a bundle of certificates; OpenSSL itself knows only the first.
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long to wait, in seconds, and how often to ask again when nothing arrives."""

    connect: float = 15
    silence: float = 60
    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 30
    deadline: float = 900


class Answer:
    """A server's answer whose body is still to be read; closed as a context manager, which drops the connection."""

    def __init__(self, response: urllib3.BaseHTTPResponse, address: Address) -> None:
        self._response = response
        self._address = address
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    def read(self, *, as_it_comes: bool = False) -> bytes:
        """Return the next bytes of the body, b'' at its end; `as_it_comes` keeps what a later cut would lose.

        Raises NetworkTrouble when the body is cut short, and when the server falls silent.
        """
        read = self._response.read1 if as_it_comes else self._response.read
        try:
            return read(BUFFER, decode_content=False)
        except (HTTPError, OSError) as error:
            raise translate(error, str(self._address)) from error

    def refusal(self) -> NetworkError:
        """Return the error that this answer's status means."""
        return refusal(self.status, self._response.reason, self.headers, str(self._address))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not released for another request: an unread body may be gigabytes long.
        self._response.close()


class Client:
    """Makes requests with one set of limits. Reads proxies and certificates from the environment, once."""

    def __init__(self, limits: Limits) -> None:
        self._timeout = urllib3.Timeout(connect=limits.connect, read=limits.silence)
        self._tls = _tls()
        self._proxies = urllib.request.getproxies()
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    def request(self, method: str, address: Address, headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request, following at most 10 redirects, and return the answer, whatever its status.

        A redirect never leads from https to http, nor to a scheme other than these two; user and password are sent
        to the origin they were given for and to no other. Raises NetworkError, and NetworkTrouble for what may pass.
        """
        url = address.actual
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send(method, url, address, headers or {})
            target = response.headers.get("Location")
            if response.status not in _REDIRECTS or target is None:
                return Answer(response, address)
            with closing(response):
                url = _redirected(url, target, address)
        raise NetworkError(f"{address}: more than {_MOST_REDIRECTS} redirects, the last one to {_bare(url)}")

    def _send(self, method: str, url: str, address: Address, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        # identity: a body compressed on the way has other bytes, lengths and ranges than the file that was signed.
        sent = {"Accept-Encoding": "identity", "User-Agent": "emi", **headers}
        given = urlsplit(address.actual)
        if "@" in given.netloc and origin(url) == origin(address.actual):
            user = f"{unquote(given.username or '')}:{unquote(given.password or '')}"
            sent |= make_headers(basic_auth=user)
        parts = urlsplit(url)
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        proxy = self._proxy(url)
        try:
            return self._pool(proxy).request(
                method, bare, headers=sent, retries=False, redirect=False, preload_content=False, timeout=self._timeout
            )
        except (HTTPError, OSError) as error:
            where = f"{address} (through the proxy {shown(proxy)})" if proxy else str(address)
            raise translate(error, where) from error

    def _proxy(self, url: str) -> str | None:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
        if urllib.request.proxy_bypass(host, self._proxies):
            return None
        proxy = self._proxies.get(parts.scheme) or self._proxies.get("all")
        return proxy if not proxy or "://" in proxy else f"http://{proxy}"

    def _pool(self, proxy: str | None) -> urllib3.PoolManager:
        if proxy not in self._pools:
            if proxy is None:
                self._pools[proxy] = urllib3.PoolManager(ssl_context=self._tls)
            else:
                self._pools[proxy] = _through(proxy, self._tls)
        return self._pools[proxy]


def _through(proxy: str, tls: ssl.SSLContext) -> urllib3.ProxyManager:
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https"):
        raise UsageError(
            f"the proxy {shown(proxy)} is neither http: nor https:",
            hint="Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY.",
        )
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    return urllib3.ProxyManager(
        shown(proxy), ssl_context=tls, proxy_headers=make_headers(proxy_basic_auth=user) if user else None
    )


def _tls() -> ssl.SSLContext:
    bundle = next((os.environ[name] for name in _BUNDLES if os.environ.get(name)), None)
    if bundle is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        name = next(name for name in _BUNDLES if os.environ.get(name))
        raise UsageError(
            f"the certificates in {bundle} cannot be read: {error.strerror or error}", hint=f"Correct or unset {name}."
        ) from error


def _redirected(url: str, target: str, address: Address) -> str:
    following = urljoin(url, target)
    try:
        scheme, host, _ = origin(following)
    except UsageError as error:
        raise NetworkError(f"{address} redirects to what is no URL: {error}") from None
    if scheme not in ("http", "https") or not host:
        raise NetworkError(f"{address} redirects to {_bare(following)}, which is not followed: only http and https are")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise NetworkError(f"{address} redirects from https to {_bare(following)}: the way there would not be secure")
    return following


def _bare(url: str) -> str:
    # A redirect's query often is a signature that grants access.
    return shown(urlunsplit(urlsplit(url)._replace(query="", fragment="")))
