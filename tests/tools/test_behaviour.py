"""The page of the sandbox's behaviour: made of the marks on the tests, and no older than they are."""

from __future__ import annotations

import subprocess  # noqa: TID251 - a tool, as make runs it
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def behaviour(*words, root=ROOT):
    command = [sys.executable, root / "tools" / "behaviour.py", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(root)})


def checkout(place, tests):
    """Return a tree with the tool and these tests instead of ours."""
    for name in ("builder", "pyproject.toml"):
        (place / name).symlink_to(ROOT / name)
    for name in ("tools/behaviour.py", "docs/design/sandbox.md"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text((ROOT / name).read_text())
    (place / "tests").mkdir()
    (place / "tests" / "test_it.py").write_text(tests)
    return place


def test_the_page_is_as_new_as_the_tests():
    done = behaviour("--check")
    code, said = done.returncode, done.stdout[-5000:] + done.stderr[-5000:]
    assert code == 0, said


def test_the_page_is_made_of_the_marks(tmp_path):
    tests = (
        "import pytest\n"
        "MISSING = [('Disks', 'FormatDisk', 'UnsupportedOperation')]\n"
        "@pytest.mark.parametrize('size', [1, 2])\n"
        "@pytest.mark.behaviour('Disks', 'MakeDisk', 'it is | as large as asked for')\n"
        "def test_size(size): pass\n"
        "def test_other(): pass\n"
    )
    root = checkout(tmp_path, tests)
    missing = behaviour("--check", root=root)
    assert (missing.returncode, "run `make docs`" in missing.stdout) == (1, True), missing.stderr
    assert behaviour(root=root).returncode == 0
    text = (root / "docs" / "sandbox-behaviour.md").read_text()
    assert "1 properties in 1 areas, by 1 tests." in text
    assert "| MakeDisk | it is \\| as large as asked for | [`test_size`](../tests/test_it.py) |" in text
    assert "| FormatDisk | UnsupportedOperation |" in text
    assert "AcceptAddressTransfer" in text  # EC2 has it, the sandbox has not
    assert behaviour("--check", root=root).returncode == 0
    (root / "tests" / "test_it.py").write_text(tests.replace("MakeDisk", "BuildDisk"))
    stale = behaviour("--check", root=root)
    assert stale.returncode == 1
    assert "+| BuildDisk" in stale.stdout


def test_a_test_that_may_not_run_proves_nothing(tmp_path):
    mark = "import pytest\n@pytest.mark.skip\n@pytest.mark.behaviour('Disks', 'MakeDisk', 'it is there')\n"
    done = behaviour(root=checkout(tmp_path, f"{mark}def test_it(): pass\n"))
    assert done.returncode == 1
    assert "test_it.py::test_it: a test that may be skipped" in done.stderr
    assert not (tmp_path / "docs" / "sandbox-behaviour.md").exists()


def test_a_mark_says_three_things(tmp_path):
    tests = "import pytest\n@pytest.mark.behaviour('Disks')\ndef test_it(): pass\n"
    done = behaviour(root=checkout(tmp_path, tests))
    assert done.returncode == 1
    assert "an area, a call and a property" in done.stderr
