"""What a killed process left is continued, and nothing else is."""

import hashlib
import json
import os
import random
import signal
import subprocess  # noqa: TID251 - a process to kill
import sys
import time

import pytest

from builder.fetch.client import BUFFER
from builder.verify import Checksum

BODY = random.Random(3).randbytes(6 * BUFFER + 321)
CHECKSUM = Checksum(algorithm="sha256", value=hashlib.sha256(BODY).hexdigest())
CHILD = """
import sys
from pathlib import Path
from builder.fetch import Limits, Web
Web(limits=Limits(silence=20, attempts=1)).download(sys.argv[1], Path(sys.argv[2]))
"""


def start(url, scratch, **environment):
    return subprocess.Popen([sys.executable, "-c", CHILD, url, str(scratch)], env={**os.environ, **environment})


def killed(url, scratch, moment):
    process = start(url, scratch, EMI_CRASH_AT=moment)
    assert process.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("buffers", [1, 3, 6])
def test_after_kill_9_not_one_byte_that_arrived_is_sent_again(buffers, site, web, tmp_path, notes):
    url = site.put("/disk.img", BODY)
    killed(url, tmp_path, f"fetch.spooled@{buffers}")
    fetched = web().download(url, tmp_path, expected=CHECKSUM)
    assert fetched.path.read_bytes() == BODY
    assert site.requests[1].headers["Range"] == f"bytes={buffers * BUFFER}-"
    assert site.requests[1].sent == len(BODY) - buffers * BUFFER
    assert notes.texts == [f"continuing {url} at byte {buffers * BUFFER}"]
    assert notes.done == len(BODY)


def test_after_the_last_byte_nothing_is_asked_at_all(site, web, tmp_path):
    url = site.put("/disk.img", BODY)
    killed(url, tmp_path, "fetch.spooled@7")
    assert web().download(url, tmp_path, expected=CHECKSUM).path.read_bytes() == BODY
    assert len(site.requests) == 1


def test_a_kill_from_outside_costs_at_most_one_buffer(site, web, fault, tmp_path):
    arrived = 3 * BUFFER + BUFFER // 2
    url = site.put("/disk.img", BODY, fault(stall=arrived))
    process = start(url, tmp_path)
    spool = tmp_path / "download.part"
    deadline = time.monotonic() + 60
    while not (spool.exists() and spool.stat().st_size >= 3 * BUFFER):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert web().download(url, tmp_path).path.read_bytes() == BODY
    again = arrived + site.requests[1].sent - len(BODY)
    assert 0 <= again <= BUFFER


def test_several_kills_in_a_row(site, web, tmp_path):
    url = site.put("/disk.img", BODY)
    for _ in range(3):
        killed(url, tmp_path, "fetch.spooled@1")
    assert web().download(url, tmp_path).path.read_bytes() == BODY
    assert [request.headers.get("Range") for request in site.requests] == [
        None,
        f"bytes={BUFFER}-",
        f"bytes={2 * BUFFER}-",
        f"bytes={3 * BUFFER}-",
    ]


def test_a_file_that_changed_since_the_kill_is_read_anew(site, web, tmp_path):
    url = site.put("/disk.img", BODY[::-1])
    killed(url, tmp_path, "fetch.spooled@2")
    site.put("/disk.img", BODY, etag='"v2"')
    assert web().download(url, tmp_path, expected=CHECKSUM).path.read_bytes() == BODY
    assert site.requests[1].headers["Range"] == f"bytes={2 * BUFFER}-"
    assert site.requests[1].sent == len(BODY)


def _other_boot(sidecar):
    return {**sidecar, "boot_id": "another"}


def _other_url(sidecar):
    return {**sidecar, "url": "http://127.0.0.1/other"}


def _unknown_field(sidecar):
    return {**sidecar, "more": 1}


def _too_short(sidecar):
    return {**sidecar, "size": BUFFER}


@pytest.mark.parametrize("change", [_other_boot, _other_url, _unknown_field, _too_short, None])
def test_a_spool_that_proves_nothing_is_thrown_away(change, site, web, tmp_path):
    url = site.put("/disk.img", BODY)
    killed(url, tmp_path, "fetch.spooled@2")
    sidecar = tmp_path / "download.json"
    if change:
        sidecar.write_text(json.dumps(change(json.loads(sidecar.read_text()))))
    else:
        sidecar.unlink()
    assert web().download(url, tmp_path).path.read_bytes() == BODY
    assert "Range" not in site.requests[1].headers


def test_a_damaged_spool_is_found_out_by_the_checksum_and_read_anew(site, web, tmp_path, notes):
    url = site.put("/disk.img", BODY)
    killed(url, tmp_path, "fetch.spooled@2")
    with open(tmp_path / "download.part", "r+b") as spool:
        spool.write(b"damage")
    assert web().download(url, tmp_path, expected=CHECKSUM).path.read_bytes() == BODY
    assert [request.headers.get("Range") for request in site.requests] == [None, f"bytes={2 * BUFFER}-", None]
    assert notes.texts[-1] == "the continued download has the wrong checksum: reading it anew"
    assert notes.done == len(BODY)


def test_a_full_disk_keeps_nothing(site, fault, tmp_path):
    url = site.put("/disk.img", BODY, fault(chunked=True))
    small = tmp_path / "small"
    small.mkdir()
    # Without a Content-Length the size is known only when the disk is full.
    script = f"""
        mount -t tmpfs -o size=1m tmpfs {small} && exec {sys.executable} -c '
from pathlib import Path
from builder.errors import DiskFull
from builder.fetch import Web
try:
    Web().download("{url}", Path("{small}"))
except DiskFull as error:
    print(error.message)
print(sorted(path.name for path in Path("{small}").iterdir()))
'"""
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"no space left for {small}/download.part: No space left on device", "[]"]
    assert len(site.requests) == 1
