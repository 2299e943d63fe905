"""The headers of VMDK, VDI, VHDX and VHD images, read without trust, as far as needed to refuse or describe them.

Their bytes are then read by qemu, with the format stated. Layouts: VMware "Virtual Disk Format 5.0"; VirtualBox
`VDICore.h`; [MS-VHDX]; Microsoft "Virtual Hard Disk Image Format Specification" 1.0; and what qemu makes of each
(block/{vmdk,vdi,vhdx,vpc}.c), because qemu must see the same size and the same dangers as we do.
"""

from __future__ import annotations

import re
import struct
import uuid

from builder.image.identity import Header, Read, shown, size_dangers

_SECTOR = 512
_VMDK = struct.Struct("<4sIIQQQQIQQQ")  # magic … overHead, 72 bytes
_VMDK_TABLES = 1 << 20  # grain tables; the largest sparse VMDK (2 TiB) has 65536
_VMDK_DESCRIPTOR = 20 * _SECTOR
_VMDK_EXTENT = re.compile(rb'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)(?:\s+"([^"\n]*)")?', re.MULTILINE)
_GD_AT_END = (1 << 64) - 1
_VHDX_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_VHDX_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_VHDX_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_VHD_BY_SIZE = (b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0")
_VHD_MAX_GEOMETRY = 65535 * 16 * 255


def vmdk_descriptor(read: Read, size: int) -> Header:
    """Describe a VMDK that is only a text: always refused, because its data is in files that it names."""
    names = [name for _, name in _VMDK_EXTENT.findall(read(0, min(size, _VMDK_DESCRIPTOR)))]
    listed = ", ".join(shown(name.decode(errors="replace")) for name in names[:3]) or "other files"
    return Header(noun="a VMDK descriptor", dangers=(f"it holds no data itself but names {listed}",))


def vmdk3(read: Read, size: int) -> Header:  # noqa: ARG001 - one signature for all formats
    """Describe an ESX COWD sparse extent: refused, it is one of several files of a disk."""
    return Header(noun="a VMDK of the old COWD kind", dangers=("it is one extent of a disk in several files",))


def vmdk(read: Read, size: int) -> Header:
    """Describe a hosted sparse or stream-optimized VMDK."""
    head = read(0, _SECTOR)
    if len(head) < _SECTOR:
        return Header(noun="a VMDK image", dangers=("its header is cut off",))
    _, version, _, capacity, grain, desc_at, desc_size, per_table, _, gd_at, overhead = _VMDK.unpack_from(head)
    found = size_dangers(capacity * _SECTOR)
    if version not in (1, 2, 3):
        found.append(f"its version is {version}")
    if grain < 8 or per_table != 512 or capacity > _VMDK_TABLES * grain * per_table:
        found.append(f"its header claims absurd tables (grains of {grain} sectors, {per_table} in a table)")
    if overhead * _SECTOR > size:
        found.append("it is shorter than its own tables: the file may be cut off")
    if gd_at == _GD_AT_END:
        head = read(max(0, size - 2 * _SECTOR), _SECTOR)
        if head[:4] != b"KDMV" or _vmdk_shape(head) != (capacity, grain, per_table):
            found.append("its footer does not match its header: the file may be cut off")
    # qemu looks for a parent in the 20 sectors after the header, whatever the header says about them.
    text = read(_SECTOR, _VMDK_DESCRIPTOR)
    if desc_at:
        text += b"\n" + read(desc_at * _SECTOR, min(desc_size * _SECTOR, _VMDK_DESCRIPTOR))
    found += _vmdk_text_dangers(text)
    # qemu reads what lies beyond the end of the file as zeros, and says nothing.
    if not found and _vmdk_data_end(head, read, size) > size:
        found.append("it is shorter than the data it has: the file may be cut off")
    return Header(noun="a VMDK image", virtual_size=capacity * _SECTOR, dangers=tuple(found))


def _vmdk_shape(head: bytes) -> tuple[int, int, int]:
    _, _, _, capacity, grain, _, _, per_table, _, _, _ = _VMDK.unpack_from(head)
    return capacity, grain, per_table


def _vmdk_data_end(head: bytes, read: Read, size: int) -> int:
    """Return the byte after the last grain's first sector, from all grain tables; more than `size` when cut off."""
    capacity, grain, per_table = _vmdk_shape(head)
    gd_at = _VMDK.unpack_from(head)[9]
    tables = -(-capacity // (grain * per_table))
    if gd_at * _SECTOR + tables * 4 > size:
        return size + 1
    directory = struct.unpack(f"<{tables}I", read(gd_at * _SECTOR, tables * 4))
    used = sorted({at for at in directory if at})
    last = max(used, default=0)
    for at in used:
        table = read(at * _SECTOR, per_table * 4)
        if len(table) < per_table * 4:
            return size + 1
        last = max(last, *struct.unpack(f"<{per_table}I", table))
    return (last + 1) * _SECTOR


def _vmdk_text_dangers(text: bytes) -> list[str]:
    found = []
    if parent := re.search(rb'parentFileNameHint\s*=?\s*"?([^"\n\0]*)', text):
        found.append(f"it names {shown(parent[1].decode(errors='replace'))} as its parent, which would be read into it")
    for kind, name in dict.fromkeys(_VMDK_EXTENT.findall(text)):
        if kind != b"SPARSE" or b"/" in name or b"\\" in name:
            found.append(f"it names {shown(name.decode(errors='replace'))} as an extent ({kind.decode()})")
    return found


def vdi(read: Read, size: int) -> Header:
    """Describe a VirtualBox VDI."""
    head = read(0, _SECTOR)
    if len(head) < _SECTOR:
        return Header(noun="a VDI image", dangers=("its header is cut off",))
    version, _, kind = struct.unpack_from("<III", head, 68)
    data_at = struct.unpack_from("<I", head, 344)[0]
    disk_size, block_size, _, _, allocated = struct.unpack_from("<QIIII", head, 368)
    found = size_dangers(disk_size)
    if version != 0x10001:
        found.append(f"its version is {version:#x}")
    if kind not in (1, 2):
        found.append("it is a differencing image, which reads the rest from a parent")
    if any(head[424:456]):  # uuid_link and uuid_parent
        found.append("it names a parent image, which would be read into it")
    if block_size != 1 << 20:
        found.append(f"its blocks have {block_size} bytes")
    elif data_at + allocated * block_size > size:
        found.append("it is shorter than the blocks it has: the file may be cut off")
    return Header(noun="a VDI image", virtual_size=disk_size, dangers=tuple(found))


def vhdx(read: Read, size: int) -> Header:  # noqa: ARG001
    """Describe a Hyper-V VHDX: from its first region table to its metadata."""
    table = read(192 * 1024, 64 * 1024)
    if table[:4] != b"regi":
        table = read(256 * 1024, 64 * 1024)
    metadata_at = None
    if table[:4] == b"regi":
        for at in range(16, min(16 + 32 * struct.unpack_from("<I", table, 8)[0], len(table) - 31), 32):
            if uuid.UUID(bytes_le=table[at : at + 16]) == _VHDX_METADATA:
                metadata_at = struct.unpack_from("<Q", table, at + 16)[0]
    if metadata_at is None:
        return Header(noun="a VHDX image", dangers=("it has no metadata: the file may be cut off",))
    items = _vhdx_items(read, metadata_at)
    disk_size = int.from_bytes(items.get(_VHDX_SIZE, b""), "little")
    found = size_dangers(disk_size)
    if int.from_bytes(items.get(_VHDX_PARAMETERS, b"")[4:8], "little") & 2:
        found.append("it is a differencing disk, which reads the rest from a parent")
    return Header(noun="a VHDX image", virtual_size=disk_size, dangers=tuple(found))


def _vhdx_items(read: Read, metadata_at: int) -> dict[uuid.UUID, bytes]:
    if metadata_at >= 1 << 62:
        return {}
    table = read(metadata_at, 64 * 1024)
    if table[:8] != b"metadata":
        return {}
    items = {}
    for at in range(32, min(32 + 32 * struct.unpack_from("<H", table, 10)[0], len(table) - 31), 32):
        offset, length = struct.unpack_from("<II", table, at + 16)
        items[uuid.UUID(bytes_le=table[at : at + 16])] = read(metadata_at + offset, min(length, 8))
    return items


def vpc(read: Read, size: int) -> Header:
    """Describe a VHD, fixed or dynamic, from the copy of its footer that qemu would use."""
    footer = read(0, _SECTOR)
    if footer[:8] != b"conectix":
        footer = read(max(0, size - _SECTOR), _SECTOR)
    if len(footer) < _SECTOR:
        return Header(noun="a VHD image", dangers=("its footer is cut off",))
    data_at = int.from_bytes(footer[16:24], "big")
    current = int.from_bytes(footer[48:56], "big")
    cylinders, heads, sectors, kind = struct.unpack_from(">HBBI", footer, 56)
    geometry = cylinders * heads * sectors
    by_size = footer[28:32] in _VHD_BY_SIZE or geometry == _VHD_MAX_GEOMETRY
    virtual_size = current // _SECTOR * _SECTOR if by_size else geometry * _SECTOR
    found = size_dangers(virtual_size)
    if kind == 4:
        found.append("it is a differencing disk, which reads the rest from a parent")
    elif kind not in (2, 3):
        found.append(f"its disk type is {kind}")
    elif kind == 3 and (data_at >= size or read(data_at, 8) != b"cxsparse"):
        found.append("its dynamic header is missing: the file may be cut off")
    elif kind == 3 and b"conectix" not in read(max(0, size - _SECTOR), _SECTOR):
        found.append("its footer is missing: the file may be cut off")
    elif kind == 2 and virtual_size > size:
        found.append("it is shorter than the disk it claims: the file may be cut off")
    return Header(noun="a VHD image", virtual_size=virtual_size, dangers=tuple(found))


def is_vhd_footer(footer: bytes) -> bool:
    """Say whether 512 bytes are a VHD footer, checksum included."""
    if len(footer) != _SECTOR or footer[:8] != b"conectix":
        return False
    told = int.from_bytes(footer[64:68], "big")
    return told == ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF
