"""Two S3 servers for every test of the client: the sandbox's, and Ceph's radosgw as Debian packages it.

radosgw stands on a cluster of one node in a directory of its own: monitor, object store on a sparse file, gateway; no
manager, no systemd, nothing outside 127.0.0.1, 130 MiB of memory at rest. The daemons are children of the test process
and die with it.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess  # noqa: TID251 - for the type of what builder/proc.py starts
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder import pool, proc
from builder.cloud.api import Call
from builder.cloud.s3 import S3
from builder.cloud.settings import S3Dialect, Settings
from builder.sandbox import lifecycle

ACCESS, SECRET = "AKIARADOSGWTESTS0000", "a secret of nobody"
DOMAIN = "s3.test"  # under which radosgw takes BUCKET.s3.test for virtual host style
SERVERS = (pytest.param("radosgw", marks=pytest.mark.sweep), "sandbox")  # test_radosgw.py is in `make test`
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{monitor_port}/0
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
# with authentication `none` radosgw 16 never connects
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = true
keyring = {place}/keyring
run_dir = {place}/run
admin_socket =
log_file = {place}/$name.log
mon_data = {place}/mon
osd_data = {place}/osd
osd_objectstore = bluestore
bluestore_block_size = 17179869184
bluestore_fsck_on_mkfs = false
osd_memory_target = 939524096
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
# each of the gateway's first pools waits for two proposals, a second each by default
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_data = {place}/rgw
rgw_dns_name = {domain}
rgw_enable_usage_log = false
"""


class Ceph:
    """One node of Ceph with a gateway, in `place`; `end` leaves neither process nor file."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = _free_port()
        self._monitor_port = _free_port()
        self._fsid = str(uuid.uuid4())
        self.daemons: list[subprocess.Popen[bytes]] = []
        for name in ("mon", "osd", "rgw", "run"):
            (place / name).mkdir(parents=True)
        values = {"fsid": self._fsid, "place": place, "port": self.port, "monitor_port": self._monitor_port}
        (place / "ceph.conf").write_text(_CONFIGURATION.format(**values, domain=DOMAIN))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when the gateway answers and knows its user; six seconds."""
        self._make_keys()
        monitors = ["--create", "--addv", "a", f"[v2:127.0.0.1:{self._monitor_port}]", "--fsid", self._fsid]
        self._run("monmaptool", *monitors, str(self.place / "monmap"))
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", str(self.place / "monmap"))
        self._daemon("ceph-mon", "-i", "a")
        self._run("ceph", "--connect-timeout", "30", "osd", "create")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", str(uuid.uuid4()))
        self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "host=localhost", "root=default")
        self._daemon("ceph-osd", "-i", "0")
        self._daemon("radosgw", "-n", "client.rgw")
        self._until_it_answers()
        keys = ["--access-key", ACCESS, "--secret-key", SECRET]
        self._run("radosgw-admin", "user", "create", "--uid", "tests", "--display-name", "tests", *keys)
        # The store has it open: its bytes go with the process, even where nobody gets to call `end`.
        (self.place / "osd" / "block").unlink()

    def end(self) -> None:
        """End what was started, the last first, and remove every file."""
        for daemon in reversed(self.daemons):
            proc.end(daemon, grace=5)
        shutil.rmtree(self.place)

    def resident(self) -> int:
        """Return the daemons' resident memory in MiB, at its highest."""
        status = [Path(f"/proc/{daemon.pid}/status").read_text() for daemon in self.daemons]
        return sum(int(text.partition("VmHWM:")[2].split()[0]) for text in status) // 1024

    def _make_keys(self) -> None:
        keyring = str(self.place / "keyring")
        self._run("ceph-authtool", "-C", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *", keyring)
        for name in ("client.admin", "client.rgw", "osd.0"):
            allowed = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"]
            self._run("ceph-authtool", "--gen-key", "-n", name, *allowed, keyring)

    def _run(self, *command: str) -> None:
        proc.run(command, environment=self._environment, timeout=120)

    def _daemon(self, *command: str) -> None:
        proc.find(command[0])
        self.daemons.append(proc.start([*command, "-f"], environment=self._environment))

    @property
    def _environment(self) -> dict[str, str]:
        return {"CEPH_CONF": str(self.place / "ceph.conf")}

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            ended = [daemon for daemon in self.daemons if daemon.poll() is not None]
            assert not ended, f"ended by itself: {ended}\n{self._last_words()}"
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                assert time.monotonic() < deadline, f"radosgw does not answer\n{self._last_words()}"
                time.sleep(0.1)

    def _last_words(self) -> str:
        return "\n".join(f"{log}:\n{log.read_text(errors='replace')[-2000:]}" for log in self.place.glob("*.log"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """radosgw, started once for the session."""
    node = Ceph(tmp_path_factory.mktemp("ceph") / "node")
    try:
        node.start()
        yield node
    finally:
        node.end()


@dataclass(frozen=True)
class Server:
    """An S3 server, and what it is known to do otherwise than AWS."""

    name: str
    settings: Settings
    quirky: bool  # radosgw 16: no ETag from CompleteMultipartUpload, no stored checksums, no such ACL

    def client(self) -> S3:
        """Return a client of ours."""
        return S3(self.settings)

    def behind(self, url: str) -> Server:
        """Return the same server as it is reached by another URL."""
        return replace(self, settings=replace(self.settings, endpoint_url=url))


@pytest.fixture(scope="session")
def radosgw(ceph: Ceph) -> Server:
    settings = Settings(region="us-east-1", endpoint_url=ceph.url, access_key=ACCESS, secret_key=SECRET, s3=S3Dialect())
    return Server("radosgw", settings, quirky=True)


@pytest.fixture(scope="session")
def sandbox_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("s3")
    running = lifecycle.start(directory)
    keys = {"access_key": running.access_key, "secret_key": running.secret_key}
    yield Server("sandbox", Settings(region=running.region, endpoint_url=running.url, **keys), quirky=False)
    lifecycle.stop(directory)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two servers."""
    return request.getfixturevalue({"radosgw": "radosgw", "sandbox": "sandbox_s3"}[request.param])


class Place:
    """A bucket of the test's own and a client; `calls` counts its attempts, `before` holds what happens before one.

    `before["GetObject", 3] = f` calls f before the third GetObject since the counts were last cleared.
    """

    def __init__(self, server: Server, bucket: str = "") -> None:
        self.server = server
        self.calls = pool.Tally()
        self.before: dict[tuple[str, int], Callable[[], object]] = {}
        self.s3 = S3(server.settings, on_call=self._notice)
        self.bucket = bucket or f"emi-{secrets.token_hex(6)}"
        self.s3.ensure_bucket(self.bucket)
        self.calls.clear()

    def again(self, url: str = "") -> Place:
        """Return the same bucket with another client, by another URL if one is given."""
        return Place(self.server.behind(url) if url else self.server, self.bucket)

    def _notice(self, call: Call) -> None:
        self.before.get((call.action, self.calls.count(call.action)), lambda: None)()


@pytest.fixture
def place(server: Server) -> Place:
    return Place(server)


@pytest.fixture
def place_on() -> Callable[[Server], Place]:
    """Make a place on a given server."""
    return Place


@pytest.fixture
def rados(radosgw: Server) -> Place:
    """A place on radosgw."""
    return Place(radosgw)


@pytest.fixture
def together() -> Callable[..., list[object]]:
    """Run calls at the same time and return their results in order."""
    return lambda *calls: list(pool.in_order(lambda call: call(), calls, workers=len(calls)))
