"""The header of a qcow2 image, read without trust. Source of every constant: qemu, docs/interop/qcow2.txt."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from builder.errors import FormatRefused
from builder.image.identity import MAX_VIRTUAL_SIZE, Header, Read, shown, size_dangers

MAGIC = b"QFI\xfb"
HEAD = 64 * 1024  # bytes of the file that read_header looks at: the smallest that hold every extension in practice
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")  # 72 bytes: magic … snapshots_offset
_V3 = struct.Struct(">QQQII")  # 32 bytes: incompatible, compatible, autoclear, refcount_order, header_length
_CORRUPT, _DATA_FILE, _EXTENDED_L2 = 1 << 1, 1 << 2, 1 << 4
_KNOWN = 0b11111  # dirty, corrupt, external data file, compression type, extended L2
_L1_LIMIT = 32 << 20  # bytes of L1 table; qemu's QCOW_MAX_L1_SIZE
_BACKING_NAME_LIMIT = 1023
_END, _DATA_FILE_NAME, _FULL_DISK_ENCRYPTION = 0, 0x44415441, 0x0537BE77
_EXTENSION_LIMIT = 64
ZLIB, ZSTD = 0, 1


@dataclass(frozen=True, kw_only=True)
class Qcow2Header:
    """The fields that matter for reading; offsets and sizes are bytes unless the name says otherwise."""

    version: int
    cluster_bits: int
    virtual_size: int
    l1_entries: int
    l1_offset: int
    encryption: int
    incompatible: int
    compression: int
    backing_file: str | None
    data_file: str | None

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        """How many clusters one L2 table, itself a cluster, describes."""
        return self.cluster_size // (16 if self.extended_l2 else 8)

    @property
    def extended_l2(self) -> bool:
        """Say whether L2 entries carry subclusters, which our reader leaves to qemu."""
        return bool(self.incompatible & _EXTENDED_L2)


def read_header(head: bytes) -> Qcow2Header:
    """Return the header at the start of `head` (the file's first HEAD bytes).

    Raises FormatRefused when it cannot be read as one at all; what can be read but not be trusted is told by `dangers`.
    """
    if len(head) < _V2.size or head[:4] != MAGIC:
        raise FormatRefused("the qcow2 header is cut off or missing")
    _, version, backing_at, backing_length, bits, size, encryption, l1_entries, l1_at = _V2.unpack_from(head)[:9]
    if version not in (2, 3):
        raise FormatRefused(f"it is qcow version {version}, and only 2 and 3 exist as qcow2")
    if not 9 <= bits <= 21:
        raise FormatRefused(f"its header claims clusters of 2^{bits} bytes, and only 2^9 to 2^21 are allowed")
    incompatible, length, compression = 0, _V2.size, ZLIB
    if version == 3:
        if len(head) < _V2.size + _V3.size:
            raise FormatRefused("the qcow2 header is cut off")
        incompatible, _, _, _, length = _V3.unpack_from(head, _V2.size)
        compression = head[104] if length > 104 and len(head) > 104 else ZLIB
    extensions = dict(_extensions(head, length)) if version == 3 or backing_at else {}
    data_file = extensions.get(_DATA_FILE_NAME)
    return Qcow2Header(
        version=version,
        cluster_bits=bits,
        virtual_size=size,
        l1_entries=l1_entries,
        l1_offset=l1_at,
        encryption=encryption or (2 if _FULL_DISK_ENCRYPTION in extensions else 0),
        incompatible=incompatible,
        compression=compression,
        backing_file=_name(head, backing_at, backing_length) if backing_at else None,
        data_file=None if data_file is None else data_file.decode(errors="replace"),
    )


def _extensions(head: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    for _ in range(_EXTENSION_LIMIT):
        if at + 8 > len(head):
            return
        kind, length = struct.unpack_from(">II", head, at)
        if kind == _END or at + 8 + length > len(head):
            return
        yield kind, head[at + 8 : at + 8 + length]
        at += 8 + -(-length // 8) * 8


def _name(head: bytes, at: int, length: int) -> str:
    if length > _BACKING_NAME_LIMIT or at + length > len(head):
        return f"(a name of {length} bytes at {at})"
    return head[at : at + length].decode(errors="replace")


def dangers(header: Qcow2Header, file_size: int) -> list[str]:
    """Return every reason not to open an image with this header, a clause each; a backing file is not among them."""
    found = size_dangers(header.virtual_size)
    if header.encryption:
        found.append("it is encrypted")
    if header.incompatible & _DATA_FILE or header.data_file is not None:
        name = shown(header.data_file or "a file it does not name")
        found.append(f"it keeps its data in an external data file, {name}")
    if header.incompatible & _CORRUPT:
        found.append("it is marked corrupt")
    if unknown := header.incompatible & ~_KNOWN:
        found.append(f"it needs features that do not exist (incompatible bits {unknown:#x})")
    if header.compression not in (ZLIB, ZSTD):
        found.append(f"it is compressed by an unknown method ({header.compression})")
    return found + _l1_dangers(header, file_size)


def _l1_dangers(header: Qcow2Header, file_size: int) -> list[str]:
    per_entry = header.cluster_size * header.l2_entries
    needed = -(-header.virtual_size // per_entry)
    size = header.l1_entries * 8
    if size > _L1_LIMIT:
        return [f"its header claims an L1 table of {size} bytes"]
    if header.virtual_size <= MAX_VIRTUAL_SIZE and header.l1_entries < needed:
        return [f"its L1 table has {header.l1_entries} entries where its size needs {needed}"]
    if header.l1_offset % header.cluster_size or header.l1_offset + size > file_size:
        return ["its L1 table does not lie within the file, which may be cut off"]
    return []


def describe(read: Read, file_size: int) -> Header:
    """Return what a qcow2 header says, dangers included."""
    try:
        header = read_header(read(0, HEAD))
    except FormatRefused as refused:
        return Header(noun="a qcow2 image", dangers=(refused.message,))
    return Header(
        noun="a qcow2 image",
        virtual_size=header.virtual_size,
        backing_file=header.backing_file,
        dangers=tuple(dangers(header, file_size)),
    )
