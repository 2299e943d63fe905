"""Decompress a file, or take one member out of an archive: as a stream, sparse, and bounded."""

from builder.unpack.unpacking import DEFAULT_MAX_SIZE, Packing, Unpacked, packing, unpack

__all__ = ["DEFAULT_MAX_SIZE", "Packing", "Unpacked", "packing", "unpack"]
