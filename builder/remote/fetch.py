"""Write an image that the other machine downloads itself: its bytes never pass through us.

Download (resumed where the server lets it), checksum, decompression, conversion to a raw file there; then only the 512
KiB blocks that differ are copied to the device, and both are compared block by block, what the device has read from it.
A crash leaves `emi-fetch-CHECKSUM` in the scratch directory, which the next attempt carries on with.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from builder.digest import BLOCK
from builder.errors import (
    ChecksumMismatch,
    DeviceMoved,
    FormatRefused,
    RemoteError,
    RemoteFailed,
    RemoteTrouble,
    WriteLost,
)
from builder.progress import SILENT, Progress
from builder.remote import abilities
from builder.remote.abilities import Abilities
from builder.remote.command import Shell
from builder.remote.lanes import CONNECTIONS, Lanes, blocks_digest, runs_of
from builder.remote.target import Target
from builder.remote.write import Written
from builder.retry import retrying
from builder.verify import Checksum

_HOURS = 3600
_ATTEMPTS = 5  # with cuts, killed programs and new starts of the machine between them
_UNPACK: Mapping[str, tuple[str, str]] = {
    "gz": ("gzip", "gzip -dc"),
    "xz": ("xz", "xz -dc"),
    "bz2": ("bzip2", "bzip2 -dc"),
    "zst": ("zstd", "zstd -dcq"),
}
# $1 directory, $2 URL, $3 the sum in hex, $4 its program, $5 Python. The directory's name can be guessed, so it must be
# ours alone. curl does not say that a disk is full.
_DOWNLOAD = """\
mkdir -m 700 "$1" 2>/dev/null || { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]; } || {
    echo "$1 is somebody else's, or cannot be made" >&2; exit 1
}
cd "$1" || exit 1
url=$2 wanted=$3 sum=$4 python=$5
right() { [ -f got ] && [ "$("$sum" <got | cut -d' ' -f1)" = "$wanted" ]; }
failed() {
    set -- $(stat -f -c '%a %S' . 2>/dev/null)
    [ $((${1:-99999} * ${2:-4096})) -ge 500000 ] || echo "No space left on device: $PWD is full" >&2
    exit 1
}
right && exit 0
if command -v curl >/dev/null; then
    curl -fsSL --retry 3 -C - -o got -- "$url" || { rm -f got; curl -fsSL --retry 3 -o got -- "$url"; } || failed
elif command -v wget >/dev/null; then
    wget -nv -c -O got -- "$url" || failed  # -q would keep the reason to itself
else
    "$python" -c 'import shutil, sys, urllib.request as u
shutil.copyfileobj(u.urlopen(sys.argv[1]), open("got", "wb"))' "$url" || failed
fi
right && exit 0
echo "sum $("$sum" <got | cut -d' ' -f1)"
rm -f got
exit 99
"""
# $1 source, $2 target, $3 bytes of a block; runs on the input
_COPY = """\
while read -r first count; do
    said=$(dd if="$1" of="$2" bs="$3" skip="$first" seek="$first" count="$count" conv=notrunc 2>&1) ||
        { status=$?; echo "dd: $said" >&2; exit "$status"; }  # which tells of one that was killed
done
"""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to download: an address, the checksum of what lies there, its compression and the image's format."""

    url: str  # as that machine reaches it
    checksum: Checksum
    format: str  # in qemu-img's words; never guessed, as the image is not trusted
    compression: Literal["", "gz", "xz", "bz2", "zst"] = ""


def fetch_and_write(
    source: Source,
    shell: Shell,
    path: str | Callable[[], str],
    *,
    blank: bool = False,
    expected: str | None = None,
    scratch: str = "/var/tmp",  # noqa: S108 - there, where the name is made safe
    progress: Progress = SILENT,
) -> Written:
    """Have the machine download the image and make the first bytes of `path` equal to it; otherwise as `write.write`.

    `scratch` is a directory there with room for the download and the image's data. A cut connection, a killed program
    and a new start of the machine are gone on after. Raises ChecksumMismatch, FormatRefused (an image that names other
    files), and what `write` raises; a download that fails is RemoteFailed.
    """
    able = abilities.ask(shell)
    program = f"{source.checksum.algorithm}sum"
    able.require(shell, program, "sha256sum", "dd", *([] if source.format == "raw" else ["qemu-img"]))
    if not (able.tools & {"curl", "wget"} or able.python):
        raise RemoteError(f"{shell.name} has neither curl nor wget nor Python, so it cannot download")
    directory = f"{scratch}/emi-fetch-{source.checksum.value[:64]}"

    def attempt(*, first: bool) -> Written:
        progress.note(f"{shell.name} downloads {source.url}")
        _download(shell, able, source, directory)
        raw, size = _to_raw(shell, able, source, directory)
        target = Target.prepare(shell, able, path() if callable(path) else path, size)
        return _written(shell, raw, target, blank=target.new or (blank and first), progress=progress)

    try:
        done = _going_on(attempt, progress, anew=callable(path))
    except (ChecksumMismatch, FormatRefused):  # no later attempt can use what is there
        with suppress(RemoteFailed, RemoteTrouble):
            shell.run(["rm", "-rf", "--", directory])
        raise
    if expected is not None and done.digest != expected:
        raise ChecksumMismatch(f"{source.url} has the content {done.digest}, not {expected}")
    retrying(lambda: shell.run(["rm", "-rf", "--", directory]), attempts=4)
    return done


