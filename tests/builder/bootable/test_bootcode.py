"""Where GRUB's images must lie, and what they must be told."""

from __future__ import annotations

import struct

import pytest

from builder.bootable import bootcode
from builder.errors import HostError


def test_the_boot_sector_keeps_the_partition_table_and_names_the_core():
    mbr = bytes(440) + b"SIGN\0\0" + bytes(range(64)) + b"\x55\xaa"
    sector = bootcode.boot_sector(mbr, b"\xcc" * 512, 2048)
    assert sector[0x1B8:] == mbr[0x1B8:]
    assert struct.unpack_from("<Q", sector, 0x5C) == (2048,)
    assert sector[0x66:0x68] == b"\x90\x90"
    assert sector[:3] == b"\xcc" * 3
    assert sector[0x03:0x5A] == mbr[0x03:0x5A]


@pytest.mark.parametrize(("length", "sectors"), [(512 + 1, 2), (1024, 2), (1025, 3)])
def test_the_first_sector_of_the_core_names_the_rest(length, sectors):
    core = bootcode.embedded_core(b"\xaa" * length, 2048)
    assert len(core) == sectors * 512
    assert struct.unpack_from("<QHH", core, 500) == (2049, sectors - 1, 0x820)


def test_a_core_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    with pytest.raises(HostError, match="larger than its"):
        bootcode.write(disk, bytes(512), b"c" * 1025, room=range(512, 1536))
    assert disk.read_bytes() == bytes(4096)
