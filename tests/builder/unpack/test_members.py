"""Which member comes out of an archive, and which never does."""

import io
import os
import stat
import subprocess  # noqa: TID251 - tar itself makes members that Python's library would not
import tarfile
import zipfile

import pytest

from builder.errors import ArchiveRefused
from builder.unpack import unpack

MIB = 1 << 20


def tar_of(path, *members, form=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=form) as archive:
        for name, content, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, changes in members:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (changes.get("mode", stat.S_IFREG) | 0o644) << 16
            info.compress_type = changes.get("method", zipfile.ZIP_DEFLATED)
            archive.writestr(info, content)
    return path


MAKERS = {"a.tar": tar_of, "a.zip": zip_of}
SEVERAL = (
    ("boot/vmlinuz", b"kernel", {}),
    ("./disk.raw", b"disk", {}),
    ("disk.vmdk", b"vmdk", {}),
    ("README", b"read", {}),
)


@pytest.mark.parametrize("archive", MAKERS)
@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("disk.raw", b"disk"),
        ("./disk.raw", b"disk"),
        ("boot/vmlinuz", b"kernel"),
        ("*.vmdk", b"vmdk"),
        ("boot/*", b"kernel"),
        ("disk.[r]aw", b"disk"),
    ],
)
def test_one_is_chosen_by_name_or_pattern(archive, member, content, tmp_path):
    source = MAKERS[archive](tmp_path / archive, *SEVERAL)
    done = unpack(source, tmp_path / "out", name=archive, member=member)
    assert done.path.read_bytes() == content
    assert "/" not in done.name


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
HARD = {"type": tarfile.LNKTYPE, "linkname": "disk.raw"}
DEVICE = {"type": tarfile.BLKTYPE, "devmajor": 8}
PIPE = {"type": tarfile.FIFOTYPE}
FOLDER = {"type": tarfile.DIRTYPE}
ONE = ("disk.raw", b"disk", {})

# name: (members, member asked for, message after the archive's name)
TAR_REFUSALS = {
    "none of that name": (
        SEVERAL,
        "disk.img",
        " holds no member 'disk.img'; it holds 'disk.vmdk', './disk.raw' and 2 more",
    ),
    "nothing like it": ((ONE,), "kernel", " holds no member 'kernel'; it holds 'disk.raw'"),
    "several and none named": (
        SEVERAL,
        None,
        " holds 'boot/vmlinuz' and './disk.raw', and `member` does not say which",
    ),
    "a pattern that fits two": (
        SEVERAL,
        "disk.*",
        " holds './disk.raw' and 'disk.vmdk', and `member` 'disk.*' means both",
    ),
    "twice the same": (
        (ONE, ("./disk.raw", b"evil", {})),
        "disk.raw",
        " holds 'disk.raw' and './disk.raw', and `member` 'disk.raw' means both",
    ),
    "out of the archive": (
        (("../../etc/cron.d/x", b"evil", {}), ONE),
        "disk.raw",
        " holds '../../etc/cron.d/x', a name that leads out of the archive: refused",
    ),
    "out of it, later": (
        (ONE, ("a/../../x", b"", {})),
        None,
        " holds 'a/../../x', a name that leads out of the archive: refused",
    ),
    "absolute": ((("/disk.raw", b"", {}),), None, " holds '/disk.raw', a name that leads out of the archive: refused"),
    "a drive": ((("C:\\disk", b"", {}),), None, " holds 'C:\\\\disk', a name that leads out of the archive: refused"),
    "symbolic link": (
        (("disk.raw", b"", LINK),),
        "disk.raw",
        ": member 'disk.raw' is a symbolic link to '/etc/passwd', not a regular file: refused",
    ),
    "hard link": (
        (ONE, ("x", b"", HARD)),
        "x",
        ": member 'x' is a hard link to 'disk.raw', not a regular file: refused",
    ),
    "device": ((("disk.raw", b"", DEVICE),), "*", ": member 'disk.raw' is a device, not a regular file: refused"),
    "pipe": (
        (("disk.raw", b"", PIPE),),
        "disk.raw",
        ": member 'disk.raw' is a named pipe, not a regular file: refused",
    ),
    "folder": ((("disk", b"", FOLDER), ONE), "disk", ": member 'disk' is a directory, not a regular file: refused"),
    "nothing regular": (
        (("disk", b"", FOLDER), ("disk/x", b"", LINK)),
        None,
        " holds no regular file: 'disk' is a directory; 'disk/x' is a symbolic link to '/etc/passwd'",
    ),
    "too large": (
        (("disk.raw", bytes(3 * MIB), {}),),
        "disk.raw",
        ": member 'disk.raw' expands to 3 MiB beyond max_size, 2 MiB (2097152 bytes)",
    ),
}


def refusal(source, tmp_path, member):
    with pytest.raises(ArchiveRefused) as caught:
        unpack(source, tmp_path / "out", name=source.name, member=member, max_size=2 * MIB)
    assert not (tmp_path / "out").exists()
    return caught.value.message


@pytest.mark.parametrize("name", TAR_REFUSALS)
def test_refusals_of_tar(name, tmp_path):
    members, member, message = TAR_REFUSALS[name]
    source = tar_of(tmp_path / "a.tar", *members)
    before = sorted(tmp_path.rglob("*"))
    assert refusal(source, tmp_path, member) == f"a.tar{message}"
    assert sorted(tmp_path.rglob("*")) == before


