"""How a run logs in to a helper: what its artifact says, and the private key that lies in EMI_HOME."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from builder.cloud.api import Cloud
from builder.cloud.instances import is_running
from builder.errors import CloudFailed, CloudTrouble
from builder.progress import Progress
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair
from pipelines.artifact import Helper

_NEXT = "What was written stays in its volume: `emi resume` goes on with it."


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
def log_in(helper: Helper, root: Path, cloud: Cloud, progress: Progress) -> Iterator[Shell]:
    """Run commands on the helper until the block ends; the connection is made when it is needed, and after each cut.

    Raises what Remote and Shell raise, and CloudFailed when it does not answer because its instance ended or stopped.
    """
    with Remote(login(helper, root), look=lambda: _require_running(helper, cloud), progress=progress) as remote:
        yield Shell(remote)


def _require_running(helper: Helper, cloud: Cloud) -> None:
    with suppress(CloudTrouble):  # the cloud does not answer either: SSH may before it does
        record = cloud.describe_instance(helper.instance_id)
        if record is None:
            raise CloudFailed(f"instance {helper.instance_id}, which helps, is gone", hint=_NEXT)
        try:
            is_running(record)
        except CloudFailed as error:
            raise CloudFailed(f"{error.message}; the helper answers no more", hint=_NEXT) from error
