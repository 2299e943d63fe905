"""The store: whole under its digest or absent, sparse files named by content, pruned without harm."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess  # noqa: TID251 - mounts a small filesystem to fill
import sys
import time
from pathlib import Path

import pytest

from builder import proc
from builder.errors import FormatRefused
from builder.guest import overlay
from pipelines.artifact import ARTIFACT, File, ImageFile
from pipelines.store import FileStore

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """An empty store."""
    return FileStore(tmp_path / "objects")


def scratch_file(tmp_path: Path, data: bytes, *, size: int | None = None) -> Path:
    path = tmp_path / "scratch"
    with open(path, "wb") as file:
        file.write(data)
        file.truncate(size or len(data))
    return path


def test_a_sealed_file_is_read_only_under_its_digest(tmp_path: Path, store: FileStore) -> None:
    path = scratch_file(tmp_path, b"content")
    artifact = store.seal_file(path, name="a")
    assert artifact == File(digest=f"sha256:{hashlib.sha256(b'content').hexdigest()}", size=7, name="a")
    assert store.path(artifact).read_bytes() == b"content"
    assert store.path(artifact).stat().st_mode & 0o222 == 0
    assert not path.exists()


def test_sealing_the_same_bytes_twice_keeps_one_object(tmp_path: Path, store: FileStore) -> None:
    first = store.seal_file(scratch_file(tmp_path, b"same"), name="a")
    second = store.seal_file(scratch_file(tmp_path, b"same"), name="b")
    assert first.digest == second.digest
    assert len(list((tmp_path / "objects").glob("*/*"))) == 1


def test_a_part_of_a_bundle_is_named_by_the_sha1_its_maker_knows(tmp_path: Path, store: FileStore) -> None:
    sha1 = hashlib.sha1(b"part", usedforsecurity=False).hexdigest()
    part = store.seal_part(scratch_file(tmp_path, b"part"), name="x.part.00", sha1=sha1)
    assert part == File(digest=f"sha1:{sha1}", size=4, name="x.part.00")
    assert store.path(part).read_bytes() == b"part"
    assert list(store.damaged()) == []
    store.path(part).chmod(0o644)
    store.path(part).write_bytes(b"trap")
    assert list(store.damaged()) == [store.path(part)]
    assert store.seal_part(scratch_file(tmp_path, b""), name="x.part.01", sha1=hashlib.sha1(b"").hexdigest()).size == 0


def test_a_sparse_image_is_named_by_its_content_whatever_its_holes(tmp_path: Path, store: FileStore) -> None:
    data = os.urandom(MIB)
    sparse = store.seal_image(scratch_file(tmp_path, data, size=64 * MIB), format="raw", virtual_size=64 * MIB)
    full = scratch_file(tmp_path, data + bytes(63 * MIB))
    assert store.seal_image(full, format="raw", virtual_size=64 * MIB) == sparse
    assert sparse.digest.startswith("blocks:")


def test_an_overlay_needs_its_backing(tmp_path: Path, store: FileStore) -> None:
    base = store.seal_image(scratch_file(tmp_path, b"x" * MIB), format="raw", virtual_size=MIB)
    overlay = ImageFile(digest="sha256:" + "0" * 64, format="qcow2", virtual_size=MIB, backing=base)
    assert not store.holds(overlay)
    store.path(overlay).parent.mkdir(parents=True, exist_ok=True)
    store.path(overlay).write_bytes(b"")
    assert store.holds(overlay)
    store.path(base).unlink()
    assert not store.holds(overlay)


def test_a_download_that_is_no_image_is_refused_under_its_publishers_name(tmp_path: Path, store: FileStore) -> None:
    artifact = store.seal_file(scratch_file(tmp_path, b"\xfd7zXZ\x00" + bytes(100)), name="debian.raw.xz")
    with pytest.raises(FormatRefused, match=r"^debian\.raw\.xz is not a disk image but an xz"):
        store.open_image(artifact)


def test_a_prune_removes_only_what_nobody_keeps_and_was_there_before(tmp_path: Path, store: FileStore) -> None:
    kept = store.seal_file(scratch_file(tmp_path, b"kept"), name="a")
    dropped = store.seal_file(scratch_file(tmp_path, b"dropped"), name="b")
    done = store.prune(lambda: {kept.digest}, sealed_before=lambda: time.time() + 1)
    assert (done.removed, done.kept) == (1, 1)
    assert store.contains(kept.digest)
    assert not store.contains(dropped.digest)


def test_a_prune_spares_what_a_run_in_progress_sealed(tmp_path: Path, store: FileStore) -> None:
    run_began = time.time() - 5
    path = scratch_file(tmp_path, b"made by the run")
    os.utime(path, (run_began - 3600, run_began - 3600))  # begun by a run that was killed an hour ago
    made = store.seal_file(path, name="a")
    store.prune(set, sealed_before=lambda: run_began)
    assert store.contains(made.digest)


def test_sealing_again_makes_an_old_object_new(tmp_path: Path, store: FileStore) -> None:
    first = store.seal_file(scratch_file(tmp_path, b"old"), name="a")
    os.utime(store.path(first), (1, 1))
    store.seal_file(scratch_file(tmp_path, b"old"), name="a")
    store.prune(set, sealed_before=lambda: time.time() - 60)
    assert store.contains(first.digest)


def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f"""
        mount -t tmpfs -o size=1m tmpfs {small} && exec {sys.executable} -c '
from pathlib import Path
from builder import durable
from builder.errors import DiskFull
try:
    durable.write_file(Path("{small}/file"), bytes(4 << 20))
