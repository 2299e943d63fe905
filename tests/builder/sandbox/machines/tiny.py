"""A Linux without a disk: this host's kernel and a ramdisk of a shell and six programs, which says what it sees."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from builder import proc

PROGRAMS = ("bash", "cat", "dd", "insmod", "ip", "mount", "sleep")
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "pvpanic-mmio")
# On each new device its serial is written; volumes whose serial begins so make the guest end, or panic.
INIT = """\
#!/bin/bash
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1
for module in /modules/*; do insmod "$module"; done
for entry in /sys/class/net/*; do [ "$entry" = /sys/class/net/lo ] || card=${entry##*/}; done
ip link set lo up
ip link set "$card" up
ip addr add 169.254.2.15/16 dev "$card"
ask() {
    if { exec 3<>"/dev/tcp/$1/$2"; } 2>/dev/null; then
        printf 'GET %s HTTP/1.0\\r\\n\\r\\n' "$3" >&3
        last=
        while read -r line || [ -n "$line" ]; do last=$line; done <&3
        exec 3>&-
        echo "from $1:$2 came $last"
    else
        echo "from $1:$2 came nothing"
    fi
}
ask 169.254.169.254 80 /latest/meta-data/instance-id
for word in $(cat /proc/cmdline); do
    case $word in ask=*) word=${word#ask=}; ask "${word%%:*}" "${word##*:}" /said ;; esac
done
echo up
fill() { while [ -b "$1" ] && dd if=/dev/zero of="$1" bs=4096 count=1 conv=fsync status=none; do sleep 0.1; done; }
before=
while :; do
    now=
    for block in /sys/block/*; do
        name=${block##*/}
        serial=$(cat "$block/serial" "$block/device/serial" 2>/dev/null)
        serial=${serial%% *}
        [ -n "$serial" ] || continue
        now="$now $name=$serial"
        case $before in *"$serial"*) continue ;; esac
        case $serial in
        volff*) echo o >/proc/sysrq-trigger ;;
        volee*) echo c >/proc/sysrq-trigger ;;
        volfa*) (fill "/dev/$name"; echo "failed $serial") & ;;
        *) printf %s "$serial" | dd of="/dev/$name" conv=fsync status=none && echo "wrote $serial" ;;
        esac
    done
    [ "$now" = "$before" ] || echo "devices:$now."
    before=$now
    sleep 0.1
done
"""


def tiny_linux(directory: Path) -> tuple[Path, Path]:
    """Return a kernel and a ramdisk."""
    kernel = max(Path("/boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    ramdisk = Ramdisk()
    ramdisk.add("init", INIT.encode(), 0o755)
    for program in PROGRAMS:
        found = proc.find(program)
        ramdisk.add(f"bin/{program}", found.read_bytes(), 0o755)
        for library in re.findall(r"(/\S+) \(0x", proc.run(["ldd", found]).stdout.decode()):
            ramdisk.add(library.lstrip("/"), Path(library).read_bytes(), 0o755)
    said = "".join(proc.run(["modprobe", "-S", version, "--show-depends", one]).stdout.decode() for one in MODULES)
    for number, module in enumerate(dict.fromkeys(re.findall(r"^insmod (\S+)", said, re.MULTILINE))):
        ramdisk.add(f"modules/{number:02}", Path(module).read_bytes(), 0o644)
    for name in ("proc", "sys", "dev"):
        ramdisk.add(name, None, 0o755)
    path = directory / "ramdisk"
    path.write_bytes(ramdisk.bytes())
    return kernel, path


class Ramdisk:
    """An archive as the kernel unpacks it: cpio's `newc` (Documentation/driver-api/early-userspace/buffer-format)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def add(self, name: str, data: bytes | None, mode: int) -> None:
        """Add a file, or a directory without data, and the directories above it."""
        if name in self._names:
            return
        parent = os.path.dirname(name)  # noqa: PTH120 - a name in the archive
        if parent:
            self.add(parent, None, 0o755)
        self._names.add(name)
        self._entry(name, data or b"", mode | (stat.S_IFREG if data is not None else stat.S_IFDIR))

    def bytes(self) -> bytes:
        """Return the whole."""
        self._entry("TRAILER!!!", b"", 0)
        return b"".join(self._parts)

    def _entry(self, name: str, data: bytes, mode: int) -> None:
        fields = (len(self._parts), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self._parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
