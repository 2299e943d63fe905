"""A sandbox over TLS for all of this folder, a disk whose every block is known, and a server that answers by script."""

from __future__ import annotations

import functools
import http.server
import itertools
import pickle
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builder import pool
from builder.cloud.api import BlockDevice, ImageSpec
from builder.cloud.aws import Aws, Settings
from builder.cloud.claims import Claim
from builder.cloud.eucalyptus import Eucalyptus, query_dialect, s3_dialect
from builder.cloud.images import wait_available
from builder.cloud.releases import Release
from builder.cloud.snapshots import wait_completed
from builder.cloud.volumes import VolumeSpec, wait_created
from builder.digest import BLOCK
from builder.sandbox import audit, lifecycle


@dataclass(frozen=True)
class Sandbox:
    """The sandbox, and what was called in it since it was last asked."""

    endpoint: lifecycle.Endpoint
    seen: list[int] = field(default_factory=lambda: [0])

    @property
    def settings(self) -> Settings:
        return Settings(
            region=self.endpoint.region,
            endpoint_url=self.endpoint.url,
            access_key=self.endpoint.access_key,
            secret_key=self.endpoint.secret_key,
            ca_file=self.endpoint.ca_file,
        )

    def forget(self) -> None:
        """Begin to count anew."""
        self.seen[0] = audit.position(self.endpoint.directory)

    def calls(self) -> Counter[str]:
        """Return how often each action succeeded since `forget`."""
        made = audit.read_calls(self.endpoint.directory, start=self.seen[0])
        return Counter(call.action for call in made if call.status < 300)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lifecycle.Endpoint]:
    directory = tmp_path_factory.mktemp("sandbox")
    yield lifecycle.start(directory, tls=True)
    lifecycle.stop(directory)


@pytest.fixture
def sandbox(running: lifecycle.Endpoint) -> Sandbox:
    found = Sandbox(running)
    found.forget()
    return found


@pytest.fixture
def aws(sandbox: Sandbox) -> Iterator[Aws]:
    cloud = Aws(sandbox.settings)
    yield cloud
    cloud.close()


@pytest.fixture
def claim() -> Claim:
    """A claim that nothing carries yet."""
    return Claim(secrets.token_hex(16))


