"""Commands inside the guest: run by its own shell, in the appliance, with an end."""

from __future__ import annotations

import re
import shlex

from builder.errors import GuestError
from builder.guest.edits import Command
from builder.guest.session import Session

_KEPT = 64 << 10  # bytes of output: a libguestfs message holds 4 MiB, and a person reads the end
_TOLD = 12  # lines of a failed command's output that go into the error
_SCRIPT = "/.emi-command"
_OUTPUT = "/.emi-output"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ENVIRONMENT = (
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("TERM", "dumb"),
)
_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")  # glibc's, under its names; others take C
_FOREIGN = "Exec format error"  # ENOEXEC

# What the guest's shell is given; the words are quoted before they come in. One pipe for output and errors, so that
# lines keep their order; the status is its last line, since tail's own would hide it. Processes that the script leaves
# behind would hold the pipe open, and the guest's filesystems when they are to be unmounted: they are ended. Theirs
# are the processes with this root, but for this shell and its children, the two sides of the pipe.
_LINE = """\
{{ {variables} {words} 2>&1 </dev/null
status=$?
{{ while :; do
    left=
    for place in /proc/[0-9]*; do
        [ "$place/root" -ef / ] || continue
        pid=${{place#/proc/}} parent=
        while read -r name value; do [ "$name" = PPid: ] && parent=$value && break; done <"$place/status"
        [ "$pid" = $$ ] || [ "$parent" = $$ ] || {{ kill -9 "$pid" && left=$pid; }}
    done
    [ "$left" ] || break
done; }} 2>/dev/null
printf '\\n%s' "$status"; }} | tail -c {kept} >{output}
"""


def run(session: Session, command: Command) -> str:
    """Run the command and return the end of what it printed, made fit for a terminal.

    Everything must be mounted, writable. It has the network only when it asks for it. Raises GuestError when its exit
    status is not 0, with the last lines of its output; when the guest has no shell that runs here; and when it does
    not end within its limit: then the appliance was ended, and the session is of no more use.
    """
    if command.network and not session.network:
        raise GuestError(f"{command.why}: it needs the network, and its step did not ask for it")
    session.wire(up=command.network)
    body = command.script if command.script.startswith(b"#!") else b"#!/bin/sh\n" + command.script
    for path in (_SCRIPT, _OUTPUT):
        session.call("rm_f", path)  # an image may bring a link of that name
    session.call("write", _SCRIPT, body)
    session.call("chmod", 0o700, _SCRIPT)
    _shell(session, command)
    said = session.call("pread", _OUTPUT, _KEPT, 0)
    for path in (_SCRIPT, _OUTPUT):
        session.call("rm_f", path)
    output, status = _understood(said, command.secret)
    if status != "0":
        session.require_written()  # if not, that is why
        last = "\n".join(output.splitlines()[-_TOLD:])
        raise GuestError(f"{command.why}: {_ending(session, body, status)}" + (f", after\n{last}" if last else ""))
    return output


def _shell(session: Session, command: Command) -> None:
    locale = "C.UTF-8" if any(session.call("exists", path) for path in _LOCALES) else "C"
    environment = dict((*_ENVIRONMENT, ("LC_ALL", locale), *command.environment))
    line = _LINE.format(
        variables=" ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items()),
        words=shlex.join((_SCRIPT, *command.arguments)),
        kept=_KEPT,
        output=_OUTPUT,
    )
    try:
        session.call("sh", line, within=command.limit)
    except GuestError as error:
        if session.ended:
            raise GuestError(
                f"{command.why}: no end within {command.limit:g} s; the appliance was ended, and its edits are lost",
                hint="Raise its time limit, or find out what it waits for: its standard input is empty.",
            ) from error
        said = _blotted(error.message, command.secret)
        if _FOREIGN in said:
            said = "the guest's /bin/sh is for another processor than this host's, so that no command of it runs here"
        elif not session.call("is_file", "/bin/sh", followsymlinks=True):
            said = "the guest has no /bin/sh, and commands are run by it"
        raise GuestError(f"{command.why}: {said}") from error


def _ending(session: Session, body: bytes, status: str) -> str:
    """Say how it ended; a script whose interpreter is not there ends as if it were not there itself."""
    interpreter = body[2:].split(b"\n", 1)[0].strip().split(b" ")[0].decode("utf-8", "surrogateescape")
    if status == "127" and interpreter.startswith("/") and not session.call("exists", interpreter):
        return f"the guest has no {interpreter}, which its first line asks for"
    return f"exit status {status or 'unknown'}"


def _understood(said: bytes, secrets: tuple[str, ...]) -> tuple[str, str]:
    """Return the output, fit for a terminal and without secrets, and the exit status that stands in its last line."""
    text, _, status = said.decode("utf-8", "replace").rpartition("\n")
    if len(said) == _KEPT:
        text = _without_rest(text.lstrip("\N{REPLACEMENT CHARACTER}"), secrets)
    plain = _CONTROL.sub("", _blotted(text, secrets).replace("\r\n", "\n"))
    return _blotted(plain, secrets).strip("\n"), status


def _without_rest(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text, whose beginning was cut, without what it may begin with: the rest of a secret."""
    rests = (secret[at:] for secret in secrets for at in range(1, len(secret)))
    return text.removeprefix(max((rest for rest in rests if text.startswith(rest)), key=len, default=""))


def _blotted(text: str, secrets: tuple[str, ...]) -> str:
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text
