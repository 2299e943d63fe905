"""A step that writes into a volume, through the machine that it is attached to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from builder.errors import RemoteFailed
from pipelines.artifact import File, Volume
from pipelines.step import LocalStep, Options, Reference
from tests.pipelines.leasing import world


class FillOptions(Options):
    """What is written."""

    into: Annotated[str, Reference(Volume)] = Field(description="the volume")
    text: str = Field(description="what is written")


class FillStep(LocalStep[FillOptions]):
    """Write into a volume."""

    options = FillOptions
    accepts = (File,)
    returns = Volume

    def build(self, options, inputs, work):
        volume = inputs.named["into"]
        world.log(f"fill {options.text}")
        if (world.place() / "interrupt").exists():
            raise KeyboardInterrupt
        if (world.place() / "broken").exists():
            raise RemoteFailed("the write broke")
        content = world.write(volume.volume_id, volume.helper.instance_id, options.text)
        return volume.model_copy(update={"content": content})
