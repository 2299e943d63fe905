"""What a good recipe becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.kinds import Kinds
from pipelines.recipe import Output, Recipe, RecipeError, load

WHOLE = """\
name: debian-12
description: A whole recipe.
vars:
  version: "12.7"
  base: https://example.com/{version}
  verify: true
  tries: {type: int, default: 2}
  room: {type: size, default: 4 GiB, description: for the disk}
steps:
  - download:
      url: "{base}/disk-{version}.qcow2"
      signature: {url: "{base}/{{sums}}"}
      tries: "{tries}"
      max_size: "{room}"
    id: base
  - convert:
  - snapshot:
      verify: "{verify}"
      tags: {Version: "{version}", Verified: "is {verify}", Room: "{room} bytes"}
  - convert: {format: qcow2}
    from: base
  - snapshot: {parent: snapshot}
  - register:
      name: debian-{version}
      packages: [a, "{version}"]
      volumes:
        - snapshot: snapshot
        - {snapshot: snapshot-2, device: /dev/sdc}
    from: snapshot-2
outputs:
  image: register
  snapshot: snapshot-2.snapshot_id
"""

Read = Callable[..., Recipe]


@pytest.fixture
def read(tmp_path: Path, kinds: Kinds) -> Read:
    def read(text: str, **overrides: str) -> Recipe:
        path = tmp_path / "good.yaml"
        path.write_bytes(text.encode())
        return load(path, overrides, kinds=kinds)

    return read


def options(recipe: Recipe, step: str) -> dict[str, Any]:
    return recipe.step(step).options.model_dump(mode="json")


def test_a_whole_recipe(read: Read) -> None:
    recipe = read(WHOLE)
    assert recipe.name == "debian-12"
    assert recipe.description == "A whole recipe."
    assert [(item.id, item.kind, item.source, item.line) for item in recipe.steps] == [
        ("base", "download", None, 10),
        ("convert", "convert", "base", 16),
        ("snapshot", "snapshot", "convert", 17),
        ("convert-2", "convert", "base", 20),
        ("snapshot-2", "snapshot", "convert-2", 22),
        ("register", "register", "snapshot-2", 23),
    ]
    assert recipe.step("snapshot-2").references == {"parent": "snapshot"}
    assert recipe.step("register").references == {
        "volumes[0].snapshot": "snapshot",
        "volumes[1].snapshot": "snapshot-2",
    }
    assert recipe.outputs == {
        "image": Output(step="register"),
        "snapshot": Output(step="snapshot-2", field="snapshot_id"),
    }
    assert recipe.warnings == ()
    with pytest.raises(KeyError):
        recipe.step("absent")


def test_variables_are_inserted_typed(read: Read) -> None:
    recipe = read(WHOLE)
    assert recipe.variables == {
        "version": "12.7",
        "base": "https://example.com/12.7",
        "verify": True,
        "tries": 2,
        "room": 4 << 30,
    }
    assert options(recipe, "base") == {
        "url": "https://example.com/12.7/disk-12.7.qcow2",
        "checksum": None,
        "signature": {"url": "https://example.com/12.7/{sums}", "keyring": "keys.gpg"},
        "tries": 2,
        "max_size": 4 << 30,
    }
    assert options(recipe, "snapshot")["verify"] is True
    assert options(recipe, "snapshot")["tags"] == {
        "Version": "12.7",
        "Verified": "is true",
        "Room": "4294967296 bytes",
    }


def test_overrides_replace_defaults_by_type(read: Read) -> None:
    recipe = read(WHOLE, version="13", verify="false", tries="7", room="8GiB")
    assert recipe.variables["base"] == "https://example.com/13"
    assert options(recipe, "base")["tries"] == 7
    assert options(recipe, "base")["max_size"] == 8 << 30
    assert options(recipe, "snapshot")["verify"] is False


def test_an_override_is_text_and_never_yaml_or_a_template(read: Read) -> None:
    recipe = read("name: x\nvars: {v: {type: string}}\nsteps: [{download: {url: 'a{v}b'}}]", v="{v}: [no, {x}]\n")
    assert options(recipe, "download")["url"] == "a{v}: [no, {x}]\nb"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'no'", "no"),
        ('"24.04"', "24.04"),
        ("a {{b}} c", "a {b} c"),
        ("'{{}}'", "{}"),
        ("|\n        two\n        lines\n", "two\nlines\n"),
        (">-\n        one\n        line\n", "one line"),
        ("v12:30", "v12:30"),
        ("12.7.1", "12.7.1"),
        ("'日本'", "日本"),
    ],
)
def test_text(written: str, value: str, read: Read) -> None:
    recipe = read(f"name: x\nsteps:\n  - download:\n      url: {written}")
    assert options(recipe, "download")["url"] == value


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "---\n" + text + "...\n",
        lambda text: "%YAML 1.1\n---\n" + text,
        lambda text: "# yaml-language-server: $schema=x\n" + text.rstrip("\n"),
    ],
    ids=["crlf", "bom", "document-marks", "directive", "comment-and-no-last-newline"],
)
def test_other_ways_to_write_the_same(change: Callable[[str], str], read: Read) -> None:
    same = read(change(WHOLE))
    assert [item.options for item in same.steps] == [item.options for item in read(WHOLE).steps]


def test_aliases_in_moderation(read: Read) -> None:
    recipe = read("""\
