"""Check that bytes are the ones their publisher meant: checksum files and OpenPGP signatures."""

from builder.verify.checksums import Checksum, parse_checksum, parse_sums
from builder.verify.signatures import Keyring, Signer, is_clearsigned

__all__ = ["Checksum", "Keyring", "Signer", "is_clearsigned", "parse_checksum", "parse_sums"]
