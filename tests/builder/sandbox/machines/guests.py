"""Guests of one sector that say something, volumes, facts, and a patient look at what becomes of it all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from builder.sandbox.machines.metadata import Metadata

INSTANCE = "i-0123456789abcdef0"
# 16-bit code at 0x7c00: cld; ds = 0; si = message; each byte of it to the serial port (0x3f8) until a zero.
_SAY = "fc 31c0 8ed8 be0000 ac 84c0 7406 baf803 ee ebf5"
THEN = {
    "halt": "f4 ebfd",
    "say it again": "ebeb",  # jmp to the start
    "power off": "ba0406 b80020 ef f4 ebfd",  # 0x2000 (SLP_EN, S5) to PM1a_CNT, where SeaBIOS puts it on i440FX: 0x604
    "panic": "ba0505 b001 ee f4 ebfd",  # 1 to the port of pvpanic, 0x505
}


def boot_sector(message: bytes, then: str = "halt") -> bytes:
    """Return a boot sector that says the message on the serial port and does something afterwards."""
    code = bytearray.fromhex(_SAY + THEN[then])
    code[6:8] = (0x7C00 + len(code)).to_bytes(2, "little")
    return (bytes(code) + message + b"\0").ljust(510, b"\0") + b"\x55\xaa"


def eventually(condition: Callable[[], object], within: float = 120) -> None:
    """Return once the condition holds; fail when it does not for very long."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.02)


def facts(**changes: object) -> Metadata:
    """Return the metadata of an instance."""
    values: dict[str, object] = {
        "instance_id": INSTANCE,
        "image_id": "ami-0123456789abcdef0",
        "instance_type": "t3.micro",
        "account": "123456789012",
        "region": "us-east-1",
        "zone": "us-east-1a",
        "reservation_id": "r-0123456789abcdef0",
        "launch_time": 1_700_000_000.0,
        **changes,
    }
    return Metadata(**values)  # type: ignore[arg-type]


def volume(directory: Path, number: int = 1, size: int = 1 << 20) -> tuple[str, Path, str, str]:
    """Return the arguments of `attach` for a new blank volume."""
    volume_id = f"vol-0123456789abcd{number:03x}"
    path = directory / volume_id
    with open(path, "wb") as file:
        file.truncate(size)
    return volume_id, path, "/dev/sdf", volume_id.replace("-", "")


def processes(directory: Path) -> list[int]:
    """Return the processes whose command line names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if os.fsencode(directory) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
