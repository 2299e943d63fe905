"""The two recipes for helper images: they make the same machine, and each is planned for its kind of cloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipe import load

RECIPES = Path(__file__).parents[2] / "recipes"
INDEX = f"Date: Sat, 10 May 2025 09:18:28 UTC\nSHA256:\n {'a' * 64} 1234 main/binary-amd64/Packages\n"
# What `install` stands for.
INSTALL = [f"install{part}{what}" for part in ("-kernel", "-ramdisk", "") for what in ("-bundle", "-upload", "")]


def test_both_make_the_same_machine():
    recipes = [load(RECIPES / f"{name}.yaml") for name in ("helper", "helper-instance-store")]
    made = [[(step.kind, step.options) for step in recipe.steps] for recipe in recipes]
    shared = ["bootstrap", "users", "files", "run", "grub"]
    assert [kind for kind, _ in made[0][: len(shared)]] == shared
    assert made[0][: len(shared)] == made[1][: len(shared)]


@pytest.fixture
def archive(tmp_path: Path) -> list[str]:
    """The words that lead to an archive on this machine: only its indexes, which is what planning reads."""
    for suite in ("bookworm", "bookworm-updates", "bookworm-security"):
        index = tmp_path / "archive" / "dists" / suite / "InRelease"
        index.parent.mkdir(parents=True)
        index.write_text(INDEX)
    names = ("http://deb.debian.org/debian", "http://security.debian.org/debian-security")
    return [word for name in names for word in ("--mirror", f"{name}=file://{tmp_path}/archive")]


@pytest.mark.parametrize(
    ("name", "cloud", "rest"),
    [
        ("helper", "sandbox", ["users + files + run + grub", "snapshot", "register"]),
        ("helper-instance-store", "sandbox:eucalyptus", ["users + files + run + grub + kernel", "root", *INSTALL]),
    ],
)
def test_it_is_planned(emi: Any, archive: list[str], name: str, cloud: str, rest: list[str]) -> None:
    done = emi("plan", RECIPES / f"{name}.yaml", "--cloud", cloud, *archive, "--json")
    assert done.code == 0, done.err
    assert [prospect["step"] for prospect in json.loads(done.out)] == ["bootstrap", *rest]
