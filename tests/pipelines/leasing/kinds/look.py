"""A step that works on a machine and makes a file here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.artifact import File, Helper
from pipelines.step import LocalStep, Options, Reference
from tests.pipelines.leasing import world


class LookOptions(Options):
    """Where to look."""

    on: Annotated[str, Reference(Helper)] = Field(description="the machine")
    at: str = Field(default="/", description="what to look at")


class LookStep(LocalStep[LookOptions]):
    """Look at a machine."""

    options = LookOptions
    returns = File
    helper_matters = True

    def build(self, options, inputs, work):
        world.log(f"look {options.at}")
        assert inputs.named["on"].instance_id
        made = work.scratch / "seen"
        made.write_text(options.at)
        return work.store.seal_file(made, name="seen")
