"""What tests share: emi as a process with a home of its own, a small real disk, and the demo, built once."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess  # noqa: TID251 - tests start emi as a user does
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3  # noqa: TID251 - tests look at the cloud past emi
import botocore.config  # noqa: TID251
import pytest
from xdist.scheduler import LoadScopeScheduling

from builder.sandbox import audit, lifecycle

ROOT = Path(__file__).parent.parent
EMI = Path(sys.executable).parent / "emi"
MIB = 1 << 20

# A shell starts what runs in its background with SIGINT ignored, which processes inherit and emi then rightly obeys.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Where Python may not keep what it compiled, each of the hundreds of starts of emi compiles 150 files anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Thousands of tests and all they import: the collector would walk them for a third of the time it takes to collect.
gc.set_threshold(50_000)


# Where the demo is used: one of the processes that share the tests runs all of these, so that it is built once.
DEMO = {
    "tests/boot/test_boot.py",
    "tests/boot/test_boot_edits.py",
    "tests/boot/test_partition_image.py",
    "tests/builder/bootstrap/test_build.py",
    "tests/builder/guest/test_packages.py",
    "tests/builder/sandbox/machines/test_boot.py",
    "tests/crash/test_sweep.py",
    "tests/faults/test_sweep.py",
    "tests/pipelines/test_end_to_end.py",
    "tests/pipelines/test_images.py",
}

# Where guests are edited through one appliance: launched once, for the same reason.
GUESTS = "tests/builder/guest/test_"

# Where the helper's images are used, for the same reason.
HELPER = {"tests/boot/test_helper.py", "tests/boot/test_twelve_steps.py"}


class ByFile(LoadScopeScheduling):
    """Hands out tests by file, as fixtures cost most; those that share a dear one go together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in DEMO or file in HELPER:
            return "demo" if file in DEMO else "helper"
        return GUESTS if file.startswith(GUESTS) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Have pytest-xdist share the tests out by file."""
    config.option.loadscopereorder = False  # it would put the files with the most tests first
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; refuse one that uses the demo and is not in `DEMO`: it would be built a second time."""
    users = {item.nodeid.partition("::")[0] for item in items if "demo" in getattr(item, "fixturenames", ())}
    if unlisted := users - DEMO:
        raise pytest.UsageError(f"{', '.join(unlisted)}: uses the demo, so it belongs in DEMO in tests/conftest.py")
    items.sort(key=_long_first)


def pytest_collection_finish() -> None:
    """Spare the collector what stays to the end."""
    gc.freeze()


def _long_first(item: pytest.Item) -> tuple[bool, bool, bool, bool]:
    # What is long and begun last leaves the other processes idle: the demo, guests, whole runs of emi, the small ones.
    # Of guests those last that end the appliance.
    file = item.path.relative_to(ROOT).as_posix()
    last = file == f"{GUESTS}commands.py"
    return file not in DEMO, not file.startswith(GUESTS), item.path.parent.name != "pipelines", last


@dataclass(frozen=True)
class Done:
    """How an `emi` process ended."""

    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, Any]]:
        """Return its JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def last(self) -> dict[str, Any]:
        """Return the last JSON line, which must be the run's last word."""
        found = self.events()[-1]
        assert found["event"] == "run.finished"
        return found

    def sent(self) -> int:
        """Return how many bytes the run's `write` has sent to its helper, as its last note says."""
        notes = [event["text"] for event in self.events() if event["event"] == "step.note"]
        (found,) = filter(None, (re.search(r"written, ([\d.]+) (B|KiB|MiB|GiB) sent", note) for note in notes))
        return int(float(found[1]) * {"B": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}[found[2]])


