"""ID.kernel and ID.ramdisk: what a `kernel` step put beside an image, named by later steps and by outputs."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from builder.errors import InputError
from pipelines.artifact import File, ImageFile
from pipelines.plan import arrange, bind, by_id
from pipelines.recipe import Output, RecipeError
from pipelines.recipe.parts import PARTS, pick, split
from pipelines.step import GuestStep, LocalStep, Options, Reference, Step

KERNEL = File(digest="sha256:" + "1" * 64, size=1, name="kernel")
IMAGE = ImageFile(digest="blocks:" + "2" * 64, format="raw", virtual_size=1 << 30, kernel=KERNEL)


class Pack(LocalStep[Any]):
    """Takes an image and two files."""

    class Options(Options):
        kernel: Annotated[str | None, Reference(File)] = Field(default=None, description="a kernel")
        image: Annotated[str | None, Reference(ImageFile)] = Field(default=None, description="an image")

    options = Options
    accepts = (File, ImageFile)
    returns = File

    def build(self, options, inputs, work):
        raise NotImplementedError


class Rebuild(GuestStep[Any]):
    """Changes the initramfs, and may take a kernel from elsewhere."""

    options = Pack.Options
    may_change_kernel = True

    def edits(self, options, facts, pins):
        raise NotImplementedError


class Measure(Pack):
    """Takes an image and nothing else."""

    accepts = (ImageFile,)


MORE: dict[str, type[Step[Any]]] = {"measure": Measure, "pack": Pack, "rebuild": Rebuild}


def test_a_step_takes_a_part_as_its_source_and_in_its_options(read):
    recipe = read("""\
  - kernel:
    id: root
  - pack:
    from: root.ramdisk
  - pack: {kernel: root.kernel, image: root}
    from: root
outputs:
  kernel: root.kernel
  disk: root.digest
  pack: pack-2
  other: pack
