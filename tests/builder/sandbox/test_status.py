"""What a person is told: the tables of what is in the sandbox, by the port and by `emi sandbox status`."""

from __future__ import annotations

import json
import time

import pytest

from builder.sandbox import lifecycle, tables
from builder.sandbox.tables import Column, Table


def found(running):
    """Return the tables, each as a list of rows by column name."""
    answer = lifecycle.ask(running.endpoint, "/_sandbox/contents")["tables"]
    names = {table["name"]: [column["name"] for column in table["columns"]] for table in answer}
    return {
        table["name"]: [dict(zip(names[table["name"]], row, strict=True)) for row in table["rows"]] for table in answer
    }


def fill(running, blocks):
    """Put a snapshot of two blocks, an unfinished one and an image into it; return their ids."""
    ec2, raw = running.client("ec2"), running.raw()
    whole = raw.snapshot({0: blocks(0), 9: blocks(1)}, Description="the root", Tags=[{"Key": "k", "Value": "v"}])
    begun = raw.start(VolumeSize=2)
    device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": whole}}
    image = ec2.register_image(Name="first", RootDeviceName="/dev/xvda", BlockDeviceMappings=[device])["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 0.02})
    return whole, begun, image


@pytest.mark.behaviour("Operation", "emi sandbox status", "names, states, sizes and paths of snapshots and images")
def test_images_and_snapshots_are_shown(make_sandbox, blocks):
    running = make_sandbox()
    whole, begun, image = fill(running, blocks)
    shown = found(running)
    (first,) = shown["images"]
    assert (first["image"], first["name"], first["state"], first["snapshots"]) == (image, "first", "available", whole)
    newest, oldest = shown["snapshots"]
    state = (newest["snapshot"], newest["state"], newest["volume"], newest["stored"])
    assert state == (begun, "pending 0%", 2 << 30, 0)
    assert (oldest["description"], oldest["tags"], oldest["stored"]) == ("the root", "k=v", 1 << 20)
    assert (running.directory / oldest["path"] / "data").exists()
    assert oldest["region"] == "us-east-1"
    assert abs(time.time() - oldest["age"]) < 60
    assert {one["account"] for one in shown["snapshots"]} == {one["account"] for one in shown["accounts"]}


@pytest.mark.behaviour("Operation", "emi sandbox status", "buckets, objects with their sizes, unfinished uploads")
def test_objects_and_unfinished_uploads_are_shown(make_sandbox):
    running = make_sandbox()
    s3 = running.client("s3")
    s3.create_bucket(Bucket="bucket")
    for number in range(3):
        s3.put_object(Bucket="bucket", Key=f"key {number}", Body=b"x" * number)
    s3.create_multipart_upload(Bucket="bucket", Key="begun")
    shown = found(running)
    assert [one["bucket"] for one in shown["buckets"]] == ["bucket"]
    assert [(one["key"], one["size"]) for one in shown["objects"]] == [("key 2", 2), ("key 1", 1), ("key 0", 0)]
    assert [(one["bucket"], one["key"]) for one in shown["unfinished uploads"]] == [("bucket", "begun")]
    (objects,) = (
        one for one in lifecycle.ask(running.endpoint, "/_sandbox/contents")["tables"] if one["name"] == "objects"
    )
    assert (objects["total"], objects["size"]) == (3, 3)


@pytest.mark.behaviour("Operation", "emi sandbox status", "volumes and instances with their states")
def test_volumes_and_instances_are_shown(make_sandbox):
    running = make_sandbox()
    ec2 = running.client("ec2")
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=3, VolumeType="gp3")["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 0.02})
    (shown,) = found(running)["volumes"]
    assert (shown["volume"], shown["state"], shown["size"], shown["type"]) == (volume, "available", 3 << 30, "gp3")
    assert (running.directory / shown["path"]).stat().st_size == 3 << 30
    ec2.delete_volume(VolumeId=volume)
    assert found(running)["volumes"] == []


def test_calls_and_errors_are_shown_alike_ones_as_one(make_sandbox, code_of):
    running = make_sandbox()
    ec2 = running.client("ec2")
    for _ in range(5):
        ec2.describe_regions()
    assert code_of(ec2.describe_snapshots, SnapshotIds=["snap-0123456789abcdef0"]) == "InvalidSnapshot.NotFound"
    shown = found(running)
    assert [(one["times"], one["call"], one["answer"]) for one in shown["latest calls"]] == [
        ("", "DescribeSnapshots", "400 InvalidSnapshot.NotFound"),
        ("5 x", "DescribeRegions", "200"),
    ]
    assert [one["call"] for one in shown["latest errors"]] == ["DescribeSnapshots"]


def test_the_tail_of_a_long_list_of_calls_is_shown(make_sandbox):
    running = make_sandbox()
    raw = running.raw()
    lines = [f'{{"time": {n}, "service": "x", "action": "A{n}", "status": 200}}\n' for n in range(20_000)]
    (running.directory / "calls.jsonl").write_text("".join(lines))
    raw.ec2(Action="DescribeRegions")
    assert [one["call"] for one in found(running)["latest calls"]][:2] == ["DescribeRegions", "A19999"]


def test_only_the_latest_are_listed_but_all_are_counted(make_sandbox):
    running = make_sandbox()
    raw = running.raw()
    ids = [raw.start() for _ in range(105)]
    (shown,) = (
        one for one in lifecycle.ask(running.endpoint, "/_sandbox/contents")["tables"] if one["name"] == "snapshots"
    )
    assert [row[0] for row in shown["rows"]] == ids[:4:-1]
    assert Table(**shown).about == "105, the latest 100 shown"


@pytest.mark.parametrize(
    ("kind", "cell", "text"),
    [
        ("bytes", 3 << 30, "3 GiB"),
        ("bytes", 0, "0 bytes"),
        ("text", None, ""),
        ("text", "\x1b[31mred\n", "�[31mred�"),
        ("state", "pending 40%", "pending 40%"),
    ],
)
def test_cells_are_shown_for_people(kind, cell, text):
    assert tables.show(kind, cell) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d"), (-5, "0 s")]
)
def test_ages_are_in_units_that_say_enough(seconds, text):
    assert tables.age(time.time() - seconds - 0.1) == text


def test_a_table_counts():
    table = Table(name="x", columns=[Column(name="a")], rows=[("1",)], total=1, size=2048)
    assert (table.about, table.shown()) == ("1, 2 KiB", [["1"]])
    assert Table(name="x", columns=[], rows=[], total=0).about == "none"


def test_the_pages_of_our_own_refuse_what_they_do_not_know(make_sandbox):
    raw = make_sandbox().raw()
    assert raw.call("GET", "/_sandbox/nothing", service=None)[0] == 404
    assert raw.call("GET", "/_sandbox/pause?holder=x&seconds=1", service=None)[0] == 405
    assert raw.call("POST", "/_sandbox/pause?holder=x&seconds=1", service=None)[0] == 405
    for query in ("", "holder=x", "holder=x&seconds=-1", "holder=x&seconds=999", "seconds=1"):
        assert raw.call("PUT", f"/_sandbox/pause?{query}", service=None)[0] == 400
    assert json.loads(raw.call("PUT", "/_sandbox/pause?holder=x&seconds=1", service=None)[2]) == {"held": True}
