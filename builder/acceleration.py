"""Is KVM usable here? Proven by booting a guest of 512 bytes under it, because every cheaper question lies.

A host may have /dev/kvm, open it and create a virtual machine, and yet every guest dies on its first instruction or
hangs for ever (nested virtualization without vmx/svm; qemu then aborts, so that `accel=kvm:tcg` never falls back).
"""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from builder import durable, proc
from builder.errors import HostError, ToolFailed

Kind = Literal["kvm", "tcg"]

_KVM = Path("/dev/kvm")
_SAID = b"emi"
# 16-bit code, loaded at 0x7c00: cld; ds = 0; si = message; send each byte of it to port 0xe9 (qemu's debug console)
# until a zero; pulse the keyboard controller's reset line (0xfe to port 0x64), which with -no-reboot ends qemu; halt.
_CODE = bytes.fromhex("fc 31c0 8ed8 be187c ac 84c0 7404 e6e9 ebf7 b0fe e664 f4 ebfd") + _SAID + b"\0"
_BOOT_SECTOR = _CODE.ljust(510, b"\0") + b"\x55\xaa"
_PATIENCE = 8  # seconds; it takes 0.13 under TCG on an idle core


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """How virtual machines run here: by the processor (kvm) or by translation (tcg, 10 to 30 times slower), and why."""

    kind: Kind
    why: str


def prove(cache: Path | None = None) -> Acceleration:
    """Return what a guest really boots under; never hangs, leaves no process, and costs the proof once per process.

    In directory `cache` the answer is remembered until the host boots again or qemu is replaced; it is never asked
    there when /dev/kvm is missing or closed to us, since that is known without it. A host without qemu answers tcg.
    """
    if platform.machine() != "x86_64":
        return Acceleration(kind="tcg", why=f"KVM is proven on x86_64 only, and this is {platform.machine()}")
    if not _KVM.exists():
        return Acceleration(kind="tcg", why="this host has no /dev/kvm")
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Acceleration(kind="tcg", why="/dev/kvm may not be opened by this user (`sudo adduser $USER kvm`)")
    return _proven(cache)


@lru_cache(maxsize=1)
def _proven(cache: Path | None) -> Acceleration:
    try:
        qemu = proc.find("qemu-system-x86_64")
    except HostError as error:
        return Acceleration(kind="tcg", why=error.message)
    if cache is None:
        return _answer()
    remembered = cache / "acceleration"
    question = _question(qemu)
    answer = _recall(remembered, question)
    if answer is None:
        answer = _answer()
        cache.mkdir(parents=True, exist_ok=True)
        durable.write_file(remembered, f"{question}\n{answer.kind}\n{answer.why}\n".encode())
    return answer


def _question(qemu: Path) -> str:
    """Name this boot of the host and this qemu: what an answer holds for."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot} {qemu} {qemu.stat().st_mtime_ns}"


def _recall(remembered: Path, question: str) -> Acceleration | None:
    try:
        asked, kind, why = remembered.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    if asked != question or kind not in ("kvm", "tcg"):
        return None
    return Acceleration(kind="kvm" if kind == "kvm" else "tcg", why=why)


def _answer() -> Acceleration:
    try:
        boot("kvm")
    except HostError as error:
        return Acceleration(kind="tcg", why=f"a guest under KVM does not run here: {_reason(error.message)}")
    return Acceleration(kind="kvm", why="a guest booted under KVM")


def boot(kind: Kind, *, patience: float = _PATIENCE) -> None:
    """Boot a guest of one sector under `kind` and return when it has said its word; `patience` is in seconds.

    Raises ToolFailed when it dies, hangs or says anything else, ToolMissing without qemu. Leaves nothing behind.
    """
    with tempfile.NamedTemporaryFile(prefix="emi-boot-") as disk:
        disk.write(_BOOT_SECTOR)
        disk.flush()
        words = ["qemu-system-x86_64", "-accel", kind, "-cpu", "max", "-m", "16", "-nodefaults", "-no-user-config"]
        words += ["-no-reboot", "-display", "none", "-debugcon", "stdio", "-boot", "a"]
        words += ["-drive", f"file={disk.name},format=raw,if=floppy,readonly=on"]
        said = proc.run(words, timeout=patience).stdout
    if said != _SAID:
        raise ToolFailed(f"the guest said {said[:40]!r} and not {_SAID!r}")


def _reason(message: str) -> str:
    """Return what qemu said first; the lines after it are its own assertion."""
    return message.splitlines()[:2][-1].removeprefix("qemu-system-x86_64: ")
