"""The list of calls stays readable whatever cut it."""

from __future__ import annotations

from builder import pool
from builder.sandbox import audit


def _actions(calls):
    return [call.action for call in calls]


def test_a_line_that_a_kill_cut_is_skipped_and_spoils_no_other(tmp_path):
    audit.Audit(tmp_path).add("ec2", "DescribeImages", 200)
    file = tmp_path / audit.FILE
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    audit.Audit(tmp_path).add("ec2", "RegisterImage", 400, "InvalidAMIName.Duplicate")
    assert _actions(audit.read_calls(tmp_path)) == ["DescribeImages", "RegisterImage"]
    assert _actions(audit.latest_calls(tmp_path, 1 << 20)) == ["DescribeImages", "RegisterImage"]
    assert _actions(audit.read_calls(tmp_path, start=len(whole))) == ["RegisterImage"]


def test_lines_of_many_threads_are_whole(tmp_path):
    listed = audit.Audit(tmp_path)
    pool.drain(lambda number: listed.add("ebs", f"Put{number}", 201), range(2000), workers=8)
    assert sorted(_actions(audit.read_calls(tmp_path))) == sorted(f"Put{number}" for number in range(2000))
