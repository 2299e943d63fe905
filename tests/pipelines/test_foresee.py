"""What a step's preflight is told of the steps before it, and what is refused by that before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cloud.aws import Aws
from builder.cloud.eucalyptus import Eucalyptus
from builder.cloud.releases import Release
from builder.cloud.settings import Settings
from builder.errors import UsageError
from pipelines.artifact import File, ImageFile, MachineImage
from pipelines.plan import Prospect, arrange, foresee
from pipelines.recipe import Recipe, load
from pipelines.step import Before, CloudStep, Foreseen, ForeseenBundle

HEAD = """
name: foreseen
steps:
  - download: {url: "file:///disk"}
"""
EUCALYPTUS = Eucalyptus(Settings(region="eucalyptus"), release=Release.parse("5.1"))
AWS = Aws(Settings(region="r"))
KERNEL = """
  - bundle: {name: k, type: TYPE}
  - upload: {bucket: abc}
  - register: {name: kern}
    id: kern
  - bundle: {name: root}
    id: root
    from: download
  - upload: {bucket: abc}
    id: there
  - register: {name: root, virtualization: paravirtual, kernel: kern, ramdisk_id: eri-12345678}
"""


def read(place: Path, rest: str) -> Recipe:
    path = place / "foreseen.yaml"
    path.write_text(HEAD + rest.lstrip("\n"))
    return load(path)


def seen(recipe: Recipe, **results) -> dict[str, Before]:
    """Return what each step is told when nothing is there but these results."""
    prospects = [
        Prospect(node=node, verdict="will run", why="", result=results.get(node.id)) for node in arrange(recipe)
    ]
    return foresee(prospects)


def preflight(recipe: Recipe, step: str, cloud, **results) -> None:
    item = recipe.step(step)
    assert isinstance(item.step, CloudStep)
    item.step.preflight(item.options, cloud, bool, seen(recipe, **results)[step])


def test_what_a_bundle_will_be_is_known_to_all_that_come_after_it(tmp_path):
    told = seen(read(tmp_path, KERNEL.replace("TYPE", "kernel")))
    kernel = ForeseenBundle(name="k", type="kernel", architecture="x86_64")
    assert told["bundle"] == Before(source=Foreseen(returns=File))
    assert told["upload"].source.bundle == told["kern"].source.bundle == kernel
    root = told["register"]
    assert root.source.bundle == ForeseenBundle(name="root", type="machine", architecture="x86_64")
    assert root.named == {"kernel": Foreseen(bundle=kernel, returns=MachineImage)}


def test_of_a_bundle_from_elsewhere_only_what_the_registration_says_is_looked_at(tmp_path):
    fetched = """  - fetch-bundle: {manifest: b/x.manifest.xml}
  - upload: {bucket: abc}
  - register: {name: "with space", volume_type: gp2}
"""
    path = tmp_path / "fetched.yaml"
    path.write_text("name: fetched\nsteps:\n" + fetched)
    with pytest.raises(UsageError, match="has `volume_type`: an image in the instance store has no root volume"):
        preflight(load(path), "register", EUCALYPTUS)
    path.write_text("name: fetched\nsteps:\n" + fetched.replace(", volume_type: gp2", ""))
    with pytest.raises(UsageError, match="3 to 128 letters"):
        preflight(load(path), "register", EUCALYPTUS)


def test_how_large_a_snapshot_will_be_is_known_when_its_image_is_there(tmp_path):
    recipe = read(tmp_path, "  - convert:\n  - snapshot:\n  - register: {name: small, volume_size: 2}\n")
    image = ImageFile(digest="blocks:00", format="raw", virtual_size=(2 << 30) + 1)
    assert seen(recipe)["register"].source.volume_size is None
    assert seen(recipe, convert=image)["register"].source.volume_size == 3
    with pytest.raises(UsageError, match="`volume_size` of the image 'small' is 2 GiB, but its snapshot has 3 GiB"):
        preflight(recipe, "register", AWS, convert=image)
    said = read(tmp_path, "  - snapshot: {volume_size: 5}\n  - register: {name: small, volume_size: 4}\n")
    with pytest.raises(UsageError, match="its snapshot has 5 GiB"):
        preflight(said, "register", AWS)


@pytest.mark.parametrize("type_", ["machine", "ramdisk"])
def test_a_kernel_is_what_was_bundled_as_one(tmp_path, type_):
    with pytest.raises(UsageError, match=f"`kernel` of the image 'root' is a step that registers a {type_}"):
        preflight(read(tmp_path, KERNEL.replace("TYPE", type_)), "register", EUCALYPTUS)


@pytest.mark.parametrize(
    ("bundle", "register", "cloud", "words"),
    [
        ("name: x", "name: with space", EUCALYPTUS, "3 to 128 letters, digits and"),
        ("name: x", "name: abc, virtualization: paravirtual", EUCALYPTUS, "boots with a kernel here"),
        ("name: x, kernel_id: eki-12345678", "name: abc", EUCALYPTUS, "`virtualization: paravirtual`"),
        ("name: x, architecture: i386", "name: abc, architecture: x86_64", AWS, "the bundle was made for i386"),
        ("name: x, architecture: arm64", "name: abc", EUCALYPTUS, "no machines of the architecture arm64"),
        ("name: x, type: kernel", "name: abc", AWS, "AWS lets nobody but itself"),
        ("name: x, type: kernel", "name: abc, ena: true", EUCALYPTUS, "has `ena`: a kernel has none"),
        ("name: x", "name: abc, root_device: /dev/sda1", AWS, "has `root_device`: an image in the instance store"),
        ("name: x", "name: abc, boot_mode: uefi", AWS, "has `boot_mode`"),
        ("name: x", "name: abc, platform: windows", AWS, "takes no Platform here"),
    ],
)
def test_what_the_cloud_would_refuse_is_refused_before_the_image_is_made(tmp_path, bundle, register, cloud, words):
    recipe = read(tmp_path, f"  - bundle: {{{bundle}}}\n  - upload: {{bucket: abc}}\n  - register: {{{register}}}\n")
    with pytest.raises(UsageError) as caught:
        preflight(recipe, "register", cloud)
    assert words in caught.value.message
