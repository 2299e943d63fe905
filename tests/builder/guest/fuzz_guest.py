"""Feed mutated bytes to the parsers of files inside guests.

    python fuzz_guest.py SECONDS [SEED] [FILE]

As tests/builder/image/fuzz_qcow2.py does for images. The promise: an initramfs is read or refused by FormatRefused; no
other exception, no large memory, no hang.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import archives
import atheris

with atheris.instrument_imports(include=["builder.guest"]):
    from builder.errors import FormatRefused
    from builder.guest import initramfs

MEMORY = 400  # MiB of resident memory, Python and instrumentation included
SLOW = 10  # seconds for one input
LIMITS = initramfs.Limits(unpacked=16 << 20, names=1000, name_bytes=100_000)


def corpus() -> list[bytes]:
    """Small inputs of every kind."""
    plain = archives.newc("init", "lib/modules/6.1/kernel/drivers/block/virtio_blk.ko", data=b"data")
    packed = [pack(plain) for pack in archives.PACKERS.values()]
    return [
        plain,
        *packed,
        archives.zstd(plain, sized=True),
        plain + bytes(64) + packed[0],
        archives.newc("a", magic=b"070702", trailer=False),
        archives.PACKERS["gzip"](archives.newc("zeros", data=bytes(1 << 20))),
    ]


def one_input(data: bytes) -> None:
    """What atheris calls for each input: read whole and in pieces, with one result."""
    results: list[object] = []
    for pieces in (data, [data[start : start + 13] for start in range(0, len(data), 13)]):
        try:
            results.append(initramfs.read(pieces, limits=LIMITS))
        except FormatRefused:  # for another reason in pieces, perhaps: a decoder sees the damage sooner
            results.append(None)
    assert results[0] == results[1]


def main(seconds: int, seed: int) -> None:
    """Fuzz for so long; does not return."""
    with contextlib.ExitStack() as stack:
        seeds = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emi-fuzz-")))
        for number, data in enumerate(corpus()):
            one_input(data)
            (seeds / f"{number:02}").write_bytes(data)
        limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY}", f"-timeout={SLOW}", "-max_len=20000"]
        atheris.Setup([sys.argv[0], f"-seed={seed}", *limits, "-print_final_stats=1", str(seeds)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        one_input(Path(sys.argv[3]).read_bytes())
    else:
        main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
