"""Which cloud a sandbox is like, and what follows from that for all services."""

from __future__ import annotations

from dataclasses import dataclass

from builder.sandbox import settings
from builder.sandbox.wire import ACCOUNT

# The prefixes of image ids: of machines, kernels, ramdisks. Eucalyptus has either by a property of the cloud; these are
# the ones that it came with for years, and that tools of AWS stumble over.
_PREFIXES = {
    False: {"machine": "ami", "kernel": "aki", "ramdisk": "ari"},
    True: {"machine": "emi", "kernel": "eki", "ramdisk": "eri"},
}


@dataclass(frozen=True, kw_only=True)
class Personality:
    """The cloud that the sandbox is like; `release` is Eucalyptus', such as (4, 4, 2), and () with AWS'."""

    release: tuple[int, ...] = ()

    @classmethod
    def of(cls, chosen: settings.Settings) -> Personality:
        """Return a directory's."""
        return cls(release=tuple(map(int, chosen.release.split("."))) if chosen.release else ())

    @property
    def is_eucalyptus(self) -> bool:
        """Whether it is Eucalyptus, and not AWS."""
        return bool(self.release)

    def since(self, *release: int) -> bool:
        """Say whether it is Eucalyptus of this release or a later one."""
        return self.is_eucalyptus and self.release >= release

    def before(self, *release: int) -> bool:
        """Say whether it is Eucalyptus of an earlier release."""
        return self.is_eucalyptus and self.release < release

    def image_prefix(self, kind: str) -> str:
        """Return what the ids of images of that kind begin with: machine, kernel or ramdisk."""
        return _PREFIXES[self.is_eucalyptus][kind]

    @property
    def image_prefixes(self) -> tuple[str, ...]:
        """What ids of images begin with."""
        return tuple(_PREFIXES[self.is_eucalyptus].values())

    def is_administrator(self, account: str) -> bool:
        """Say whether the account is that of Eucalyptus' administrators: the directory's first one."""
        return account == ACCOUNT


AWS = Personality()
