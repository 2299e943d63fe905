"""Which calls a fault acts on, how often, and that a restart changes none of it."""

from __future__ import annotations

import pytest

from builder.sandbox import lifecycle
from builder.sandbox.faults import client
from builder.sandbox.faults.model import Fault
from builder.sandbox.faults.table import Table
from builder.sandbox.state import State


@pytest.fixture
def decide(tmp_path):
    """Return on which of `count` calls a fault acts, from 1."""
    state = State(tmp_path / "state.sqlite")
    table = Table(state, tmp_path)

    def run(count, **fault):
        table.replace([Fault(effect="throttle", **fault)])
        return [number for number in range(1, count + 1) if table.acting(lambda _: True)]

    yield run
    state.close()


@pytest.mark.parametrize(
    ("fault", "acts"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"first": 2}, [1, 2]),
        ({"every": 3}, [3, 6, 9]),
        ({"after": 7}, [8, 9]),
        ({"after": 3, "first": 2}, [4, 5]),
        ({"after": 1, "every": 2, "first": 3}, [3, 5, 7]),
    ],
)
@pytest.mark.behaviour("Faults", "count", "a fault acts on the first N, every N-th, or from the N-th call on, as asked")
def test_counts_choose_the_calls(decide, fault, acts):
    assert decide(9, **fault) == acts


@pytest.mark.behaviour("Faults", "probability", "the same seed over the same calls gives the same faults")
def test_the_same_seed_draws_the_same_calls(decide):
    drawn = decide(400, probability=0.25, seed=3)
    assert decide(400, probability=0.25, seed=3) == drawn
    assert decide(400, probability=0.25, seed=4) != drawn
    assert 60 < len(drawn) < 140
    assert len(decide(400, probability=0.25, seed=3, first=5)) == 5


SELECTIONS = [
    ({"service": "ec2"}, True),
    ({"service": "ebs"}, False),
    ({"call": "Describe*"}, True),
    ({"call": "DescribeSnapshots"}, False),
    ({"region": "us-east-1"}, True),
    ({"region": "eu-*"}, False),
    ({"account": "123456789012"}, True),
    ({"account": "999999999999"}, False),
    ({"resource": "ami-0123*"}, True),
    ({"resource": "ami-9*"}, False),
]


@pytest.mark.parametrize(("selector", "acts"), SELECTIONS)
@pytest.mark.behaviour("Faults", "select", "service, call, region, account and resource choose, with wildcards")
def test_a_fault_acts_on_what_it_selects(ec2, faults, calls, selector, acts):
    faults({"effect": "refuse", "code": "Chosen", **selector})
    with pytest.raises(Exception, match="Chosen" if acts else r"InvalidAMIID\.NotFound"):
        ec2.describe_images(ImageIds=["ami-01234567890123456"])
    assert [call.fault for call in calls()] == (["1:refuse"] if acts else [""])


@pytest.mark.behaviour("Faults", "restart", "the table and its counts survive a restart, until it is cleared")
def test_the_table_survives_a_restart(make_sandbox, code_of):
    sandbox = make_sandbox()
    client.put(sandbox.endpoint, [{"effect": "throttle", "call": "DescribeImages", "first": 3}])
    assert code_of(sandbox.client("ec2").describe_images) == "RequestLimitExceeded"
    lifecycle.stop(sandbox.directory)
    sandbox.restart()
    (row,) = client.rows(sandbox.endpoint)
    assert (row.met, row.acted, row.fault.first) == (1, 1, 3)
    ec2 = sandbox.client("ec2")
    assert [code_of(ec2.describe_images) for _ in range(2)] == ["RequestLimitExceeded"] * 2
    assert ec2.describe_images(Owners=["self"])["Images"] == []
    client.clear(sandbox.endpoint)
    assert client.rows(sandbox.endpoint) == []
    assert list(sandbox.directory.glob("faults-*")) == []
    lifecycle.stop(sandbox.directory)
    sandbox.restart()
    assert client.rows(sandbox.endpoint) == []


def test_a_table_replaces_the_one_before(ec2, faults, rows, code_of):
    faults({"effect": "throttle"}, {"effect": "slow", "seconds": 0})
    assert code_of(ec2.describe_images) == "RequestLimitExceeded"
    assert rows() == [(1, 1), (1, 1)]
    faults({"effect": "denied"})
    assert rows() == [(0, 0)]
    assert code_of(ec2.describe_images) == "UnauthorizedOperation"


def test_the_page_refuses_what_is_no_table(sandbox, raw):
    status, _, body = raw.call("PUT", "/_sandbox/faults", b'[{"effect": "slow", "cal": "x"}]', service=None)
    assert status == 400
    assert b'"cal"' in body
    assert raw.call("POST", "/_sandbox/faults", b"[]", service=None)[0] == 405
    assert client.rows(sandbox.endpoint) == []
