"""A bundle that goes to another cloud: its key for that cloud, its ids mapped, all else as it was, the old one kept."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess  # noqa: TID251 - a migration that is killed
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builder.bundle import keys, signature
from builder.bundle import manifest as manifests
from builder.bundle.migrate import Changes, migrate, migrate_file
from builder.bundle.records import ContentKey, Encrypted, Manifest
from builder.errors import BundleRefused, HostError, InputError, UsageError


@pytest.fixture
def data(manifest: Manifest, user) -> bytes:
    return manifests.write(manifest, user.key)


def test_every_tools_bundle_opens_with_the_new_clouds_key(made, user, cloud, other) -> None:
    before = manifests.read(made.data, where="x")
    key = {"user": user.key, "cloud": cloud.key}[made.expected["opened_by"][0]]
    content_key = keys.decrypt(before, key)
    written = migrate(made.data, Changes(cloud=other.certificate, account="999999999999"), key, where="x")
    after = manifests.read(written, where="x")
    assert keys.opened(after.for_cloud, other.key) == content_key
    assert keys.opened(after.for_cloud, cloud.key) is None
    kept = replace(before, user="999999999999", for_cloud=after.for_cloud, signature=after.signature)
    assert after == manifests.as_written(kept)
    assert after.parts == before.parts
    assert after.version == "2007-10-10"
    assert signature.seen_by_all(written, key)


def test_what_is_not_named_stays(data, manifest: Manifest, user) -> None:
    again = migrate(data, Changes(), user.key, where="x", signed_by=user.certificate)
    assert again == data


def test_ids_are_mapped_by_the_tables(data, user) -> None:
    tables = Changes(kernels={"eki-3f2a1b4c": "eki-11111111", "eki-0": "eki-1"}, ramdisks={"eri-9d8c7b6a": None})
    after = manifests.read(migrate(data, tables, user.key, where="x"), where="x")
    assert (after.kernel_id, after.ramdisk_id) == ("eki-11111111", None)
    kept = manifests.read(migrate(data, Changes(kernels={"eki-3f2a1b4c": "eki-2"}), user.key, where="x"), where="x")
    assert (kept.kernel_id, kept.ramdisk_id) == ("eki-2", "eri-9d8c7b6a")


@pytest.mark.parametrize("table", [{}, {"aki-1": "aki-2"}])
def test_an_id_that_the_table_lacks_is_refused(data, user, table) -> None:
    which = next(iter(table), "none")
    with pytest.raises(
        UsageError, match=f"eki-3f2a1b4c of the bundle debian-12.img is not in the table, which has {which}"
    ):
        migrate(data, Changes(kernels=table), user.key, where="x")


def test_a_kernels_own_id_is_not_mapped(manifest: Manifest, user) -> None:
    kernel = replace(manifest, type="kernel", kernel_id="true", ramdisk_id=None)
    after = migrate(manifests.write(kernel, user.key), Changes(kernels={}, ramdisks={}), user.key, where="x")
    assert manifests.read(after, where="x").kernel_id == "true"


def test_a_bundle_may_change_hands(data, manifest: Manifest, content_key: ContentKey, user, cloud, other) -> None:
    changes = Changes(cloud=cloud.certificate, user=other.certificate, sign_with=other.key)
    written = migrate(data, changes, user.key, where="x")
    after = manifests.read(written, where="x")
    assert keys.decrypt(after, other.key) == keys.decrypt(after, cloud.key) == content_key
    assert signature.verify(written, other.certificate).holds
    assert not signature.verify(written, user.certificate).holds
    with pytest.raises(BundleRefused, match=r"user\.key does not open"):
        keys.decrypt(after, user.key)


def test_a_new_user_must_hold_the_signing_key(data, user, other) -> None:
    with pytest.raises(UsageError, match=r"user\.key does not belong to other\.crt"):
        migrate(data, Changes(user=other.certificate), user.key, where="x")


def test_the_signature_is_verified_before(data, user, other) -> None:
    altered = data.replace(b"000100729354", b"000100729355")
    with pytest.raises(BundleRefused, match=r"^x: the manifest was altered after it was signed with user\.crt \("):
        migrate(altered, Changes(), user.key, where="x", signed_by=user.certificate)
    with pytest.raises(BundleRefused, match=r"^x: the manifest was signed by somebody else, not with other\.crt"):
        migrate(data, Changes(), user.key, where="x", signed_by=other.certificate)
    assert migrate(altered, Changes(), user.key, where="x")


def test_an_unsigned_one_is_migrated_only_on_trust(manifest: Manifest, user) -> None:
    unsigned = manifests.write(manifest, None)
    with pytest.raises(BundleRefused, match=r"^x: the manifest is not signed$"):
        migrate(unsigned, Changes(), user.key, where="x", signed_by=user.certificate)
    assert signature.made_by(migrate(unsigned, Changes(), user.key, where="x"), user.key)


def test_a_key_that_does_not_open_it_is_refused(data, user, other) -> None:
    fingerprint = user.certificate.fingerprint
    with pytest.raises(
        BundleRefused, match=rf"other\.key does not open .*; the one .* user\.crt \({fingerprint}\) should"
    ):
        migrate(data, Changes(cloud=other.certificate), other.key, where="x", signed_by=user.certificate)


def test_a_name_that_xml_escapes_is_refused(data, user) -> None:
    with pytest.raises(UsageError, match="has characters"):
        migrate(data.replace(b"<name>debian", b"<name>d&amp;b"), Changes(), user.key, where="x")
    spaced = migrate(data.replace(b"<name>debian", b"<name>my debian"), Changes(), user.key, where="x")
    assert manifests.read(spaced, where="x").name == "my debian-12.img"


def test_a_bundle_for_no_user_gets_none(manifest: Manifest, cloud, other, content_key: ContentKey) -> None:
    alone = manifests.write(replace(manifest, for_user=Encrypted()), None)
    after = manifests.read(migrate(alone, Changes(cloud=other.certificate), cloud.key, where="x"), where="x")
    assert after.for_user == Encrypted()
    assert keys.decrypt(after, other.key) == content_key


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, data) -> Path:
    path = tmp_path / "debian-12.img.manifest.xml"
    path.write_bytes(data)
    return path


def test_the_file_is_replaced_and_the_old_one_kept(file: Path, data, user, other) -> None:
    file.chmod(0o640)
    said = migrate_file(file, Changes(cloud=other.certificate), user.key, signed_by=user.certificate)
    backup = file.with_name(f"{file.name}.bak")
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, backup.name]
    assert backup.read_bytes() == data
    assert manifests.read(file.read_bytes(), where="x") == said
    assert said.for_cloud != manifests.read(data, where="x").for_cloud
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, backup)] == [0o640, 0o640]


def test_a_backup_is_never_overwritten(file: Path, data, user, other) -> None:
    backup = file.with_name(f"{file.name}.bak")
    backup.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"\.bak exists already and is not a copy"):
        migrate_file(file, Changes(cloud=other.certificate), user.key)
    assert (backup.read_bytes(), file.read_bytes()) == (b"mine", data)
    assert len(list(file.parent.iterdir())) == 2


def test_a_refusal_leaves_everything_as_it_was(file: Path, data, user, other) -> None:
    with pytest.raises(BundleRefused):
        migrate_file(file, Changes(cloud=user.certificate), other.key)
    assert [path.read_bytes() for path in file.parent.iterdir()] == [data]


def test_of_a_link_the_file_is_changed_that_it_leads_to(file: Path, data, user, other, tmp_path_factory) -> None:
    link = tmp_path_factory.mktemp("links") / "manifest.xml"
    link.symlink_to(file)
    migrate_file(link, Changes(cloud=other.certificate), user.key)
    assert link.is_symlink()
    assert file.read_bytes() != data
    assert file.with_name(f"{file.name}.bak").read_bytes() == data


def test_files_that_cannot_be_read_or_written_are_named(file: Path, user, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the manifest .*/absent cannot be read: No such file"):
        migrate_file(tmp_path / "absent", Changes(), user.key)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        migrate_file(tmp_path, Changes(), user.key)
    file.with_name(f"{file.name}.bak").mkdir()
    with pytest.raises(HostError, match="cannot be replaced: Is a directory"):
        migrate_file(file, Changes(), user.key)


def test_a_huge_file_is_not_read_whole(tmp_path: Path, user) -> None:
    huge = tmp_path / "huge"
    with open(huge, "wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(BundleRefused, match="5242881 bytes"):
        migrate_file(huge, Changes(), user.key)


def test_a_full_disk_leaves_the_old_one(file: Path, data, user, other, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f"""
        mount -t tmpfs -o size=64k tmpfs {small} && cp {file} {small} && dd if=/dev/zero of={small}/full 2>/dev/null
        {sys.executable} -c "$0" {small}/{file.name} 0 {user.key_file.parent}; ls -A {small}; cat {small}/{file.name}
    """
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, CHILD], capture_output=True, check=True)
    assert b"DiskFull: no space left for" in done.stderr
    assert done.stdout == f"{file.name}\nfull\n".encode() + data


CHILD = """
import os, signal, sys
from pathlib import Path
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.migrate import Changes, migrate_file

