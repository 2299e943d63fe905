"""kill -9 at every call of an upload and of a download, then once more: one object, right bytes, nothing sent twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess  # noqa: TID251 - the process that is killed
import sys

import pytest

from builder.cloud.s3 import Origin, Target, download, upload_file
from builder.digest import file_sha256

MIB = 1 << 20
PART = 5 * MIB
_WORK = """
import sys
from pathlib import Path
from builder.cloud.s3 import S3, Origin, Target, download, upload_file
from builder.cloud.settings import Settings
work, region, url, access, secret, bucket, path = sys.argv[1:]
s3 = S3(Settings(region=region, endpoint_url=url, access_key=access, secret_key=secret))
if work == "upload":
    upload_file(s3, Target(bucket=bucket, key="file", if_absent=True), Path(path), part=5 << 20, workers=2)
else:
    download(s3, Origin(bucket=bucket, key="file"), Path(path), workers=2)
"""


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(random.Random(13).randbytes(3 * PART + 77))
    return path


def run(place, work, path, log, crash_at=""):
    """Upload or download in a process of its own; return the moments it reached."""
    log.write_text("")
    settings = place.server.settings
    words = (settings.region, settings.endpoint_url, settings.access_key, settings.secret_key, place.bucket, str(path))
    environment = {**os.environ, "EMI_CRASH_LOG": str(log), "EMI_CRASH_AT": crash_at}
    done = subprocess.run([sys.executable, "-c", _WORK, work, *words], env=environment, check=False, timeout=120)
    assert done.returncode == (-signal.SIGKILL if crash_at else 0)
    return [line.partition("@")[0] for line in log.read_text().splitlines()]


@pytest.mark.sweep
def test_an_upload_killed_at_any_moment_is_finished_by_the_next(server, place, place_on, file, tmp_path):
    log = tmp_path / "log"
    run(place, "upload", file, log)
    moments = log.read_text().split("\n")[:-1]
    assert len(moments) > 25
    for moment in moments:
        fresh = place_on(server)
        check(fresh, file, run(fresh, "upload", file, log, moment), run(fresh, "upload", file, log))


@pytest.mark.parametrize("moment", ["after s3:CreateMultipartUpload", "after s3:UploadPart@2", "before s3:PutObject"])
def test_a_killed_upload_goes_on(place, file, tmp_path, moment):
    log = tmp_path / "log"
    check(place, file, run(place, "upload", file, log, moment), run(place, "upload", file, log))


def check(place, file, first, second):
    assert place.s3.read(place.bucket, "file", most=1 << 30) == file.read_bytes()
    left = [found.key for found in place.s3.objects(place.bucket) if found.key != "file"]
    unfinished = [found.key for found in place.s3.uploads(place.bucket)]
    # What the killed run's own probe left is found under its prefix.
    assert all(key.startswith(".emi-probe-") for key in left + unfinished)
    acknowledged = first[: first.index("before s3:PutObject")] if "before s3:PutObject" in first else first
    sent = second[: second.index("before s3:PutObject")] if "before s3:PutObject" in second else second
    assert sent.count("before s3:UploadPart") <= 4 - acknowledged.count("after s3:UploadPart")


@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_killed_download_goes_on(place, file, tmp_path, number):
    upload_file(place.s3, Target(bucket=place.bucket, key="file"), file, part=PART)
    path, log = tmp_path / "here", tmp_path / "log"
    first = run(place, "download", path, log, f"after s3:GetObject@{number}")
    assert not path.exists()
    second = run(place, "download", path, log)
    # A range whose last byte came in the moment of the kill is not yet in the journal: one for each thread.
    assert second.count("before s3:GetObject") <= 4 - first.count("after s3:GetObject") + 2
    assert file_sha256(path) == file_sha256(file)
    assert [found.name for found in tmp_path.iterdir() if "here" in found.name] == ["here"]
    assert download(place.s3, Origin(bucket=place.bucket, key="file"), path).verified == "md5"
