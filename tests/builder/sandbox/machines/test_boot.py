"""A real image as a machine: cloud-init reads the metadata, SSH lets us in, volumes come and go while it runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from guests import INSTANCE, eventually, facts

from builder import pool, proc
from builder.image.write import write_sparse
from builder.remote import abilities, devices
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair
from builder.sandbox.machines.machine import HOST, Disk, Forward, Machine, MachineSpec
from builder.sandbox.machines.serials import serial_of
from pipelines.artifact import ImageFile
from pipelines.store import FileStore
from tests.serving import serve

PATIENCE = 1200  # seconds; a boot takes 30 to 60 under TCG on an idle machine


# On Eucalyptus the firmware does not say Amazon's name: cloud-init has to be told to ask all the same.
FIT = """
name: fit-for-eucalyptus
vars: {disk: {type: string}}
steps:
  - download: {url: "file://{disk}"}
  - cloud-init: {datasources: [Ec2], ec2: {strict_id: false}}
outputs: {disk: cloud-init}
"""


def user_data(key: KeyPair) -> bytes:
    lines = "".join(f"    {line}\n" for line in key.private.decode().splitlines())
    ran = "runcmd: ['echo from user-data >/var/tmp/ran']\n"
    return f"#cloud-config\nssh_deletekeys: true\n{ran}ssh_keys:\n  ed25519_private: |\n{lines}".encode()


@pytest.mark.sweep
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cloud", ["aws", "eucalyptus"])
def test_an_image_boots_and_behaves_as_an_instance(demo, qemu, tmp_path, cloud):
    eucalyptus = cloud == "eucalyptus"
    root, key, host_key = tmp_path / "root", KeyPair.generate(), KeyPair.generate()
    if eucalyptus:
        recipe = tmp_path / "fit.yaml"
        recipe.write_text(FIT)
        made = demo.emi.run(recipe, "--var", f"disk={demo.disk}")["outputs"]["disk"]
        with FileStore(demo.emi.home / "store" / "objects").open_image(ImageFile(**made)) as reader:
            write_sparse(reader, root)
    else:
        proc.run(["cp", "--sparse=always", demo.disk, root])
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "image").write_bytes(b"an image" * 100_000)
    told = {"public_keys": (("my-key", key.public),), "user_data": user_data(host_key)}
    told |= {"tokens": not eucalyptus, "tokens_required": not eucalyptus}
    with serve(tmp_path / "mirror") as port:
        spec = MachineSpec(
            instance_id=INSTANCE,
            directory=tmp_path / "machines" / INSTANCE,
            disks=(Disk(volume_id="vol-0fedcba9876543210", path=root, serial="vol0fedcba9876543210"),),
            metadata=lambda: facts(**told),
            memory=768,
            cpus=2,
            bus="virtio" if eucalyptus else "nvme",
            forwards=(Forward(to_port=port),),
        )
        machine = qemu.start(spec)
        pool.Background(lambda: _watch(machine))
        login = Login(host=machine.address, user="debian", key=key, pinned=(host_key.public,))
        remote = Remote(login, patience=PATIENCE, settling=PATIENCE)
        shell = Shell(remote)
        _metadata(shell, required=not eucalyptus)
        _network(shell, port)
        _volumes(machine, shell, tmp_path, eucalyptus=eucalyptus)
        assert shell.script("cat /var/tmp/ran", timeout=PATIENCE).stdout == b"from user-data\n"
        assert machine.console()
        machine.power_down()
        remote.close()
        eventually(lambda: machine.state() == "off", within=PATIENCE)


def _watch(machine: Machine) -> None:
    """Look at it now and then, as a sandbox does: a boot that got no time from this host begins again."""
    while machine.state() == "running":
        time.sleep(1)


def _metadata(shell: Shell, *, required: bool) -> None:
    shell.script("cloud-init status --wait >/dev/null || true", timeout=PATIENCE)
    assert shell.script("cloud-init query instance_id", timeout=300).stdout.decode().strip() == INSTANCE
    url = "http://169.254.169.254/latest"
    plain = shell.script(f"curl -s -o /dev/null -w '%{{http_code}}' {url}/meta-data/", timeout=300).stdout
    assert plain == (b"401" if required else b"200")
    token = f"$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {url}/api/token)" if required else ""
    asked = f'curl -s -H "X-aws-ec2-metadata-token: {token}" {url}/meta-data/instance-id'
    assert shell.script(asked, timeout=300).stdout.decode() == INSTANCE


def _network(shell: Shell, port: int) -> None:
    """The guest reaches the mirror by the way that was made for it, and nothing else of this host."""
    said = shell.script(f"curl -s http://{HOST}:{port}/image | sha256sum; exit 0", timeout=300).stdout
    wanted = shell.script("yes 'an image' | tr -d '\\n' | head -c 800000 | sha256sum", timeout=300).stdout
    assert said == wanted
    for address in (f"{HOST}:1", f"169.254.2.2:{port}", f"127.0.0.1:{port}", f"10.0.2.2:{port}", "192.0.2.1:80"):
        refused = f"curl -s -m 20 -o /dev/null http://{address}/ || echo refused"
        assert shell.script(refused, timeout=300).stdout == b"refused\n", address


def _volumes(machine: Machine, shell: Shell, directory: Path, *, eucalyptus: bool) -> None:
    can = abilities.ask(shell)
    volumes = {f"vol-{number:02x}3456789abcdef01": directory / f"volume{number}" for number in range(20)}
    for number, (volume_id, path) in enumerate(volumes.items()):
        with open(path, "wb") as file:
            file.truncate(8 << 20)  # all of one size
        device = f"/dev/sd{chr(ord('f') + number)}"
        machine.attach(volume_id, path, device, serial_of(volume_id, device, eucalyptus=eucalyptus))
    names = {}
    for volume_id, path in volumes.items():
        wanted = devices.Wanted(volume_id=volume_id, size=8 << 20)
        found = devices.find(shell, can, wanted, patience=PATIENCE)
        words = f"printf {volume_id} | dd of={found.path} conv=fsync 2>/dev/null"
        shell.script(words, root=True, timeout=300)
        assert path.read_bytes()[: len(volume_id)] == volume_id.encode()  # at once, for a snapshot on this side
        names[volume_id] = found.path
    assert len(set(names.values())) == 20
    first, second, *_ = volumes
    machine.detach(first)
    eventually(lambda: first not in machine.attached(), within=PATIENCE)
    shell.script(f"while test -e {names[first]}; do sleep 0.1; done", timeout=PATIENCE)
    machine.detach(second, force=True)
    assert second not in machine.attached()
    machine.attach(first, volumes[first], "/dev/sdf", serial_of(first, "/dev/sdf", eucalyptus=eucalyptus))
    devices.find(shell, can, devices.Wanted(volume_id=first, size=8 << 20), patience=PATIENCE)
