"""Step kinds are file names: listed without an import, loaded one at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builder.errors import InternalError
from pipelines import kinds
from pipelines.kinds import Directory
from pipelines.step import Step

STEP = """
from pipelines.artifact import File
from pipelines.step import Options, Step

class {name}(Step):
    \"\"\"A step.\"\"\"
    options = Options
    returns = File
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Directory:
    package = f"steps_of_{tmp_path.name}"
    folder = tmp_path / package
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "__init__": "",
        "_shared": "raise RuntimeError('no kind, never imported')",
        "run_on_helper": STEP.format(name="RunOnHelper"),
        "broken": "import no_such_package_anywhere",
        "empty": "from pipelines.step import Step",
        "twofold": STEP.format(name="One") + STEP.format(name="Two"),
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return Directory(folder=folder, package=package)


def test_listing_imports_nothing(directory: Directory) -> None:
    assert directory.names() == ("broken", "empty", "run-on-helper", "twofold")
    assert not [name for name in sys.modules if name.startswith(directory.package)]


def test_loading_imports_that_kind_only(directory: Directory) -> None:
    step = directory.load("run-on-helper")
    assert isinstance(step, Step)
    assert type(step).__name__ == "RunOnHelper"
    assert f"{directory.package}.twofold" not in sys.modules


@pytest.mark.parametrize("word", ["absent", "run_on_helper", "_shared", "__init__", "../kinds", ""])
def test_a_word_that_is_no_kind(word: str, directory: Directory) -> None:
    with pytest.raises(KeyError):
        directory.load(word)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("broken", "`broken` cannot be loaded: No module named 'no_such_package_anywhere'"),
        ("empty", "must define exactly one step class; it defines 0"),
        ("twofold", "must define exactly one step class; it defines 2"),
    ],
)
def test_a_file_that_holds_no_step(kind: str, says: str, directory: Directory) -> None:
    with pytest.raises(InternalError, match=says):
        directory.load(kind)


def test_our_own_kinds_all_load() -> None:
    names = kinds.kinds()
    assert len(names) >= 3
    for name in names:
        step = kinds.load(name)
        assert type(step).__doc__, name
        for key, field in step.options.model_fields.items():
            assert field.description, f"{name}.{key} has no description"
