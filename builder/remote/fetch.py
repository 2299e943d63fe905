"""Write an image that the other machine downloads itself: its bytes never pass through us.

Download (resumed where the server lets it), SHA-256, decompression, conversion to a raw file there; then only the 512
KiB blocks that differ are copied to the device, and both are compared block by block, what the device has read from it.
A crash leaves `emi-fetch-SHA256` in the scratch directory, which the next attempt carries on with.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

from builder.digest import BLOCK
from builder.errors import ChecksumMismatch, FormatRefused, RemoteError, WriteLost
from builder.progress import SILENT, Progress
from builder.remote import abilities
from builder.remote.abilities import Abilities
from builder.remote.command import Shell
from builder.remote.lanes import CONNECTIONS, Lanes, blocks_digest, runs_of
from builder.remote.target import Target
from builder.remote.write import Written

_HOURS = 3600
_UNPACK: Mapping[str, tuple[str, str]] = {
    "gz": ("gzip", "gzip -dc"),
    "xz": ("xz", "xz -dc"),
    "bz2": ("bzip2", "bzip2 -dc"),
    "zst": ("zstd", "zstd -dcq"),
}
# $1 directory, $2 URL, $3 SHA-256. The directory's name can be guessed, so it must be ours alone.
_DOWNLOAD = """\
mkdir -m 700 "$1" 2>/dev/null || { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]; } || {
    echo "$1 is somebody else's" >&2; exit 1
}
cd "$1" || exit 1
right() { [ -f got ] && [ "$(sha256sum <got | cut -d' ' -f1)" = "$3" ]; }
right "$@" && exit 0
if command -v curl >/dev/null; then
    curl -fsSL --retry 3 -C - -o got -- "$2" || { rm -f got; curl -fsSL --retry 3 -o got -- "$2"; } || exit 1
elif command -v wget >/dev/null; then
    wget -q -c -O got -- "$2" || exit 1
else
    "$4" -c 'import shutil, sys, urllib.request as u; shutil.copyfileobj(u.urlopen(sys.argv[1]), open("got", "wb"))' \\
        "$2" || exit 1
fi
right "$@" && exit 0
echo "sha256 $(sha256sum <got | cut -d' ' -f1)"
rm -f got
exit 99
"""
# $1 source, $2 target, $3 bytes of a block; runs on the input
_COPY = """\
while read -r first count; do
    said=$(dd if="$1" of="$2" bs="$3" skip="$first" seek="$first" count="$count" conv=notrunc 2>&1) ||
        { echo "dd: $said" >&2; exit 1; }
done
"""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to download: an address, the SHA-256 of what lies there, its compression and the image's format."""

    url: str
    sha256: str  # 64 hex digits
    format: str  # in qemu-img's words; never guessed, as the image is not trusted
    compression: Literal["", "gz", "xz", "bz2", "zst"] = ""


def fetch_and_write(
    source: Source,
    shell: Shell,
    path: str,
    *,
    blank: bool = False,
    expected: str | None = None,
    scratch: str = "/var/tmp",  # noqa: S108 - there, where the name is made safe
    progress: Progress = SILENT,
) -> Written:
    """Have the machine download the image and make the first bytes of `path` equal to it; otherwise as `write.write`.

    `scratch` is a directory there with room for the download and the image's data. Raises ChecksumMismatch,
    FormatRefused (an image that names other files), and what `write` raises; a download that fails is RemoteFailed.
    """
    able = abilities.ask(shell)
    able.require(shell, "sha256sum", "dd", *([] if source.format == "raw" else ["qemu-img"]))
    if not (able.tools & {"curl", "wget"} or able.python):
        raise RemoteError(f"{shell.name} has neither curl nor wget nor Python, so it cannot download")
    directory = f"{scratch}/emi-fetch-{source.sha256}"
    progress.note(f"{shell.name} downloads {source.url}")
    _download(shell, able, source, directory)
    raw, size = _to_raw(shell, able, source, directory)
    target = Target.prepare(shell, able, path, size)
    origin = replace(target, path=raw, root=False, device=False)
    with ExitStack() as stack:
        shells = [shell, *(Shell(stack.enter_context(shell.remote.another())) for _ in range(CONNECTIONS - 1))]
        written, digest = _copy(shells, origin, target, blank=blank or target.new, progress=progress)
    if expected is not None and digest != expected:
        raise ChecksumMismatch(f"{source.url} has the content {digest}, not {expected}")
    shell.run(["rm", "-rf", "--", directory])
    return Written(digest=digest, sent=0, written=written)


