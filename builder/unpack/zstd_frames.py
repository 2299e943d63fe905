"""Walk over the frames of a zstd file without decompressing it.

The streaming reader of the zstandard package takes a file that ends in the middle of a frame for a finished one, and
its incremental decompressor can be made to return gigabytes from one call. So the reader is used for the bytes, and
this walk for whether all are there: it reads three bytes per block (RFC 8878, 3.1.1), about 8000 for a gigabyte.
"""

from __future__ import annotations

from typing import BinaryIO

import zstandard

from builder.errors import ArchiveRefused

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte 0x50 to 0x5f (RFC 8878, 3.1.2)
_LONGEST_HEADER = 18  # RFC 8878, 3.1.1.1, with the magic
_RLE = 1


def require_whole(file: BinaryIO, name: str) -> None:
    """Return if `file` is whole frames from its beginning to its end. Raises ArchiveRefused. Leaves it at its end."""
    end = file.seek(0, 2)
    position = 0
    while position < end:
        file.seek(position)
        head = file.read(_LONGEST_HEADER)
        if head[:4] == _MAGIC:
            position = _after_frame(file, position, head, name)
        elif head[1:4] == _SKIPPABLE and head[0] & 0xF0 == 0x50:
            position += 8 + int.from_bytes(head[4:8], "little")
        else:
            raise ArchiveRefused(f"{name}: {end - position} bytes that are no zstd follow its end", hint=HINT)
    if position != end:
        raise ArchiveRefused(f"{name} is cut off: its last zstd frame is not whole", hint=HINT)


HINT = "Download it again; if the publisher's own file is damaged, tell them."


def _after_frame(file: BinaryIO, position: int, head: bytes, name: str) -> int:
    """Return where the frame that begins at `position` ends; beyond the file's end if it is cut off."""
    try:
        parameters = zstandard.get_frame_parameters(head)
        position += zstandard.frame_header_size(head)
    except zstandard.ZstdError as error:
        raise ArchiveRefused(f"{name}: damaged zstd frame ({error})", hint=HINT) from error
    while True:
        file.seek(position)
        header = file.read(3)
        word = int.from_bytes(header, "little")
        last, kind, size = word & 1, word >> 1 & 3, word >> 3
        position += 3 + (1 if kind == _RLE else size)
        if last or len(header) < 3:
            checksum = 4 if parameters.has_checksum else 0
            return position + checksum