except DiskFull as error:
    print(error.message)
print(sorted(p.name for p in Path("{small}").iterdir() if not p.name.startswith(".")))
'"""
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert f"no space left for {small}" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_a_prune_asks_what_to_keep_only_when_nobody_can_look_or_seal(tmp_path: Path, store: FileStore) -> None:
    old = store.seal_file(scratch_file(tmp_path, b"old"), name="a")
    looking = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)"

    def keep() -> set[str]:
        other = subprocess.run([sys.executable, "-c", looking, tmp_path / "objects"], capture_output=True, check=False)
        assert b"BlockingIOError" in other.stderr
        return {old.digest}

    assert store.prune(keep, sealed_before=lambda: time.time() + 1).kept == 1


def test_an_object_that_was_cut_off_is_not_believed_and_is_replaced(tmp_path: Path, store: FileStore) -> None:
    artifact = store.seal_file(scratch_file(tmp_path, b"whole"), name="a")
    store.path(artifact).chmod(0o644)
    store.path(artifact).write_bytes(b"who")
    assert not store.holds(artifact)
    store.drop_if_cut(artifact)
    store.seal_file(scratch_file(tmp_path, b"whole"), name="a")
    assert store.holds(artifact)
    assert store.path(artifact).read_bytes() == b"whole"


def test_a_part_of_a_disk_is_its_file_and_a_window(tmp_path: Path, store: FileStore) -> None:
    data = os.urandom(4 * MIB)
    disk = store.seal_image(scratch_file(tmp_path, data), format="raw", virtual_size=4 * MIB)
    part = disk.part(MIB, 2 * MIB).part(MIB // 2, MIB)
    assert (part.digest, part.offset, part.virtual_size, part.whole()) == (disk.digest, 3 * MIB // 2, MIB, disk)
    assert disk.part(0, 4 * MIB) == disk
    assert ARTIFACT.validate_json(part.model_dump_json()) == part
    with store.open_image(part) as reader:
        assert reader.pread(2 * MIB, 0) == data[3 * MIB // 2 : 5 * MIB // 2] + bytes(MIB)
    assert store.holds(part)
    assert store.allocated(part) == MIB
    assert store.layer(part).window == (3 * MIB // 2, MIB)


def test_a_part_of_a_disk_is_cut_when_its_disk_is(tmp_path: Path, store: FileStore) -> None:
    disk = store.seal_image(scratch_file(tmp_path, b"x" * MIB), format="raw", virtual_size=MIB)
    part = disk.part(0, MIB // 2)
    store.path(disk).chmod(0o644)
    os.truncate(store.path(disk), MIB // 2)
    assert not store.holds(part)
    store.drop_if_cut(part)
    assert not store.contains(disk.digest)


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, 0), (1, MIB), (MIB, 1)])
def test_a_part_lies_within_its_disk(offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="lie within"):
        ImageFile(digest="blocks:" + "0" * 64, format="raw", virtual_size=MIB).part(offset, size)


def test_a_layer_over_a_part_is_that_part_of_the_layered_disk(tmp_path: Path, store: FileStore) -> None:
    data = os.urandom(4 * MIB)
    disk = store.seal_image(scratch_file(tmp_path, data), format="raw", virtual_size=4 * MIB)
    part = disk.part(MIB, 2 * MIB).model_copy(
        update={"kernel": store.seal_file(scratch_file(tmp_path, b"k"), name="k")}
    )
    target = tmp_path / "over.qcow2"
    made = overlay.create(store.layer(part), target, backing_name=store.backing_name(part.digest))
    with overlay.open_layer(made) as reader:
        assert reader.pread(MIB, 0) == data[MIB : 2 * MIB]
    sealed = store.seal_layer(target, part)
    assert (sealed.backing, sealed.offset, sealed.virtual_size) == (disk, MIB, 2 * MIB)
    with store.open_image(sealed) as reader:
        assert reader.pread(2 * MIB, 0) == data[MIB : 3 * MIB]
    # The name in the header leads any tool to the disk, from where the overlay lies.
    told = json.loads(
        proc.run(["qemu-img", "info", "-U", "--backing-chain", "--output=json", store.path(sealed)]).stdout
    )
    assert Path(told[1]["filename"]).samefile(store.path(disk))


def test_a_layer_has_the_size_that_its_disk_was_given(tmp_path: Path, store: FileStore) -> None:
    data = os.urandom(2 * MIB)
    disk = store.seal_image(scratch_file(tmp_path, data), format="raw", virtual_size=2 * MIB)
    for size in (MIB, 3 * MIB):
        target = tmp_path / f"over-{size}.qcow2"
        words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", store.backing_name(disk.digest)]
        proc.run([*words, target, str(size)])
        sealed = store.seal_layer(target, disk)
        assert (sealed.virtual_size, sealed.window, sealed.backing) == (size, None, disk)
        with store.open_image(sealed) as reader:
            assert reader.pread(3 * MIB, 0) == data[:size].ljust(3 * MIB, b"\0")


def test_a_prune_works_on_a_full_disk(tmp_path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    emi = Path(sys.executable).parent / "emi"
    script = f"""
        mount -t tmpfs -o size=12m tmpfs {home} && export EMI_HOME={home} && {emi} status
        mkdir {home}/store/objects/aa && head -c 3M /dev/zero > {home}/store/objects/aa/sha256-aa
        cat /dev/zero > {home}/fill
        {emi} status
        {emi} store prune
    """
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert "no space left for" in done.stderr
    assert "removed 1 files" in done.stdout
