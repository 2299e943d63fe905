"""What goes wrong on the way: every fault at every call that matters, and still one object with the right bytes.

The faults are made by a TCP proxy between client and server, so both servers meet the same ones.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
from dataclasses import dataclass

import pytest

from builder import pool
from builder.cloud.s3 import Origin, Target, download, upload_file
from builder.cloud.s3.source import md5_of
from builder.errors import CloudTrouble

MIB = 1 << 20
PART = 5 * MIB
_REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")
_SLOW_DOWN = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 72\r\nConnection: close\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
)


@dataclass(frozen=True)
class Fault:
    """`kind` happens to the next `count` requests whose first line matches; `after` bytes for those that cut."""

    kind: str  # refuse, cut-request, lost-answer, cut-answer, damage-answer
    request: str
    count: int = 1
    after: int = 100_000


@dataclass
class Exchange:
    """One request and its answer on a connection, as far as they have passed; in bytes."""

    fault: Fault | None = None
    sent: int = 0
    answered: int = 0

    def is_to(self, kind: str, passed: int | None = None) -> bool:
        if not self.fault or self.fault.kind != kind:
            return False
        return passed is None or passed > self.fault.after


class Proxy:
    """Passes bytes between a client and a server of 127.0.0.1, and does what its faults say."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self._lock = pool.Lock()
        self._open: list[socket.socket] = []
        self._threads = [pool.Background(self._accept)]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        _end(*self._open)
        for thread in self._threads:
            thread.result()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._open.append(client)
                self._threads.append(pool.Background(lambda client=client: self._serve(client)))

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._upstream)) as server:
            now = Exchange()
            back = pool.Background(lambda: self._answers(client, server, now))
            with contextlib.suppress(OSError):
                self._requests(client, server, now)
            _end(client, server)
            back.result()

    def _requests(self, client: socket.socket, server: socket.socket, now: Exchange) -> None:
        while data := client.recv(1 << 16):
            line = _REQUEST.match(data)
            if line:
                now.fault, now.sent, now.answered = self._take(f"{line[1].decode()} {line[2].decode()}"), 0, 0
            now.sent += len(data)
            if now.is_to("refuse"):
                client.sendall(_SLOW_DOWN)
                return
            if now.is_to("cut-request", now.sent):
                return
            server.sendall(data)

    def _answers(self, client: socket.socket, server: socket.socket, now: Exchange) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if not data.startswith(b"HTTP/1.1 100"):
                    now.answered += len(data)
                    if now.is_to("lost-answer") or now.is_to("cut-answer", now.answered):
                        break
                    if now.is_to("damage-answer", now.answered):
                        data = data[:-1] + bytes([data[-1] ^ 1])
                        now.fault = None
                client.sendall(data)
        _end(client, server)

    def _take(self, request: str) -> Fault | None:
        with self._lock:
            self.seen.append(request)
            for index, fault in enumerate(self.faults):
                if re.search(fault.request, request):
                    left = [Fault(fault.kind, fault.request, fault.count - 1, fault.after)] if fault.count > 1 else []
                    self.faults[index : index + 1] = left
                    return fault
        return None


def _end(*connections: socket.socket) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # closed or reset already
            connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(server):
    found = Proxy(int(server.settings.endpoint_url.rpartition(":")[2]))
    yield found
    assert found.faults == []  # each did happen
    found.close()


@pytest.fixture
def through(place, proxy):
    """The same bucket, by way of the proxy."""
    return place.again(proxy.url)


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(random.Random(8).randbytes(2 * PART + 77))
    return path


CALLS = {
    "HEAD object": r"HEAD /\S+/file",
    "list uploads": r"GET .*[?&]uploads",
    "begin": r"POST .*[?&]uploads",
    "part": r"PUT .*partNumber=2",
    "complete": r"POST .*uploadId=",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["refuse", "lost-answer"])
