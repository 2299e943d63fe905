"""Putting faults into a running sandbox, and asking what they did: over its own page `/_sandbox/faults`."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from typing import Any

from builder.errors import HostError
from builder.sandbox.faults.model import Fault
from builder.sandbox.faults.table import Row
from builder.sandbox.lifecycle import Endpoint, ask

PAGE = "/_sandbox/faults"


def put(endpoint: Endpoint, faults: Iterable[Fault | Mapping[str, Any]]) -> None:
    """Put these faults in the place of all others, each a Fault or a mapping as in YAML; in force when this returns.

    Raises ValueError for a mapping that is no fault.
    """
    made = [one if isinstance(one, Fault) else Fault.model_validate(dict(one)) for one in faults]
    _ask(endpoint, "PUT", PAGE, json.dumps([fault.model_dump(exclude_unset=True) for fault in made]).encode())


def clear(endpoint: Endpoint) -> None:
    """Remove all faults; what they kept pending goes on."""
    _ask(endpoint, "DELETE", PAGE)


def rows(endpoint: Endpoint) -> list[Row]:
    """Return the faults in force, with how many calls each was about and how often it acted."""
    found = _ask(endpoint, "GET", PAGE)["faults"]
    return [Row(fault=Fault.model_validate(row["fault"]), met=row["met"], acted=row["acted"]) for row in found]


def actions(endpoint: Endpoint) -> dict[str, list[str]]:
    """Return the calls that the sandbox answers, by service."""
    found: dict[str, list[str]] = _ask(endpoint, "GET", "/_sandbox/actions")
    return found


def _ask(endpoint: Endpoint, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
    try:
        return ask(endpoint, path, method=method, body=body)
    except (OSError, http.client.HTTPException) as error:
        raise HostError(
            f"the sandbox at {endpoint.url} does not answer: {error}",
            hint="`emi sandbox status` says whether it runs.",
        ) from error