seen = 0
def count(event, arguments):
    # What a crash can fall between: every call that changes a directory or opens a file for writing.
    global seen
    if event in ("os.mkdir", "os.link", "os.rename", "os.remove") or (event == "open" and "w" in str(arguments[1])):
        seen += 1
        if seen == int(sys.argv[2]):
            os.kill(os.getpid(), getattr(signal, (sys.argv[4:] or ["SIGKILL"])[0]))
sys.addaudithook(count)
keys = Path(sys.argv[3])
key = PrivateKey.load((keys / "user.key").read_bytes(), "user.key")
cloud = Certificate.load((keys / "other.crt").read_bytes(), "other.crt")
migrate_file(Path(sys.argv[1]), Changes(cloud=cloud), key)
"""


def test_a_kill_anywhere_leaves_one_of_both_and_the_same_call_goes_on(file: Path, data, other, user) -> None:
    backup = file.with_name(f"{file.name}.bak")
    killed = 0
    for at in range(1, 20):
        shutil.rmtree(file.parent)
        file.parent.mkdir()
        file.write_bytes(data)
        arguments = [sys.executable, "-c", CHILD, str(file), str(at), str(user.key_file.parent)]
        child = subprocess.run(arguments, capture_output=True, check=False, text=True)
        changed = file.read_bytes() != data
        after = manifests.read(file.read_bytes(), where="x")
        assert (keys.opened(after.for_cloud, other.key) is not None) == changed
        assert not backup.exists() or backup.read_bytes() == data
        assert backup.exists() or not changed
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
        killed += 1
        if not changed:
            migrate_file(file, Changes(cloud=other.certificate), user.key)
            assert keys.opened(manifests.read(file.read_bytes(), where="x").for_cloud, other.key)
            assert backup.read_bytes() == data
            assert sorted(file.parent.iterdir()) == [file, backup]
    assert killed >= 5


def test_two_at_once_are_in_nobodys_way(file: Path, data, other, user) -> None:
    stopped = 0
    for at in range(1, 20):
        shutil.rmtree(file.parent)
        file.parent.mkdir()
        file.write_bytes(data)
        arguments = [sys.executable, "-c", CHILD, str(file), str(at), str(user.key_file.parent), "SIGSTOP"]
        child = subprocess.Popen(arguments)
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        if ended is None or ended.si_code != os.CLD_STOPPED:
            assert child.wait() == 0
            break
        stopped += 1
        if file.read_bytes() == data:
            migrate_file(file, Changes(account="999999999999"), user.key)
        child.send_signal(signal.SIGCONT)
        assert child.wait() == 0
        assert keys.opened(manifests.read(file.read_bytes(), where="x").for_cloud, other.key)
        assert file.with_name(f"{file.name}.bak").read_bytes() == data
        assert len(list(file.parent.iterdir())) == 2
    assert stopped >= 5
