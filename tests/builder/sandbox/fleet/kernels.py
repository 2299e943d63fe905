"""A kernel of two kilobytes: it says its command line, and that it has a ramdisk, on the serial port.

Its header is that of "The Linux/x86 Boot Protocol" (2.06), of which qemu reads what stands below; what runs is the
real-mode entry, at 0x200 of the segment in ds.
"""

from __future__ import annotations

_SECTOR = 512
# eax = cmd_line_ptr; si = its offset, fs = its segment; each byte of fs:si to the serial port (0x3f8) until a zero.
# Then ` +ramdisk` if ramdisk_size is not zero, and a halt.
_SAY = "fc baf803 66a12802 66c1e804 8ee0 31f6 64ac 84c0 7403 ee ebf7"
_RAMDISK = "66833e1c0200 740d be{message} ac 84c0 7403 ee ebf8 9090 f4 ebfd"


def kernel() -> bytes:
    """Return the kernel as a bzImage."""
    start = 0x268  # behind the header
    code = bytearray.fromhex(_SAY)
    tail_at = start + len(code)
    tail = bytearray.fromhex(_RAMDISK.format(message="0000"))
    message_at = tail_at + len(tail)
    tail[9:11] = message_at.to_bytes(2, "little")
    image = bytearray(5 * _SECTOR)
    image[0x1F1] = 3  # setup_sects
    image[0x1F4:0x1F8] = (_SECTOR // 16).to_bytes(4, "little")  # syssize: one sector that is never run
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = bytes([0xEB, start - 0x202])  # jmp
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = (0x206).to_bytes(2, "little")
    image[0x211] = 1  # loadflags: what follows the setup lies at 1 MiB
    image[0x214:0x218] = (0x100000).to_bytes(4, "little")  # code32_start
    image[0x22C:0x230] = (0x37FFFFFF).to_bytes(4, "little")  # initrd_addr_max
    image[0x238:0x23C] = (255).to_bytes(4, "little")  # cmdline_size
    image[start : start + len(code) + len(tail)] = code + tail
    image[message_at : message_at + 10] = b" +ramdisk\0"
    return bytes(image)
