"""The step `snapshot`: what it asks for, what it hands on, and that it can be entered again."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path

import pytest
from pydantic import ValidationError

from builder import proc
from builder.cloud.aws import Aws, Settings
from builder.cloud.claims import RECIPE_TAG, TAG, Claim
from builder.digest import BLOCK
from builder.errors import CloudConflict, InputError
from builder.progress import SILENT
from builder.sandbox import audit, lifecycle
from pipelines.artifact import ImageFile, Snapshot
from pipelines.kinds import load
from pipelines.step import Inputs, Outside, Work
from pipelines.steps.snapshot import SnapshotOptions
from pipelines.store import FileStore

STEP = load("snapshot")
DATA = (0, 3, 4, 9)
SIZE = 12 * BLOCK


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sandbox")
    yield lifecycle.start(directory)
    lifecycle.stop(directory)


@pytest.fixture
def cloud(endpoint):
    keys = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key}
    made = Aws(Settings(region=endpoint.region, endpoint_url=endpoint.url, **keys))
    yield made
    made.close()


@pytest.fixture
def calls(endpoint):
    start = audit.position(endpoint.directory)
    return lambda: [f"{call.service}:{call.action}" for call in audit.read_calls(endpoint.directory, start=start)]


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path / "objects")


@pytest.fixture
def image(store, tmp_path) -> ImageFile:
    path, numbers = tmp_path / "disk.raw", random.Random(3)
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for index in DATA:
            file.seek(index * BLOCK)
            file.write(numbers.randbytes(BLOCK))
    return store.seal_image(path, format="raw", virtual_size=SIZE)


@pytest.fixture
def work(store, tmp_path) -> Work:
    (tmp_path / "scratch").mkdir()
    outside = Outside(recipe_directory=tmp_path, cache=tmp_path / "cache", store=store)
    return Work(scratch=tmp_path / "scratch", outside=outside, pins={}, progress=SILENT, labels={RECIPE_TAG: "test"})


def claim(request: pytest.FixtureRequest, generation: int = 0) -> Claim:
    return Claim(request.node.name + str(request.config.cache), generation)


def make(options: SnapshotOptions, source, mine: Claim, cloud: Aws, work: Work, **named) -> Snapshot:
    """Run the step as the runner does."""
    inputs = Inputs(source=source, named=named)
    effect = STEP.find(options, inputs, mine, cloud) or STEP.start(options, inputs, mine, cloud, work)
    made = STEP.finish(options, inputs, effect, cloud, work)
    assert isinstance(made, Snapshot)
    return made


def test_an_image_becomes_a_verified_snapshot_by_the_announced_calls(request, cloud, calls, image, work):
    options = SnapshotOptions(description="d", tags={"Name": "n"}, volume_size=2)
    made = make(options, image, claim(request), cloud, work)
    assert made == Snapshot(
        snapshot_id=made.snapshot_id, region="us-east-1", volume_size=2, content=image.digest, blocks=4, verified=True
    )
    assert STEP.present(made, cloud)
    record = cloud.describe_snapshot(made.snapshot_id)
    assert record
    assert (record.status, record.volume_size, record.description) == ("completed", 2, "d")
    assert record.tags == {"Name": "n", RECIPE_TAG: "test", TAG: claim(request).token}
    assert set(calls()) == {str(call) for call in STEP.calls(options)}
    cloud.delete_snapshot(made.snapshot_id)
    assert not STEP.present(made, cloud)


def test_a_part_of_a_disk_is_sent_without_the_rest(request, cloud, store, image, work, tmp_path):
    offset, size = 2 * BLOCK + 4096, 5 * BLOCK
    made = make(SnapshotOptions(), image.part(offset, size), claim(request), cloud, work)
    path = tmp_path / "part.raw"
    path.write_bytes(store.path(image).read_bytes()[offset : offset + size])
    assert made.content == store.seal_image(path, format="raw", virtual_size=size).digest
    assert (made.blocks, made.verified) == (3, True)  # two blocks of data, across the borders of the part's own


def test_without_verify_nothing_is_read_back(request, cloud, calls, image, work):
    options = SnapshotOptions(verify=False)
    made = make(options, image, claim(request), cloud, work)
    assert (made.verified, made.volume_size, made.content) == (False, 1, image.digest)
    assert set(calls()) == {str(call) for call in STEP.calls(options)}
    assert "ebs:GetSnapshotBlock" not in calls()


def test_a_downloaded_disk_is_taken_as_it_came(request, cloud, image, work, store, tmp_path):
    copy, qcow2 = tmp_path / "cloud.raw", tmp_path / "cloud.qcow2"
    shutil.copyfile(store.path(image), copy)
    entry = struct.pack("<B3xB3xII", 0x80, 0x83, 1, SIZE // 512 - 1)
    with open(copy, "r+b") as file:  # a partition table is what makes a raw file a disk
        file.write(bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa")
    proc.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", copy, qcow2])
    made = [
        make(SnapshotOptions(), store.seal_file(path, name=path.name), claim(request, generation), cloud, work)
        for generation, path in enumerate((copy, qcow2))
    ]
    assert made[0].content == made[1].content
    assert [(one.blocks, one.verified) for one in made] == [(4, True), (4, True)]


def test_finish_may_be_entered_again_and_sends_nothing_twice(request, cloud, calls, image, work):
    made = make(SnapshotOptions(), image, claim(request), cloud, work)
    puts = calls().count("ebs:PutSnapshotBlock")
    gets = calls().count("ebs:GetSnapshotBlock")
    assert make(SnapshotOptions(), image, claim(request), cloud, work) == made
    assert calls().count("ebs:PutSnapshotBlock") == puts == 4
    assert calls().count("ebs:GetSnapshotBlock") == gets == 4
    assert calls().count("ebs:StartSnapshot") == 1


@pytest.mark.parametrize("by", ["step", "id"])
def test_a_parent_makes_it_incremental(request, cloud, calls, image, work, tmp_path, by):
    store = work.store
    parent = make(SnapshotOptions(), image, claim(request), cloud, work)
    path = tmp_path / "edited.raw"
    shutil.copyfile(store.path(image), path)
    with open(path, "r+b") as file:
        file.write(b"edited")
    edited = store.seal_image(path, format="raw", virtual_size=SIZE)
    shutil.rmtree(work.scratch)
    work.scratch.mkdir()
    before = calls().count("ebs:PutSnapshotBlock")
    if by == "step":
        made = make(SnapshotOptions(parent="base"), edited, claim(request, 1), cloud, work, parent=parent)
    else:
        options = SnapshotOptions(parent_snapshot=parent.snapshot_id)
        made = make(options, edited, claim(request, 1), cloud, work)
    assert calls().count("ebs:PutSnapshotBlock") == before + 1
    assert (made.content, made.blocks, made.verified) == (edited.digest, 4, True)


def test_bytes_that_changed_in_the_store_are_refused(request, cloud, image, work, store):
    path: Path = store.path(image)
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.write(b"tampered")
    with pytest.raises(InputError, match="not those it is named by"):
        make(SnapshotOptions(), image, claim(request), cloud, work)
    (pending,) = cloud.find_snapshots(claim(request))
    assert pending.status == "pending"


def test_an_image_larger_than_its_volume_is_refused_before_anything_starts(request, cloud, calls, image, work, store):
    big = store.path(image).with_name("big")
    with open(big, "wb") as file:
        file.truncate((1 << 30) + BLOCK)
    sealed = store.seal_image(big, format="raw", virtual_size=(1 << 30) + BLOCK)
    with pytest.raises(InputError, match="volume of 2 GiB"):
        make(SnapshotOptions(volume_size=1), sealed, claim(request), cloud, work)
    assert set(calls()) == {"ec2:DescribeSnapshots"}


def test_two_snapshots_under_one_claim_are_an_error(request, cloud):
    mine = claim(request)
    for other in (5, 6):
        tags = {"tag": "x"}
        twin = cloud.start_snapshot(Claim(mine.key, other), volume_size=1, description="", tags=tags, parent=None)
        cloud._call("ec2", "CreateTags", Resources=[twin.snapshot_id], Tags=[{"Key": TAG, "Value": mine.token}])
    with pytest.raises(CloudConflict, match="2 snapshots carry the claim"):
        STEP.find(SnapshotOptions(), Inputs(), mine, cloud)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parent": "base", "parent_snapshot": "snap-1"}, "exclude each other"),
        ({"parent_snapshot": "ami-1"}, "must be the id of a snapshot"),
        ({"tags": {"aws:x": "y"}}, "reserved"),
        ({"tags": {"euca:x": "y"}}, "reserved"),
        ({"tags": {"emi:claim": "y"}}, "reserved"),
        ({"tags": {"k" * 128: "y"}}, "too long"),
        ({"tags": {"k": "y" * 256}}, "too long"),
        ({"tags": {str(number): "" for number in range(49)}}, "too many"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(options, words):
    (problem,) = STEP.check(SnapshotOptions(**options))
    assert words in problem


@pytest.mark.parametrize("options", [{"volume_size": 0}, {"volume_size": 70000}, {"connections": 0}, {"speed": 1}])
def test_impossible_values_are_refused(options):
    with pytest.raises(ValidationError):
        SnapshotOptions(**options)


def test_the_number_of_connections_is_no_part_of_the_key():
    assert "connections" not in SnapshotOptions(connections=3).model_dump()
