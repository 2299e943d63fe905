"""A real sshd on a loopback address, with users of its own, and a proxy before it that counts, delays and cuts."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess  # noqa: TID251 - the server is a process of the test
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from builder import pool, proc
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair

ADDRESS = "127.0.77.1"
UIDS = {"root": 0, "alice": 47110, "bob": 47111, "carl": 47112, "dora": 47113, "eve": 47114}
SUDOERS = """\
Defaults env_reset
Defaults secure_path="{path}"
alice ALL=(ALL) ALL
bob ALL=(ALL) NOPASSWD: ALL
carl ALL=(ALL) NOPASSWD: ALL
"""
CONFIG = """\
ListenAddress {address}:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_%u
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 100
MaxSessions 30
SetEnv PATH={path}
Match User dora
    ForceCommand echo 'Please login as the user "admin" rather than the user "root".'; exit 142
"""
# Users and their rules exist in the server's own mount namespace only, and so does this start of the machine.
START = """\
set -e
mkdir -p /run/sshd
for file in passwd shadow group sudoers; do mount --bind "$1/$file" "/etc/$file"; done
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
exec /usr/sbin/sshd -D -e -f "$1/sshd_config"
"""


@dataclass
class Machine:
    """A running sshd; its users are root, alice (sudo with a password), bob (without), carl (a chatty shell), dora."""

    directory: Path
    port: int
    host_key: KeyPair
    key: KeyPair
    process: subprocess.Popen[bytes] | None = None
    remotes: list[Remote] = field(default_factory=list)

    def login(self, user: str = "root", *, port: int | None = None, **changes: object) -> Login:
        values = {"key": self.key, "pinned": (self.host_key.public,), **changes}
        return Login(host=ADDRESS, port=port or self.port, user=user, **values)  # type: ignore[arg-type]

    def remote(self, user: str = "root", *, port: int | None = None, patience: float = 10, **changes: object) -> Remote:
        made = Remote(self.login(user, port=port, **changes), patience=patience)
        self.remotes.append(made)
        return made

    def shell(self, user: str = "root", **changes: object) -> Shell:
        return Shell(self.remote(user, **changes))  # type: ignore[arg-type]

    def start(self) -> None:
        """Start the machine; from then on it has another boot id than before."""
        (self.directory / "boot_id").write_text(f"{uuid4()}\n")
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", START, "sh", str(self.directory)]
        with open(self.directory / "sshd.log", "ab") as log:
            self.process = proc.start(command, stderr=log.fileno(), stdout=log.fileno())
        _await(self.process, self.port, self.directory / "sshd.log")

    def below(self) -> list[int]:
        """Return the processes that run under the server."""
        assert self.process is not None
        return _descendants(self.process.pid)

    def power_off(self) -> None:
        """Kill the server and all that runs under it, at once."""
        assert self.process is not None
        for pid in [self.process.pid, *self.below()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _descendants(pid: int) -> list[int]:
    """Return the processes below this one, also those that have left its group."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            parents.setdefault(int(words[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


@contextmanager
def machine(directory: Path, *, path: str = "/usr/local/bin:/usr/bin:/bin") -> Iterator[Machine]:
    """Run an sshd whose sessions have this PATH, as root."""
    assert os.geteuid() == 0, "an sshd with users of its own, loop devices and mounts need root"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    host_key, key = KeyPair.generate(), KeyPair.generate()
    (directory / "host_key").write_bytes(host_key.private)
    (directory / "host_key").chmod(0o600)
    port = free_port()
    (directory / "sshd_config").write_text(CONFIG.format(address=ADDRESS, port=port, directory=directory, path=path))
    _users(directory, key, path)
    made = Machine(directory, port, host_key, key)
    try:
        made.start()
        yield made
    finally:
        for remote in made.remotes:
            remote.close()
        if made.process is not None:
            proc.end(made.process)


