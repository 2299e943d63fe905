"""Check that bytes are the ones their publisher meant: checksum files and OpenPGP signatures."""

from builder.verify.checksums import Checksum, parse_checksum, parse_sums
from builder.verify.signatures import Keyring, Signer

__all__ = ["Checksum", "Keyring", "Signer", "parse_checksum", "parse_sums"]
