"""What runs behind instances is a setting of the directory; machines are told what they may reach."""

from __future__ import annotations

import pytest

from builder.errors import HostError, UsageError
from builder.sandbox import lifecycle


def test_machines_are_a_setting_that_is_kept_and_may_change(make_sandbox, tmp_path):
    running = make_sandbox(machines="qemu")
    assert running.endpoint.machines == "qemu"
    lifecycle.forward(running.directory, 8080)
    for method, query in (("GET", "port=1"), ("PUT", "port=0"), ("PUT", "port=65536"), ("PUT", "port=http")):
        with pytest.raises(HostError, match="405" if method == "GET" else "400"):
            lifecycle.ask(running.endpoint, f"/_sandbox/forward?{query}", method=method)
    (running.directory / "instance-store").mkdir()
    lifecycle.stop(running.directory)
    with pytest.raises(HostError, match="no sandbox runs"):
        lifecycle.forward(running.directory, 8080)
    assert lifecycle.start(running.directory).machines == "qemu"
    lifecycle.stop(running.directory)
    assert lifecycle.start(running.directory, machines="none").machines == "none"
    assert not (running.directory / "machines").exists()
    with pytest.raises(UsageError, match="no machines `xen`"):
        lifecycle.start(tmp_path / "other", machines="xen")