@dataclass(frozen=True)
class Emi:
    """The command line with a home of its own."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str | Path, timeout: float = 300, **environment: str) -> Done:
        """Run `emi WORDS` to its end."""
        process = self.start(*words, **environment)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Done(process.returncode, out, err)

    def start(self, *words: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start `emi WORDS`."""
        return subprocess.Popen(
            [EMI, *words],
            env={**os.environ, "EMI_HOME": str(self.home), **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, recipe: Path, *words: str, **environment: str) -> dict[str, Any]:
        """Run a recipe that must succeed; return its last word."""
        done = self("run", recipe, "--json", *words, timeout=900, **environment)
        assert done.code == 0, done.err
        return done.last()


@pytest.fixture
def emi(tmp_path: Path) -> Iterator[Emi]:
    """Emi with an empty home; its sandbox is stopped afterwards."""
    yield from _emi(tmp_path / "home")


@pytest.fixture(scope="session")
def shared_emi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emi]:
    """Emi with one home for the whole session, where the demo is built."""
    yield from _emi(tmp_path_factory.mktemp("shared") / "home")


def _emi(home: Path) -> Iterator[Emi]:
    yield Emi(home)
    lifecycle.stop(home / "sandbox")
    shutil.rmtree(home, ignore_errors=True)


@dataclass(frozen=True)
class Demo:
    """The demo as `make demo` runs it: where, its last word, and the raw disk that `bootstrap` made."""

    emi: Emi
    last: Mapping[str, Any]
    report: Mapping[str, Any]
    disk: Path

    def result(self, step: str) -> dict[str, Any]:
        """Return the artifact of a step."""
        for entry in self.report["steps"]:
            if step in entry["step"].split(" + "):
                return dict(entry["result"])
        raise KeyError(step)


@pytest.fixture(scope="session")
def demo(shared_emi: Emi) -> Demo:
    """The demo, run once for the session: about three minutes."""
    last = shared_emi.run(ROOT / "recipes" / "debian-12.yaml")
    report = json.loads(Path(last["report"]).read_text())
    digest = next(entry["result"]["digest"] for entry in report["steps"] if entry["kind"] == "bootstrap")
    algorithm, _, value = digest.partition(":")
    disk = shared_emi.home / "store" / "objects" / value[:2] / f"{algorithm}-{value}"
    return Demo(shared_emi, last, report, disk)


