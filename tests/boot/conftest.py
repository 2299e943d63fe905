"""Drives a virtual machine over its serial console: start it, wait for words, type, read what a command says.

Always TCG: no test depends on /dev/kvm. The disk is never written: the machine works on an overlay in `tmp_path`.
"""

from __future__ import annotations

import re
import select
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

import pytest

from builder import proc

Firmware = Literal["bios", "uefi"]
_CODE, _VARS = Path("/usr/share/OVMF/OVMF_CODE.fd"), Path("/usr/share/OVMF/OVMF_VARS.fd")  # Debian's ovmf
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>78c])|\r")
_USER_DATA = """\
#cloud-config
password: insecure
chpasswd: {expire: false}
"""


class Console:
    """The serial console of one running machine; `log` is all it said, without terminal escapes."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._heard = ""
        self._seen = 0

    @property
    def log(self) -> str:
        return _ESCAPES.sub("", self._heard)

    def expect(self, pattern: str, *, within: float) -> re.Match[str]:
        """Wait until what was said since the last expectation matches `pattern`; fail after `within` seconds."""
        deadline = time.monotonic() + within
        while not (found := re.compile(pattern, re.M).search(self.log, self._seen)):
            ready, _, _ = select.select([self._line], [], [], max(0, deadline - time.monotonic()))
            data = self._line.recv(65536) if ready else b""
            if not data:
                what = "the machine went away" if ready else f"not within {within:g} s"
                pytest.fail(f"{pattern!r}: {what}; the console's end:\n{self.log[-3000:]}")
            self._heard += data.decode(errors="replace")
        self._seen = found.end()
        return found

    def type(self, line: str) -> None:
        self._line.sendall(line.encode() + b"\n")

    def log_in(self, user: str, password: str, *, within: float) -> None:
        """Log in and make the shell quiet: from now on `run` reads answers only."""
        self.type("")
        self.expect("login: $", within=within)
        self.type(user)
        self.expect("Password: $", within=within)
        self.type(password)
        self.expect(r"\$ $", within=within)
        self.type("stty -echo cols 1000; exec sudo sh")
        self.expect("# $", within=within)
        self.type("PS1=; dmesg -n 1; echo '[quie''t]'")
        self.expect(r"\[quiet\]$", within=within)

    def run(self, command: str, *, within: float = 60) -> str:
        """Run a command as root and return what it said; fail if its status is not 0."""
        self.type(f"{{ {command}; }} 2>&1; echo \"[stat\"'us' $?]")
        found = self.expect(r"(?s)\n?(.*?)\[status (\d+)\]$", within=within)
        said = found[1].strip()
        assert found[2] == "0", f"{command}: status {found[2]}\n{said}"
        return said


Boot = Callable[..., Console]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Start machines that end with the test: `boot(disk, "uefi", grown_to="6G", cloud_data=True)`.

    With `trio` (kernel, ramdisk, command line) qemu loads these, as a cloud does for paravirtual images.
    """
    started = ExitStack()

    def boot(
        disk: Path,
        firmware: Firmware,
        *,
        grown_to: str | None = None,
        cloud_data: bool = False,
        trio: tuple[Path, Path, str] | None = None,
    ) -> Console:
        overlay, place = tmp_path / "overlay.qcow2", tmp_path / "console"
        proc.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk.resolve(), overlay])
        if grown_to:
            proc.run(["qemu-img", "resize", "-q", "-f", "qcow2", overlay, grown_to])
        command = [
            *(
                "qemu-system-x86_64",
                "-machine",
                "q35,graphics=off",
                "-accel",
                "tcg,thread=multi",
                "-smp",
                "2",
                "-m",
                "1024",
            ),
            *("-nodefaults", "-display", "none", "-no-reboot", "-device", "virtio-rng-pci"),
            *("-chardev", f"socket,id=console,path={place},server=on,wait=on", "-serial", "chardev:console"),
            *("-drive", f"file={overlay},format=qcow2,if=virtio,cache=unsafe"),
            *("-nic", "user,model=virtio-net-pci,restrict=on"),  # DHCP, and not a packet further
            *(_uefi(tmp_path) if firmware == "uefi" else ()),
            *(("-drive", f"file={_seed(tmp_path)},format=raw,if=virtio,readonly=on") if cloud_data else ()),
            *(("-kernel", trio[0], "-initrd", trio[1], "-append", trio[2]) if trio else ()),
        ]
        started.callback(proc.end, proc.start(command))
        return Console(started.enter_context(closing(_connect(place))))

    with started:
        yield boot


def _uefi(place: Path) -> Sequence[str]:
    variables = place / "variables.fd"
    shutil.copy(_VARS, variables)
    return (
        *("-drive", f"if=pflash,format=raw,readonly=on,file={_CODE}"),
        *("-drive", f"if=pflash,format=raw,file={variables}"),
    )


def _seed(place: Path) -> Path:
    """Make the disk from which cloud-init reads its data where there is no cloud (its NoCloud source)."""
    seed = place / "seed.img"
    (place / "user-data").write_text(_USER_DATA)
    (place / "meta-data").write_text("instance-id: test-1\nlocal-hostname: booted\n")
    proc.run(["mkfs.vfat", "-n", "CIDATA", "-C", seed, "1024"])
    proc.run(["mcopy", "-i", seed, place / "user-data", place / "meta-data", "::/"])
    return seed


def _connect(place: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + 60
    while True:
        try:
            line.connect(str(place))
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                pytest.fail("qemu did not start")
            time.sleep(0.1)
        else:
            return line
