"""A shorthand's steps stand in the recipe as if they had been written there, each on the shorthand's line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from pipelines.artifact import File, MachineImage, Snapshot
from pipelines.plan import arrange
from pipelines.recipe import Recipe, RecipeError, load
from pipelines.step import Meant, Options, Reference, Shorthand, Step, its


class PublishOptions(Options):
    name: str = Field(description="the image's name")
    parent: Annotated[str | None, Reference(Snapshot)] = Field(default=None, description="an earlier snapshot")
    kernel: Annotated[str | None, Reference(File)] = Field(default=None, description="a kernel")


class Publish(Shorthand[PublishOptions]):
    """Publish an image, after its kernel if it has one."""

    options = PublishOptions
    accepts = (File,)
    returns = MachineImage

    def stands_for(self, options: PublishOptions, source: str) -> Sequence[Meant]:
        kernel = [Meant(name="kernel", kind="snapshot", source=options.kernel)] if options.kernel else []
        parent = its("kernel") if options.kernel else options.parent
        return (
            *kernel,
            Meant(name="disk", kind="snapshot", options={"parent": parent} if parent else {}, source=source),
            Meant(name="", kind="register", options={"name": options.name}, source=its("disk")),
        )


MORE: dict[str, type[Step[Any]]] = {"publish": Publish}
Read = Callable[[str], Recipe]


def test_its_steps_take_its_place_each_under_an_id_of_its_own(read: Read) -> None:
    recipe = read("""\
    id: root
  - download: {url: file:///vmlinuz}
    id: kernel
  - publish: {name: web, kernel: kernel}
    from: root
    id: web
outputs:
  image: web.image_id
  kernel: web-kernel.snapshot_id
""")
    assert [(item.id, item.kind, item.source) for item in recipe.steps[2:]] == [
        ("web-kernel", "snapshot", "kernel"),
        ("web-disk", "snapshot", "root"),
        ("web", "register", "web-disk"),
    ]
    assert recipe.step("web-disk").references == {"parent": "web-kernel"}
    assert {item.line for item in recipe.steps[2:]} == {7}
    assert [node.title for node in arrange(recipe)] == ["root", "kernel", "web-kernel", "web-disk", "web"]
    assert recipe.warnings == ()


def test_it_takes_the_step_above_and_those_below_take_its_last(read: Read) -> None:
    recipe = read("  - publish: {name: one}\n  - publish: {name: two, parent: publish-disk}\n    from: download\n")
    ids = [item.id for item in recipe.steps]
    assert ids == ["download", "publish-disk", "publish", "publish-2-disk", "publish-2"]
    assert recipe.step("publish-2-disk").references == {"parent": "publish-disk"}


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        pytest.param(
            "  - publish: {name: x}\n",
            "x.yaml:4:21: 'x' cannot be an image's name",
            id="what one of its steps refuses is told on its line",
        ),
        pytest.param(
            "  - publish: {name: web, kernel: vmlinuz}\n",
            "x.yaml:4:34: there is no step `vmlinuz`",
            id="a name that it hands on is shown where it was written",
        ),
        pytest.param(
            "  - publish: {name: web, nmae: web}\n",
            "x.yaml:4:26: unknown option `nmae` of step `publish`; did you mean `name`?",
            id="its own options are closed",
        ),
        pytest.param(
            "  - publish: {name: web}\n    from: nothing\n",
            "x.yaml:5:11: there is no step `nothing`",
            id="a source that is not there",
        ),
        pytest.param(
            "  - snapshot:\n    id: publish-disk\n  - publish: {name: web}\n    from: download\n",
            "x.yaml:6:5: `publish` makes a step `publish-disk`, but that in line 4 has this id",
            id="an id that is taken",
        ),
        pytest.param(
            "  - snapshot:\n  - publish: {name: web}\n",
            "but `snapshot` gives a snapshot\n    5 |   - publish: {name: web}",
            id="a source of the wrong type",
        ),
    ],
)
def test_problems_stand_on_the_authors_own_lines(steps: str, says: str, read: Read) -> None:
    with pytest.raises(RecipeError) as caught:
        read(steps)
    assert says in str(caught.value)


def test_without_a_step_before_it(tmp_path: Path, more_kinds: Any) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nsteps:\n  - publish: {name: web}\n")
    with pytest.raises(RecipeError, match="step `publish` takes a file, but no step comes before it"):
        load(path, kinds=more_kinds)