""")
    assert recipe.step("pack").source == "root.ramdisk"
    assert recipe.step("pack-2").references == {"kernel": "root.kernel", "image": "root"}
    assert recipe.outputs["kernel"] == Output(step="root", field="kernel")
    assert recipe.warnings == ()


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param("  - kernel:\n  - fstab:\n  - label: {label: a}\n    id: last\n", id="guest steps after it"),
        pytest.param("  - kernel:\n  - expect: {table: gpt}\n  - fstab:\n    id: last\n", id="a step that hands on"),
        pytest.param("  - fstab:\n  - kernel:\n    id: last\n", id="itself"),
        pytest.param("  - kernel:\n  - pack:\n  - fstab:\n    from: kernel\n    id: last\n", id="from over others"),
    ],
)
def test_what_a_kernel_step_put_beside_the_image_stays_there(steps, read):
    assert read(f"{steps}  - pack:\n    from: last.kernel\n").step("pack" if "- pack:\n  -" not in steps else "pack-2")


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        pytest.param(
            "  - kernel:\n    id: root\n  - pack:\n    from: root.kernal\n",
            "x.yaml:7:11: no step's result has a part `kernal`; did you mean `root.kernel`?\n"
            "    7 |     from: root.kernal\n      |           ^^^^^^^^^^^",
            id="a misspelt part",
        ),
        pytest.param(
            "  - kernel:\n    id: root\n  - pack:\n    from: rooot.kernel\n",
            "x.yaml:7:11: there is no step `rooot`; did you mean `root.kernel`?\n"
            "    7 |     from: rooot.kernel\n      |           ^^^^^^^^^^^^",
            id="a misspelt step",
        ),
        pytest.param(
            "  - kernel:\n    id: root\n  - pack: {kernel: root.digest}\n",
            "x.yaml:6:20: no step's result has a part `digest`; there are `kernel` and `ramdisk`\n"
            "    6 |   - pack: {kernel: root.digest}\n      |                    ^^^^^^^^^^^",
            id="a field that is no file",
        ),
        pytest.param(
            "  - fstab:\n  - kernel:\n    id: root\n  - pack: {kernel: fstab.ramdisk}\n",
            "x.yaml:7:20: `fstab` has no ramdisk beside its image: no `kernel` step led to it; "
            "did you mean `root.ramdisk`?\n"
            "    7 |   - pack: {kernel: fstab.ramdisk}\n      |                    ^^^^^^^^^^^^^",
            id="a step before the kernel step",
        ),
        pytest.param(
            "  - fstab:\n  - pack:\n    from: fstab.kernel\n",
            "x.yaml:6:11: `fstab` has no kernel beside its image: no `kernel` step led to it\n"
            "    6 |     from: fstab.kernel\n      |           ^^^^^^^^^^^^",
            id="no kernel step at all",
        ),
        pytest.param(
            "  - kernel:\n  - convert: {format: raw}\n  - pack:\n    from: convert.kernel\n",
            "x.yaml:7:11: `convert` has no kernel beside its image: no `kernel` step led to it; "
            "did you mean `kernel.kernel`?\n"
            "    7 |     from: convert.kernel\n      |           ^^^^^^^^^^^^^^",
            id="a step that makes another image",
        ),
        pytest.param(
            "  - kernel:\n  - fstab:\n    from: kernel.ramdisk\n  - pack:\n    from: fstab.kernel\n",
            "x.yaml:8:11: `fstab` has no kernel beside its image: no `kernel` step led to it; "
            "did you mean `kernel.kernel`?\n"
            "    8 |     from: fstab.kernel\n      |           ^^^^^^^^^^^^",
            id="a step on the file instead of the image",
        ),
        pytest.param(
            "  - kernel:\n  - snapshot:\n  - pack:\n    from: snapshot.kernel\n",
            "x.yaml:7:11: `snapshot` gives a snapshot, which has no kernel; did you mean `kernel.kernel`?\n"
            "    7 |     from: snapshot.kernel\n      |           ^^^^^^^^^^^^^^^",
            id="no image",
        ),
        pytest.param(
            "  - pack: {kernel: root.kernel}\n  - kernel:\n    id: root\n    from: download\n",
            "x.yaml:4:20: step `root` comes later, in line 5; a step uses earlier ones\n"
            "    4 |   - pack: {kernel: root.kernel}\n      |                    ^^^^^^^^^^^",
            id="a later step",
        ),
        pytest.param(
            "  - kernel:\n  - register: {name: name}\n    from: kernel.kernel\n",
            "x.yaml:6:11: step `register` takes a snapshot or an uploaded bundle, but `kernel.kernel` gives a file; "
            "add a `snapshot` step between\n"
            "    6 |     from: kernel.kernel\n      |           ^^^^^^^^^^^^^",
            id="a part of the wrong type",
        ),
        pytest.param(
            "  - kernel:\n  - pack: {image: kernel.kernel}\n",
            "x.yaml:5:19: `image` of step `pack` takes a disk image, but `kernel.kernel` gives a file\n"
            "    5 |   - pack: {image: kernel.kernel}\n      |                   ^^^^^^^^^^^^^",
            id="a part of the wrong type in an option",
        ),
        pytest.param(
            "  - fstab:\noutputs:\n  ramdisk: fstab.ramdisk\n",
            "x.yaml:6:12: `fstab` has no ramdisk beside its image: no `kernel` step led to it\n"
            "    6 |   ramdisk: fstab.ramdisk\n      |            ^^^^^^^^^^^^^",
            id="an output",
        ),
    ],
)
def test_a_part_that_cannot_be_there_is_refused_before_anything_runs(steps, says, read):
    with pytest.raises(RecipeError) as caught:
        read(steps)
    assert str(caught.value) == says


def test_a_step_that_may_change_the_kernel_after_it_was_copied_out_is_warned_of(read):
    recipe = read("  - kernel:\n  - fstab:\n  - rebuild:\n")
    (warning,) = recipe.warnings
    assert warning.line == 6
    assert warning.message == (
        "step `rebuild` may change the guest's kernel or its initramfs after `kernel` copied them out; "
        "put it before `kernel`"
    )
    assert read("  - rebuild:\n  - kernel:\n").warnings == ()
    assert read("  - kernel:\n  - convert: {format: raw}\n  - rebuild:\n").warnings == ()


@pytest.mark.parametrize(
    ("steps", "nodes"),
    [
        pytest.param(
            "  - fstab:\n  - kernel:\n  - label: {label: a}\n  - pack: {kernel: kernel.kernel}\n",
            ["download", "fstab + kernel + label", "pack"],
            id="who needs only the kernel keeps nothing apart",
        ),
        pytest.param(
            "  - fstab:\n  - kernel:\n  - label: {label: a}\noutputs: {k: kernel.kernel, image: label}\n",
            ["download", "fstab + kernel + label"],
            id="nor does an output",
        ),
        pytest.param(
            "  - kernel:\n  - label: {label: a}\noutputs: {k: kernel.digest, image: label}\n",
            ["download", "kernel", "label"],
            id="its image does",
        ),
        pytest.param(
            "  - kernel:\n  - kernel: {version: '5*'}\noutputs: {k: kernel.kernel, l: kernel-2.kernel}\n",
            ["download", "kernel", "kernel-2"],
            id="two kernels of one image are two results",
        ),
        pytest.param(
            "  - kernel:\n  - rebuild: {kernel: kernel.kernel}\n",
            ["download", "kernel", "rebuild"],
            id="a guest step that takes the kernel waits for it",
        ),
    ],
)
def test_launches(steps, nodes, read):
    assert [node.title for node in arrange(read(steps))] == nodes


def test_a_part_is_bound_from_the_shared_launch(read):
    recipe = read("  - kernel:\n  - label: {label: a}\n  - pack: {kernel: kernel.kernel}\n    from: kernel.kernel\n")
    _, guest, pack = arrange(recipe)
    assert bind(pack, {}) is None
    bound = bind(pack, by_id(guest, IMAGE))
    assert bound is not None
    assert (bound.source, bound.named) == (KERNEL, {"kernel": KERNEL})


def test_a_part_that_the_guest_did_not_have_is_an_error_in_words():
    with pytest.raises(InputError, match=r"there is no `a\.ramdisk`"):
        pick("a.ramdisk", {"a": IMAGE})
    assert pick("a", {"a": IMAGE}) == IMAGE


def test_parts_are_fields_of_images():
    assert set(PARTS) <= ImageFile.model_fields.keys()
    assert split("a.kernel") == ("a", "kernel")
    assert split("a") == ("a", None)


def test_what_makes_an_image_of_a_file_is_advised_and_not_every_guest_step(read):
    with pytest.raises(RecipeError) as caught:
        read("  - measure:\n")
    assert "a `convert` step" in str(caught.value)
    assert not {"`label`", "`fstab`", "`rebuild`"} & set(str(caught.value).split())
