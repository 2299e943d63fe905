"""Sandboxes with machines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # fleets.py
from fleets import Account


@pytest.fixture
def account(make_sandbox, driver):
    """The first account of a sandbox of the test's own, with machines of the driver."""
    return Account(make_sandbox(machines=driver))
