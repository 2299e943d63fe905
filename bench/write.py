"""The demo's disk (4 GB, 640 MB of data) to a file behind a loopback sshd: emi beside what people type.

    python bench/write.py [--rounds N] [--quick | --far] [DISK.raw]

    emi          builder/remote/write.py: a new file, fsynced, read back and compared by digest; then the same again
    dd           dd | ssh dd: all bytes
    ssh -C       the same, compressed by SSH; once, and not with --quick
    tar          tar -S | zstd -1 -T2 | ssh zstd -d | tar -x

Each way is a whole process, Python's start included; ways take turns and medians count. All end with an fsync of the
file; only emi reads back what it wrote. The peers use aes128-gcm, the fastest cipher. Everything runs in a network
namespace of its own, whose loopback counts the bytes. With --far, which has no limits, a relay holds every byte back
for 25 ms each way, and emi with one connection is measured beside emi with its four: SSH's window is 2 MiB for each
channel, so one moves at most 40 MB/s. (The relay ends TCP on either side, so TCP's own windows are not part of it; the
kernel's netem would be better where there is one.) Needs root.
There the bytes are counted twice, before and behind the relay.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import shutil
import signal
import socket
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import threading  # noqa: TID251 - the relay's
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from snapshot import demo_image

from builder.image.reader import open_image
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair
from builder.remote.write import CONNECTIONS, write

ROUNDS = 3
MB = 1_000_000
SSHD, RELAY = 2222, 2223
DELAY = 0.025  # seconds each way
LIMITS = {"of the best peer's time": 1.3, "of the disk's size on the wire": 0.06, "of the bytes again": 0.01}
CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/allowed
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
UseDNS no
"""
SSH = (
    "ssh -o BatchMode=yes -o UserKnownHostsFile={d}/known -o LogLevel=ERROR -c aes128-gcm@openssh.com -i {d}/key -p {p}"
)
SSH += " {c} root@127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Took:
    """Seconds, bytes on the wire in both directions, and MB of memory."""

    wall: float
    wire: int
    peak: float


def child(directory: Path, disk: Path, port: int, connections: int) -> None:
    """Write as the step does, and say which digest came back."""
    key = KeyPair.read(directory / "key")
    pinned = (KeyPair.read(directory / "host").public,)
    login = Login(host="127.0.0.1", port=port, user="root", key=key, pinned=pinned)
    with open_image(disk, "raw") as reader, Remote(login, patience=20) as remote:
        done = write(reader, Shell(remote), str(directory / "out/disk.raw"), connections=connections)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    print(json.dumps({"digest": done.digest, "sent": done.sent, "peak": peak}))


