"""Checksum files as publishers write them, and the messages for what is wrong with them."""

import hashlib
import subprocess  # noqa: TID251 - coreutils' own sha256sum writes the files here

import pytest

from builder.errors import InputError, UsageError
from builder.verify import parse_checksum, parse_sums

A, B = "a" * 64, "b" * 64
LONG, MIDDLE, SHORT = "c" * 128, "d" * 96, "e" * 32
FLATCAR = f"# MD5 HASH\n{SHORT}  disk.img\n# SHA1 HASH\n{'f' * 40}  disk.img\n# SHA512 HASH\n{LONG}  disk.img\n"
FEDORA = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# disk.img: 398131200 bytes
SHA256 (disk.img) = {A}
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEEqHX/xZU0RqtJJ2ZzPTzuR3g=
=abcd
-----END PGP SIGNATURE-----
"""

# name: (the file, the checksum of disk.img)
READ = {
    "GNU": (f"{B}  other\n{A}  disk.img\n", f"sha256:{A}"),
    "GNU, binary": (f"{A} *disk.img\n", f"sha256:{A}"),
    "GNU, sha512": (f"{LONG}  disk.img\n", f"sha512:{LONG}"),
    "GNU, upper case": (f"{A.upper()}  disk.img\n", f"sha256:{A}"),
    "GNU, no newline at the end": (f"{A}  disk.img", f"sha256:{A}"),
    "CRLF": (f"{B}  other\r\n{A}  disk.img\r\n", f"sha256:{A}"),
    "byte order mark": (f"\ufeff{A}  disk.img\n", f"sha256:{A}"),
    "BSD": (f"SHA256 (other) = {B}\nSHA256 (disk.img) = {A}\n", f"sha256:{A}"),
    "BSD, sha512": (f"SHA512 (disk.img) = {LONG}\n", f"sha512:{LONG}"),
    "BSD, as openssl has it": (f"SHA2-256(disk.img)= {A}\n", f"sha256:{A}"),
    "dot path": (f"{A}  ./disk.img\n", f"sha256:{A}"),
    "folder": (f"{A}  images/disk.img\n{B}  images/other\n", f"sha256:{A}"),
    "folder beside the file": (f"{B}  old/disk.img\n{A}  disk.img\n", f"sha256:{A}"),
    "twice the same": (f"{A}  disk.img\n{A}  ./disk.img\n", f"sha256:{A}"),
    "bare": (f"{A}\n", f"sha256:{A}"),
    "bare, from standard input": (f"{A}  -\n", f"sha256:{A}"),
    "several algorithms": (f"{LONG}  disk.img\n{A}  disk.img\n{SHORT}  disk.img\n", f"sha256:{A}"),
    "sha384": (f"{MIDDLE}  disk.img\n", f"sha384:{MIDDLE}"),
    "Flatcar": (FLATCAR, f"sha512:{LONG}"),
    "Fedora": (FEDORA, f"sha256:{A}"),
    "comments and prose": (f"# sums\n\nsee README\n{A}  disk.img\n", f"sha256:{A}"),
}


@pytest.mark.parametrize("name", READ)
def test_checksum_files(name):
    text, expected = READ[name]
    assert str(parse_sums(text.encode(), "disk.img", source="SUMS")) == expected


@pytest.mark.parametrize(
    "name", ["plain", "with space", "back\\slash", "new\nline", "carriage\rreturn", "(odd) = x", "ü"]
)
@pytest.mark.parametrize("words", [[], ["--tag"], ["--binary"]])
def test_names_as_coreutils_writes_them(name, words, tmp_path):
    (tmp_path / name).write_bytes(b"data")
    (tmp_path / "other").write_bytes(b"other")
    listed = subprocess.run(["sha256sum", *words, "other", name], cwd=tmp_path, capture_output=True, check=True).stdout
    assert parse_sums(listed, name, source="SUMS").value == hashlib.sha256(b"data").hexdigest()


# name: (the file, the whole message)
REFUSED = {
    "absent": (
        f"{A}  disk.raw\n{B}  disk.img.xz\n{B}  README\n",
        "SUMS has no checksum of 'disk.img'; it has 'disk.img.xz', 'disk.raw' and 1 more",
    ),
    "nothing near": (f"{A}  kernel\n", "SUMS has no checksum of 'disk.img'; it has 'kernel'"),
    "several bare": (f"{A}\n{B}\n", "SUMS has 2 different sha256 checksums of 'disk.img' (no name)"),
    "ambiguous": (
        f"{A}  x/disk.img\n{B}  y/disk.img\n",
        "SUMS has 2 different sha256 checksums of 'disk.img' ('x/disk.img', 'y/disk.img')",
    ),
    "only MD5": (f"{SHORT}  disk.img\n", "SUMS has only the MD5 checksum of 'disk.img': SHA-256 or SHA-512 is needed"),
    "odd length": (
        f"{'a' * 60}  disk.img\n",
        "SUMS has only the 240-bit checksum of 'disk.img': SHA-256 or SHA-512 is needed",
    ),
    "empty": ("", "SUMS is not a checksum file: no line of it has a checksum"),
    "a web page": ("<html>Not found</html>", "SUMS is not a checksum file: no line of it has a checksum"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_checksum_files(name):
    text, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        parse_sums(text.encode(), "disk.img", source="SUMS")
    assert caught.value.message == message


def test_a_binary_file_is_no_checksum_file():
    with pytest.raises(InputError) as caught:
        parse_sums(b"\xff\xfe", "disk.img", source="SUMS")
    assert caught.value.message == "SUMS is not a checksum file: it is not text"


def test_inline_checksums():
    assert str(parse_checksum(f"sha256:{A.upper()}")) == f"sha256:{A}"
    assert parse_checksum(f" sha512:{LONG}\n").algorithm == "sha512"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (A, f"checksum '{A}' does not begin with sha256:, sha384: or sha512:"),
        ("md5:00", "checksum 'md5:00' does not begin with sha256:, sha384: or sha512:"),
        ("sha256:00", "checksum 'sha256:00': sha256 has 64 hexadecimal digits, not '00'"),
        ("sha512:", "checksum 'sha512:': sha512 has 128 hexadecimal digits, not ''"),
    ],
)
def test_inline_checksums_that_are_none(text, message):
    with pytest.raises(UsageError) as caught:
        parse_checksum(text)
    assert caught.value.message == message
