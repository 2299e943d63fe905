"""Files that are no recipe at all: each is refused at once, in words, whatever its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.kinds import Kinds
from pipelines.recipe import Recipe, RecipeError, load
from pipelines.recipe.source import LIMIT

GOOD = """\
name: good
vars: {version: '12', size: {type: size, default: 1 GiB}}
steps:
  - download: {url: 'https://example.com/{version}', max_size: '{size}'}
    id: base
  - convert: &c {format: raw}
    from: base
  - snapshot: {tags: {a: *c}}
"""

BYTES = {
    "nul": (b"name: x\nste\0ps:\n", "bad.yaml:2:4: a NUL byte is not allowed in a recipe"),
    "escape": (b"name: \x1b[2J\n", "bad.yaml:1:7: the control character U+001B is not allowed in a recipe"),
    "latin-1": (
        "name: x\ndescription: für alle\n".encode("latin-1"),
        "bad.yaml: is not UTF-8 text: byte 0xfc at offset 22, in line 2; save it as UTF-8",
    ),
    "utf-16": ("name: x\n".encode("utf-16"), "bad.yaml: is UTF-16 or UTF-32 text; save it as UTF-8"),
    "utf-32": ("name: x\n".encode("utf-32"), "bad.yaml: is UTF-16 or UTF-32 text; save it as UTF-8"),
    "10 MB": (
        b"# padding\n" * 1_000_000,
        "bad.yaml: is larger than 1 MiB, the limit for a recipe; is it the right file?",
    ),
    "cut-character": (
        b"name: \xe2\x82",
        "bad.yaml: is not UTF-8 text: byte 0xe2 at offset 6, in line 1; save it as UTF-8",
    ),
    "deep-brackets": (
        b"steps: " + b"[" * 100_000,
        f"bad.yaml:1:47: is nested more than 40 levels deep\n    1 | steps: {'[' * 93}\n      | {' ' * 46}^",
    ),
    "deep-indentation": (
        b"".join(b" " * depth + b"a:\n" for depth in range(1000)),
        f"bad.yaml:41:41: is nested more than 40 levels deep\n   41 | {' ' * 40}a:\n      | {' ' * 40}^",
    ),
    "aliases-of-a-long-text": (
        b"name: x\nvars:\n  a: &a '" + b"x" * 100_000 + b"'\nsteps:\n" + b"  - *a\n" * 100,
        (
            "bad.yaml:29:5: with its anchors written out, the recipe holds more than 10000 values, the limit\n"
            "   29 |   - *a\n      |     ^^"
        ),
    ),
    "variables-that-double": (
        b"name: x\nvars:\n  v0: '0123456789'\n"
        + b"".join(b"  v%d: '{v%d}{v%d}'\n" % (each, each - 1, each - 1) for each in range(1, 60))
        + b"steps:\n  - download: {url: '{v59}'}\n",
        (
            "bad.yaml:21:8: with its variables inserted the recipe is larger than 4 MiB, the limit\n"
            "   21 |   v18: '{v17}{v17}'\n      |        ^^^^^^^^^^^^"
        ),
    ),
    "ten-thousand-values": (
        b"steps:\n" + b"- x\n" * 20_000,
        "bad.yaml:10001:3: the recipe holds more than 10000 values, the limit\n10001 | - x\n      |   ^",
    ),
    "carriage-returns-only": (
        b"name: x\rstepz: []\r",
        "bad.yaml:2:1: unknown key `stepz`; did you mean `steps`?\n    2 | stepz: []\n      | ^^^^^",
    ),
    "not-yaml-at-all": (
        b"%PDF-1.7\n%\n",
        "bad.yaml:1:7: is not YAML: found unexpected non-alphabetical character\n    1 | %PDF-1.7\n      |       ^",
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes(name: str, complaint: Callable[..., str]) -> None:
    data, says = BYTES[name]
    assert complaint(data) == says


def test_the_largest_file_is_read(tmp_path: Path, kinds: Kinds) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(GOOD.replace(", max_size: '{size}'", "") + "#" * 100, encoding="utf-8")
    padding = LIMIT - path.stat().st_size
    with path.open("a", encoding="utf-8") as file:
        file.write("x" * padding)
    with pytest.raises(RecipeError, match=r"tags\.a"):  # it was read to its end, and only its own mistake is shown
        load(path, kinds=kinds)
    with path.open("a", encoding="utf-8") as file:
        file.write("x")
    with pytest.raises(RecipeError, match="larger than 1 MiB"):
        load(path, kinds=kinds)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("absent.yaml", "absent.yaml: there is no such file"),
        ("folder", "folder: is a directory; name the recipe's YAML file in it"),
        ("file/below.yaml", "file/below.yaml: cannot be read: Not a directory"),
        ("nul\0.yaml", "nul\N{REPLACEMENT CHARACTER}.yaml: cannot be read: embedded null byte"),
    ],
)
def test_paths(path: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: Kinds) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError) as caught:
        load(Path(path), kinds=kinds)
    assert str(caught.value) == says


def test_a_text_of_a_megabyte_makes_a_short_message(complaint: Callable[..., str]) -> None:
    said = complaint("name: x\nsteps:\n  - download: {url: x, max_size: '" + "9a\u202e" * 200_000 + "'}\n")
    assert said.startswith("bad.yaml:3:34: `max_size`: `9a\\u202e9a")
    assert len(said) < 1000
    assert "\u202e" not in said


def test_a_thousand_problems_are_enough(complaint: Callable[..., str]) -> None:
    said = complaint("name: x\nsteps:\n  - download: {url: '" + "{a}" * 300_000 + "'}\n")
    assert said.count("unknown variable `a`") == 50
    assert said.endswith("… and 950 more")


def test_a_flood_of_problems_is_cut(complaint: Callable[..., str]) -> None:
    said = complaint("name: x\nsteps:\n" + "  - downlaod:\n" * 70)
    assert said.count("did you mean `download`?") == 50
    assert said.endswith("… and 20 more")


def _answer(data: bytes, path: Path, kinds: Kinds) -> Recipe | RecipeError:
    path.write_bytes(data)
    try:
        return load(path, kinds=kinds)
    except RecipeError as error:
        return error


def _is_answered(data: bytes, path: Path, kinds: Kinds) -> bool:
    answer = _answer(data, path, kinds)
    lines = answer.message.splitlines() if isinstance(answer, RecipeError) else [answer.name]
    return bool(lines) and all(line.replace("\t", "").isprintable() for line in lines)


FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@FUZZ
@given(text=st.text(alphabet=st.sampled_from("nam:esvtp {}[]-&*!|>'\"#%@\\\n\t~<,?0.é日"), max_size=60))
def test_any_text_is_a_recipe_or_a_problem(text: str, tmp_path: Path, kinds: Kinds) -> None:
    assert _is_answered(text.encode(), tmp_path / "fuzz.yaml", kinds)


@FUZZ
@given(at=st.integers(0, len(GOOD) - 1), cut=st.integers(0, 12), put=st.text(max_size=6))
def test_any_change_of_a_recipe_is_a_recipe_or_a_problem(
    at: int, cut: int, put: str, tmp_path: Path, kinds: Kinds
) -> None:
    changed = GOOD[:at] + put + GOOD[at + cut :]
    assert _is_answered(changed.encode("utf-8", "surrogatepass"), tmp_path / "fuzz.yaml", kinds)


@FUZZ
@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_recipe_or_a_problem(data: bytes, tmp_path: Path, kinds: Kinds) -> None:
    assert _is_answered(data, tmp_path / "fuzz.yaml", kinds)
