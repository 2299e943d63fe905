"""Named moments at which a test may kill this process, chosen by data.

`EMI_CRASH_AT=NAME[@N]` ends the process with SIGKILL the Nth time (default: the first) the moment NAME is reached,
so that a sweep can stop a real run at every durable write and every cloud call. Unset, reaching a moment costs one
dictionary look-up. `EMI_CRASH_LOG=FILE` appends the name of each moment reached, which is how a sweep learns the list.
"""

from __future__ import annotations

import os
import signal

_WANTED, _, _COUNT = os.environ.get("EMI_CRASH_AT", "").partition("@")
_LOG = os.environ.get("EMI_CRASH_LOG")
_reached: dict[str, int] = {}


def reach(name: str) -> None:
    """Die here if `EMI_CRASH_AT` is `NAME` or `NAME@N` and this is the Nth time; otherwise return."""
    if not _WANTED and not _LOG:
        return
    # Counted in a local: another thread may count on before the comparison, and the Nth time must not be missed.
    count = _reached[name] = _reached.get(name, 0) + 1
    if _LOG:
        with open(_LOG, "a", encoding="utf-8") as log:
            log.write(f"{name}@{count}\n")
    if name == _WANTED and count == int(_COUNT or 1):
        os.kill(os.getpid(), signal.SIGKILL)
