"""Public ssh keys: what one line of authorized_keys is, and files of such lines.

Sources: sshd(8), AUTHORIZED_KEYS FILE FORMAT; the wire format of keys in RFC 4253, 5656, 8709 and OpenSSH's
PROTOCOL.u2f. A key is decoded to its end, so that half a pasted line is refused here and not by a machine that nobody
can log in to.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

# What each kind's blob has after its name: how many fields.
_KINDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
_POINTS = {"nistp256": 65, "nistp384": 97, "nistp521": 133}  # bytes of an uncompressed point
_RSA_BITS = 1024  # fewer, and sshd takes the key for none
# Options are words, or word="…" with \" inside, joined by commas.
_OPTIONS = r"(?:[A-Za-z0-9-]+(?:=\"(?:[^\"\\]|\\.)*\")?)(?:,[A-Za-z0-9-]+(?:=\"(?:[^\"\\]|\\.)*\")?)*"
_LINE = re.compile(
    rf"(?:(?P<options>{_OPTIONS})[ \t]+)?(?P<kind>[a-z0-9@.-]+)[ \t]+(?P<blob>[A-Za-z0-9+/]+=*)(?:[ \t]+.*)?"
)


@dataclass(frozen=True, kw_only=True)
class Key:
    """One public key: its line as it is written, and what makes it itself."""

    line: str
    kind: str
    blob: str  # base64

    def __str__(self) -> str:
        comment = self.line.partition(self.blob)[2].strip()
        return " ".join(filter(None, (self.kind, f"…{self.blob[-8:]}", comment[:60])))


def parse(line: str) -> Key | str:
    """Return the key of a line, or why it is none; what might be a private key is never repeated."""
    text = line.strip()
    if "PRIVATE KEY" in text or "PuTTY-User-Key-File" in text:
        return "a private key, which belongs in no image: give its public half, the .pub file"
    if text.startswith("----"):
        return "a key in another notation: `ssh-keygen -i -f FILE` prints OpenSSH's"
    if not text.isprintable() and "\t" not in text:
        return "no line of authorized_keys: it has control characters"
    found = _LINE.fullmatch(text)
    if found is None or found["kind"] not in _KINDS:
        kind = text.split(maxsplit=1)[0] if text else ""
        if kind == "ssh-dss" or kind.endswith("-cert-v01@openssh.com"):
            return f"of the kind {kind}, which sshd does not take here"
        return f"no line of authorized_keys: `[OPTIONS] KIND BASE64 [COMMENT]`, KIND one of {', '.join(_KINDS)}"
    wrong = _wrong(found["kind"], found["blob"])
    return wrong or Key(line=text, kind=found["kind"], blob=found["blob"])


def keys(text: str) -> list[Key]:
    """Return the keys of an authorized_keys file; comments and what is no key are left out."""
    return [found for line in text.split("\n") if isinstance(found := parse(line), Key)]


def added(text: str, wanted: Sequence[Key]) -> tuple[str, list[Key]]:
    """Return the file with the keys that it does not have yet, and which those are. Every line that is there stays."""
    there = {(key.kind, key.blob) for key in keys(text)}
    new: list[Key] = []
    for key in wanted:
        if (key.kind, key.blob) not in there:
            there.add((key.kind, key.blob))
            new.append(key)
    if text and not text.endswith("\n") and new:
        text += "\n"
    return text + "".join(f"{key.line}\n" for key in new), new


def _wrong(kind: str, blob: str) -> str | None:
    try:
        fields = _fields(base64.b64decode(blob, validate=True))
    except (binascii.Error, ValueError, struct.error):
        return f"a damaged {kind} key: is a part of the line missing?"
    if len(fields) != 1 + _KINDS[kind] or fields[0] != kind.encode():
        return f"a damaged {kind} key: what it holds is of another kind"
    if kind == "ssh-rsa":
        bits = int.from_bytes(fields[2], "big").bit_length()
        return None if bits >= _RSA_BITS else f"an RSA key of {bits} bits, and sshd takes none below {_RSA_BITS}"
    if "ed25519" in kind:
        return None if len(fields[1]) == 32 else f"a damaged {kind} key"
    curve = fields[1].decode("ascii", "replace")
    point = fields[2]
    right = curve in kind and len(point) == _POINTS.get(curve) and point[:1] == b"\x04"
    return None if right else f"a damaged {kind} key"


def _fields(data: bytes) -> list[bytes]:
    """Split a blob into its strings. Raises ValueError or struct.error when it does not end with one."""
    found, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        at += 4 + size
        if at > len(data):
            raise ValueError
        found.append(data[at - size : at])
    return found
