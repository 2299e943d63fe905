"""What a resize decides, on tables made by sfdisk and superblocks as far as they tell a size."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from pydantic import ValidationError

from builder import proc
from builder.errors import GuestError
from builder.guest.edits import Resize, Unchanged
from builder.guest.facts import Filesystem, KnownFacts
from pipelines.steps.resize import ResizeOptions, ResizeStep

STEP = ResizeStep()
MIB = 1 << 20
GIB = 1 << 30


def superblock(kind: str, size: int) -> bytes:
    """The start of a filesystem of that size."""
    block = bytearray(4096)
    match kind:
        case "ext4":
            struct.pack_into("<I", block, 1024 + 4, size >> 12)
            struct.pack_into("<I", block, 1024 + 24, 2)
            block[1024 + 56 : 1024 + 58] = b"\x53\xef"
            struct.pack_into("<I", block, 1024 + 96, 0x40)
        case "xfs":
            block[:16] = struct.pack(">4sIQ", b"XFSB", 4096, size >> 12)
        case "swap":
            struct.pack_into("<I", block, 1028, (size >> 12) - 1)
            block[4086:] = b"SWAPSPACE2"
    return bytes(block)


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """A disk of 64 MiB by sfdisk's script; `holds` says what is in each partition: type and size."""
    made: dict[bytes | None, tuple[bytes, dict[int | None, int]]] = {}

    def make(table: bytes | None, root: int | None, holds: dict[int | None, tuple[str, int]], **more) -> KnownFacts:
        if table not in made:
            made[table] = partitioned(tmp_path_factory.mktemp("disk") / "disk", table)
        first, starts = made[table]
        disk = bytearray(first)
        for number, (kind, size) in holds.items():
            disk[starts[number] : starts[number] + 4096] = superblock(kind, size)
        filesystems = [Filesystem(device=f"/dev/sda{number or ''}", type=kind) for number, (kind, _) in holds.items()]
        device = f"/dev/sda{root or ''}"
        return KnownFacts(filesystems=filesystems, disk=bytes(disk), root=device, disk_size=64 * MIB, **more)

    return make


def partitioned(disk: Path, table: bytes | None) -> tuple[bytes, dict[int | None, int]]:
    """Return a disk's first bytes and where its partitions begin."""
    with open(disk, "xb") as file:
        file.truncate(64 * MIB)
    starts: dict[int | None, int] = {None: 0}
    if table:
        proc.run(["sfdisk", "-q", disk], stdin=table)
        for line in proc.run(["sfdisk", "--dump", disk]).stdout.decode().splitlines():
            if line.startswith(str(disk)):
                name, _, rest = line.partition(" : ")
                starts[int(name.removeprefix(str(disk)))] = int(rest.split("start=")[1].split(",")[0]) * 512
    return disk.read_bytes()[: max(starts.values()) + 4096], starts


# Root last by place and first by number; its filesystem fills it.
CLOUD = (b"label: gpt\n15: start=2048, size=4M, type=U\n1: start=10240, size=40M\n", 1, {1: ("ext4", 40 * MIB)})
SWAP_LAST = (b"label: dos\n2048,81920,83\n83968,8192,82\n", 1, {1: ("ext4", 40 * MIB), 2: ("swap", 4 * MIB)})
GAP = (b"label: dos\n2048,40960,83\n83968,8192,82\n", 1, {1: ("ext4", 20 * MIB), 2: ("swap", 4 * MIB)})
LOGICAL = (b"label: dos\n2048,8192,83\n10240,,5\n12288,81920,83\n", 5, {1: ("ext4", 4 * MIB), 5: ("ext4", 40 * MIB)})
XFS = (b"label: gpt\n2048,81920\n", 1, {1: ("xfs", 40 * MIB)})
BARE = (None, None, {None: ("ext4", 64 * MIB)})
LOOSE = (b"label: gpt\n2048,81920\n", 1, {1: ("ext4", 20 * MIB)})