ZIP_REFUSALS = {
    **{
        name: TAR_REFUSALS[name]
        for name in (
            "none of that name",
            "several and none named",
            "a pattern that fits two",
            "out of the archive",
            "absolute",
            "too large",
        )
    },
    "symbolic link": (
        (("disk.raw", b"/etc/passwd", {"mode": stat.S_IFLNK}),),
        "disk.raw",
        ": member 'disk.raw' is a symbolic link, not a regular file: refused",
    ),
    "device": (
        (("disk.raw", b"", {"mode": stat.S_IFBLK}),),
        "disk.raw",
        ": member 'disk.raw' is a special file, not a regular file: refused",
    ),
    "LZMA": ((("disk.raw", b"x", {"method": zipfile.ZIP_LZMA}),), None, ": member 'disk.raw' is compressed with LZMA"),
    "empty": ((), None, " holds no regular file"),
}


@pytest.mark.parametrize("name", ZIP_REFUSALS)
def test_refusals_of_zip(name, tmp_path):
    members, member, message = ZIP_REFUSALS[name]
    assert refusal(zip_of(tmp_path / "a.zip", *members), tmp_path, member) == f"a.zip{message}"


def test_folders_and_links_beside_the_only_file_are_passed_over(tmp_path):
    source = tar_of(
        tmp_path / "a.tar", ("image", b"", FOLDER), ("image/latest", b"", LINK), ("image/disk.raw", b"disk", {})
    )
    done = unpack(source, tmp_path / "out", name="a.tar")
    assert (done.name, done.path.read_bytes()) == ("disk.raw", b"disk")


def test_an_encrypted_zip_is_refused(tmp_path):
    (tmp_path / "disk.raw").write_bytes(b"disk")
    subprocess.run(["zip", "-q", "-P", "secret", "a.zip", "disk.raw"], cwd=tmp_path, check=True)
    assert refusal(tmp_path / "a.zip", tmp_path, None) == "a.zip: member 'disk.raw' is encrypted"


@pytest.mark.parametrize("where", [31, 60, -30, -10])
def test_a_damaged_zip_is_refused(where, tmp_path):
    data = bytearray(zip_of(tmp_path / "a.zip", ("disk.raw", os.urandom(100), {})).read_bytes())
    data[where] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    assert refusal(tmp_path / "a.zip", tmp_path, "disk.raw").startswith("a.zip")


def test_damage_in_the_middle_of_a_tar_is_not_its_end(tmp_path):
    source = tar_of(tmp_path / "a.tar", *SEVERAL)
    data = bytearray(source.read_bytes())
    data[2 * 1024 + 20] ^= 1  # in the third header
    source.write_bytes(data)
    assert refusal(source, tmp_path, "disk.raw") == "a.tar: damaged tar archive (bad checksum)"


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(MIB))
    assert refusal(tmp_path / "a.tar", tmp_path, None) == "a.tar: damaged tar archive (a header of 4294967296 bytes)"


def test_a_sparse_member_counts_with_its_holes(tmp_path):
    with open(tmp_path / "disk.raw", "wb") as disk:
        disk.truncate(3 * MIB)
        disk.seek(MIB)
        disk.write(b"data")
    for words in (["--format=gnu"], ["--format=posix"], ["--format=posix", "--sparse-version=0.0"]):
        subprocess.run(["tar", "-c", "-S", *words, "-f", "a.tar", "disk.raw"], cwd=tmp_path, check=True)
        assert (tmp_path / "a.tar").stat().st_size < MIB
        assert refusal(tmp_path / "a.tar", tmp_path, None).startswith("a.tar: member 'disk.raw' expands to 3 MiB")
        done = unpack(tmp_path / "a.tar", tmp_path / "out", name="a.tar", max_size=3 * MIB)
        assert done.path.read_bytes() == (tmp_path / "disk.raw").read_bytes()
        assert done.path.stat().st_blocks * 512 <= 64 * 1024
        done.path.unlink()


def test_long_names_and_names_that_are_no_text(tmp_path):
    long = f"{'d' * 90}/{'x' * 90}.raw"
    source = tar_of(tmp_path / "a.tar", (long, b"disk", {}), form=tarfile.PAX_FORMAT)
    assert unpack(source, tmp_path / "out", name="a.tar").name == f"{'x' * 90}.raw"
    name = os.fsdecode(b"disk-\xff.raw")
    source = tar_of(tmp_path / "b.tar", (name, b"one", {}), ("two", b"", {}))
    assert (
        refusal(source, tmp_path, None) == "b.tar holds 'disk-\\udcff.raw' and 'two', and `member` does not say which"
    )


def test_a_loop_at_the_end_of_a_damaged_sparse_header_ends(tmp_path):
    with open(tmp_path / "disk.raw", "wb") as disk:
        disk.truncate(MIB)
    subprocess.run(["tar", "-c", "-S", "--format=posix", "-f", "a.tar", "disk.raw"], cwd=tmp_path, check=True)
    data = (tmp_path / "a.tar").read_bytes()
    at = data.index(b"disk.raw", 1024) // 512 * 512  # the member's own header; its sparse map follows
    (tmp_path / "a.tar").write_bytes(data[: at + 512])
    assert refusal(tmp_path / "a.tar", tmp_path, None).startswith("a.tar: damaged tar archive (")