class _Attempt(Protocol):
    def __call__(self, *, first: bool) -> Written: ...


def _going_on(attempt: _Attempt, progress: Progress, *, anew: bool) -> Written:
    """Return what the attempt returns, which is made again after what may pass; a new start is that if `anew`."""
    for number in range(_ATTEMPTS):
        try:
            return attempt(first=number == 0)
        except (RemoteTrouble, RemoteFailed, DeviceMoved) as error:
            passes = error.killed if isinstance(error, RemoteFailed) else anew or isinstance(error, RemoteTrouble)
            if not passes or number == _ATTEMPTS - 1:
                raise
            progress.note(f"going on after: {error}")
    raise AssertionError("the last attempt neither ended nor failed")


def _download(shell: Shell, able: Abilities, source: Source, directory: str) -> None:
    wanted = source.checksum
    words = [directory, source.url, wanted.value, f"{wanted.algorithm}sum", able.python]
    shown = f"download of {source.url}"
    said = shell.script(
        shlex.join(["sh", "-c", _DOWNLOAD, "sh", *words]), timeout=6 * _HOURS, allowed=(0, 99), shown=shown
    )
    if said.status == 99:
        found = f"{wanted.algorithm}:{said.stdout.decode().split()[-1]}"
        raise ChecksumMismatch(f"{source.url} has {found}, not {wanted}, as {shell.name} got it")


def _written(shell: Shell, raw: str, target: Target, *, blank: bool, progress: Progress) -> Written:
    """Copy the raw file there to the target."""
    origin = replace(target, path=raw, root=False, device=False, mark="")
    with ExitStack() as stack:
        shells = [shell, *(Shell(stack.enter_context(shell.remote.another())) for _ in range(CONNECTIONS - 1))]
        return _copy(shells, origin, target, blank=blank, progress=progress)


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
    if named := _names(told, image):
        raise FormatRefused(f"{source.url} names another file, {named}, which a download must not")
    raw = f"{directory}/raw"
    shell.run(["qemu-img", "convert", "-f", source.format, "-O", "raw", image, raw], timeout=6 * _HOURS)
    return raw, int(told["virtual-size"])


def _names(told: Mapping[str, Any], image: str) -> str:
    """Return another file that an image would be read from, as `qemu-img info` tells it, or nothing."""
    data = told.get("format-specific", {}).get("data", {})
    extents = (str(extent.get("filename", "")) for extent in data.get("extents", ()))  # a VMDK's pieces
    others = [told.get("backing-filename"), data.get("data-file"), *(name for name in extents if name != image)]
    return next((str(name) for name in others if name), "")


def _copy(shells: list[Shell], origin: Target, target: Target, *, blank: bool, progress: Progress) -> Written:
    """Copy what differs, there."""
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
        with target.named(shells[0]):
            text = target.guarded(words)
            shells[0].script(text, root=target.root, stdin=runs.encode(), timeout=6 * _HOURS, shown=shown)
    if differing or blank:
        lanes.settle()
        asked = range(count) if blank else differing
        found = lanes.survey(asked, BLOCK)
        for index in asked:
            there.pop(index, None)
        there |= found
    if lost := [index for index in range(count) if wanted.get(index) != there.get(index)]:
        raise WriteLost(f"{target.path} on {shells[0].name} differs from the image in {len(lost)} of {count} blocks")
    digest = blocks_digest(there, target.size)
    return Written(digest=digest, blocks=len(there), size=target.size, sent=0, written=len(differing) * BLOCK)
