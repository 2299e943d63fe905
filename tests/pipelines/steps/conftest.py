"""For steps on bundles, a store and two clouds: the one they were made for, and the run's. For others, a helper."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.cloud.aws import Aws, Settings
from builder.cloud.identity import BundlingIdentity
from builder.progress import SILENT
from builder.remote.command import Shell
from pipelines.artifact import Bundle, Helper, ImageFile, Volume
from pipelines.kinds import load
from pipelines.step import Inputs, Outside, Work
from pipelines.store import FileStore
from pipelines.targets import Target

sys.path.insert(0, str(Path(__file__).parents[2] / "builder/remote"))  # machine.py
from machine import Loops, Machine, Notes, loop_devices, machine

BUNDLES = Path(__file__).parents[3] / "fixtures/bundles"
KEYS = BUNDLES / "keys"


def identity(user: str, cloud: str, account: str) -> BundlingIdentity:
    return BundlingIdentity(
        account=account,
        user_certificate=(KEYS / f"{user}.crt").read_bytes(),
        private_key=(KEYS / f"{user}.key").read_bytes(),
        cloud_certificate=(KEYS / f"{cloud}.crt").read_bytes(),
    )


OLD = identity("user", "cloud", "123456789012")
SITES = {
    None: identity("other", "other", "210987654321"),
    "old": OLD,
    "keyless": replace(OLD, private_key=None),
    "the cloud itself": identity("cloud", "cloud", "123456789012"),
}


class Scene:
    """What runs a step on bundles of the old tools, which fixtures/bundles has by name.

    They were made for the cloud `old` by its account; the run's own cloud and account are others.
    """

    here = SITES[None]

    def __init__(self, folder: Path) -> None:
        self.store = FileStore(folder / "objects")
        self._folder = folder
        self.outside = Outside(
            recipe_directory=folder, cache=folder, store=self.store, site=lambda name: self._sites[name]
        )
        self._sites = {
            name: Target(
                name=str(name), identity=str(name), cloud=Aws(Settings(region="r")), bundling=lambda who=who: who
            )
            for name, who in SITES.items()
        }

    def run(self, kind: str, source: Bundle | None, *, named: Mapping[str, Any] | None = None, **told: Any) -> Any:
        """Return what the step makes of a source."""
        step = load(kind)
        options = step.options(**told)
        assert list(step.check(options)) == []
        scratch = self._folder / f"{kind}-{len(list(self._folder.iterdir()))}"
        scratch.mkdir()
        pins = step.pin(options, self.outside)
        work = Work(scratch=scratch, outside=self.outside, pins=pins, progress=SILENT)
        return step.build(options, Inputs(source=source, named=named or {}), work)

    def expected(self, name: str) -> dict[str, Any]:
        """Return what the fixture says of itself."""
        return dict(json.loads((BUNDLES / name / "expected.json").read_text()))

    def fetch(self, name: str) -> Bundle:
        """Return the bundle, in the store."""
        made = self.run("fetch-bundle", None, manifest=(BUNDLES / name / self.expected(name)["manifest"]).as_uri())
        assert isinstance(made, Bundle)
        return made

    def whose(self, name: str) -> dict[str, Any]:
        """Return the options that say who made the bundle: the site whose key opens it, and whether it is signed."""
        says = self.expected(name)
        opener = "old" if "user" in says["opened_by"] else "the cloud itself"
        return {"cloud": opener, "unsigned": not says["signature"]}

    def require_image(self, made: ImageFile, name: str) -> None:
        """Hold an image against what the fixture says is in the bundle."""
        inside = self.expected(name)["image"]
        path = self.store.path(made)
        assert path.stat().st_size == made.virtual_size == inside["size"]
        with open(path, "rb") as file:  # of up to 9 GiB, nearly all of it holes
            for extent in inside["data"]:
                file.seek(extent["offset"])
                assert hashlib.sha256(file.read(extent["length"])).hexdigest() == extent["sha256"]
        assert path.stat().st_blocks * 512 <= sum(extent["length"] + 8192 for extent in inside["data"])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """An empty store between two clouds."""
    return Scene(tmp_path)


@pytest.fixture(scope="module")
def there() -> Iterator[Machine]:
    """A machine to log in to."""
    with tempfile.TemporaryDirectory(prefix="emi-sshd-") as directory, machine(Path(directory)) as made:
        yield made


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[Loops]:
    """Where loop devices come from."""
    with loop_devices(tmp_path) as made:
        yield made


class Desk:
    """What runs a step on a helper: a store, a recipe's directory, a machine, and what was noted."""

    def __init__(self, folder: Path, there: Machine) -> None:
        self.there = there
        self.store = FileStore(folder / "objects")
        self.recipe = folder / "recipe"
        self.recipe.mkdir()
        self.outside = Outside(recipe_directory=self.recipe, cache=folder, store=self.store)
        self.notes = Notes()
        self.helper = Helper(
            instance_id="i-1", address="127.0.77.1", user="root", key_file="key", host_keys=(), zone="a"
        )
        self._folder = folder

    def image(self, data: Mapping[int, bytes], size: int) -> ImageFile:
        """Return a raw image in the store that has these bytes at these offsets."""
        path = self._folder / "image.raw"
        with open(path, "wb") as file:
            file.truncate(size)
            for offset, part in data.items():
                file.seek(offset)
                file.write(part)
        return self.store.seal_image(path, format="raw", virtual_size=size)

    def volume(self, device: str, size: int = 1) -> Volume:
        """Return a volume that is attached to the machine as that device."""
        boot = (self.there.directory / "boot_id").read_text().strip()
        known = {"volume_id": "vol-0123456789abcdef0", "size": size, "zone": "a", "helper": self.helper}
        return Volume(**known, device=device, boot=boot)

    def run(
        self, kind: str, source: Any, *, named: Mapping[str, Any] | None = None, user: str = "root", **told: Any
    ) -> Any:
        """Return what the step makes."""
        step = load(kind)
        options = step.options(**told)
        assert list(step.check(options)) == []
        work = self.work(kind, pins=step.pin(options, self.outside), user=user)
        return step.build(options, Inputs(source=source, named=named or {}), work)

    def work(self, kind: str, *, pins: Mapping[str, Any] | None = None, user: str = "root") -> Work:
        """Return where a step works."""
        scratch = self._folder / f"{kind}-{len(list(self._folder.iterdir()))}"
        scratch.mkdir()

        @contextmanager
        def remote(helper: Helper) -> Iterator[Shell]:
            assert helper == self.helper
            yield self.there.shell(user)

        return Work(
            scratch=scratch,
            outside=self.outside,
            pins=pins or {},
            progress=self.notes,
            remote=remote,
            labels={"a": "b"},
        )


@pytest.fixture
def desk(tmp_path: Path, there: Machine) -> Desk:
    """An empty store beside a machine."""
    return Desk(tmp_path, there)
