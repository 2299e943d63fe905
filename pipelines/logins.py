"""How a run logs in to a helper: what its artifact says, and the private key that lies in EMI_HOME."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.progress import Progress
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair
from pipelines.artifact import Helper


def login(helper: Helper, root: Path) -> Login:
    """Return who logs in where; `root` is EMI_HOME. Raises InputError when the key cannot be read."""
    return Login(
        host=helper.address,
        port=helper.port,
        user=helper.user,
        key=KeyPair.read(root / helper.key_file),
        pinned=helper.host_keys,
        known_hosts=Path(helper.known_hosts) if helper.known_hosts else None,
    )


@contextmanager
def log_in(helper: Helper, root: Path, progress: Progress) -> Iterator[Shell]:
    """Run commands on the helper until the block ends; the connection is made when it is needed, and after each cut.

    Raises what Remote and Shell raise.
    """
    with Remote(login(helper, root), progress=progress) as remote:
        yield Shell(remote)
