"""Which drivers of machines there are, by the word of the sandbox's setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from builder.sandbox import settings
from builder.sandbox.machines.light import Light
from builder.sandbox.machines.machine import Driver
from builder.sandbox.machines.qemu import Qemu

_MAKERS: Mapping[str, Callable[[Path], Driver]] = {"light": Light, "qemu": Qemu}


def driver(name: str, directory: Path) -> Driver:
    """Return the driver of that name for a sandbox's directory."""
    return _MAKERS[name](directory / settings.MACHINES)