name: x
steps:
  - download: &same {url: a, tries: 2}
  - download: *same
    id: second
  - convert:
    from: download
""")
    assert recipe.step("download").options == recipe.step("second").options


def test_a_default_id_gives_way_to_a_given_one(read: Read) -> None:
    recipe = read("name: x\nsteps:\n- download: {url: a}\n- convert:\n- convert:\n  id: convert\n- convert:\n")
    assert [item.id for item in recipe.steps] == ["download", "convert-2", "convert", "convert-3"]
    assert [item.source for item in recipe.steps] == [None, "download", "convert-2", "convert"]


def test_without_outputs_the_last_step_is_the_output(read: Read) -> None:
    assert read("name: x\nsteps:\n- download: {url: a}\n").outputs == {"download": Output(step="download")}


def test_what_nothing_uses_is_warned_of(read: Read) -> None:
    recipe = read("""\
name: x
vars: {idle: 1}
steps:
  - download: {url: a}
  - download: {url: b}
  - convert:
""")
    assert [(problem.line, problem.message) for problem in recipe.warnings] == [
        (4, "nothing uses the result of step `download`"),
        (2, "nothing uses variable `idle`"),
    ]


def test_a_null_option_is_left_to_its_default(read: Read) -> None:
    recipe = read("name: x\nsteps:\n- download: {url: a, checksum: }\n")
    assert options(recipe, "download")["checksum"] is None


def test_overrides_that_are_not_utf_8(complaint: Callable[..., str]) -> None:
    said = complaint("name: x\nvars: {v: a}\nsteps: [{download: {url: '{v}'}}]", {"v": "\udcff"})
    assert said == "--var v=\\udcff: variable `v` takes text, not `\\udcff`"


def test_a_problem_names_its_place_for_programs(tmp_path: Path, kinds: Kinds) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("""\
name: x
vars: {v: 1.5}
steps:
  - download: {url: x, signature: {url: y, keyrings: z}}
  - convert:
    from: nothing
  - snapshot: {tags: {a: 1}}
outputs: {o: snapshot.id}
""")
    with pytest.raises(RecipeError) as caught:
        load(path, {"w": "1"}, kinds=kinds)
    assert [(each.where, each.line, each.column, each.suggestion) for each in caught.value.problems] == [
        ("vars.w", 0, 0, None),
        ("vars.v", 2, 11, None),
        ("steps[0].download.signature.keyrings", 4, 44, "keyring"),
        ("steps[1].from", 6, 11, None),
        ("steps[2].snapshot.tags.a", 7, 26, None),
        ("outputs.o", 8, 14, "snapshot.snapshot_id"),
    ]