def _users(directory: Path, key: KeyPair, path: str) -> None:
    passwd, shadow, group = [], [], []
    for user, uid in UIDS.items():
        home = directory / "home" / user
        home.mkdir(parents=True)
        os.chown(home, uid, uid)
        passwd.append(f"{user}:x:{uid}:{uid}::{home}:/bin/{'bash' if user == 'carl' else 'sh'}")
        shadow.append(f"{user}:*:19000:0:99999:7:::")
        group.append(f"{user}:x:{uid}:")
        if user != "eve":
            (directory / f"authorized_{user}").write_text(key.public + "\n")
    chatty = "echo '*** Welcome to carl'\"'\"'s machine ***'; echo 'Last update: never' >&2; yes x | head -n 40000\n"
    (directory / "home/carl/.bashrc").write_text(chatty)
    (directory / "passwd").write_text("\n".join([*passwd, "sshd:x:104:65534::/run/sshd:/usr/sbin/nologin", ""]))
    (directory / "shadow").write_text("\n".join([*shadow, ""]))
    (directory / "group").write_text("\n".join([*group, "nogroup:x:65534:", "disk:x:6:", ""]))
    (directory / "sudoers").write_text(SUDOERS.format(path=path))
    (directory / "sudoers").chmod(0o440)


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        with suppress(OSError), socket.create_connection((ADDRESS, port), timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


class Proxy:
    """Passes TCP on to `port`; counts the bytes of each direction and resets connections when it is told to."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.sent = self.received = 0  # bytes, as the client sees it
        self.connections = 0
        self.cut_after: int | None = None  # bytes sent, at which all connections are reset, once
        self.cuts = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((ADDRESS, 0), backlog=50)
        self.port = int(self._listener.getsockname()[1])
        self._serving = pool.Background(self._serve)

    def cut(self) -> None:
        """Reset every connection, as a firewall does."""
        self.cuts += 1
        for end in list(self._open):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection((ADDRESS, self.target))
            except OSError:  # the machine is off
                client.close()
                continue
            pool.Background(lambda pair=(client, server): self._pass(*pair))

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        self._open |= {client, server}
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [], 60)
                for end in ready:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    (server if end is client else client).sendall(data)
                    if end is client:
                        self.sent += len(data)
                    else:
                        self.received += len(data)
                if self.cut_after is not None and self.sent >= self.cut_after:
                    self.cut_after = None
                    self.cut()
                    return
        except (OSError, ValueError):
            return
        finally:
            self._open -= {client, server}
            client.close()
            server.close()


class Loops:
    """Loop devices over sparse files, detached afterwards.

    `view` is put before /sys: there this host's disks are, and of its loop devices ours alone, as on a machine of our
    own. Another test's, of this run or another, come and go.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made: list[str] = []
        self._blocks = directory / "view/sys/block"
        self._blocks.mkdir(parents=True)
        for name in ("dev", "proc"):
            (directory / "view" / name).symlink_to(f"/{name}")
        for disk in Path("/sys/block").iterdir():
            if not disk.name.startswith("loop"):
                (self._blocks / disk.name).symlink_to(disk)

    @property
    def view(self) -> str:
        """What the listing of devices is to read instead of /."""
        return str(self.directory / "view")

    def attach(self, size: int, *, data: bytes = b"", at: int = 0, lossy: Path | None = None) -> str:
        """Return the path of a new loop device of `size` bytes, or over the file `lossy`."""
        file = lossy or self.directory / f"disk{len(self.made)}"
        if lossy is None:
            with open(file, "wb") as disk:
                disk.truncate(size)
                disk.seek(at)
                disk.write(data)
        direct = "--direct-io=on" if lossy else "--direct-io=off"  # else what the file loses lives on in its cache
        path = proc.run(["losetup", "--find", "--show", direct, file]).stdout.decode().strip()
        self.made.append(path)
        (self._blocks / Path(path).name).symlink_to(Path("/sys/block") / Path(path).name)
        return path

    def detach(self, path: str) -> None:
        """Take it away."""
        (self._blocks / Path(path).name).unlink()
        proc.run(["losetup", "--detach", path])
        self.made.remove(path)


@contextmanager
def loop_devices(directory: Path) -> Iterator[Loops]:
    """Give loop devices, and detach what is left of them."""
    made = Loops(directory)
    yield made
    for path in list(made.made):
        made.detach(path)


class Notes:
    """A Progress that keeps what was noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def total(self, count: int) -> None:
        """Ignore it."""

    def advance(self, count: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)