def test_an_upload_survives_each_fault_at_each_call(place, through, proxy, file, call, kind):
    # An upload whose creation was not acknowledged is found, not created again: one loss is all that can happen.
    proxy.faults.append(Fault(kind, CALLS[call], count=1 if (kind, call) == ("lost-answer", "begin") else 2))
    stored = upload_file(through.s3, Target(bucket=place.bucket, key="file"), file, part=PART)
    assert stored.parts == 3
    assert place.s3.read(place.bucket, "file", most=1 << 30) == file.read_bytes()
    assert list(place.s3.uploads(place.bucket)) == []
    assert [found.key for found in place.s3.objects(place.bucket)] == ["file"]


@pytest.mark.parametrize("if_absent", [False, True])
@pytest.mark.parametrize("kind", ["refuse", "cut-request", "lost-answer"])
def test_a_put_survives_each_fault(place, through, proxy, kind, if_absent):
    data = random.Random(9).randbytes(300_000)
    through.s3.conditional(place.bucket)
    proxy.faults.append(Fault(kind, r"PUT /\S+/one", count=2))
    through.s3.put(place.bucket, "one", data, if_absent=if_absent)
    assert place.s3.read(place.bucket, "one") == data


def test_a_part_that_is_cut_on_the_way_is_sent_again_alone(place, through, proxy, file):
    proxy.faults.append(Fault("cut-request", CALLS["part"], count=3, after=2 * MIB))
    upload_file(through.s3, Target(bucket=place.bucket, key="file"), file, part=PART)
    assert through.calls["UploadPart"] == 3 + 3
    assert place.s3.read(place.bucket, "file", most=1 << 30) == file.read_bytes()


@pytest.mark.parametrize("kind", ["lost-answer", "refuse"])
def test_a_bucket_is_made_once_whatever_is_lost(place, through, proxy, kind):
    name = f"{place.bucket}-new"
    proxy.faults.append(Fault(kind, rf"PUT /{name}", count=2))
    through.s3.ensure_bucket(name)
    assert name in place.s3.buckets()


def test_a_download_goes_on_where_its_answers_were_cut(place, through, proxy, file, tmp_path):
    upload_file(place.s3, Target(bucket=place.bucket, key="file"), file, part=PART)
    proxy.faults.append(Fault("cut-answer", r"GET /\S+/file", count=3, after=2 * MIB))
    path = tmp_path / "here"
    assert download(through.s3, Origin(bucket=place.bucket, key="file"), path, workers=1).verified == "md5"
    assert path.read_bytes() == file.read_bytes()
    assert through.calls["GetObject"] == 3 + 2  # the first range in three stretches


def test_damage_on_the_way_is_seen(place, through, proxy, file, tmp_path):
    upload_file(place.s3, Target(bucket=place.bucket, key="file"), file, part=PART)
    path, origin = tmp_path / "here", Origin(bucket=place.bucket, key="file")
    proxy.faults.append(Fault("damage-answer", r"GET /\S+/file"))
    with pytest.raises(CloudTrouble, match="md5 differs"):
        download(through.s3, origin, path)
    assert list(tmp_path.iterdir()) == []
    data = file.read_bytes()
    md5s = [md5_of(data[at : at + PART]) for at in range(0, len(data), PART)]
    proxy.faults.append(Fault("damage-answer", r"GET /\S+/file"))
    through.calls.clear()
    download(through.s3, Origin(bucket=place.bucket, key="file", part=PART, md5s=md5s), path)
    assert through.calls["GetObject"] == 4
    assert path.read_bytes() == data
    proxy.faults.append(Fault("damage-answer", r"GET /\S+/file"))
    assert through.s3.read(place.bucket, "file", most=1 << 30) == data


def test_slow_down_slows_down(place, through, proxy):
    full = through.s3._pacer.rate
    proxy.faults.append(Fault("refuse", r"PUT /\S+/one"))
    through.s3.put(place.bucket, "one", b"1")
    assert through.s3._pacer.rate < full
