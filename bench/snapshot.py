"""A 4 GiB compressed qcow2 into a snapshot over TLS: emi beside qemu-img convert and boto3 with 64 threads.

    (a)  qemu-img convert to raw, then every block of it through boto3's put_snapshot_block, 64 threads
    (b)  the same, all-zero blocks left out

Each way is a process of its own, start-up included in its wall time and CPU; "CPU-ms a put" is the CPU of the upload
alone, and its limit is for the upload of the raw disk, where nothing is inflated. Ways take turns, the median of the
rounds counts. Measured against a sink (nginx that answers 201 and keeps nothing), where the client is what limits, and
once against the sandbox, where the server does. The image is the demo's (`emi run recipes/debian-12.yaml` makes or
finds it), or the raw disk named as the argument.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import statistics
import subprocess  # noqa: TID251 - times processes from outside
import sys
import tempfile
import threading  # noqa: TID251
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor  # noqa: TID251 - the peers are written as people write them
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.cloud import ebs
from builder.cloud.aws import Aws, Settings
from builder.cloud.claims import Claim
from builder.cloud.ledger import Ledger
from builder.cloud.snapshots import Publication
from builder.digest import BLOCK, is_zero
from builder.image.reader import open_image
from builder.image.stream import data_blocks
from builder.sandbox import certificates, lifecycle

ROUNDS = 3
THREADS = 64
ROOT = Path(__file__).parent.parent
SINK = "snap-0123456789abcdef0"  # the sink does not care
LIMITS = {"times (a)": 3.5, "CPU-ms a put": 1.2, "peak MB": 256.0}
MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where blocks go; `snapshots` says whether it can start and complete one."""

    name: str
    url: str
    ca_file: str
    access_key: str
    secret_key: str
    snapshots: bool

    def settings(self) -> Settings:
        return Settings(
            region="us-east-1",
            endpoint_url=self.url,
            ca_file=Path(self.ca_file),
            access_key=self.access_key,
            secret_key=self.secret_key,
        )


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one process cost: seconds of wall and CPU, MB of memory, and of them the upload alone."""

    wall: float
    cpu: float
    peak: float
    puts: int
    upload_wall: float
    upload_cpu: float


# What runs in the child processes


def emi(server: Server, image: Path) -> dict[str, Any]:
    """Upload as the step `snapshot` does."""
    puts = [0]
    lock = threading.Lock()

    def count(call: Any) -> None:
        if call.action == "PutSnapshotBlock":
            with lock:
                puts[0] += 1

    cloud = Aws(server.settings(), on_call=count)
    cloud._blocks()  # noqa: SLF001 - loads botocore, which counts for the whole and not for each put
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_image(image, "raw" if image.suffix == ".raw" else None) as reader,
    ):
        started = SINK
        if server.snapshots:
            size, claim = ebs.volume_size(reader.virtual_size), Claim(secrets.token_hex())
            started = cloud.start_snapshot(claim, volume_size=size, description="", tags={}, parent=None).snapshot_id
        with Ledger(Path(scratch) / "blocks", started) as ledger, timed() as took:
            if server.snapshots:
                Publication(reader=reader, cloud=cloud, snapshot_id=started, cache=Path(scratch)).publish(ledger)
            else:
                ebs.upload(reader, cloud, started, ledger=ledger)
    cloud.close()
    return {"puts": puts[0], **took}


def peer(server: Server, image: Path, *, skip_zero: bool) -> dict[str, Any]:
    """Convert, then upload by boto3."""
    import boto3  # noqa: TID251 - the peer; emi's processes must not pay for it
    from botocore.config import Config  # noqa: TID251

    settings = server.settings()
    client = boto3.client(
        "ebs",
        region_name=settings.region,
        endpoint_url=settings.endpoint_url,
        verify=server.ca_file,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        config=Config(max_pool_connections=THREADS),
    )
    with tempfile.NamedTemporaryFile(dir=image.parent, suffix=".raw") as raw:
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw.name], check=True)
        count = -(-os.fstat(raw.fileno()).st_size // BLOCK)
        size = ebs.volume_size(count * BLOCK)
        started = client.start_snapshot(VolumeSize=size)["SnapshotId"] if server.snapshots else SINK
        with timed() as took:
            puts = boto_upload(client, started, raw.fileno(), count, skip_zero=skip_zero)
            if server.snapshots:
                client.complete_snapshot(SnapshotId=started, ChangedBlocksCount=puts)
    return {"puts": puts, **took}


def boto_upload(client: Any, snapshot: str, file: int, count: int, *, skip_zero: bool) -> int:
    """Put the blocks of a raw file from 64 threads, with no more of them in memory than twice that."""
    room = threading.Semaphore(2 * THREADS)

    def put(index: int, data: bytes) -> None:
        try:
            client.put_snapshot_block(
                SnapshotId=snapshot,
                BlockIndex=index,
                BlockData=data,
                DataLength=BLOCK,
                Checksum=b64encode(hashlib.sha256(data).digest()).decode(),
                ChecksumAlgorithm="SHA256",
            )
        finally:
            room.release()

    with ThreadPoolExecutor(THREADS) as threads:
        sent = []
        for index in range(count):
            data = os.pread(file, BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
            if skip_zero and is_zero(data):
                continue
            room.acquire()
            sent.append(threads.submit(put, index, data))
        for one in sent:
            one.result()
    return len(sent)


WAYS: Mapping[str, Callable[[Server, Path], dict[str, Any]]] = {
    "emi": emi,
    "(a) qemu-img + boto3, all blocks": lambda server, image: peer(server, image, skip_zero=False),
    "(b) qemu-img + boto3, zeros skipped": lambda server, image: peer(server, image, skip_zero=True),
}


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Fill in the wall and CPU seconds of the block."""
    took: dict[str, float] = {}
    wall, cpu = time.monotonic(), time.process_time()
    yield took
    took |= {"upload_wall": time.monotonic() - wall, "upload_cpu": time.process_time() - cpu}