def on_the_wire() -> int:
    """Return the bytes that this namespace's loopback has carried."""
    line = next(line for line in Path("/proc/self/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[1])


def timed(command: list[str]) -> tuple[Took, str]:
    """Run one way to its end."""
    before, began = on_the_wire(), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    took, out = time.monotonic() - began, done.stdout
    peak = json.loads(out)["peak"] if out.startswith("{") else 0.0
    return Took(wall=took, wire=on_the_wire() - before, peak=peak), out


@contextmanager
def servers(directory: Path) -> Iterator[None]:
    """Run the sshd and the relay."""
    Path("/run/sshd").mkdir(exist_ok=True)
    host, key = KeyPair.generate(), KeyPair.generate()
    for name, text in (("host", host.private), ("key", key.private), ("allowed", key.public.encode() + b"\n")):
        (directory / name).write_bytes(text)
        (directory / name).chmod(0o600)
    known = [f"[127.0.0.1]:{port} {host.public}\n" for port in (SSHD, RELAY)]
    (directory / "known").write_text("".join(known))
    (directory / "config").write_text(CONFIG.format(port=SSHD, directory=directory))
    running = [
        subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", directory / "config"]),
        subprocess.Popen([sys.executable, __file__, "--relay"]),
    ]
    try:
        for port in (SSHD, RELAY):
            for _ in range(200):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
        yield
    finally:
        for process in running:
            process.terminate()
            process.wait()


def relay() -> None:
    """Pass everything on, each byte 25 ms later."""
    with socket.create_server(("127.0.0.1", RELAY)) as listener:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", SSHD))
            for pair in ((client, server), (server, client)):
                line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                threading.Thread(target=_take, args=(pair[0], line), daemon=True).start()
                threading.Thread(target=_give, args=(pair[1], line), daemon=True).start()


def _take(source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    data = b"-"
    while data:
        try:
            data = source.recv(1 << 18)
        except OSError:
            data = b""
        line.put((time.monotonic() + DELAY, data))


def _give(target: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        due, data = line.get()
        time.sleep(max(0.0, due - time.monotonic()))
        if not data:
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)
            return
        with suppress(OSError):
            target.sendall(data)


def ways(directory: Path, disk: Path, port: int, *, far: bool) -> dict[str, list[str]]:
    """Return the command of each way."""

    words = {"disk": disk, "parent": disk.parent, "name": disk.name, "out": directory / "out"}

    def emi(connections: int) -> list[str]:
        return [sys.executable, __file__, "--child", str(directory), str(port), str(connections), str(disk)]

    def shell(text: str, extra: str = "") -> list[str]:
        ssh = SSH.format(d=directory, p=port, c=extra)
        return ["bash", "-c", f"set -e -o pipefail; {text.format(**words, ssh=ssh)}"]

    dd = "dd if={disk} bs=1M status=none | {ssh} dd of={out}/disk.raw bs=1M iflag=fullblock conv=fsync status=none"
    tar = "tar -S -c -C {parent} {name} | zstd -1 -T2 -q"
    tar += " | {ssh} 'cd {out} && zstd -dcq | tar -S -x && mv {name} disk.raw && sync disk.raw'"
    found = {"emi": emi(CONNECTIONS), "tar": shell(tar)}
    if far:
        return {"emi": emi(CONNECTIONS), "emi, one connection": emi(1), "tar": shell(tar)}
    return {**found, "dd": shell(dd), "ssh -C": shell(dd, "-C")}


def measure(
    directory: Path, disk: Path, rounds: int, *, far: bool, compressed: int
) -> tuple[dict[str, list[Took]], list[Took]]:
    """Run the ways in turns, ssh -C in the first `compressed` rounds; return what they and emi's second writes took."""
    took: dict[str, list[Took]] = {}
    again = []
    out = directory / "out"
    for number in range(rounds):
        for name, command in ways(directory, disk, RELAY if far else SSHD, far=far).items():
            if name == "ssh -C" and number >= compressed:
                continue
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            os.sync()
            one, first = timed(command)
            took.setdefault(name, []).append(one)
            print(f"  {name:20} {one.wall:6.2f} s {one.wire / MB:8.1f} MB", flush=True)
            if subprocess.run(["cmp", disk, out / "disk.raw"], check=False).returncode:
                raise SystemExit(f"{name} wrote something else")
            if name == "emi":
                second, told = timed(command)
                again.append(second)
                print(f"  {'emi, unchanged':20} {second.wall:6.2f} s {second.wire / MB:8.1f} MB", flush=True)
                assert json.loads(told)["digest"] == json.loads(first)["digest"]
    return took, again


def report(took: dict[str, list[Took]], again: list[Took], size: int, *, far: bool) -> list[str]:
    """Print the table; return the limits that are broken."""
    middle = {name: statistics.median(one.wall for one in found) for name, found in took.items()}
    print(f"\n{'50 ms away' if far else 'loopback':22} wall s    MB on the wire   peak MB")
    for name, found in took.items():
        print(f"{name:20} {middle[name]:8.2f} {found[0].wire / MB:14.1f} {max(one.peak for one in found):12.0f}")
    second = statistics.median(one.wall for one in again)
    print(f"{'emi, unchanged':20} {second:8.2f} {again[0].wire / MB:14.1f}")
    if far:
        return []
    ours, wire = took["emi"], max(one.wire for one in took["emi"])
    ratios = {
        "of the best peer's time": middle["emi"] / min(wall for name, wall in middle.items() if name != "emi"),
        "of the disk's size on the wire": wire / size,
        "of the bytes again": max(one.wire for one in again) / min(one.wire for one in ours),
    }
    for name, ratio in ratios.items():
        print(f"{ratio:8.3f} {name} (at most {LIMITS[name]})")
    return [f"more than {LIMITS[name]} {name}" for name, ratio in ratios.items() if ratio > LIMITS[name]]


def main() -> int:
    """Print the tables; return 1 when a limit is broken."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("disk", nargs="?", type=Path, help="a raw disk; by default the demo's")
    options.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    options.add_argument("--quick", action="store_true", help="without ssh -C")
    options.add_argument("--far", action="store_true", help="50 ms away")
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--relay", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.relay:
        relay()
    if chosen.child:
        child(Path(chosen.child[0]), chosen.disk, int(chosen.child[1]), int(chosen.child[2]))
        return 0
    if not chosen.inside:
        disk = chosen.disk or demo_image()
        again = [
            sys.executable,
            __file__,
            "--inside",
            "--rounds",
            str(chosen.rounds),
            *(["--far"] * chosen.far),
            *(["--quick"] * chosen.quick),
            str(disk),
        ]
        inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *again]
        return subprocess.run(inside, check=False).returncode
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended
    with tempfile.TemporaryDirectory(prefix="emi-bench-") as name, servers(Path(name)):
        size = chosen.disk.stat().st_size
        print(f"{size / MB:.0f} MB disk; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        disk, compressed = chosen.disk.resolve(), 0 if chosen.quick else 1
        took, again = measure(Path(name), disk, chosen.rounds, far=chosen.far, compressed=compressed)
        broken = report(took, again, size, far=chosen.far)
    print("\n".join(["", *broken]) if broken else "\nall limits are kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
