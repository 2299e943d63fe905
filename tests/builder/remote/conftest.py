"""A machine to log in to, shared by the tests of this directory; loop devices; an image."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # machine.py
from machine import Loops, Machine, Notes, Proxy, loop_devices, machine

PLAIN = "sh bash cat dd head sha256sum readlink id uname tr sleep printf sudo blockdev rm mkdir cut wc mv"


@pytest.fixture(scope="session")
def server() -> Iterator[Machine]:
    """A machine that has everything."""
    # Not in pytest's directories: they are closed to other users, who are to find their keys.
    with tempfile.TemporaryDirectory(prefix="emi-sshd-") as directory, machine(Path(directory)) as made:
        yield made


@pytest.fixture(scope="session")
def bare() -> Iterator[Machine]:
    """A machine with neither Python nor zstd, gzip, curl or qemu-img."""
    with tempfile.TemporaryDirectory(prefix="emi-sshd-") as directory:
        programs = Path(directory, "programs")
        programs.mkdir()
        for program in PLAIN.split():
            if found := shutil.which(program):
                (programs / program).symlink_to(found)
        with machine(Path(directory), path=str(programs)) as made:
            yield made


@pytest.fixture
def proxy(server: Machine) -> Iterator[Proxy]:
    """A proxy before `server`."""
    made = Proxy(server.port)
    yield made
    made.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A raw disk of 24 MiB and a bit with holes, data and a tail."""
    path = tmp_path / "image.raw"
    rng = random.Random(6)
    with open(path, "wb") as file:
        file.truncate((24 << 20) + 1537)
        for at in (0, 5 << 20, (9 << 20) + 4096, 20 << 20):
            file.seek(at)
            file.write(rng.randbytes(900_000))
        file.seek((24 << 20) + 1024)
        file.write(b"the end")
    return path


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[Loops]:
    """Where loop devices come from."""
    with loop_devices(tmp_path) as made:
        yield made


@pytest.fixture
def notes() -> Any:
    """What a progress was told."""
    return Notes()
