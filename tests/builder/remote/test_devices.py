import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from builder import proc
from builder.errors import DeviceDoubtful
from builder.remote import abilities, listing
from builder.remote.devices import Wanted, choose, find
from builder.remote.listing import Device, Listing

MIB, GIB = 1 << 20, 1 << 30
LONG = "vol-0123456789abcdef0"
SHORT = "vol-1a2b3c4d"
WANTED = Wanted(volume_id=LONG, size=4 * GIB)
ROOT = Device(name="vda", size=8 * GIB, serial="vol0fedcba9876543210", partitions=("vda1",), uses=("mounted at /",))


def seen(*devices, boot="b1"):
    return Listing(boot_id=boot, devices=devices)


def disk(name, size=4 * GIB, serial="", **more):
    return Device(name=name, size=size, serial=serial, **more)


@pytest.mark.parametrize(
    ("volume", "serial"),
    [
        (LONG, "vol0123456789abcdef0"),  # AWS, NVMe; and virtio, where it is 20 bytes
        (LONG, "vol-0123456789abcdef"),  # virtio with the dash: cut
        (LONG, "euca-vol-0123456789a"),  # Eucalyptus: 11 of 17 digits
        (SHORT, "euca-vol-1a2b3c4d-de"),
        (SHORT, "vol-1a2b3c4d-dev-vdc"),
        (SHORT, "vol-1a2b3c4d"),
    ],
)
def test_a_serial_names_its_volume_in_each_cloud_s_way(volume, serial):
    wanted = Wanted(volume_id=volume, size=4 * GIB)
    found, sure = choose(seen(ROOT, disk("vdx", serial=serial), disk("vdb")), wanted, None)
    assert (found.name, sure) == ("vdx", True)


@pytest.mark.parametrize(
    "serial",
    [
        "vol0123456789abcdef1",
        "vol0123456789abcdef",
        "vol0123",
        "euca-vol-0123",
        "euca-vol-1a2b3c4e-de",
        "euca-vol-",
        "vol",
    ],
)
def test_a_serial_of_another_volume_or_too_little_of_one_is_not_taken(serial):
    for volume in (LONG, SHORT):
        with pytest.raises(DeviceDoubtful):
            choose(seen(ROOT, disk("vdx", serial=serial)), Wanted(volume_id=volume, size=4 * GIB), None)


def test_a_name_in_by_id_will_do():
    named = disk("sdb", links=("nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0",))
    assert choose(seen(ROOT, named), WANTED, None) == (named, True)
    named = disk("vdc", links=("virtio-euca-vol-0123456789a",))
    assert choose(seen(ROOT, named), WANTED, None) == (named, True)


TWIN = disk("vdb", serial="vol-0123456789abcdef")
NEW = disk("vdb")


@pytest.mark.parametrize(
    ("now", "before", "why"),
    [
        ((TWIN, replace(TWIN, name="vdc")), None, "vdb and vdc could each be"),
        ((replace(TWIN, size=5 * GIB),), None, "has 5 GiB instead of 4 GiB"),
        ((replace(TWIN, uses=("held by dm-0",)),), None, "in use: held by dm-0"),
        ((NEW,), None, "no device has the serial"),
        ((NEW,), seen(NEW), "none has appeared"),
        ((NEW,), seen(boot="another"), "new start of the machine"),
        ((NEW, disk("vdc")), seen(), "vdb, vdc have appeared"),
        ((replace(NEW, size=GIB),), seen(), "1 GiB instead of 4 GiB"),
        ((replace(NEW, uses=("mounted at /mnt",)),), seen(), "in use: mounted at /mnt"),
        ((replace(NEW, serial="vol0aaaaaaaaaaaaaaaa"),), seen(), "its serial names another volume"),
    ],
)
def test_doubt_is_a_refusal(now, before, why):
    if before is not None:
        before = replace(before, devices=(ROOT, *before.devices))
    with pytest.raises(DeviceDoubtful, match=why):
        choose(seen(ROOT, *now), WANTED, before)


def test_a_name_that_was_given_anew_counts_as_appeared():
    old, new = disk("vdb", sequence="7"), disk("vdb", sequence="9")
    assert choose(seen(ROOT, new), WANTED, seen(ROOT, old)) == (new, False)


