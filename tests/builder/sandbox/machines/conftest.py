"""Machines for tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.sandbox.machines.machine import Disk, Driver, MachineSpec
from builder.sandbox.machines.qemu import Qemu

sys.path.insert(0, str(Path(__file__).parent))  # guests.py
from guests import INSTANCE, facts


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., MachineSpec]:
    """Make the spec of a machine whose root has the given first sector."""

    def make(sector: bytes = b"", **changes: object) -> MachineSpec:
        root = tmp_path / "root"
        with open(root, "wb") as file:
            file.write(sector)
            file.truncate(1 << 20)
        values: dict[str, object] = {
            "instance_id": INSTANCE,
            "directory": tmp_path / "machines" / INSTANCE,
            "disks": (Disk(volume_id="vol-0fedcba9876543210", path=root, serial="vol0fedcba9876543210"),),
            "metadata": facts,
            "memory": 32,
            **changes,
        }
        return MachineSpec(**values)  # type: ignore[arg-type]

    return make


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Driver]:
    """The driver of real guests."""
    driver = Qemu(tmp_path / "machines")
    driver.sweep()
    yield driver
    driver.close()
