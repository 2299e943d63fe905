"""Faults put into a running sandbox for one test, and seen from the list of calls."""

from __future__ import annotations

import pytest

from builder.sandbox import audit
from builder.sandbox.faults import client


@pytest.fixture
def faults(sandbox):
    """Put faults into the sandbox: faults({"effect": "throttle"}, …); they are gone after the test."""
    yield lambda *table: client.put(sandbox.endpoint, table)
    client.clear(sandbox.endpoint)


@pytest.fixture
def calls(sandbox):
    """Return the calls made since the test began."""
    start = audit.position(sandbox.directory)
    return lambda: list(audit.read_calls(sandbox.directory, start=start))


@pytest.fixture
def rows(sandbox):
    """Return (calls met, times acted) of every fault."""
    return lambda: [(row.met, row.acted) for row in client.rows(sandbox.endpoint)]
