"""Disks that firmware boots: partition tables, GRUB and its FAT filesystem, all written into one sparse file."""
