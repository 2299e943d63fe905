"""The one place where urllib3's and TLS's failures and HTTP's statuses become NetworkError or NetworkTrouble."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import IncompleteRead

from urllib3 import exceptions as theirs

from builder.errors import NetworkError, NetworkTrouble

# RFC 9110 and 6585: statuses that speak of this moment, not of the file.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_ASKED = 300  # seconds; a server that asks for more is not waited for

_CERTIFICATE = "Set SSL_CERT_FILE if a certificate authority of your own signs it; emi never skips the check."


def refusal(status: int, reason: str | None, headers: Mapping[str, str], where: str) -> NetworkError:
    """Return the error that an HTTP status means; `where` names the URL."""
    said = f"{where}: the server answered {status} {reason or _phrase(status)}".rstrip()
    if status not in _PASSING:
        return NetworkError(said)
    wait = _asked_wait(headers.get("Retry-After", ""))
    if wait > _LONGEST_ASKED:
        return NetworkError(
            f"{said} and asks to come back in {wait:.0f} s",
            hint="Run the same command again then: the download continues where it stopped.",
        )
    return NetworkTrouble(said, retry_after=wait)


def translate(error: Exception, where: str) -> NetworkError:  # noqa: PLR0911 - a table of cases reads best as one
    """Return our error for one of urllib3's or the socket's; `where` names the URL."""
    match error:
        case theirs.ProxyError():
            return _proxy(error, where)
        case theirs.NameResolutionError():
            cause = error.__cause__
            passing = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
            kind = NetworkTrouble if passing else NetworkError
            return kind(f"{where}: the host's name cannot be resolved ({_strerror(cause or error)})")
        case theirs.NewConnectionError():
            return NetworkTrouble(f"{where}: cannot connect ({_strerror(error.__cause__ or error)})")
        case theirs.ConnectTimeoutError():
            return NetworkTrouble(f"{where}: cannot connect (no answer in time)")
        case theirs.TimeoutError() | TimeoutError():
            return NetworkTrouble(f"{where}: the server fell silent")
        case theirs.SSLError() | ssl.SSLError():
            return _tls(error, where)
        case IncompleteRead() | theirs.ProtocolError() | OSError():
            return NetworkTrouble(f"{where}: the connection was cut ({_root(error)})")
        case _:
            return NetworkError(f"{where}: {error}")


def _proxy(error: theirs.ProxyError, where: str) -> NetworkError:
    inner = error.original_error
    said = str(inner)
    if isinstance(inner, theirs.HTTPError) and not isinstance(inner, theirs.ProxyError):
        return translate(inner, where)
    # http.client words a refused CONNECT as "Tunnel connection failed: 403 Forbidden".
    status = said.removeprefix("Tunnel connection failed: ")[:3]
    if status.isdigit() and int(status) not in _PASSING:
        return NetworkError(
            f"{where}: the proxy refused: {said}", hint="Correct HTTPS_PROXY, or except it in NO_PROXY."
        )
    return NetworkTrouble(f"{where}: the proxy failed: {said}")


def _tls(error: Exception, where: str) -> NetworkError:
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return NetworkError(f"{where}: the server's certificate is refused: {inner.verify_message}", hint=_CERTIFICATE)
    if isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return NetworkTrouble(f"{where}: the connection was cut while TLS was being set up")
    return NetworkError(f"{where}: TLS failed: {getattr(inner, 'reason', None) or inner}")


def _asked_wait(value: str) -> float:
    if value.strip().isdigit():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        when = parsedate_to_datetime(value)
        return max((when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0)
    return 0


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _strerror(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _root(error: BaseException) -> str:
    while error.__cause__ or (error.__context__ and not error.__suppress_context__):
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, IncompleteRead):  # theirs is one as well
        return "before the end of the file"
    return _strerror(error) or type(error).__name__
