"""Every identifier of a disk derived from what the disk is made of: the same inputs, the same bytes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

_NAMESPACE = uuid.UUID("6d1d0f3c-5f0e-5a0c-9a52-0d7c1f5ba3e4")  # ours, for everything derived from an image's inputs


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Derives every identifier of a disk from its inputs."""

    seed: str

    def uuid(self, of: str) -> str:
        """Return the UUID of the part named `of`: the same inputs, the same UUID."""
        return str(uuid.uuid5(_NAMESPACE, f"{of}\n{self.seed}"))

    def volume_id(self) -> str:
        """Return the FAT volume id, 8 hexadecimal digits."""
        return self.uuid("volume")[:8]