def _download(shell: Shell, able: Abilities, source: Source, directory: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", source.sha256):
        raise ChecksumMismatch(f"{source.sha256!r} is not a SHA-256 in hex")
    words = ["sh", "-c", _DOWNLOAD, "sh", directory, source.url, source.sha256, able.python]
    shown = f"download of {source.url}"
    said = shell.script(shlex.join(words), timeout=6 * _HOURS, allowed=(0, 99), shown=shown)
    if said.status == 99:
        found = said.stdout.decode().split()[-1]
        raise ChecksumMismatch(f"{source.url} has the SHA-256 {found}, not {source.sha256}, as {shell.name} got it")


def _to_raw(shell: Shell, able: Abilities, source: Source, directory: str) -> tuple[str, int]:
    """Make a raw file of the download; return its path and the size of the disk."""
    image = f"{directory}/got"
    if source.compression:
        tool, command = _UNPACK[source.compression]
        able.require(shell, tool)
        text = f"cd {shlex.quote(directory)} && {command} <got >image.new && mv image.new image"
        shell.script(text, timeout=6 * _HOURS, shown=f"{command} of {source.url}")
        image = f"{directory}/image"
    if source.format == "raw":
        return image, int(shell.script(f"wc -c <{shlex.quote(image)}", timeout=60).stdout)
    info = ["qemu-img", "info", "--output=json", "-f", source.format, image]
    told = json.loads(shell.run(info, timeout=60).stdout)
    named = told.get("backing-filename") or told.get("format-specific", {}).get("data", {}).get("data-file")
    if named:
        raise FormatRefused(f"{source.url} names another file, {named}, which a download must not")
    raw = f"{directory}/raw"
    shell.run(["qemu-img", "convert", "-f", source.format, "-O", "raw", image, raw], timeout=6 * _HOURS)
    return raw, int(told["virtual-size"])


def _copy(shells: list[Shell], origin: Target, target: Target, *, blank: bool, progress: Progress) -> tuple[int, str]:
    """Copy what differs, there; return the bytes written and the digest that the device has afterwards."""
    count = -(-target.size // BLOCK)
    lanes, source = Lanes(target, shells, progress), Lanes(origin, shells, progress)
    wanted = source.survey(range(count), BLOCK)
    there: dict[int, bytes] = {}
    if not blank:
        lanes.settle()
        there = lanes.survey(range(count), BLOCK)
    differing = [index for index in range(count) if wanted.get(index) != there.get(index)]
    if differing:
        progress.note(f"writing {len(differing)} blocks of 512 KiB")
        words = shlex.join(["sh", "-c", _COPY, "sh", origin.path, target.path, str(BLOCK)])
        runs = "".join(f"{first} {length}\n" for first, length in runs_of(differing))
        shown = f"dd to {target.path}"
        shells[0].script(words, root=target.root, stdin=runs.encode(), timeout=6 * _HOURS, shown=shown)
    if differing or blank:
        lanes.settle()
        asked = range(count) if blank else differing
        found = lanes.survey(asked, BLOCK)
        for index in asked:
            there.pop(index, None)
        there |= found
    if lost := [index for index in range(count) if wanted.get(index) != there.get(index)]:
        raise WriteLost(f"{target.path} on {shells[0].name} differs from the image in {len(lost)} of {count} blocks")
    return len(differing) * BLOCK, blocks_digest(there, target.size)
