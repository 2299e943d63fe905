"""OpenPGP signatures, checked by gpgv against the keys in one file and no others."""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import proc
from builder.errors import InputError, SignatureInvalid, UsageError

_ARMOUR = re.compile(
    rb"-----BEGIN PGP ([A-Z ]+)-----\r?\n(?:[!-~]+: [^\n]*\n)*[ \t]*\r?\n(.*?)-----END PGP \1-----", re.DOTALL
)
# RFC 9580, 6.1: the polynomial and initial value of the armour's checksum.
_CRC24_INIT, _CRC24_POLY = 0xB704CE, 0x1864CFB
# RFC 9580, 4.2: a packet begins with its high bit set; a public key's has the tag 6.
_PUBLIC_KEY = 6
# RFC 9580, 9.5: hash algorithms by which a signature is no longer proof.
_WEAK_HASHES = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}
# GnuPG's doc/DETAILS: what a status line says about one signature, and why it is refused.
_REASONS = {
    "BADSIG": "the signature does not fit the data",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key has been revoked",
    "ERRSIG": "the signature cannot be checked",
}


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who made a good signature: the fingerprint of the primary key, and its user id."""

    fingerprint: str
    user: str


class Keyring:
    """The keys in one file, binary or armoured, that may sign."""

    def __init__(self, path: Path) -> None:
        """Read the keys. Raises UsageError if `path` holds none."""
        self.path = path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"keyring {path}: {error.strerror}") from error
        self._keys = _binary(data, str(path))
        # Old packet format: 10tttt.., new: 11tttttt (RFC 9580, 4.2).
        first = self._keys[0] if self._keys else 0
        tag = first & 0x3F if first & 0x40 else (first >> 2) & 0x0F
        if not first & 0x80 or tag != _PUBLIC_KEY:
            raise UsageError(f"keyring {path} holds no public keys", hint="Export them with `gpg --export KEY`.")

    def verify_detached(self, data: Path | bytes, signature: bytes, *, what: str) -> Signer:
        """Return who signed `data`, a file or bytes. Raises SignatureInvalid, naming `what`."""
        with tempfile.TemporaryDirectory(prefix="emi-gpgv-") as home:
            if isinstance(data, bytes):
                (Path(home) / "data").write_bytes(data)
                data = Path(home) / "data"
            aside = Path(home) / "signature"
            aside.write_bytes(_binary(signature, what) if _ARMOUR.search(signature) else signature)
            return self._gpgv(Path(home), [aside, data], what)

    def verify_clearsigned(self, text: bytes, *, what: str) -> tuple[Signer, bytes]:
        """Return who signed a clearsigned text, and the text that the signature covers: nothing before or after it."""
        with tempfile.TemporaryDirectory(prefix="emi-gpgv-") as home:
            aside = Path(home) / "signed"
            aside.write_bytes(text)
            signed = Path(home) / "text"
            signer = self._gpgv(Path(home), ["--output", signed, aside], what)
            return signer, signed.read_bytes()

    def _gpgv(self, home: Path, arguments: Sequence[str | Path], what: str) -> Signer:
        ring = home / "keyring.gpg"
        ring.write_bytes(self._keys)
        done = proc.run(
            ["gpgv", "--homedir", home, "--status-fd", "1", "--keyring", ring, *arguments],
            environment={"LC_ALL": "C"},
            timeout=600,
            allowed=range(256),  # the status lines say more, and are what is believed
        )
        return _judge(done.stdout.decode(errors="replace"), f"{what}, keyring {self.path}")


def is_clearsigned(data: bytes) -> bool:
    """Say whether `data` is a text with its signature around it."""
    return re.search(rb"^-----BEGIN PGP SIGNED MESSAGE-----\r?$", data, re.MULTILINE) is not None


def _judge(status: str, what: str) -> Signer:
    """Believe only a signature that is good and valid, with no other that is bad."""
    words = [line.split(" ")[1:] for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    good = [word for word in words if word[0] == "GOODSIG"]
    valid = [word for word in words if word[0] == "VALIDSIG"]
    for word in words:
        # An unknown key beside a good signature is no reason: publishers sign with old and new keys for a while.
        if word[0] in _REASONS and not (word[0] == "ERRSIG" and good):
            raise SignatureInvalid(f"{what}: {_reason(word, words)}")
    if not good or len(good) != len(valid):
        raise SignatureInvalid(f"{what}: there is no signature in it")
    for named, proven in zip(good, valid, strict=True):
        # VALIDSIG: fingerprint, date, timestamp, expiry, version, reserved, key and hash algorithm, class, primary key
        if proven[8] not in _WEAK_HASHES:
            return Signer(fingerprint=proven[-1], user=" ".join(named[2:]))
    raise SignatureInvalid(f"{what}: the signature rests on {_WEAK_HASHES[valid[0][8]]}, which can be forged")


def _reason(word: Sequence[str], words: Sequence[Sequence[str]]) -> str:
    key = f"key {word[1]}" if len(word) > 1 else "its key"
    if word[0] == "ERRSIG" and any(other[0] == "NO_PUBKEY" for other in words):
        return f"it is signed by {key}, which is not in the keyring"
    user = f" ({' '.join(word[2:])})" if word[0] != "ERRSIG" and len(word) > 2 else ""
    return f"{_REASONS[word[0]]}: {key}{user}"


def _binary(data: bytes, what: str) -> bytes:
    """Return OpenPGP packets from `data`, taking off the armour if there is one; gpgv reads no armoured keyring."""
    if not data.lstrip().startswith(b"-----BEGIN PGP"):
        return data
    blocks = list(_ARMOUR.finditer(data))
    if not blocks:
        raise InputError(f"{what}: the PGP armour is damaged")
    if any(block[1] == b"PRIVATE KEY BLOCK" for block in blocks):
        raise UsageError(f"{what} holds a private key", hint="Export only the public part: `gpg --export KEY`.")
    return b"".join(_dearmour(block[2], what) for block in blocks)


def _dearmour(body: bytes, what: str) -> bytes:
    lines = body.split()
    checksum = lines.pop() if lines and lines[-1].startswith(b"=") and len(lines[-1]) == 5 else None
    try:
        packets = base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error as error:
        raise InputError(f"{what}: the PGP armour is damaged ({error})") from None
    if checksum is not None and base64.b64decode(checksum[1:]) != _crc24(packets).to_bytes(3, "big"):
        raise InputError(f"{what}: the PGP armour is damaged (its checksum does not fit)")
    return packets


def _crc24(data: bytes) -> int:
    crc = _CRC24_INIT
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc = (crc << 1) ^ (_CRC24_POLY if crc & 0x800000 else 0)
    return crc & 0xFFFFFF