@dataclass(frozen=True)
class Disk:
    """A raw image of 19 and a half blocks; `data` are those that are not zero, 7 is allocated and zero."""

    path: Path
    data: tuple[int, ...]
    size: int

    def block(self, index: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(index * BLOCK)
            return file.read(BLOCK).ljust(BLOCK, b"\0")

    def write(self, index: int, data: bytes) -> None:
        with open(self.path, "r+b") as file:
            file.seek(index * BLOCK)
            file.write(data)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    path, numbers = tmp_path / "disk.raw", random.Random(7)
    size = 19 * BLOCK + 1000
    data = (0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 15, 19)
    with open(path, "wb") as file:
        file.truncate(size)
    found = Disk(path, data, size)
    for index in data:
        found.write(index, numbers.randbytes(min(BLOCK, size - index * BLOCK)))
    found.write(7, bytes(BLOCK))
    found.write(15, bytes(BLOCK - 1) + b"\1")  # its only byte is its last
    return found


Answer = tuple[int, Mapping[str, str], bytes]
Scene = Answer | str  # an answer, or `cut`: close without one; `early`: refuse before reading the body, and close


@dataclass
class Script:
    """A server on 127.0.0.1 that answers by script, then repeats the last scene; `heard` is what it was asked."""

    url: str
    heard: list[tuple[str, str, Mapping[str, str], bytes]]
    connections: list[int]


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Start a server with the given scenes."""
    servers: list[tuple[http.server.ThreadingHTTPServer, pool.Background[None]]] = []

    def start(*scenes: Scene) -> Script:
        line = itertools.chain(scenes, itertools.repeat(scenes[-1]))
        heard: list[tuple[str, str, Mapping[str, str], bytes]] = []
        connections: list[int] = []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _actor(line, heard, connections))
        server.block_on_close = False
        servers.append((server, pool.Background(lambda: server.serve_forever(0.01))))
        return Script(f"http://127.0.0.1:{server.server_address[1]}", heard, connections)

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.result()
        server.server_close()


def _actor(line: Iterator[Scene], heard: list[Any], connections: Sequence[int]) -> type[Any]:
    class Actor(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(1)
            super().setup()

        def act(self) -> None:
            scene = next(line)
            body = b""
            if scene != "early":
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
            heard.append((self.command, self.path, dict(self.headers.items()), body))
            if scene == "cut":
                self.close_connection = True
                return
            status, headers, data = scene if scene != "early" else (503, {"Connection": "close"}, b"")
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            if headers.get("Connection") == "close" or headers.get("X-Then") == "close":
                self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = act  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Actor


@dataclass(frozen=True)
class Place:
    """A cloud with machines' records, and the sandbox behind it."""

    cloud: Aws | Eucalyptus
    endpoint: lifecycle.Endpoint

    @property
    def zone(self) -> str:
        """An availability zone."""
        return str(self.cloud._call("ec2", "DescribeAvailabilityZones")["AvailabilityZones"][0]["ZoneName"])

    @property
    def words(self) -> str:
        """What another process makes the same cloud of: `pickle.loads(bytes.fromhex(...))()`."""
        release = getattr(self.cloud, "_release", None)
        more = {} if release is None else {"release": release}
        return pickle.dumps(functools.partial(type(self.cloud), self.cloud._settings, **more)).hex()


# The clouds that machines are asked of: AWS, a Eucalyptus that tags as it creates, and one that does so after.
CLOUDS = ("aws", "5.1", "4.4")


@pytest.fixture(scope="session")
def eucalypti(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """Return Eucalyptus of a release, started when it is first asked for."""
    made: dict[str, Place] = {}

    def of(release: str) -> Place:
        if release not in made:
            directory = tmp_path_factory.mktemp(f"eucalyptus-{release}")
            endpoint = lifecycle.start(directory, personality="eucalyptus", release=release)
            known = Release.parse(release)
            settings = Settings(
                region=endpoint.region,
                endpoints={name: endpoint.service(name) for name in ("ec2", "s3", "iam", "sts", "bootstrap")},
                access_key=endpoint.access_key,
                secret_key=endpoint.secret_key,
                s3=s3_dialect(known),
                query=query_dialect(known),
            )
            made[release] = Place(Eucalyptus(settings, release=known), endpoint)
        return made[release]

    yield of
    for place in made.values():
        lifecycle.stop(place.endpoint.directory)


@pytest.fixture(scope="session")
def lit(tmp_path_factory: pytest.TempPathFactory, images: dict[str, str]) -> Iterator[tuple[Place, str]]:
    """An AWS whose instances are light machines, and an image in it."""
    directory = tmp_path_factory.mktemp("lit")
    endpoint = lifecycle.start(directory, machines="light")
    settings = Sandbox(endpoint).settings
    place = Place(Aws(settings), endpoint)
    yield place, image_in(place, images)
    lifecycle.stop(directory)


@pytest.fixture(params=CLOUDS)
def place(request: pytest.FixtureRequest, eucalypti: Callable[[str], Place]) -> Place:
    """Each of the clouds in turn."""
    if request.param != "aws":
        return eucalypti(request.param)
    sandbox = request.getfixturevalue("sandbox")
    return Place(Aws(sandbox.settings), sandbox.endpoint)


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """The image of each cloud that `image` has made, by the directory of its sandbox."""
    return {}


@pytest.fixture
def image(place: Place, images: dict[str, str]) -> str:
    """An EBS image of an empty volume, which instances can be launched from."""
    return image_in(place, images)


def image_in(place: Place, images: dict[str, str]) -> str:
    """Return that image of the cloud, made when it is first asked for."""
    name = str(place.endpoint.directory)
    if name not in images:
        cloud, one = place.cloud, Claim(secrets.token_hex(16))
        volume = cloud.create_volume(one, VolumeSpec(size=1, zone=place.zone))
        wait_created(cloud, volume)
        snapshot = cloud.create_snapshot(one, volume, description="", tags={})
        wait_completed(cloud, snapshot)
        root = cloud.capabilities.root_device
        device = BlockDevice(device_name=root, snapshot_id=snapshot)
        spec = ImageSpec(name=f"image-{one.key}", root_device_name=root, block_devices=(device,))
        images[name] = wait_available(cloud, cloud.register_image(one, spec)).image_id
    return images[name]


@pytest.fixture
def old_place(eucalypti: Callable[[str], Place]) -> Place:
    """A Eucalyptus that sets tags after it has created."""
    return eucalypti("4.4")


@pytest.fixture
def old_image(old_place: Place, images: dict[str, str]) -> str:
    """An image in it."""
    return image_in(old_place, images)