@pytest.fixture(scope="session")
def tiny_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real disk of 256 MiB with a GPT, an ext4 root and 41 blocks of 512 KiB that hold data, not in one piece."""
    place = tmp_path_factory.mktemp("tiny")
    tree, disk = place / "tree", place / "tiny.raw"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "fstab").write_text("# tiny\n/dev/sda1 / ext4 defaults 0 1\n")
    (tree / "etc" / "os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (tree / "data").write_bytes(random.Random(2).randbytes(16 * MIB))
    with open(disk, "wb") as file:
        file.truncate(256 * MIB)
    _tool("sgdisk", "-n1:2048:0", "-t1:8300", "-U", "R", disk)
    _tool("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-E", f"offset={MIB},nodiscard,lazy_itable_init=1",
          disk, f"{254 * 1024}k")  # fmt: skip
    return disk


def _tool(*command: str | Path) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": path})


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw file of 8 MiB that is known as an ext4 by its magic, 2.5 MiB of it data; a bundle of it has six parts of
    512 KiB."""
    path, numbers = tmp_path_factory.mktemp("root") / "root.img", random.Random(5)
    with open(path, "wb") as file:
        file.truncate(8 * MIB)
        file.seek(0x438)
        file.write(b"\x53\xef")
        for start in (MIB, 3 * MIB, 6 * MIB + 4096):
            file.seek(start)
            file.write(numbers.randbytes(MIB * 5 // 6))
    return path


BUNDLES = """
name: bundles
vars:
  n: {type: int}
  disk: {type: string}
steps:
  - download: {url: "file://{disk}"}
  - bundle: {name: "root-{n}", part_size: 512 KiB}
  - upload: {bucket: "bundles-{n}", prefix: images}
  - register: {name: "bundles-{n}"}
outputs:
  image: register.image_id
"""


@pytest.fixture
def bundles_recipe(tmp_path: Path) -> Path:
    """A recipe that bundles, uploads and registers `{disk}`: bucket and image `bundles-{n}`, in it images/root-{n}."""
    path = tmp_path / "bundles.yaml"
    path.write_text(BUNDLES)
    return path


@dataclass(frozen=True)
class Shelf:
    """What one of emi's sandboxes holds of bundles, seen with boto3 and the list of calls made."""

    endpoint: lifecycle.Endpoint

    def client(self, service: str) -> Any:
        """Return a client of boto3."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint.service(service),
            region_name=self.endpoint.region,
            aws_access_key_id=self.endpoint.access_key,
            aws_secret_access_key=self.endpoint.secret_key,
            config=botocore.config.Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def objects(self, bucket: str) -> dict[str, dict[str, str]]:
        """Return the metadata of every object in the bucket, by key; of a bucket that there is not, nothing."""
        s3 = self.client("s3")
        try:
            listed = s3.list_objects(Bucket=bucket).get("Contents", ())
        except s3.exceptions.ClientError:
            return {}
        return {one["Key"]: s3.head_object(Bucket=bucket, Key=one["Key"])["Metadata"] for one in listed}

    def unfinished(self, bucket: str) -> list[Any]:
        """Return the multipart uploads that nobody completed."""
        return list(self.client("s3").list_multipart_uploads(Bucket=bucket).get("Uploads", ()))

    def parts_named(self, bucket: str, key: str) -> list[str]:
        """Return the file names that a manifest in the bucket lists."""
        text = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        return re.findall("<filename>([^<]*)</filename>", text)

    def remove(self, bucket: str) -> None:
        """Delete the bucket with all that is in it: an account may have only so many."""
        s3 = self.client("s3")
        for key in self.objects(bucket):
            s3.delete_object(Bucket=bucket, Key=key)
        s3.delete_bucket(Bucket=bucket)

    def images(self, name: str) -> list[dict[str, Any]]:
        """Return our images of that name."""
        found = self.client("ec2").describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])
        return list(found["Images"])

    def position(self) -> int:
        """Return where the list of calls ends now."""
        return audit.position(self.endpoint.directory)

    def calls_since(self, position: int, *, succeeded: bool = True) -> Counter[str]:
        """Count the calls made since a position of the list, those that succeeded or all."""
        made = audit.read_calls(self.endpoint.directory, start=position)
        return Counter(f"{call.service}:{call.action}" for call in made if call.status < 300 or not succeeded)


@pytest.fixture
def shelf(emi: Emi) -> Iterator[Callable[[str], Shelf]]:
    """How to look into emi's sandbox of a personality, `aws` or `eucalyptus`; it is stopped afterwards."""

    def look(personality: str) -> Shelf:
        directory = emi.home / ("sandbox" if personality == "aws" else f"sandbox-{personality}")
        return Shelf(lifecycle.start(directory, personality=personality))

    yield look
    lifecycle.stop(emi.home / "sandbox-eucalyptus")


@pytest.fixture(scope="session")
def runnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of a guest that can run commands: this host's own dash, bash, some of coreutils, and their libraries.

    For `mke2fs -d`. Copy it (`shutil.copytree(..., symlinks=True)`) to add files of your own.
    """
    tree = tmp_path_factory.mktemp("runnable") / "tree"
    for directory in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "dev", "proc", "sys", "tmp", "root", "var"):
        (tree / directory).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "usr/bin/sh").symlink_to("dash")
    programs = ("bash", "cat", "chmod", "dash", "dd", "env", "id", "mkdir", "rm", "setsid", "sleep", "stat", "tail")
    libraries: set[str] = set()
    for name in programs:
        path = shutil.which(name)
        assert path is not None
        shutil.copy(path, tree / "usr/bin" / name)
        told = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        libraries |= {word for word in told.split() if word.startswith("/")}
    for library in libraries:
        target = tree / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (tree / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nalice:x:1001:\nadm:x:4:alice\n")
    (tree / "etc/fstab").write_text("# none\n")
    return tree