@pytest.mark.parametrize(
    ("layout", "options", "disk", "partition", "size"),
    [
        pytest.param(CLOUD, {"disk": "8 GiB"}, 8 * GIB, 1, 8186 * MIB, id="the root grows with the disk"),
        pytest.param(CLOUD, {"disk": 8 * GIB, "size": "keep"}, 8 * GIB, 1, None, id="the disk alone"),
        pytest.param(CLOUD, {"disk": 8 * GIB, "size": "1 GiB"}, 8 * GIB, 1, GIB, id="both"),
        pytest.param(CLOUD, {"disk": 32 * MIB}, 32 * MIB, 1, 26 * MIB, id="the root shrinks with the disk"),
        pytest.param(CLOUD, {"size": "fill"}, 64 * MIB, 1, 58 * MIB, id="free room at the end"),
        pytest.param(CLOUD, {"size": 13 * MIB + 1}, 64 * MIB, 1, 13 * MIB + 4096, id="rounded up"),
        pytest.param(CLOUD, {"disk": "minimum"}, 18 * MIB, 1, 12 * MIB, id="as small as can be"),
        pytest.param(CLOUD, {"disk": "minimum", "size": "keep"}, 46 * MIB, 1, None, id="as small as the partitions"),
        pytest.param(CLOUD, {"size": "minimum"}, 64 * MIB, 1, 12 * MIB, id="the partition only"),
        pytest.param(SWAP_LAST, {"disk": GIB, "partition": 2}, GIB, 2, 983 * MIB, id="swap, which is last"),
        pytest.param(GAP, {"size": "fill"}, 64 * MIB, 1, 40 * MIB, id="a gap"),
        pytest.param(GAP, {"disk": "minimum", "size": "keep"}, 45 * MIB, 1, None, id="mbr needs nothing at the end"),
        pytest.param(LOGICAL, {"disk": GIB}, GIB, 5, 1018 * MIB, id="logical"),
        pytest.param(XFS, {"disk": GIB}, GIB, 1, 1022 * MIB, id="xfs grows"),
        pytest.param(BARE, {"disk": GIB}, GIB, None, GIB, id="no table, grows"),
        pytest.param(BARE, {"disk": "minimum"}, 12 * MIB, None, 12 * MIB, id="no table, shrinks"),
        pytest.param(LOOSE, {"size": 40 * MIB}, 64 * MIB, 1, 40 * MIB, id="a filesystem that does not fill"),
    ],
)
def test_what_is_resized(facts, layout, options, disk, partition, size):
    found = facts(*layout, least_sizes={f"/dev/sda{layout[1] or ''}": 12 * MIB - 5})
    (edit,) = STEP.edits(ResizeOptions(**options), found, {})
    assert (edit.disk, edit.partition, edit.size) == (disk, partition, size)
    assert str(edit)


HAS_40 = "partition 1 (ext4) has 40 MiB already, on a disk of 64 MiB"


@pytest.mark.parametrize(
    ("layout", "options", "why"),
    [
        (CLOUD, {"disk": 64 * MIB, "size": "keep"}, HAS_40),
        (CLOUD, {"size": 40 * MIB}, HAS_40),
        (CLOUD, {"size": "minimum"}, HAS_40),
        (SWAP_LAST, {"size": "fill"}, f"{HAS_40}; partition 2 follows it"),
        (BARE, {"disk": 64 * MIB}, "the disk's own filesystem (ext4) has 64 MiB already, on a disk of 64 MiB"),
    ],
)  # fmt: skip
def test_what_has_its_size_is_left(facts, layout, options, why):
    found = facts(*layout, least_sizes={"/dev/sda1": 33 * MIB})
    assert STEP.edits(ResizeOptions(**options), found, {}) == Unchanged(why=why)