def make_tree(root, disks, mounts=""):
    """Make a /sys, /proc and /dev as Linux has them; a disk is (name, size, its files)."""
    for name, size, files in disks:
        block = root / "sys/block" / name
        for path, content in {
            "size": f"{size // 512}\n",
            "ro": "0\n",
            "dev": f"253:{len(name) + ord(name[-1])}\n",
            **files,
        }.items():
            (block / path).parent.mkdir(parents=True, exist_ok=True)
            (block / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    (root / "proc/sys/kernel/random").mkdir(parents=True)
    (root / "proc/sys/kernel/random/boot_id").write_text("11111111-2222\n")
    (root / "proc/self").mkdir()
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/vdd partition 1 0 -2\n")
    return root


def test_each_kind_of_disk_tells_its_serial(server):
    tree = make_tree(
        server.directory / "tree",
        [
            ("nvme1n1", 4 * GIB, {"device/serial": "vol0123456789abcdef0   \n"}),
            ("vdb", 4 * GIB, {"serial": "euca-vol-1a2b3c4d-de"}),  # no newline, as virtio-blk has it
            ("vdc", GIB, {"serial": "", "vdc1/partition": "1\n", "vdc1/dev": "253:33\n"}),
            ("vdd", GIB, {}),
            ("sdb", GIB, {"device/vpd_pg80": b"\x00\x80\x00\x0cvol-aabbccdd"}),
            ("sr0", 0, {}),
            ("vde", GIB, {"holders/dm-0/x": "", "ro": "1\n"}),
        ],
        mounts="36 1 253:33 / /srv rw - ext4 /dev/vdc1 rw\n",
    )
    (tree / "dev/disk/by-id").mkdir(parents=True)
    (tree / "dev/disk/by-id/virtio-euca-vol-1a2b3c4d-de").symlink_to("../../vdb")
    found = {device.name: device for device in listing.read(server.shell("alice"), str(tree)).devices}
    assert {name: device.serial for name, device in found.items()} == {
        "nvme1n1": "vol0123456789abcdef0",
        "vdb": "euca-vol-1a2b3c4d-de",
        "vdc": "",
        "vdd": "",
        "sdb": "vol-aabbccdd",
        "vde": "",
    }
    assert found["vdb"].links == ("virtio-euca-vol-1a2b3c4d-de",)
    assert found["vdc"].uses == ("mounted at /srv",)
    assert found["vdc"].partitions == ("vdc1",)
    assert found["vdd"].uses == ("swap on vdd",)
    assert found["vde"].uses == ("held by dm-0", "read-only")
    assert found["nvme1n1"].size == 4 * GIB


def test_fifty_shuffles_of_spare_disks_never_lead_to_another_one():
    """Three spare disks, two of the volume's size, one with data, under shuffled names: ours or a refusal, no third."""
    rng = random.Random(50)
    taken = 0
    for _ in range(50):
        names = rng.sample(["vdb", "vdc", "vdd", "vde", "vdf", "nvme1n1", "sdb"], 4)
        spares = [
            disk(names[0], serial=rng.choice(["", "vol0aaaaaaaaaaaaaaaa"])),
            disk(names[1], uses=("mounted at /data",)),
            disk(names[2], size=2 * GIB),
        ]
        told = rng.choice(["vol0123456789abcdef0", "euca-vol-0123456789a", ""])
        ours = disk(names[3], serial=told)
        now = [ROOT, *spares, ours]
        rng.shuffle(now)
        same_boot = rng.random() < 0.5
        old = (
            spares
            if same_boot
            else [replace(spare, name=name) for spare, name in zip(spares, rng.sample(names, 3), strict=True)]
        )
        before = seen(ROOT, *old, boot="b1" if same_boot else "b0")
        try:
            found, _ = choose(seen(*now), WANTED, rng.choice([before, before, None]))
        except DeviceDoubtful:
            assert told == ""
        else:
            assert found == ours
            taken += 1
    assert taken > 25


@pytest.mark.parametrize("rounds", [8, pytest.param(50, marks=pytest.mark.sweep)])
def test_of_real_devices_only_the_new_empty_one_is_taken(server, loops, rounds):
    shell = server.shell()
    able = abilities.ask(shell)
    rng = random.Random(rounds)
    size = 3 * MIB
    loops.attach(size, data=b"precious", at=MIB)
    loops.attach(size)
    loops.attach(2 * MIB)
    wanted = Wanted(volume_id=LONG, size=size)
    kinds = ["empty", "begun", "filesystem", "backup", "other size"]
    for number in range(rounds):
        before = listing.read(shell, loops.view)
        kind = kinds[number % len(kinds)]
        first = rng.randbytes(MIB)
        marks = {"begun": (first, 0), "filesystem": (b"\x53\xef", 1080), "backup": (b"EFI PART", size - 512)}
        data, at = marks.get(kind, (b"", 0))
        path = loops.attach(size + MIB if kind == "other size" else size, data=data, at=at)
        mine = [hashlib.sha256(first).hexdigest()]
        if kind in ("empty", "begun"):
            assert find(shell, able, wanted, before=before, ours=mine, patience=0, prefix=loops.view).path == path
        else:
            with pytest.raises(DeviceDoubtful, match=Path(path).name):
                find(shell, able, wanted, before=before, ours=mine, patience=0, prefix=loops.view)
        loops.detach(path)


def test_what_was_seen_is_listed_and_a_swap_area_is_not_empty(server, loops):
    shell = server.shell()
    able = abilities.ask(shell)
    loops.attach(MIB)
    before = listing.read(shell, loops.view)
    with pytest.raises(DeviceDoubtful, match="none has appeared") as raised:
        find(shell, able, WANTED, before=before, patience=0.6, prefix=loops.view)
    assert all(str(device) in raised.value.message for device in before.devices)  # what was seen
    path = loops.attach(MIB * 4)
    proc.run(["mkswap", path])
    assert next(d for d in listing.read(shell, loops.view).devices if d.path == path).uses == ()
    with pytest.raises(DeviceDoubtful, match="not empty"):
        find(shell, able, Wanted(volume_id=LONG, size=MIB * 4), before=before, patience=0, prefix=loops.view)
