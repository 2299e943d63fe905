"""A machine with a small system on a disk of its own, mounted for the server alone."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder import proc
from builder.remote.command import Shell

sys.path.insert(0, str(Path(__file__).parents[1] / "remote"))  # machine.py and what it is made with
from machine import Loops, Machine, Notes, loop_devices, machine

UUID = "6d1d0f3c-5f0e-4a0c-9a52-0d7c1f5ba3e4"
FILES = {
    "etc/fstab": "UUID=6d1d0f3c-5f0e-4a0c-9a52-0d7c1f5ba3e4 / ext4 defaults 0 1\nLABEL=boot /boot ext4 defaults 0 2\n"
    "LABEL=data /srv/data xfs defaults 0 2\n/swapfile none swap sw 0 0\n",
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/passwd": "root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nann:$6$secret$hash:19000:0:99999:7:::\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "web-1\n",
    "etc/ssh/ssh_host_ed25519_key": "PRIVATE",
    "etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAA",
    "usr/lib/systemd/system/ssh.service": "[Service]\nExecStartPre=/usr/bin/ssh-keygen -A\n",
    "usr/lib/systemd/systemd": "",
    "home/ann/.ssh/authorized_keys": "ssh-ed25519 AAAA ann",
    "home/ann/.bash_history": "mysql -psecret",
    "home/ann/notes": "kept",
    "root/.bash_history": "ls",
    "var/lib/cloud/instance/user-data.txt": "#!/bin/sh\necho secret",
    "var/log/syslog": "much",
    "var/tmp/emi-fetch-1/got": "scratch",
    "tmp/.hidden": "scratch",
    "srv/cache/old": "left out",
    "srv/cache/keep/deep": "kept",
    "proc/below": "hidden below a mount",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Machine]:
    """A machine of this directory's own."""
    with tempfile.TemporaryDirectory(prefix="emi-sshd-") as directory, machine(Path(directory)) as made:
        yield made


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[Loops]:
    """Where loop devices come from."""
    with loop_devices(tmp_path) as made:
        yield made


@pytest.fixture
def notes() -> Notes:
    """What a progress was told."""
    return Notes()


@dataclass
class System:
    """What is there: the machine, and the mount point of the system's root."""

    machine: Machine
    shell: Shell
    root: str


@pytest.fixture
def system(server: Machine, loops: Loops, tmp_path: Path) -> Iterator[System]:
    """A system with two disks, a pseudo filesystem, another disk's data, odd files and a swap file's name."""
    tree, boot, data = tmp_path / "tree", tmp_path / "boot", tmp_path / "data"
    for path, text in FILES.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    for directory in ("boot", "srv/data", "dev", "sys"):
        (tree / directory).mkdir(parents=True, exist_ok=True)
    (tree / "etc/shadow").chmod(0o640)
    os.chown(tree / "home/ann/notes", 1000, 1000)
    os.link(tree / "home/ann/notes", tree / "home/ann/notes too")
    (tree / "usr/bin").mkdir()
    (tree / "bin").symlink_to("usr/bin")
    os.mkfifo(tree / "srv/pipe")
    (tree / "srv/pipe").chmod(0o620)
    os.mknod(tree / "srv/null", 0o020666, os.makedev(1, 3))
    with open(tree / "srv/sparse", "wb") as sparse:
        sparse.truncate(5 << 20)
        sparse.seek(3 << 20)
        sparse.write(b"island")
    (tree / "srv/big").write_bytes(os.urandom(15 << 20))
    os.setxattr(tree / "home/ann/notes", "user.colour", b"gr\xfcn\0")
    proc.run(["setfacl", "-m", "u:1000:r", tree / "etc/hostname"])
    boot.mkdir()
    (boot / "vmlinuz-6").write_bytes(b"kernel")
    data.mkdir()
    (data / "precious").write_bytes(b"another disk's")
    made = []
    for directory, label, uuid in ((tree, "cloudimg-rootfs", UUID), (boot, "boot", "random"), (data, "data", "random")):
        disk = loops.attach((40 if directory is tree else 8) << 20)
        proc.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-U", uuid, "-d", directory, disk])
        made.append(disk)
    root = server.directory / "root"
    root.mkdir()
    shell = server.shell()
    mounts = [
        [made[0], str(root)],
        [made[1], f"{root}/boot"],
        [made[2], f"{root}/srv/data"],
        ["-t", "proc", "proc", f"{root}/proc"],
        ["-t", "tmpfs", "tmpfs", f"{root}/dev"],
    ]
    done: list[str] = []
    try:
        for words in mounts:
            shell.run(["mount", *words])
            done.append(words[-1])
        yield System(server, shell, str(root))
    finally:
        for place in reversed(done):
            shell.run(["umount", place])
        root.rmdir()