@pytest.mark.parametrize(
    ("layout", "options", "expected"),
    [
        (SWAP_LAST, {"disk": GIB}, "partition 1 .ext4. cannot fill the larger disk: partition 2 lies behind it"),
        (SWAP_LAST, {"size": "41 MiB"}, "has room for 40 MiB and not for 41 MiB: partition 2 begins there"),
        (
            CLOUD,
            {"size": 60 * MIB},
            "a disk of 64 MiB is too small for its partitions, which need 65.0 MiB with 60 MiB",
        ),
        (CLOUD, {"disk": 20 * MIB, "size": "keep"}, "a disk of 20 MiB is too small"),
        (SWAP_LAST, {"disk": 20 * MIB}, "a disk of 20 MiB is too small for its partitions, which need 45 MiB"),
        (CLOUD, {"size": 11 * MIB}, "partition 1 .ext4. has files for 12 MiB and cannot be made 11 MiB"),
        (CLOUD, {"disk": 16 * MIB}, "partition 1 .ext4. has files for 12 MiB and cannot be made 10 MiB"),
        (XFS, {"disk": 32 * MIB}, "partition 1 .xfs. cannot be made smaller"),
        (XFS, {"disk": "minimum"}, "partition 1 .xfs. cannot be made as small as possible"),
        (CLOUD, {"size": 8 * MIB, "partition": 15}, "partition 15 .nothing that is known. cannot be made larger"),
        (CLOUD, {"size": 8 * MIB, "partition": 3}, "no partition 3 to resize; it has 1, 15"),
        (LOGICAL, {"size": 8 * MIB, "partition": 2}, "partition 2 is the extended one"),
        (BARE, {"size": 8 * MIB, "partition": 1}, "no partition 1 to resize; it has no partition table"),
        (BARE, {"size": GIB}, "grows with the disk only"),
    ],
)
def test_what_cannot_be_says_why(facts, layout, options, expected):
    with pytest.raises(GuestError, match=expected) as caught:
        STEP.edits(ResizeOptions(**options), facts(*layout, least_sizes={"/dev/sda1": 12 * MIB}), {})
    assert caught.value.hint


def test_a_disk_has_whole_sectors(tmp_path):
    disk = tmp_path / "disk"
    with open(disk, "xb") as file:
        file.truncate(16 * MIB)
    proc.run(["fdisk", "-b", "4096", disk], stdin=b"g\nn\n\n256\n+4M\nw\n")
    known = KnownFacts(disk=disk.read_bytes(), disk_size=16 * MIB)
    with pytest.raises(GuestError, match="sectors of 4096 bytes cannot have 33554944 bytes") as caught:
        STEP.edits(ResizeOptions(disk=32 * MIB + 512, size="keep"), known, {})
    assert caught.value.hint == "Give `disk: 33558528`."


@pytest.mark.parametrize(("volumes", "expected"), [([2], 2), ([2, 3], None)])
def test_a_root_on_lvm_is_grown_by_its_only_partition(facts, volumes, expected):
    disk = facts(b"label: gpt\n2048,8192\n10240,8192\n18432,8192\n", None, {}).disk
    members = [Filesystem(device=f"/dev/sda{number}", type="LVM2_member") for number in volumes]
    root = Filesystem(device="/dev/vg0/root", type="ext4")
    found = KnownFacts(root=root.device, disk=disk, disk_size=64 * MIB, filesystems=[*members, root])
    if expected is None:
        with pytest.raises(GuestError, match="the root is /dev/vg0/root, which lies on 2 partitions"):
            STEP.edits(ResizeOptions(size="keep", disk=GIB), found, {})
    else:
        (edit,) = STEP.edits(ResizeOptions(size="keep", disk=GIB), found, {})
        assert (edit.partition, edit.size) == (expected, None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "`disk` and `size` are both missing"),
        ({"partition": 1}, "`disk` and `size` are both missing"),
        ({"disk": "minimum", "size": "fill"}, "no room to fill"),
        ({"disk": 1000}, "`disk` must be a multiple of 512 bytes"),
        ({"disk": "65 TiB"}, "at most 64 TiB"),
        ({"disk": 0}, "`disk` must be"),
        ({"size": 4096}, "`size` must be from 1 MiB"),
        ({"disk": "20GB"}, None),
        ({"size": "minimum"}, None),
    ],
)
def test_options_are_checked(options, expected):
    problems = STEP.check(ResizeOptions(**options))
    assert not problems if expected is None else expected in problems[0]


@pytest.mark.parametrize("options", [{"disk": "large"}, {"partition": 0}, {"size": "-1"}, {"grow": True}])
def test_options_are_closed(options):
    with pytest.raises(ValidationError):
        ResizeOptions(**options)


def test_an_edit_says_its_sizes_without_a_reason_too():
    assert str(Resize(disk=5)) == "the disk has 5 bytes"