def child(way: str, server: str, image: str) -> None:
    """Run one way and print what it cost."""
    made = WAYS[way](Server(**json.loads(server)), Path(image))
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, others))
    print(json.dumps({**made, "cpu": cpu, "peak": max(own.ru_maxrss, others.ru_maxrss) * 1024 / MB}))


# What runs them


def measure(way: str, server: Server, image: Path) -> Figures:
    """Return what one way costs as a process."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--child", way, json.dumps(asdict(server)), image],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Figures(wall=time.monotonic() - began, **json.loads(done.stdout))


def median(many: list[Figures]) -> Figures:
    """Return the median of each figure."""
    return Figures(**{name: statistics.median(asdict(one)[name] for one in many) for name in asdict(many[0])})


@contextmanager
def sandbox(directory: Path) -> Iterator[Server]:
    """The embedded cloud over TLS."""
    end = lifecycle.start(directory / "sandbox", tls=True)
    try:
        keys = {"access_key": end.access_key, "secret_key": end.secret_key}
        yield Server(name="the sandbox", url=end.url, ca_file=str(end.ca_file), snapshots=True, **keys)
    finally:
        lifecycle.stop(directory / "sandbox")


@contextmanager
def sink(directory: Path) -> Iterator[Server]:
    """nginx over TLS, in a process of its own, which keeps nothing."""
    place = directory / "sink"
    place.mkdir()
    certificates.ensure(place)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = (ROOT / "bench" / "sink" / "nginx.conf").read_text()
    (place / "nginx.conf").write_text(text.replace("@DIRECTORY@", str(place)).replace("@PORT@", str(port)))
    path = f"{os.environ['PATH']}:/usr/sbin"
    server = subprocess.Popen(["nginx", "-p", place, "-c", place / "nginx.conf"], env={**os.environ, "PATH": path})
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                raise SystemExit("nginx did not start")
            time.sleep(0.05)
        ca = place / "ca.pem"
        yield Server(
            name="a sink (nginx, keeps nothing)",
            url=f"https://127.0.0.1:{port}",
            ca_file=str(ca),
            access_key="AKID",
            secret_key="secret",
            snapshots=False,
        )
    finally:
        server.terminate()
        server.wait()


def demo_image() -> Path:
    """Return the disk that the demo's bootstrap made; runs the demo if it has not been run."""
    name = f"version=bench-{int(time.time())}"  # an image of an older recipe may hold the demo's own name
    emi_command = [Path(sys.executable).parent / "emi", "run", ROOT / "recipes" / "debian-12.yaml", "--json"]
    done = subprocess.run([*emi_command, "--var", name], stdout=subprocess.PIPE, check=True)
    report = json.loads(Path(json.loads(done.stdout.splitlines()[-1])["report"]).read_text())
    digest = next(step["result"]["digest"] for step in report["steps"] if step["kind"] == "bootstrap")
    algorithm, _, value = digest.partition(":")
    home = os.environ.get("EMI_HOME") or Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "emi"
    return Path(home) / "store" / "objects" / value[:2] / f"{algorithm}-{value}"


