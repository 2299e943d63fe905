"""An image opened to be looked at: the guest's facts, from an appliance, and not a bit of the image changed.

The appliance writes (a filesystem's journal is replayed before it can be read, and a caller may try an edit); all of it
goes to a copy-on-write layer that has no name any more by the time it is used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder import durable
from builder.errors import FormatRefused
from builder.guest import overlay
from builder.guest.guest import NO_EXCHANGE, Exchange, Guest
from builder.guest.overlay import Layer
from builder.guest.session import Session
from builder.image.identify import identify, require_safe
from builder.progress import SILENT, Progress


def layer_of(path: Path) -> Layer:
    """Return the image file at `path` as a layer that stands alone, its format established by us.

    Raises InputError when there is no such file; FormatRefused when it is no disk image, names other files, or is in
    a format that only a conversion makes safe to look into.
    """
    identity = identify(path)
    require_safe(identity)
    if identity.format not in ("raw", "qcow2"):
        raise FormatRefused(
            f"{path} is {identity.noun}, and guests are looked at in raw and qcow2 images",
            hint="Convert it first: a `convert` step, or `qemu-img convert -O qcow2` where you trust it.",
        )
    return Layer(path=path, format=identity.format)


@contextmanager
def look(
    base: Layer,
    *,
    session: Session | None = None,
    cache: Path | None = None,
    scratch: Path | None = None,
    exchange: Exchange = NO_EXCHANGE,
    progress: Progress = SILENT,
) -> Iterator[Guest]:
    """Open an image and hand out its guest; leaving the block ends the appliance, and nothing of either is left.

    The image is only read. What is written goes to a layer in `scratch` (the system's temporary directory without it),
    which has lost its name before the first fact is asked: a crash leaves nothing of it once qemu is dead, and one
    before that what the next look removes. `cache`
    remembers what kind of acceleration was proven. A `session` that was launched ahead is used, and ended in any case.
    `exchange` says where files copied out go. Raises GuestError (also: no root filesystem, or several), FormatRefused,
    DiskFull, HostError.
    """
    with session or Session(cache=cache) as appliance:
        with durable.scratch_in(scratch or Path(tempfile.gettempdir()), "emi-layer-") as directory:
            layer = overlay.create(base, directory / "overlay.qcow2", backing_name="image")
            progress.note("waiting for the appliance")
            progress.note(f"appliance launched in {appliance.launched():.1f} s")
            appliance.attach(layer)
        # qemu holds the file open, and nobody else is to have it
        yield Guest(appliance, exchange)
