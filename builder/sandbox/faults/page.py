"""The sandbox's own page `/_sandbox/faults`: GET shows the table, PUT replaces it, DELETE clears it."""

from __future__ import annotations

import json

from pydantic import TypeAdapter, ValidationError

from builder.sandbox.faults.model import Fault
from builder.sandbox.faults.table import Table
from builder.sandbox.protocols import rest_json
from builder.sandbox.wire import Answer, Request

_FAULTS = TypeAdapter(list[Fault])


def answer(table: Table, request: Request) -> Answer:
    """Answer a request for the page.

    PUT and DELETE are methods that a page of another origin cannot send without asking first, which nobody answers.
    """
    match request.method:
        case "PUT":
            try:
                table.replace(_FAULTS.validate_json(request.body))
            except ValidationError as error:
                return rest_json.answer({"problems": json.loads(error.json(include_context=False))}, status=400)
        case "DELETE":
            table.replace(())
        case "GET":
            pass
        case _:
            return Answer(status=405, headers={"Allow": "GET, PUT, DELETE"})
    rows = [
        {"fault": row.fault.model_dump(exclude_unset=True), "met": row.met, "acted": row.acted} for row in table.rows()
    ]
    return rest_json.answer({"faults": rows})
