"""`emi sandbox faults`: from a file to what the sandbox does, and back to what it did."""

from __future__ import annotations

import json

import boto3  # noqa: TID251 - a client past emi
import pytest

from builder.sandbox import lifecycle

TABLE = "faults:\n  - {effect: throttle, service: ec2, call: Describe*, first: 2}\n  - {effect: slow, seconds: 0}\n"


@pytest.fixture
def ask(emi):
    """Describe images past emi."""
    end = lifecycle.start(emi.home / "sandbox")
    keys = {"aws_access_key_id": end.access_key, "aws_secret_access_key": end.secret_key}
    return lambda: boto3.client("ec2", endpoint_url=end.url, region_name=end.region, **keys).describe_images(
        Owners=["self"]
    )


def test_a_table_is_put_shown_and_cleared(emi, ask, tmp_path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(TABLE)
    assert emi("sandbox", "faults").out == "The sandbox has no faults.\n"
    put = emi("sandbox", "faults", file)
    assert put.out.splitlines() == [
        "fault\tcalls\twhen\tmet\tacted",
        "1:throttle\tec2:Describe*\tfirst=2\t0\t0",
        "2:slow seconds=0.0\t*:*\talways\t0\t0",
    ]
    assert ask()["ResponseMetadata"]["RetryAttempts"] == 2
    shown = json.loads(emi("sandbox", "faults", "--json").out)
    assert [(row["effect"], row["met"], row["acted"]) for row in shown] == [("throttle", 3, 2), ("slow", 3, 3)]
    assert emi("sandbox", "faults", "--clear").out == "The sandbox has no faults.\n"
    assert ask()["ResponseMetadata"]["RetryAttempts"] == 0


def test_a_wrong_table_is_refused_at_its_line_and_the_old_one_stays(emi, tmp_path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(TABLE)
    bad.write_text("faults:\n  - effect: slow\n    call: RegisterImages\n")
    emi("sandbox", "faults", good)
    done = emi("sandbox", "faults", bad)
    assert done.code == 2
    assert "bad.yaml:3:11: the sandbox has no call `RegisterImages`; did you mean `RegisterImage`?" in done.err
    assert len(emi("sandbox", "faults").out.splitlines()) == 3


def test_a_file_and_clear_exclude_each_other(emi, tmp_path) -> None:
    assert emi("sandbox", "faults", tmp_path / "x.yaml", "--clear").code == 2
