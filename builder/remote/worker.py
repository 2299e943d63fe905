"""The program that runs on the other machine where that has Python: sent over SSH, needs Python 3.6 and nothing else.

Never imported here. What it reads and prints is the same as that of its twin for POSIX sh (builder/remote/scripts.py):

    settle PATH           fsync, then have the kernel forget what it keeps of PATH, so that reads come from the device
    survey PATH SIZE GRAIN  reads lines `FIRST COUNT` to the end of its input; prints `INDEX SHA256` for every grain of
                          these that is not all zero (the last one padded with zeros to its full length), then `end`
    write PATH            reads `w OFFSET LENGTH` and so many bytes, `z OFFSET LENGTH` (zeros), `e`; then fsync, `end`

A killed `write` leaves part of what it was sent; nothing else is ever written. Each piece is written as it comes, and
is on its way to the device at once: neither a cut nor a machine that loses its power takes much with it.
"""

import fcntl
import hashlib
import os
import stat
import struct
import sys
from contextlib import suppress

_FLUSH_BUFFERS = 0x1261  # linux/fs.h: BLKFLSBUF
_ZERO_OUT = 0x127F  # linux/fs.h: BLKZEROOUT
_PIECE = 1 << 20


def _settle(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        with suppress(PermissionError):  # it needs root; what follows does not
            fcntl.ioctl(descriptor, _FLUSH_BUFFERS, 0)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _survey(path: str, size: int, grain: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    zero = bytes(grain)
    for line in sys.stdin.buffer:
        first, count = (int(word) for word in line.split())
        index = first
        while index < first + count:
            if regular:
                index = _next_data(descriptor, index, grain)
                if index >= first + count:
                    break
            data = _read(descriptor, min(grain, size - index * grain), index * grain).ljust(grain, b"\0")
            if data != zero:
                sys.stdout.write("{} {}\n".format(index, hashlib.sha256(data).hexdigest()))  # noqa: UP032
            index += 1
    sys.stdout.write("end\n")


def _next_data(descriptor: int, index: int, grain: int) -> int:
    try:
        return max(index, os.lseek(descriptor, index * grain, os.SEEK_DATA) // grain)
    except OSError:  # ENXIO: nothing but a hole follows
        return sys.maxsize


def _read(descriptor: int, length: int, offset: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _write(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    source = sys.stdin.buffer
    while True:
        words = source.readline().split()
        if words == [b"e"]:
            break
        if len(words) != 3:
            sys.exit("the stream of bytes ended early, or is damaged")
        offset, length = int(words[1]), int(words[2])
        if words[0] == b"z":
            _zero(descriptor, offset, length)
            continue
        for start in range(offset, offset + length, _PIECE):
            data = source.read(min(_PIECE, offset + length - start))
            _put(descriptor, memoryview(data), start)
            os.posix_fadvise(descriptor, start, len(data), os.POSIX_FADV_DONTNEED)  # begins to write it out
            if len(data) != min(_PIECE, offset + length - start):
                sys.exit("the stream of bytes ended early")
    os.fsync(descriptor)
    sys.stdout.write("end\n")


def _put(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written


def _zero(descriptor: int, offset: int, length: int) -> None:
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        try:
            fcntl.ioctl(descriptor, _ZERO_OUT, struct.pack("QQ", offset, length))
        except OSError:  # an old kernel, or a length that is no multiple of the sector
            pass
        else:
            return
    for start in range(offset, offset + length, _PIECE):
        _put(descriptor, memoryview(bytes(min(_PIECE, offset + length - start))), start)


def _main(words: list) -> None:  # type: ignore[type-arg]  # list[str] needs Python 3.9
    if words[0] == "settle":
        _settle(words[1])
    elif words[0] == "survey":
        _survey(words[1], int(words[2]), int(words[3]))
    else:
        _write(words[1])


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except OSError as failed:
        sys.exit("{}: {}".format(sys.argv[2], failed.strerror))  # noqa: UP032 - one less thing to parse
