"""What Linux makes of a machine: metadata, the one way out, volumes that appear, are let go of and are taken away."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from guests import INSTANCE, eventually
from tiny import tiny_linux

from builder import pool
from builder.sandbox.machines.machine import HOST, Forward
from builder.sandbox.machines.serials import serial_of

PATIENCE = 900  # seconds: a boot takes some 10 on an idle machine


class Mirror:
    """Something that answers on a port of this host's 127.0.0.1."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.asked = 0
        pool.Background(self._serve)

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._server.accept()
            except OSError:
                return
            with link:
                link.recv(4096)
                self.asked += 1
                link.sendall(b"HTTP/1.0 200 OK\r\n\r\nwhat the mirror has\n")

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def mirror():
    made = Mirror()
    yield made
    made.close()


@pytest.fixture
def linux(qemu, make_spec, tmp_path, mirror):
    """Start one whose volumes are on the given bus; it asks several addresses and goes on to watch its devices."""

    def start(bus: str):
        kernel, ramdisk = tiny_linux(tmp_path)
        others = [f"{HOST}:1", f"169.254.2.2:{mirror.port}", f"10.0.2.2:{mirror.port}"]
        asked = " ".join(f"ask={one}" for one in (f"{HOST}:{mirror.port}", *others))
        line = f"console=ttyS0 quiet sysrq_always_enabled=1 {asked}"
        spec = make_spec(
            kernel=kernel,
            ramdisk=ramdisk,
            command_line=line,
            memory=256,
            bus=bus,
            forwards=(Forward(to_port=mirror.port),),
        )
        machine = qemu.start(spec)
        says(machine, "up\r\n")
        return machine

    return start


def says(machine, words: str) -> None:
    eventually(lambda: words in machine.console().decode(errors="replace"), within=PATIENCE)


def blank(directory: Path, volume_id: str, *, eucalyptus: bool = False) -> tuple[str, Path, str, str]:
    path = directory / volume_id
    with open(path, "wb") as file:
        file.truncate(1 << 20)
    return volume_id, path, "/dev/sdf", serial_of(volume_id, "/dev/sdf", eucalyptus=eucalyptus)


@pytest.mark.sweep
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bus", ["virtio", "nvme"])
def test_a_running_system(linux, mirror, tmp_path, bus):
    machine = linux(bus)
    said = machine.console().decode()
    assert f"from 169.254.169.254:80 came {INSTANCE}\r\n" in said
    assert f"from {HOST}:{mirror.port} came what the mirror has\r\n" in said
    assert said.count("came nothing") == 3
    assert mirror.asked == 1
    eucalyptus = bus == "virtio"
    volumes = [blank(tmp_path, f"vol-{number:02x}3456789abcdef01", eucalyptus=eucalyptus) for number in range(20)]
    for one in volumes:
        machine.attach(*one)
    for _, path, _, serial in volumes:
        says(machine, f"wrote {serial[:20]}\r\n")
        assert path.read_bytes()[:20] == serial[:20].encode()  # at once, for a snapshot on this side
    for one in volumes[:2]:
        machine.detach(one[0])
        eventually(lambda gone=one[0]: gone not in machine.attached(), within=PATIENCE)
    writing = blank(tmp_path, "vol-fa3456789abcdef01")
    machine.attach(*writing)
    says(machine, "=volfa3456789abcdef01")
    machine.detach(writing[0], force=True)
    assert writing[0] not in machine.attached()
    says(machine, "failed volfa3456789abcdef01\r\n")
    machine.attach(*volumes[0])
    eventually(lambda: machine.console().decode().count(f"wrote {volumes[0][3][:20]}\r\n") == 2, within=PATIENCE)
    assert machine.state() == "running"
    machine.attach(*blank(tmp_path, "vol-ff3456789abcdef01"))
    eventually(lambda: machine.state() == "off", within=PATIENCE)


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_a_panic_of_the_kernel(linux, tmp_path):
    machine = linux("virtio")
    machine.attach(*blank(tmp_path, "vol-ee3456789abcdef01"))
    eventually(lambda: machine.state() == "panicked", within=PATIENCE)
    assert b"Kernel panic" in machine.console()
