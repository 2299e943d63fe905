"""One SSH connection to another machine: the one we mean or none, made with patience, and made again after a cut.

The only door to paramiko; its exceptions are translated here. Measured (loopback, 644 MB): aes128-gcm 415-506 MB/s,
206-300 with paramiko's own order of ciphers; paramiko never sets TCP_NODELAY, without which small messages wait 40 ms.
"""

from __future__ import annotations

import io
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import paramiko  # noqa: TID251 - this is the door

from builder import pool
from builder.errors import HostKeyWrong, InputError, RemoteAway, RemoteDenied, RemoteTrouble
from builder.progress import SILENT, Progress
from builder.remote.keys import KeyPair, fingerprint
from builder.retry import retrying

__all__ = ["Login", "Remote"]

_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
_SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")
}  # RFC 8332: one key, new names
_ANSWER = 30  # seconds for each answer of the handshake: a machine that boots under emulation takes 10
_KEEPALIVE = 15  # seconds
_LOOK = 10  # seconds between two looks whether the machine that does not answer is still there
_SILENCE = 60_000  # ms without an acknowledgement by TCP after which the connection counts as cut

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what matters of it is told by our errors


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who logs in where, and how that machine proves itself: by a pinned public key, or one of a known_hosts file."""

    host: str
    port: int = 22
    user: str
    key: KeyPair
    pinned: tuple[str, ...] = ()  # public host keys, `ssh-ed25519 AAAA…`; any of them will do
    known_hosts: Path | None = field(default=None)  # asked when nothing is pinned

    @property
    def name(self) -> str:
        """How messages call the machine: `user@host`, with the port when it is not 22."""
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")

    def expected(self) -> tuple[str, ...]:
        """Return the public host keys that may answer. Raises InputError when none is known."""
        if self.pinned:
            return self.pinned
        named = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        known: Mapping[str, paramiko.PKey] = {}
        if self.known_hosts is not None:
            try:
                known = paramiko.HostKeys(str(self.known_hosts)).lookup(named) or {}
            except FileNotFoundError:  # nobody has logged in anywhere from here: none is known
                known = {}
            except (OSError, paramiko.SSHException) as error:
                raise InputError(f"{self.known_hosts} cannot be read as known hosts: {error}") from error
        if not known:
            where = f"in {self.known_hosts}" if self.known_hosts else "or pinned"
            raise InputError(
                f"no host key of {named} is known {where}",
                hint=f"Compare what `ssh-keyscan -p {self.port} {self.host}` prints with the machine's console, then"
                " add it to the known hosts.",
            )
        return tuple(f"{key.get_name()} {key.get_base64()}" for key in known.values())


class Remote:
    """A connection that is made when it is first needed, and again after a cut. Safe to use from several threads.

    `patience` is for how many seconds a machine that does not answer yet is tried again, at the beginning and after
    each cut; `settling` for how many a refused key is, since a booting machine may not have been given it yet.
    `look` is called now and then while it does not answer, and raises when it never will: its error is ours.
    """

    def __init__(
        self,
        login: Login,
        *,
        patience: float = 300,
        settling: float = 0,
        look: Callable[[], None] = lambda: None,
        progress: Progress = SILENT,
    ) -> None:
        self.login = login
        self._look = look
        self._looked = 0.0
        self._patience = patience
        self._settling = settling
        self._progress = progress
        self._transport: paramiko.Transport | None = None
        self._lock = pool.Lock()
        self._closed = False

    @property
    def name(self) -> str:
        """How messages call the machine."""
        return self.login.name

    def another(self) -> Remote:
        """Return a second connection of the same kind: one channel moves at most 2 MiB in a round trip."""
        return Remote(
            self.login, patience=self._patience, settling=self._settling, look=self._look, progress=self._progress
        )

    def session(self) -> paramiko.Channel:
        """Return a new channel for one command, over a connection that is made for it where there is none.

        Raises RemoteAway (not reached in time), RemoteTrouble, RemoteDenied, HostKeyWrong, InputError.
        """

        def open_one() -> paramiko.Channel:
            transport = self._connected()
            with self._translated():
                return transport.open_session(timeout=_ANSWER)

        return retrying(open_one, attempts=4, progress=self._progress)

    def alive(self) -> bool:
        """Say whether the connection stands, as far as is known here."""
        transport = self._transport
        return transport is not None and transport.is_active()

    def cut(self) -> None:
        """Drop the connection, if there is one; the next use makes another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def close(self) -> None:
        """End the connection for good; a second time does nothing."""
        self._closed = True
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> paramiko.Transport:
        with self._lock:
            if self._closed:
                raise RemoteAway(f"the connection to {self.name} has been closed here")
            if (transport := self._transport) is not None and transport.is_active():
                return transport
            self.cut()
            began = time.monotonic()
            try:
                self._transport = retrying(
                    lambda: self._attempt(time.monotonic() - began < self._settling),
                    deadline=self._patience,
                    attempts=1_000_000,
                    first_wait=0.3,
                    longest_wait=5,
                    progress=self._progress,
                )
            except RemoteTrouble as error:
                raise RemoteAway(error.message) from error
            return self._transport

    def _attempt(self, settling: bool) -> paramiko.Transport:  # noqa: FBT001 - computed at the one call
        try:
            return self._connect(settling)
        except RemoteTrouble:
            if time.monotonic() >= self._looked + _LOOK:
                self._look()
                self._looked = time.monotonic()
            raise

    def _connect(self, settling: bool) -> paramiko.Transport:  # noqa: FBT001 - as above
        expected = self.login.expected()
        key = _pkey(self.login)
        with self._translated():
            transport = paramiko.Transport(_connected_socket(self.login.host, self.login.port))
            try:
                self._shake_hands(transport, expected)
                transport.auth_publickey(self.login.user, key)
            except paramiko.AuthenticationException as error:
                refused = transport.is_active()  # else it was cut meanwhile, which paramiko calls the same
                transport.close()
                if not refused:
                    raise
                raise self._denied(settling, error) from error
            except BaseException:
                transport.close()
                raise
            return transport

    def _shake_hands(self, transport: paramiko.Transport, expected: tuple[str, ...]) -> None:
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = _ANSWER
        options = transport.get_security_options()
        options.ciphers = _CIPHERS
        # The kinds of the keys we know first: a machine with several then shows one that we can compare.
        kinds = [kind for line in expected for kind in _SIGNATURES.get(line.split()[0], (line.split()[0],))]
        options.key_types = tuple(
            dict.fromkeys(kind for kind in (*kinds, *options.key_types) if kind in options.key_types)
        )
        transport.start_client(timeout=_ANSWER)
        shown = transport.get_remote_server_key()
        answered = f"{shown.get_name()} {shown.get_base64()}"
        if not any(line.split()[:2] == answered.split() for line in expected):
            known = ", ".join(f"{line.split()[0]} {fingerprint(line)}" for line in expected)
            raise HostKeyWrong(
                f"{self.name} has the host key {shown.get_name()} {fingerprint(answered)}, but {known} is expected"
            )
        transport.set_keepalive(_KEEPALIVE)

    def _denied(self, settling: bool, error: Exception) -> RemoteDenied | RemoteTrouble:  # noqa: FBT001 - as above
        used = f"{self.login.key.public.split()[0]} {fingerprint(self.login.key.public)}"
        text = f"{self.name} does not let the key {used} in: {error}"
        return RemoteTrouble(text) if settling else RemoteDenied(text)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what paramiko and sockets raise inside the block into our own errors; the one place that does."""
        try:
            yield
        except (paramiko.SSHException, EOFError, OSError) as error:
            said = str(error) or type(error).__name__
            raise RemoteTrouble(f"no SSH with {self.name}: {said}") from error


def _pkey(login: Login) -> paramiko.PKey:
    kind = login.key.public.split()[0]
    text = io.StringIO(login.key.private.decode())
    try:
        if kind == "ssh-ed25519":
            return paramiko.Ed25519Key.from_private_key(text)
        if kind == "ssh-rsa":
            return paramiko.RSAKey.from_private_key(text)
        return paramiko.ECDSAKey.from_private_key(text)
    except (paramiko.SSHException, ValueError) as error:
        raise InputError(f"the {kind} key for {login.name} is of a kind that cannot be used: {error}") from error


def _connected_socket(host: str, port: int) -> socket.socket:
    made = socket.create_connection((host, port), timeout=_ANSWER)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE)
    return made
