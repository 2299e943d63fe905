"""Commands inside the guest: run by its own shell, in the appliance, with an end."""

from __future__ import annotations

import re
import shlex

from builder.errors import GuestError
from builder.guest.edits import Command
from builder.guest.session import Session

_KEPT = 64 << 10  # bytes of output: a libguestfs message holds 4 MiB, and a person reads the end
_TOLD = 12  # lines of a failed command's output that go into the error
_SCRIPT = "/tmp/.emi-command"  # noqa: S108 - in the guest, which runs nothing else
_OUTPUT = "/tmp/.emi-output"  # noqa: S108 - as above
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


def run(session: Session, command: Command) -> str:
    """Run the command and return the end of what it printed, made fit for a terminal.

    Everything must be mounted, writable. Raises GuestError when its exit status is not 0, with the last lines of its
    output; and when it does not end within its limit: then the appliance was ended, and the session is of no more use.
    """
    body = command.script if command.script.startswith(b"#!") else b"#!/bin/sh\n" + command.script
    session.call("mkdir_p", "/tmp")  # noqa: S108 - in the guest
    session.call("write", _SCRIPT, body)
    session.call("chmod", 0o700, _SCRIPT)
    # One pipe for both, so that lines keep their order; the status is its last line, since tail's would hide it.
    words = shlex.join((_SCRIPT, *command.arguments))
    variables = shlex.join(f"{name}={value}" for name, value in (("LC_ALL", "C.UTF-8"), *command.environment))
    line = f"{{ env {variables} {words} 2>&1 </dev/null; printf '\\n%s' \"$?\"; }} | tail -c {_KEPT} >{_OUTPUT}"
    session.call("sh", line, within=command.limit)
    said = session.call("pread", _OUTPUT, _KEPT, 0).decode("utf-8", "replace")
    for path in (_SCRIPT, _OUTPUT):
        session.call("rm_f", path)
    output, _, status = said.rpartition("\n")
    output = _plain(output, command.secret)
    if status != "0":
        last = "\n".join(output.splitlines()[-_TOLD:])
        raise GuestError(f"{command.why}: exit status {status or 'unknown'}" + (f", after\n{last}" if last else ""))
    return output


def _plain(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return _CONTROL.sub("", text.replace("\r\n", "\n")).strip("\n")
