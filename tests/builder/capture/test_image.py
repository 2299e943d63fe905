"""A live machine's root becomes an image of what belongs to the system, and of nothing that is only that machine's."""

import re

import pytest

from builder import proc
from builder.capture.image import Wanted, capture, problems
from builder.errors import RemoteDenied, RemoteError, UsageError
from builder.image.filesystems import probe
from builder.image.raw import RawReader

MIB = 1 << 20
NOW = 1_800_000_000
UUID = "6d1d0f3c-5f0e-4a0c-9a52-0d7c1f5ba3e4"


def debugfs(image, command):
    return proc.run(["debugfs", "-R", command, image]).stdout


def listed(image):
    """Return every path in the image."""
    found, waiting = set(), ["/"]
    while waiting:
        place = waiting.pop()
        for line in debugfs(image, f'ls -p "{place}"').decode().splitlines():
            if not line.strip():
                continue
            _, _, mode, _, _, name, *_ = line.split("/")
            if name in (".", ".."):
                continue
            path = f"{place.rstrip('/')}/{name}"
            found.add(path)
            if mode.startswith("04"):
                waiting.append(path)
    return found


def test_the_system_is_in_the_image_and_what_is_only_the_machine_s_is_not(system, tmp_path, notes):
    target = tmp_path / "root.raw"
    (tmp_path / "scratch").mkdir()
    wanted = Wanted(path=system.root, also=(f"{system.root}/boot",), exclude=("/srv/cache/*",), lock_passwords=True)
    size = capture(wanted, system.shell, target, now=NOW, scratch=tmp_path / "scratch", progress=notes)
    assert size == target.stat().st_size == 40 * MIB
    with RawReader(target) as reader:
        found = probe(reader)
    assert (found.type, found.label, found.uuid) == ("ext4", "cloudimg-rootfs", UUID)
    proc.run(["e2fsck", "-fn", target])
    paths = listed(target)
    assert paths >= {
        "/home/ann/notes",
        "/home/ann/notes too",
        "/boot/vmlinuz-6",
        "/bin",
        "/srv/pipe",
        "/srv/null",
        "/dev",
    }
    assert paths >= {"/tmp", "/var/tmp", "/proc", "/srv/data", "/srv/cache", "/etc/machine-id", "/var/log/syslog"}
    for gone in (
        *("/etc/ssh/ssh_host_ed25519_key", "/home/ann/.ssh", "/home/ann/.bash_history", "/root/.bash_history"),
        *("/var/lib/cloud/instance", "/tmp/.hidden", "/var/tmp/emi-fetch-1", "/proc/below", "/srv/data/precious"),
        *("/srv/cache/old", "/srv/cache/keep"),
    ):
        assert gone not in paths
    assert debugfs(target, "cat /home/ann/notes") == b"kept"
    assert debugfs(target, "cat /etc/machine-id") == debugfs(target, "cat /var/log/syslog") == b""
    assert b"secret" not in debugfs(target, "cat /etc/shadow")
    assert re.search(rb"User: +1000", debugfs(target, 'stat "/home/ann/notes too"'))
    assert b"Links: 2" in debugfs(target, "stat /home/ann/notes")
    assert re.search(
        rb"Type: character special .*\n(.*\n)+.*Device major/minor number: 0?1:0?3", debugfs(target, "stat /srv/null")
    )
    assert re.search(rb"Type: FIFO +Mode: +0620", debugfs(target, "stat /srv/pipe"))
    assert debugfs(target, "cat /srv/sparse")[3 * MIB : 3 * MIB + 6] == b"island"
    assert b"user.colour" in debugfs(target, "stat /home/ann/notes")
    assert b"posix_acl_access" in debugfs(target, "stat /etc/hostname")
    fstab = debugfs(target, "cat /etc/fstab").decode().splitlines()
    assert fstab[0] == f"UUID={UUID} / ext4 defaults 0 1"
    assert fstab[1].startswith("# LABEL=boot")
    assert fstab[2].startswith("# LABEL=data")
    assert any("ssh-hostkeys: removed" in note for note in notes.notes)


def test_the_same_machine_gives_the_same_bytes_and_nothing_is_left_there(system, tmp_path):
    digests = []
    before = system.shell.run(["cat", "/proc/self/mountinfo"]).stdout
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        capture(Wanted(path=system.root), system.shell, tmp_path / f"{name}.raw", now=NOW, scratch=tmp_path / name)
        digests.append((tmp_path / f"{name}.raw").read_bytes())
    assert digests[0] == digests[1]
    assert system.shell.run(["cat", "/proc/self/mountinfo"]).stdout == before
    assert "/boot/vmlinuz-6" not in listed(tmp_path / "one.raw")


def test_a_btrfs_is_captured_too(server, loops, tmp_path):
    tree, root = tmp_path / "tree", server.directory / "btrfs"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("web-1\n")
    root.mkdir()
    disk = loops.attach(128 << 20)
    proc.run(["mkfs.btrfs", "-q", "-L", "cloudroot", "--rootdir", tree, disk])
    shell = server.shell()
    shell.run(["mount", disk, str(root)])
    (tmp_path / "scratch").mkdir()
    try:
        capture(Wanted(path=str(root)), shell, tmp_path / "root.raw", now=NOW, scratch=tmp_path / "scratch")
    finally:
        shell.run(["umount", str(root)])
    with RawReader(tmp_path / "root.raw") as reader:
        found = probe(reader)
    assert (found.type, found.label) == ("ext4", "cloudroot")
    assert "/etc/hostname" in listed(tmp_path / "root.raw")


def test_what_cannot_be_captured_is_told(system, tmp_path):
    (tmp_path / "scratch").mkdir()

    def run(wanted, shell=system.shell):
        capture(wanted, shell, tmp_path / "root.raw", now=NOW, scratch=tmp_path / "scratch")

    with pytest.raises(RemoteError, match="nothing is mounted at /no/such"):
        run(Wanted(path="/no/such"))
    with pytest.raises(RemoteError, match="which is no disk"):
        run(Wanted(path=f"{system.root}/dev"))
    with pytest.raises(UsageError, match="no system's root"):
        run(Wanted(path=f"{system.root}/srv/data"))
    with pytest.raises(UsageError, match="the system needs"):
        run(Wanted(path=system.root, size=16 * MIB, exclude=()))
    with pytest.raises(RemoteDenied, match="without a password"):
        run(Wanted(path=system.root), system.machine.shell("alice"))
    assert problems(Wanted(path="root", exclude=("/a/../b",), size=5)) == [
        "'root' is not an absolute path",
        "'/a/../b' has `..` in it",
        "size must be whole MiB, at least 16",
    ]
