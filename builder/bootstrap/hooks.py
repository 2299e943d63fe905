"""What happens to the system while mmdebstrap installs it: shell scripts, run with its root directory as `$1`.

mmdebstrap runs those of a directory whose names begin with setup (before apt-get update), essential (once the essential
packages are installed) and customize (at the end), in the order of their names (mmdebstrap(1), HOOKS).
"""

from __future__ import annotations

import io
import shlex
import tarfile
from pathlib import Path

from builder.bootstrap import grub
from builder.bootstrap.system import System, early_files
from builder.durable import translate_disk_full

_KEPT_DAYS = 30  # a cached package that no build used for so long is removed

# apt takes a package that lies in its archive directory by name and size alone, so what comes out of the cache is
# compared with the signed package lists as soon as apt has them, and before it looks.
_TAKE_CACHED = """\
set -e
mkdir -p "$1/var/cache/apt/archives"
find {cache} -name '*.deb' -exec cp -t "$1/var/cache/apt/archives" {{}} +
cat >"$1/etc/apt/apt.conf.d/00keep-signed" <<'END'
APT::Update::Post-Invoke {{ "sh {keep_signed}"; }};
END
cat >{keep_signed} <<END
set -e
cd "$1/var/cache/apt/archives"
sed -n 's/^SHA256: //p' "$1"/var/lib/apt/lists/*_Packages | sort -u >{signed}
find . -name '*.deb' -exec sha256sum {{}} + | sort | join -v 1 - {signed} | cut -d ' ' -f 2- | xargs -r rm --
END
"""
_DONE_WITH_CACHE = """\
rm "$1/etc/apt/apt.conf.d/00keep-signed"
"""
# Under another name first: a crash must not leave half a package under its own.
_FILL_CACHE = """\
set -e
for deb in "$1"/var/cache/apt/archives/*.deb; do
    test -e "$deb" || continue # apt reads a file: archive in its place
    kept={cache}/$(basename "$deb")
    if cmp -s "$deb" "$kept"; then
        touch "$kept"
    else
        new=$(mktemp {cache}/.new-XXXXXX)
        cp "$deb" "$new"
        sync "$new"
        mv "$new" "$kept"
    fi
done
find {cache} -name '*.deb' -mtime +{days} -delete
"""


def write(system: System, directory: Path, *, cache: Path | None) -> None:
    """Write the hooks for `system` into `directory`, which is made; `cache` keeps packages for later builds."""
    directory.mkdir()
    with translate_disk_full(directory):
        files = directory / "early.tar"
        _write_tar(system, files)
        _script(directory / "essential-files", f'tar -C "$1" -xf {shlex.quote(str(files))}\n')
        loader = directory / "loader"
        loader.write_text(grub.INSTALL)
        _script(directory / "customize-loader", f'chroot "$1" sh <{shlex.quote(str(loader))}\n')
        if cache:
            cache.mkdir(parents=True, exist_ok=True)
            words = {
                "cache": shlex.quote(str(cache)),
                "keep_signed": shlex.quote(str(directory / "keep-signed")),
                "signed": shlex.quote(str(directory / "signed")),
                "days": _KEPT_DAYS,
            }
            _script(directory / "setup-cache", _TAKE_CACHED.format(**words))
            _script(directory / "essential-cache", _DONE_WITH_CACHE)
            _script(directory / "customize-cache", _FILL_CACHE.format(**words))


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def _write_tar(system: System, path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in early_files(system).items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(text.encode()), 0o644, system.epoch
            tar.addfile(member, io.BytesIO(text.encode()))
