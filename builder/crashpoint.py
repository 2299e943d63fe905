"""Named moments at which a test may kill or stop this process, chosen by data.

`EMI_CRASH_AT=NAME[@N]` ends the process with SIGKILL the Nth time (default: the first) the moment NAME is reached,
so that a sweep can cut a real run at every durable write and every cloud call. `EMI_STOP_AT=NAME[@N]` stops it with
SIGSTOP there, until SIGCONT. `EMI_CRASH_LOG=FILE` appends the name of each moment reached, which is how a sweep learns
the list. With none of them set, reaching a moment costs one comparison.
"""

from __future__ import annotations

import os
import signal

_LOG = os.environ.get("EMI_CRASH_LOG")
_SIGNALS = {
    os.environ.get(variable, ""): number
    for variable, number in (("EMI_CRASH_AT", signal.SIGKILL), ("EMI_STOP_AT", signal.SIGSTOP))
}
_ACTIVE = bool(_LOG or any(_SIGNALS))
_reached: dict[str, int] = {}


def reach(name: str) -> None:
    """Send ourselves the signal that was asked for if this is the moment; otherwise return."""
    if not _ACTIVE:
        return
    # Counted in a local: another thread may count on before the comparison, and the Nth time must not be missed.
    count = _reached[name] = _reached.get(name, 0) + 1
    if _LOG:
        with open(_LOG, "a", encoding="utf-8") as log:
            log.write(f"{name}@{count}\n")
    number = _SIGNALS.get(f"{name}@{count}") or (_SIGNALS.get(name) if count == 1 else None)
    if number:
        os.kill(os.getpid(), number)