def prepare(raw: Path, directory: Path) -> tuple[Path, Path, Path, int]:
    """Return the raw disk, its compressed qcow2, the same as a 64 GiB disk, and how many blocks hold data."""
    link, small, large = directory / "disk.raw", directory / "disk.qcow2", directory / "large.qcow2"
    link.symlink_to(raw.absolute())
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, small], check=True)
    shutil.copyfile(small, large)
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", large, "64G"], check=True)
    with open_image(link, "raw") as reader:
        blocks = sum(1 for index in data_blocks(reader) if not is_zero(reader.pread(BLOCK, index * BLOCK)))
        print(
            f"{raw.name}: {reader.virtual_size >> 20} MiB disk, {blocks} blocks of 512 KiB hold data,"
            f" qcow2 {small.stat().st_size / MB:.0f} MB; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
    return link, small, large, blocks


def row(name: str, figures: Figures) -> None:
    """Print one line of the table."""
    print(
        f"  {name:38s} {figures.wall:6.2f} s wall {figures.cpu:6.2f} s CPU {figures.peak:6.0f} MB"
        f" {figures.puts:5.0f} puts {figures.puts / figures.upload_wall:5.0f}/s"
        f" {put_cost(figures):5.2f} CPU-ms a put"
    )


def put_cost(figures: Figures) -> float:
    """Return the CPU milliseconds of a put: user and system time of the upload alone, process start-up left out."""
    return figures.upload_cpu / figures.puts * 1000


def compare(server: Server, disks: tuple[Path, Path, Path, int], rounds: int) -> list[str]:
    """Print the table for one server; return the limits that were broken."""
    raw, small, large, blocks = disks
    print(f"\nagainst {server.name}, over TLS, rounds: {rounds}")
    found: dict[str, list[Figures]] = {name: [] for name in (*WAYS, "emi, from raw", "emi, 64 GiB disk")}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(measure(way, server, small))
        found["emi, from raw"].append(measure("emi", server, raw))
        found["emi, 64 GiB disk"].append(measure("emi", server, large))
    middle = {name: median(many) for name, many in found.items()}
    for name, figures in middle.items():
        row(name, figures)
    ours, (a, b) = middle["emi"], [middle[way] for way in list(WAYS)[1:]]
    print(f"  emi is {a.wall / ours.wall:.1f} times as fast as (a), for {ours.cpu / a.cpu:.2f} of its CPU;"
          f" {b.wall / ours.wall:.1f} times (b), for {ours.cpu / b.cpu:.2f}")  # fmt: skip
    print(f"  CPU-ms a put: the upload alone, without process start-up; from the raw disk, where nothing is inflated,"
          f" {put_cost(middle['emi, from raw']):.2f}")  # fmt: skip
    broken = []
    if any(one.puts != blocks for name, many in found.items() if name.startswith("emi") for one in many):
        broken.append("puts are not exactly the blocks that hold data")
    if max(one.peak for name, many in found.items() if name.startswith("emi") for one in many) > LIMITS["peak MB"]:
        broken.append(f"more than {LIMITS['peak MB']:.0f} MB of memory")
    if not server.snapshots:  # what follows is about the client, which only the sink leaves unlimited
        if a.wall / ours.wall < LIMITS["times (a)"]:
            broken.append(f"less than {LIMITS['times (a)']} times as fast as (a)")
        if put_cost(middle["emi, from raw"]) > LIMITS["CPU-ms a put"]:
            broken.append(f"more than {LIMITS['CPU-ms a put']} CPU-ms a put, from the raw disk")
    return [f"{server.name}: {what}" for what in broken]


def main() -> int:
    """Print the tables; return 1 when a limit is broken."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("disk", nargs="?", type=Path, help="a raw disk; by default the demo's")
    options.add_argument("--rounds", type=int, default=ROUNDS, help="against the sink (default: %(default)s)")
    options.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        child(*chosen.child)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emi-bench-")))
        disks = prepare(chosen.disk or demo_image(), directory)
        broken = []
        for start, rounds in ((sink, chosen.rounds), (sandbox, 1)):
            with start(directory) as server:
                broken += compare(server, disks, rounds)
    print("\n".join(["", *broken]) if broken else "\nall limits are kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
