"""A small language to test with: four kinds whose options have every shape, and what a user reads of a bad recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.artifact import File, ImageFile, MachineImage, Snapshot
from pipelines.kinds import BUILT_IN
from pipelines.recipe import Recipe, RecipeError, load
from pipelines.step import Options, Reference, Step
from pipelines.values import Size


class Signature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    url: str = Field(description="where the signature is")
    keyring: str = Field(default="keys.gpg", description="a file in the recipe's folder")


class Download(Step[Any]):
    """Fetch a file."""

    class Options(Options):
        url: str = Field(description="where to read from")
        checksum: str | None = Field(default=None, description="`sha256:HEX`", pattern="^sha256:[0-9a-f]+$")
        signature: Signature | str | None = Field(default=None, description="a signature")
        tries: int = Field(default=3, description="how often", ge=1, le=10)
        max_size: Size = Field(default=1 << 30, description="the limit")

    options = Options
    returns = File

    def check(self, options: Any) -> list[str]:
        return ["`url` is plain http: give a `checksum`"] if options.url.startswith("http:") else []


class Format(Enum):
    RAW = "raw"
    QCOW2 = "qcow2"


class Convert(Step[Any]):
    """Change an image's format."""

    class Options(Options):
        format: Format = Field(default=Format.RAW, description="the format")

    options = Options
    accepts = (File, ImageFile)
    returns = ImageFile


class TakeSnapshot(Step[Any]):
    """Make a snapshot."""

    class Options(Options):
        verify: bool = Field(default=False, description="read it back")
        parent: Annotated[str | None, Reference(Snapshot)] = Field(default=None, description="an earlier snapshot")
        tags: dict[str, str] = Field(default={}, description="tags")
        speed: Literal["slow", "fast"] = Field(default="slow", description="the speed")

    options = Options
    accepts = (ImageFile,)
    returns = Snapshot


class Volume(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    snapshot: Annotated[str, Reference(Snapshot)] = Field(description="what the volume begins as")
    device: str = Field(default="/dev/sdb", description="its name")


class Register(Step[Any]):
    """Register an image."""

    class Options(Options):
        name: str = Field(description="the image's name", min_length=1)
        packages: tuple[str, ...] = Field(default=(), description="a list")
        volumes: tuple[Volume, ...] = Field(default=(), description="further volumes", max_length=2)
        boot: Literal["bios", "uefi"] = Field(default="bios", description="the firmware")
        tpm: bool = Field(default=False, description="a TPM")

        @model_validator(mode="after")
        def tpm_needs_uefi(self) -> Any:
            if self.tpm and self.boot != "uefi":
                raise ValueError("a TPM needs `boot: uefi`")
            return self

    options = Options
    accepts = (Snapshot,)
    returns = MachineImage


class FourKinds:
    """Kinds that are no files."""

    steps: Mapping[str, type[Step[Any]]] = {
        "convert": Convert,
        "download": Download,
        "register": Register,
        "snapshot": TakeSnapshot,
    }

    def names(self) -> tuple[str, ...]:
        return tuple(self.steps)

    def load(self, kind: str) -> Step[Any]:
        return self.steps[kind]()


@pytest.fixture(scope="session")
def kinds() -> FourKinds:
    return FourKinds()


class MoreKinds:
    """emi's own kinds and some more."""

    def __init__(self, more: Mapping[str, type[Step[Any]]]) -> None:
        self.more = more

    def names(self) -> tuple[str, ...]:
        return (*BUILT_IN.names(), *self.more)

    def load(self, kind: str) -> Step[Any]:
        return self.more[kind]() if kind in self.more else BUILT_IN.load(kind)


@pytest.fixture
def more_kinds(request: pytest.FixtureRequest) -> MoreKinds:
    """emi's own kinds and those in the test file's `MORE`."""
    return MoreKinds(request.module.MORE)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more_kinds: MoreKinds) -> Callable[[str], Recipe]:
    """Load a recipe of a download and the steps given, which may be of `more_kinds`."""

    def read(steps: str) -> Recipe:
        monkeypatch.chdir(tmp_path)
        Path("x.yaml").write_text(f"name: x\nsteps:\n  - download: {{url: file:///x.raw}}\n{steps}")
        return load(Path("x.yaml"), kinds=more_kinds)

    return read


@pytest.fixture
def complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: FourKinds) -> Callable[..., str]:
    """Return what a user reads about a recipe that is refused."""

    def complain(text: str | bytes, overrides: Mapping[str, str] | None = None) -> str:
        monkeypatch.chdir(tmp_path)
        path = Path("bad.yaml")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(RecipeError) as caught:
            load(path, overrides, kinds=kinds)
        assert caught.value.exit_code == 2
        return str(caught.value)

    return complain


TABLES = Path(__file__).parent / "bad"


@dataclass(frozen=True, kw_only=True)
class Bad:
    name: str
    overrides: dict[str, str]
    recipe: str
    says: str


def rows() -> list[Bad]:
    found = []
    for table in sorted(TABLES.glob("*.txt")):
        for section in re.split(r"^=== ", table.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            head, body = section.split("\n", 1)
            name, *variables = head.split(" --var ")
            recipe, says = re.split(r"^--- says\n", body, flags=re.MULTILINE)
            overrides = dict(variable.split("=", 1) for variable in variables)
            found.append(Bad(name=f"{table.stem}-{name}", overrides=overrides, recipe=recipe, says=says.rstrip()))
    return found


ROWS = rows()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that takes a `bad_recipe` once for each row of the tables."""
    if "bad_recipe" in metafunc.fixturenames:
        metafunc.parametrize("bad_recipe", ROWS, ids=[row.name for row in ROWS])


@pytest.fixture(scope="session")
def bad_recipes() -> list[Bad]:
    return ROWS
