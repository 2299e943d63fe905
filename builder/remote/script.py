"""A script on another machine, in a directory of its own that is removed afterwards."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from builder.errors import RemoteFailed, RemoteTrouble
from builder.remote.command import Said, Shell
from builder.retry import retrying

# $1 a directory of ours. A script that was killed may have left something mounted in it, the machine's own /dev or a
# volume: rm would empty that. Whatever cannot be let go of keeps the directory; in mountinfo \040 is a space.
_REMOVE = """\
parent=$(cd "${1%/*}/" && pwd -P) || exit 1
place=$parent/${1##*/}
mounted() {
    while read -r _ _ _ _ at _; do
        case $at in "$place" | "$place"/*) printf '%s\\n' "$at" ;; esac
    done </proc/self/mountinfo
}
found=$(mounted)
printf '%s\\n' "$found" | while read -r at; do
    [ -z "$at" ] || umount -l "$(printf '%b' "$at")" 2>/dev/null
done
left=$(mounted)
[ -z "$left" ] || { echo "not removed, since something is mounted there:" $left >&2; exit 1; }
rm -rf -- "$1"
"""


@dataclass(frozen=True, kw_only=True)
class Script:
    """What to run: a program in the directory (`name`) that its first line names an interpreter for, or else sh."""

    name: str
    interpreted: bool  # it begins with #!
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    limit: float = 3600  # seconds
    root: bool = True


@contextmanager
def workplace(shell: Shell, directory: str, *, root: bool) -> Iterator[str]:
    """Give an empty directory there, for the login alone; removed at the end where the machine can be reached.

    What a killed run left in it goes; with `root` also what only root may remove. What is mounted in it is unmounted,
    never removed; where that cannot be done the directory stays.
    """

    def remove() -> None:
        shell.script(
            shlex.join(["sh", "-c", _REMOVE, "sh", directory]), root=root, timeout=600, shown=f"removal of {directory}"
        )

    def make() -> None:
        remove()
        shell.run(["mkdir", "-m", "700", "--", directory], timeout=60)  # not -p: what is somebody else's is not taken

    retrying(make, attempts=4)
    try:
        yield directory
    finally:
        with suppress(RemoteFailed, RemoteTrouble):  # the next one removes it; what happened before counts more
            remove()


def run(shell: Shell, script: Script, directory: str, *, output: str = "") -> Said:
    """Run the script in the directory to its end; into the file `output` goes what it prints, where that is given.

    Ended at its limit, when the connection is cut, and when we die, with all its children. Nothing is its standard
    input, and there is no terminal. Raises RemoteFailed with its status and last words, RemoteTrouble, RemoteDenied.
    """
    words = ["env", *(f"{name}={value}" for name, value in script.environment.items())]
    words += [f"./{script.name}"] if script.interpreted else ["sh", f"./{script.name}"]
    command = shlex.join([*words, *script.arguments])
    text = f"cd {shlex.quote(directory)} && exec {command}" + (f" >{shlex.quote(output)}" if output else "")
    with shell.start(text, root=script.root, streams=False, timeout=script.limit, shown=script.name) as running:
        return running.finish()
