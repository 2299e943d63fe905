"""The sandbox's throughput and memory: EBS direct puts, S3 up and down, beside moto's own server in the same run.

A raw client signs every request (Signature Version 4, the body's SHA-256 in it) and keeps 8 connections busy from a
process of its own; the server is a process of its own too. 8 GiB of puts and 8 GiB of S3 go through the sandbox in
rounds, whose median counts; between rounds what was stored is deleted. moto's server keeps everything in memory, so it
gets a small part of that, from the same client.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import http.client
import json
import os
import random
import re
import resource
import signal
import socket
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor  # noqa: TID251 - the client's connections
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3  # noqa: TID251 - what is not timed

from builder.digest import BLOCK
from builder.sandbox import lifecycle

ROOT = Path(__file__).parent.parent
CONNECTIONS = 8
MIB = 1 << 20
OBJECT = 64 * MIB
ROUNDS = 4
PUTS, OBJECTS = 4096, 16  # of a round: 2 GiB of blocks, 1 GiB up and 1 GiB down
MOTO_PUTS, MOTO_OBJECTS = 256, 2
LIMITS = {"EBS puts": 400, "S3 up": 200, "S3 down": 300}  # MiB/s
GROWTH = 32  # MiB of resident memory from the end of the first round to the peak of all


@dataclass(frozen=True, kw_only=True)
class Server:
    """What the client talks to."""

    name: str
    url: str
    access_key: str
    secret_key: str
    pid: int

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", **keys)

    def resident(self) -> tuple[int, int]:
        """Return its resident memory in MiB, now and at its highest."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        now, highest = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) // 1024 for name in ("VmRSS", "VmHWM"))
        return now, highest

    def cpu(self) -> float:
        """Return the CPU seconds it has used."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


# What runs in the client's process


class Connection:
    """One connection that signs what it sends."""

    def __init__(self, server: Server, service: str) -> None:
        self._server, self._service = server, service
        self._host = urlsplit(server.url).netloc
        self._http = http.client.HTTPConnection(self._host, timeout=60)
        self._day, self._key = "", b""

    def call(self, method: str, path: str, body: bytes | memoryview, digest: str, headers: Mapping[str, str]) -> Any:
        """Send a request and return the response, its body unread. Raises SystemExit when it is refused."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{now[:8]}/us-east-1/{self._service}/aws4_request"
        signed = {"host": self._host, "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(signed)
        lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
        request = hashlib.sha256(f"{method}\n{path}\n\n{lines}\n{names}\n{digest}".encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{request}"
        signature = hmac.new(self._signing_key(now[:8]), text.encode(), hashlib.sha256).hexdigest()
        credential = f"Credential={self._server.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        self._http.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in (*signed.items(), *headers.items()):
            self._http.putheader(name, value)
        self._http.putheader("Authorization", f"AWS4-HMAC-SHA256 {credential}")
        self._http.putheader("Content-Length", str(len(body)))
        self._http.endheaders()
        if body:
            self._http.send(body)
        response = self._http.getresponse()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status} {response.read()[:500]!r}")
        return response

    def _signing_key(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self._server.secret_key}".encode()
            for word in (day, "us-east-1", self._service, "aws4_request"):
                key = hmac.new(key, word.encode(), hashlib.sha256).digest()
            self._day, self._key = day, key
        return self._key


def each(server: Server, service: str, count: int, work: Callable[[Connection, int], None]) -> float:
    """Do `work` for 0 … count-1 over the connections, all open before the first; return the seconds."""
    connections = [Connection(server, service) for _ in range(CONNECTIONS)]

    def serve(number: int) -> None:
        for index in range(number, count, CONNECTIONS):
            work(connections[number], index)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        began = time.monotonic()
        list(threads.map(serve, range(CONNECTIONS)))
        return time.monotonic() - began


def puts(server: Server, snapshot: str, count: int) -> float:
    """Put blocks, none twice the same within 16."""
    data = [random.Random(number).randbytes(BLOCK) for number in range(16)]
    sums = [hashlib.sha256(block) for block in data]
    headers = [
        {
            "x-amz-Checksum": b64encode(one.digest()).decode(),
            "x-amz-Checksum-Algorithm": "SHA256",
            "x-amz-Data-Length": str(BLOCK),
        }
        for one in sums
    ]

    def put(connection: Connection, index: int) -> None:
        which = index % 16
        path = f"/snapshots/{snapshot}/blocks/{index}"
        connection.call("PUT", path, data[which], sums[which].hexdigest(), headers[which]).read()

    return each(server, "ebs", count, put)


def up(server: Server, bucket: str, count: int) -> float:
    """Put objects."""
    data = random.Random(0).randbytes(OBJECT)
    digest = hashlib.sha256(data).hexdigest()

    def put(connection: Connection, index: int) -> None:
        connection.call("PUT", f"/{bucket}/{index}", data, digest, {}).read()

    return each(server, "s3", count, put)


def down(server: Server, bucket: str, count: int) -> float:
    """Get the objects; they must be as long as they were."""
    empty = hashlib.sha256(b"").hexdigest()

    def get(connection: Connection, index: int) -> None:
        response, got = connection.call("GET", f"/{bucket}/{index}", b"", empty, {}), 0
        buffer = bytearray(MIB)
        while count := response.readinto(buffer):
            got += count
        if got != OBJECT:
            raise SystemExit(f"object {index} came back with {got} bytes")

    return each(server, "s3", count, get)


WAYS = {"EBS puts": (puts, BLOCK), "S3 up": (up, OBJECT), "S3 down": (down, OBJECT)}


# What runs it


def measure(way: str, server: Server, where: str, count: int) -> tuple[float, float, float]:
    """Run one round from a process of its own; return MiB/s, and ms of CPU a MiB of the client and of the server."""
    before = server.cpu()
    command = [sys.executable, __file__, "--child", way, json.dumps(asdict(server)), where, str(count)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=True)
    figures = json.loads(done.stdout)
    size = count * WAYS[way][1] / MIB
    return size / figures["seconds"], figures["cpu"] * 1000 / size, (server.cpu() - before) * 1000 / size


def rounds(server: Server, count: int, blocks: int, objects: int) -> tuple[dict[str, float], list[int]]:
    """Run every way so many times; print a line for each, return the median rates and the memory after each round."""
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    memory = [server.resident()[0]]
    ebs, ec2, s3 = server.client("ebs"), server.client("ec2"), server.client("s3")
    for number in range(count):
        snapshot = ebs.start_snapshot(VolumeSize=max(1, blocks * BLOCK >> 30))["SnapshotId"]
        found["EBS puts"].append(measure("EBS puts", server, snapshot, blocks))
        ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=blocks)
        ec2.delete_snapshot(SnapshotId=snapshot)
        bucket = f"bench-{number}"
        s3.create_bucket(Bucket=bucket)
        for way in ("S3 up", "S3 down"):
            found[way].append(measure(way, server, bucket, objects))
        for index in range(objects):
            s3.delete_object(Bucket=bucket, Key=str(index))
        memory.append(server.resident()[1])
    print(f"\n{server.name}: rounds: {count}, connections: {CONNECTIONS}")
    for way, figures in found.items():
        rate, client, served = (statistics.median(one[column] for one in figures) for column in range(3))
        size = count * (objects if way != "EBS puts" else blocks) * WAYS[way][1] / (1 << 30)
        all_rates = " ".join(f"{one[0]:.0f}" for one in figures)
        print(f"  {way:9s} {rate:6.0f} MiB/s ({all_rates}), {size:.3g} GiB;"
              f" CPU-ms a MiB: server {served:.2f}, client {client:.2f}")  # fmt: skip
    rates = {way: statistics.median(one[0] for one in figures) for way, figures in found.items()}
    return rates, [*memory, server.resident()[0]]


