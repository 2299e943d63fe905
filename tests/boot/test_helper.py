"""The helper images are machines as the steps that use them expect: reached, found, plugged, and gone when told so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder import proc
from builder.errors import RemoteDenied
from builder.image.write import write_sparse
from builder.remote import abilities
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.devices import Wanted, find
from builder.remote.keys import KeyPair
from builder.sandbox import lifecycle
from builder.sandbox.machines.machine import Disk, Machine, MachineSpec
from builder.sandbox.machines.metadata import Metadata
from builder.sandbox.machines.qemu import Qemu
from builder.sandbox.machines.serials import serial_of
from pipelines.artifact import File, ImageFile
from pipelines.store import FileStore

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(7200)]

RECIPES = Path(__file__).parents[2] / "recipes"
PATIENCE = 1800  # seconds, for everything that a guest under emulation does on a machine that has other work
INSTANCE, VOLUME = "i-0123456789abcdef0", "vol-0123456789abcdef0"
PROGRAMS = ("sfdisk", "partprobe", "growpart", "sgdisk", "mkfs.ext4", "resize2fs", "python3", "blockdev")


@dataclass(frozen=True)
class Images:
    """What the recipes made: a disk, and a root with its kernel and ramdisk."""

    disk: Path
    root: Path
    kernel: Path
    ramdisk: Path


@pytest.fixture(scope="module")
def images(shared_emi: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    place = tmp_path_factory.mktemp("helper")
    store = FileStore(shared_emi.home / "store" / "objects")
    outputs = {}
    for name, cloud in (("helper", "sandbox"), ("helper-instance-store", "sandbox:eucalyptus")):
        done = shared_emi("run", RECIPES / f"{name}.yaml", "--json", "--cloud", cloud, timeout=3600)
        assert done.code == 0, done.err
        outputs |= done.last()["outputs"]
    for name in ("disk", "root"):
        with store.open_image(ImageFile(**outputs[name])) as reader:
            write_sparse(reader, place / name)
    kernel, ramdisk = (store.path(File(**outputs[name])) for name in ("kernel", "ramdisk"))
    yield Images(place / "disk", place / "root", kernel, ramdisk)
    for name in ("disk", "root"):
        (place / name).unlink()
    lifecycle.stop(shared_emi.home / "sandbox-eucalyptus")


@dataclass(frozen=True)
class Booted:
    """A machine that let us in, by the key of its metadata and with the host key of its user-data."""

    machine: Machine
    shell: Shell
    stranger: Callable[[str], Remote]  # the same way in, for another login
    began: float  # by the monotonic clock, in seconds


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Callable[..., Booted]]:
    """Boot a root; `eucalyptus` is a metadata service without tokens, and volumes named in its way."""
    driver = Qemu(tmp_path / "machines")
    remotes = []

    def boot(root: Path, *, eucalyptus: bool = False, **how: Any) -> Booted:
        key, host = KeyPair.generate(), KeyPair.generate()
        lines = "".join(f"    {line}\n" for line in host.private.decode().splitlines())
        user_data = (
            f"#cloud-config\nssh_keys:\n  ed25519_private: |\n{lines}  ed25519_public: {host.public}\n"
            "runcmd:\n  - hostname >/run/user-data\n  - [touch, /run/done]\n"
        )
        facts = Metadata(
            instance_id=INSTANCE,
            image_id="ami-0123456789abcdef0",
            instance_type="t3.micro",
            account="123456789012",
            region="us-east-1",
            zone="us-east-1a",
            reservation_id="r-0123456789abcdef0",
            launch_time=time.time(),
            hostname="ip-10-0-0-7.ec2.internal",
            public_keys=(("ours", key.public),),
            user_data=user_data.encode(),
            tokens=not eucalyptus,
            tokens_required=not eucalyptus,
        )
        disk = Disk(volume_id="vol-0fedcba9876543210", path=root, serial="vol0fedcba9876543210")
        place = tmp_path / "machines" / INSTANCE
        spec = MachineSpec(instance_id=INSTANCE, directory=place, disks=(disk,), metadata=lambda: facts, **how)
        began = time.monotonic()
        machine = driver.start(spec)

        def remote(user: str) -> Remote:
            login = Login(host=machine.address, user=user, key=key, pinned=(host.public,))
            remotes.append(made := Remote(login, patience=PATIENCE))
            return made

        return Booted(machine, Shell(remote("debian")), remote, began)

    yield boot
    for remote in remotes:
        remote.close()
    driver.close()


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.5)


def said(booted: Booted, command: str) -> str:
    """Return all that a command says, on both streams."""
    done = booted.shell.script(f"{{ {command}; }} 2>&1", timeout=PATIENCE)
    return done.stdout.decode().strip()


def is_a_helper(booted: Booted, capsys: pytest.CaptureFixture[str], *, device: str, size: str) -> None:
    """Expect what every step that uses a helper expects; say how soon it was there."""
    assert said(booted, "sudo -n true") == "", booted.machine.console().decode(errors="replace")[-3000:]
    with capsys.disabled():
        print(f"\nthe first command was answered {time.monotonic() - booted.began:.0f} s after the start")
    until(lambda: said(booted, "test -e /run/done && echo done || true"), "the user-data's commands")
    for command, wanted in (
        ("cat /run/user-data", "ip-10-0-0-7"),
        ("findmnt --noheadings --output SOURCE,FSTYPE /", f"{device} ext4"),
        ("df --output=size -BG / | tail -1", size),
        ("systemctl list-units --failed --plain --no-legend", ""),
        (f"sudo -n sh -c 'for name in {' '.join(PROGRAMS)}; do command -v $name >/dev/null || echo $name; done'", ""),
        ("grep -c . /etc/machine-id", "1"),
        ("ls /etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_ed25519_key"),
    ):
        assert said(booted, command) == wanted, command
    assert abs(int(said(booted, "date +%s")) - time.time()) < PATIENCE
    able = abilities.ask(booted.shell)
    assert (able.root, able.python) == (True, "python3")
    able.require(booted.shell, "zstd", "gzip", "xz", "bzip2", "qemu-img", "curl", "sha256sum", "blockdev", "dd")
    with pytest.raises(RemoteDenied):
        Shell(booted.stranger("root")).script("true", timeout=PATIENCE)


def comes_and_goes(booted: Booted, volume: Path, *, eucalyptus: bool) -> None:
    """Expect a volume to be found by its serial, and to be let go of."""
    with open(volume, "wb") as file:
        file.truncate(64 << 20)
    booted.machine.attach(VOLUME, volume, "/dev/sdf", serial_of(VOLUME, "/dev/sdf", eucalyptus=eucalyptus))
    wanted = Wanted(volume_id=VOLUME, size=64 << 20)
    found = find(booted.shell, abilities.ask(booted.shell), wanted, patience=PATIENCE)
    booted.shell.script(f"printf written | dd of={found.path} conv=fsync", root=True, timeout=PATIENCE)
    booted.machine.detach(VOLUME)
    until(lambda: VOLUME not in booted.machine.attached(), "the guest to let go of the volume")
    assert volume.read_bytes()[:7] == b"written"


def goes_off(booted: Booted) -> None:
    booted.machine.power_down()
    until(lambda: not booted.machine.alive(), "the power to go off")
    assert booted.machine.state() == "off"


def copied(image: Path, place: Path) -> Path:
    """Return a copy that a machine may write to; its holes are holes."""
    proc.run(["cp", "--sparse=always", image, place / "root"])
    return place / "root"


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_disk(images, boot, tmp_path, capsys, firmware):
    disk = copied(images.disk, tmp_path)
    with open(disk, "rb+") as file:
        file.truncate(6 << 30)  # a larger volume than the image asks for
    booted = boot(disk, bus="nvme", firmware=firmware)
    is_a_helper(booted, capsys, device="/dev/nvme0n1p1", size="6G")
    comes_and_goes(booted, tmp_path / "volume", eucalyptus=False)
    goes_off(booted)


def test_the_root_with_kernel_and_ramdisk(images, boot, tmp_path, capsys):
    trio = {"kernel": images.kernel, "ramdisk": images.ramdisk, "command_line": "root=/dev/vda ro console=ttyS0"}
    booted = boot(copied(images.root, tmp_path), eucalyptus=True, **trio)
    is_a_helper(booted, capsys, device="/dev/vda", size="4G")
    comes_and_goes(booted, tmp_path / "volume", eucalyptus=True)
    goes_off(booted)
