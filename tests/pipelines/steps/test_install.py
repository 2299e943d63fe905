"""`install` stands for bundle, upload and register: of the image alone, or of kernel and ramdisk before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.plan import arrange
from pipelines.recipe import Recipe, RecipeError, load

FILES = """\
name: x
steps:
  - download: {url: file:///vmlinuz}
    id: kernel
  - download: {url: file:///initrd}
    id: initrd
  - download: {url: file:///root.img}
    id: root
"""
DISK = """\
name: x
steps:
  - download: {url: file:///disk.raw}
    id: root
  - kernel:
    id: root2
"""

Read = Callable[[str, str], Recipe]


@pytest.fixture
def read(tmp_path: Path, monkeypatch) -> Read:
    def read(before: str, options: str) -> Recipe:
        monkeypatch.chdir(tmp_path)
        Path("x.yaml").write_text(f"{before}  - install: {{name: web, bucket: images, {options}}}\n")
        return load(Path("x.yaml"))

    return read


def shown(recipe: Recipe) -> list[tuple[str, str, str | None]]:
    return [(item.id, item.kind, item.source) for item in recipe.steps if item.id.startswith("install")]


def dumped(recipe: Recipe, step: str) -> dict[str, Any]:
    return recipe.step(step).options.model_dump(mode="json")


def test_a_disk_is_three_steps(read: Read) -> None:
    recipe = read(
        FILES,
        "prefix: a, architecture: i386, compression: small, tags: {a: b}, platform: windows, "
        "block_device_mappings: {ephemeral0: sdb}",
    )
    assert shown(recipe) == [
        ("install-bundle", "bundle", "root"),
        ("install-upload", "upload", "install-bundle"),
        ("install", "register", "install-upload"),
    ]
    made, sent, said = (dumped(recipe, id_) for id_ in ("install-bundle", "install-upload", "install"))
    assert (made["name"], made["type"]) == ("web", "machine")
    assert (made["architecture"], made["compression"]) == ("i386", "small")
    assert (sent["bucket"], sent["prefix"]) == ("images", "a")
    assert (said["name"], said["architecture"]) == ("web", "i386")
    assert (said["virtualization"], said["tags"], said["platform"]) == ("hvm", {"a": "b"}, "windows")
    assert made["block_device_mappings"] == {"ephemeral0": "sdb"}


def test_a_trio_is_nine_the_kernel_first(read: Read) -> None:
    recipe = read(FILES, "virtualization: paravirtual, kernel: kernel, ramdisk: initrd")
    assert shown(recipe) == [
        ("install-kernel-bundle", "bundle", "kernel"),
        ("install-kernel-upload", "upload", "install-kernel-bundle"),
        ("install-kernel", "register", "install-kernel-upload"),
        ("install-ramdisk-bundle", "bundle", "initrd"),
        ("install-ramdisk-upload", "upload", "install-ramdisk-bundle"),
        ("install-ramdisk", "register", "install-ramdisk-upload"),
        ("install-bundle", "bundle", "root"),
        ("install-upload", "upload", "install-bundle"),
        ("install", "register", "install-upload"),
    ]
    assert set(recipe.step("install").references.values()) == {"install-kernel", "install-ramdisk"}
    names = [dumped(recipe, f"install{role}")["name"] for role in ("-kernel", "-ramdisk", "")]
    assert names == ["web-kernel", "web-ramdisk", "web"]
    assert [dumped(recipe, f"install{role}-bundle")["type"] for role in ("-kernel", "-ramdisk", "")] == [
        "kernel",
        "ramdisk",
        "machine",
    ]
    assert [node.title for node in arrange(recipe)][3:] == [id_ for id_, _, _ in shown(recipe)]
    assert recipe.warnings == ()


def test_what_a_kernel_step_put_beside_the_image_is_taken_by_itself(read: Read) -> None:
    recipe = read(DISK, "virtualization: paravirtual")
    sources = {id_: source for id_, _, source in shown(recipe)}
    assert sources["install-kernel-bundle"] == "root2.kernel"
    assert sources["install-ramdisk-bundle"] == "root2.ramdisk"
    assert sources["install-bundle"] == "root2"


def test_of_a_registered_kernel_only_the_id_is_used(read: Read) -> None:
    recipe = read(FILES, "virtualization: paravirtual, kernel_id: eki-12345678, ramdisk: initrd")
    assert [id_ for id_, kind, _ in shown(recipe) if kind == "register"] == ["install-ramdisk", "install"]
    assert dumped(recipe, "install")["kernel_id"] == "eki-12345678"
    assert recipe.step("install").references == {"ramdisk": "install-ramdisk"}


def test_the_bundles_name_is_fit_for_a_manifest(read: Read) -> None:
    recipe = read(FILES, "description: x")
    assert dumped(recipe, "install-bundle")["name"] == "web"
    other = load_named("CoreOS (stable)/4230.2.0")
    assert dumped(other, "install-bundle")["name"] == "CoreOS-stable-4230.2.0"
    assert dumped(other, "install")["name"] == "CoreOS (stable)/4230.2.0"


def load_named(name: str) -> Recipe:
    path = Path("named.yaml")
    path.write_text(f"{FILES}  - install: {{name: '{name}', bucket: images}}\n")
    return load(path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("kernel: kernel", "x.yaml:9:50: `kernel` is for paravirtual images; an hvm image boots by itself"),
        (
            "virtualization: paravirtual",
            "`root` gives a file, which has no kernel",
        ),
        (
            "virtualization: paravirtual, kernel: kernel, kernel_id: eki-12345678",
            "`kernel` and `kernel_id` each say which kernel; give one of them",
        ),
        ("virtualization: paravirtual, ramdisk: initrd", "`ramdisk` needs the `kernel` or `kernel_id` that it belongs"),
        ("virtualization: paravirtual, kernel: nothing", "x.yaml:9:79: there is no step `nothing`"),
        ("virtualization: xen", "`virtualization` is `hvm` or `paravirtual`, not `xen`"),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_runs(options: str, says: str, read: Read) -> None:
    with pytest.raises(RecipeError) as caught:
        read(FILES, options)
    assert says in str(caught.value)