@contextmanager
def sandbox(directory: Path) -> Iterator[Server]:
    """The embedded cloud on its plain port."""
    end = lifecycle.start(directory / "sandbox")
    try:
        keys = {"access_key": end.access_key, "secret_key": end.secret_key}
        yield Server(name="the sandbox", url=end.plain_url, pid=end.pid, **keys)
    finally:
        lifecycle.stop(directory / "sandbox")


@contextmanager
def moto() -> Iterator[Server]:
    """moto's own server, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, **quiet)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                raise SystemExit("moto_server did not start")
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port}"
        yield Server(name="moto's server", url=url, access_key="AKID", secret_key="secret", pid=server.pid)
    finally:
        server.terminate()
        server.wait()


def child(way: str, server: str, where: str, count: str) -> None:
    """Run one round and print how long it took."""
    seconds = WAYS[way][0](Server(**json.loads(server)), where, int(count))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime}))


def main() -> int:
    """Print the tables; return 1 when a limit is broken."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=ROUNDS, help="against the sandbox (default: %(default)s)")
    options.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        child(*chosen.child)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="emi-bench-") as directory, sandbox(Path(directory)) as server:
        rates, memory = rounds(server, chosen.rounds, PUTS, OBJECTS)
        start, first, highest, end = memory[0], memory[1], memory[-2], memory[-1]
        print(f"  memory, MiB: {start} at first, at most {first} in the first round, {highest} in all; {end} now")
    with moto() as server:
        theirs, memory = rounds(server, 1, MOTO_PUTS, MOTO_OBJECTS)
        print(f"  memory, MiB: {memory[0]} at the start, {memory[-1]} at the end")
    ratios = ", ".join(f"{way} {rate / theirs[way]:.1f}" for way, rate in rates.items())
    print(f"\nthe sandbox is so many times as fast as moto's server: {ratios}")
    slow = {way: limit for way, limit in LIMITS.items() if rates[way] < limit}
    broken = [f"{way}: {rates[way]:.0f} MiB/s, less than {limit}" for way, limit in slow.items()]
    if highest - first > GROWTH:
        broken.append(f"memory grew by {highest - first} MiB after the first round, more than {GROWTH}")
    print("\n".join(["", *broken]) if broken else "all limits are kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
