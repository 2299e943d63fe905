"""Disk images: formats, data extents, partition tables."""
