"""The four shapes of a step. A step kind is one file in `steps/` with one class that fits one of them.

    LocalStep   makes a file                     after a crash its scratch is thrown away (or continued by the step)
    GuestStep   returns edits as values          neighbours share one appliance launch; scratch is thrown away
    CloudStep   find / start / finish            adopted by claim, else created; `finish` is re-entrant
    LeaseStep   find / acquire / ready / release adopted by claim, else created; is there only while others need it

LeaseStep is in lease.py. A Shorthand is a kind too, but never run: the steps it stands for take its place while the
recipe is read.

A step is stateless. Everything it may know comes as an argument: its options, its inputs, and where it works.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from builder.cloud.api import Call, Cloud
from builder.cloud.claims import Claim
from builder.errors import UsageError
from builder.progress import Progress
from pipelines.artifact import AnyArtifact, File, Helper, ImageFile, ImageFormat

if TYPE_CHECKING:  # what a run in which nothing is left to do has no use for
    from builder.cloud.identity import BundlingIdentity
    from builder.guest.edits import Edit, Unchanged
    from builder.guest.facts import GuestFacts
    from builder.guest.overlay import Layer
    from builder.guest.session import Session
    from builder.image.stream import ImageReader
    from builder.remote.command import Shell


class Options(BaseModel):
    """The options of a step: closed and frozen. Every field has a description; the reference is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def given(self, name: str) -> bool:
        """Say whether the recipe gives this option, be it the default's own value."""
        return name in self.model_fields_set and getattr(self, name) is not None


Opts = TypeVar("Opts", bound=Options)


@dataclass(frozen=True)
class Reference:
    """Marks an option (`Annotated[str, Reference(Snapshot)]`) whose value is the id of an earlier step."""

    to: type[AnyArtifact] | tuple[type[AnyArtifact], ...]  # any of several will do

    @property
    def noun(self) -> str:
        """What the earlier step is to give, in a person's words."""
        return " or ".join(each.noun for each in (self.to if isinstance(self.to, tuple) else (self.to,)))


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a step takes: the previous step's result (or that of `from:`), and one for each Reference option set."""

    source: AnyArtifact | None = None
    named: Mapping[str, AnyArtifact] = field(default_factory=dict)


class Store(Protocol):
    """The content-addressed files, as a step sees them."""

    def path(self, artifact: File | ImageFile) -> Path:
        """Return where the artifact's file lies; read-only."""

    def seal_file(self, path: Path, *, name: str, sha256: str | None = None) -> File:
        """Take a finished file from scratch into the store; `sha256` ('sha256:HEX') when the step hashed it already."""

    def seal_part(self, path: Path, *, name: str, sha1: str) -> File:
        """Take a finished part of a bundle from scratch into the store; its maker hashed it (hex). Thread-safe."""

    def seal_image(
        self,
        path: Path,
        *,
        format: ImageFormat,
        virtual_size: int,
        backing: ImageFile | None = None,
    ) -> ImageFile:
        """Take a finished disk image from scratch into the store."""

    def seal_layer(self, path: Path, base: ImageFile) -> ImageFile:
        """Take a finished overlay that was made over `base`; it is the same part of the disk."""

    def open_image(self, artifact: File | ImageFile) -> ImageReader:
        """Open an image for reading; a File's format is established first. Raises FormatRefused."""

    def image(self, artifact: File | ImageFile) -> ImageFile:
        """Return the artifact as a disk image whose format is established. Raises FormatRefused unless raw or qcow2."""

    def layer(self, artifact: ImageFile) -> Layer:
        """Return the image as what guest work puts its own layer on."""

    def backing_name(self, digest: str) -> str:
        """Return how a layer over that object names it in its header."""

    def contains(self, digest: str) -> bool:
        """Say whether a file of that digest is in the store."""


class Site(Protocol):
    """One account in one region of one cloud, as a step on this machine sees it."""

    @property
    def identity(self) -> str:
        """What names it in keys."""

    @property
    def cloud(self) -> Cloud:
        """Its calls."""

    @property
    def bundling(self) -> Callable[[], BundlingIdentity]:
        """For whom and by whom bundles are made for it. Raises UsageError that names what is not configured."""


def _nowhere(name: str | None) -> Site:
    raise UsageError(f"no cloud {name or ''} can be reached from here")


def _unreachable(helper: Helper) -> AbstractContextManager[Shell]:
    raise UsageError(f"nothing here logs in to {helper.instance_id}")


@dataclass(frozen=True, kw_only=True)
class Outside:
    """How a step looks at the world before anything runs: to pin what the recipe leaves open."""

    recipe_directory: Path
    cache: Path  # small remembered answers (ETags); may vanish at any time
    mirrors: Sequence[tuple[str, str]] = ()  # (URL prefix, what to read instead)
    store: Store
    epoch: int | None = None  # SOURCE_DATE_EPOCH, seconds
    site: Callable[[str | None], Site] = _nowhere  # a cloud by its name for --cloud; None: the run's own


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where and with what one execution of a local or cloud step, or a lease, works."""

    # An empty directory, or what the same step's killed execution left there; of a lease what was kept for it.
    scratch: Path
    outside: Outside
    pins: Mapping[str, Any]
    progress: Progress
    epoch: int | None = None  # SOURCE_DATE_EPOCH, seconds
    labels: Mapping[str, str] = field(default_factory=dict)  # tags for whatever the step makes in a cloud
    claim: Claim | None = None  # of a cloud step or a lease: what it makes carries the claim's token
    intended: float | None = None  # when it was claimed, if by an earlier attempt that was cut off (epoch seconds)
    run: str = ""  # the run that works; what it makes says so
    zone: str | None = None  # of a lease: the availability zone of what was kept that is leased upon it
    # Whether another run, by its id, was one of this recipe on this cloud from this EMI_HOME: it is over then.
    is_over: Callable[[str], bool] = field(default=lambda _: False)
    # Takes each part of a bundle, and the manifest's name, as soon as the part is sealed: so that the upload that
    # follows can send it before the bundle is whole. Returns at once, raises nothing and promises nothing.
    early: Callable[[str, File], None] = field(default=lambda _manifest, _part: None)
    # For a look inside an image: the appliance that launches for the guest steps to come, or None where there is none.
    appliance: Callable[[ImageFile], AbstractContextManager[Session | None]] = field(default=lambda _: nullcontext())
    # Logs in to a helper: commands there until the block ends, over a connection that is made again after a cut.
    remote: Callable[[Helper], AbstractContextManager[Shell]] = field(default=_unreachable)

    @property
    def store(self) -> Store:
        """The content-addressed files."""
        return self.outside.store


@dataclass(frozen=True, kw_only=True)
class ForeseenBundle:
    """What is known of a bundle from the options of its step: `name` is what its manifest and parts are named after.

    `kernel` and `ramdisk` say whether its manifest names such.
    """

    name: str
    type: Literal["machine", "kernel", "ramdisk"]
    architecture: str
    kernel: bool = False
    ramdisk: bool = False


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """What can be told of a step's result before the step is run, and the result when it is there already."""

    result: AnyArtifact | None = None
    returns: type[AnyArtifact] | None = None  # what it will be
    bundle: ForeseenBundle | None = None  # of what is, lies in or was registered from one; None: not known
    volume_size: int | None = None  # of a snapshot, GiB; None while it depends on the image


class Step(ABC, Generic[Opts]):
    """What all three shapes declare.

    The class docstring's first line is the one-line help; the rest goes into the reference. `revision` counts changes
    of behaviour: it is part of the key, so a new revision runs again. `accepts` is empty for a step that takes nothing.
    """

    options: ClassVar[type[Options]]
    accepts: ClassVar[tuple[type[AnyArtifact], ...]] = ()
    returns: ClassVar[type[AnyArtifact]]
    revision: ClassVar[int] = 1
    hands_on: ClassVar[bool] = False  # True: the result is the input as it came, with what is beside its image
    # True: the result depends on what the helper is, so what its lease is made of counts in the key.
    helper_matters: ClassVar[bool] = False

    def pin(self, options: Opts, outside: Outside) -> Mapping[str, Any]:
        """Return, as JSON values, what the recipe leaves open and the key must hold: a checksum, a server's ETag.

        Only reads. Called once per run; a resumed run uses what was pinned then.
        """
        return {}

    def expect(self, options: Opts, pins: Mapping[str, Any]) -> int | None:
        """Return how many bytes this step will move or make, if it can know; for the plan and the progress bar."""
        return None

    def check(self, options: Opts) -> Sequence[str]:
        """Return what is wrong with the options beyond their types, a sentence each."""
        return ()

    def foresee(self, options: Opts, source: Foreseen) -> Foreseen:
        """Return what can be told of the result by the options, and by what can be told of the input."""
        return Foreseen()


class LocalStep(Step[Opts]):
    """Makes a file in scratch and seals it into the store; or works on a helper, by `work.remote`.

    A Volume among its inputs is attached. A step that returns a Volume has written into one of them, and returns that
    one with its `content`; it is called again when the volume passes before a step that needs the content has run, and
    then finds in the volume what is there.
    """

    continues: ClassVar[bool] = False  # True: a killed execution's scratch is handed to the next one, not emptied

    @abstractmethod
    def build(self, options: Opts, inputs: Inputs, work: Work) -> AnyArtifact:
        """Make the result. Called again after a crash; scratch is empty then unless the step `continues`."""


class GuestStep(Step[Opts]):
    """Changes the inside of a disk image by returning edits."""

    accepts = (ImageFile, File)
    returns = ImageFile
    copies_out: ClassVar[tuple[str, ...]] = ()  # what its CopyOut edits put beside the image: `kernel`, `ramdisk`
    may_change_kernel: ClassVar[bool] = False  # True: what was copied out before it may be stale; the recipe is warned

    def network(self, options: Opts) -> bool:
        """Say whether its commands may need the network; the appliance of its group has none otherwise."""
        return False

    @abstractmethod
    def edits(self, options: Opts, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Return the edits to make, or Unchanged with the reason. Asks the facts, touches nothing.

        Idempotent: on a guest that has its edits already it returns Unchanged.
        """


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a step's inputs will be, as its preflight sees them: its source, and each Reference option that is set."""

    source: Foreseen = Foreseen()
    named: Mapping[str, Foreseen] = field(default_factory=dict)


NOTHING = Before()


class Forerunner(Protocol):
    """Sends what is finished of a step's input while the rest is being made. Used from other threads."""

    def begin(self) -> str:
        """Make ready in the cloud, and return what `start` will return."""

    def take(self, part: File) -> None:
        """Send one part to where `finish` will find it."""


class CloudStep(Step[Opts]):
    """Makes one thing in a cloud, exactly once.

    The journal holds an Intent before `start`, an Effect (the id that `start` or `find` returned) before `finish`, and
    a Result after it.
    """

    @abstractmethod
    def calls(self, options: Opts) -> Sequence[Call]:
        """Return every kind of API call that preflight, find, start, finish and present may make."""

    def calls_upon(self, options: Opts, source: type[AnyArtifact] | None) -> Sequence[Call]:
        """Return those of them that an input of that type needs."""
        return self.calls(options)

    def preflight(
        self, options: Opts, cloud: Cloud, may_be_ours: Callable[[str], bool], before: Before = NOTHING
    ) -> None:
        """Raise now, before anything is spent, what `start` would be refused for later. Only reads.

        `may_be_ours` says whether a claim's token may still turn out to be this step's, so that `start` would adopt.
        """

    def forerunner(self, options: Opts, manifest: str, cloud: Cloud, work: Work) -> Forerunner | None:
        """Return what sends parts of the input, a bundle with that manifest, before it is whole; None: nothing does."""
        return None

    @abstractmethod
    def find(self, options: Opts, inputs: Inputs, claim: Claim, cloud: Cloud) -> str | None:
        """Return the id of what a crashed run of ours started under this claim, if the cloud knows it. Only reads."""

    @abstractmethod
    def start(self, options: Opts, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Create it under the claim's token or tag and return its id at once."""

    @abstractmethod
    def finish(self, options: Opts, inputs: Inputs, effect: str, cloud: Cloud, work: Work) -> AnyArtifact:
        """Bring it to its final state and return it; re-entrant, repeating no finished work."""

    def discard(self, effect: str, cloud: Cloud, work: Work) -> None:
        """Remove what has failed for good and will never be finished, so that nothing is left behind."""

    @abstractmethod
    def present(self, artifact: AnyArtifact, cloud: Cloud) -> bool:
        """Say whether the cloud still has it. Only reads."""


@dataclass(frozen=True, kw_only=True)
class Meant:
    """One of the steps that a shorthand stands for, as if it stood in the recipe.

    `name` is what follows the shorthand's own id in that step's, "" for the one that has it as it is: the last.
    `source` and options that are references name steps as recipes do, or others of the shorthand by what `its` returns.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)  # JSON values, as a recipe holds them
    source: str


def its(name: str) -> str:
    """Return how a Meant names another of the same shorthand; no id can be so."""
    return f"\0{name}"


class Shorthand(Step[Opts]):
    """Stands for several steps, which are planned, run and remembered one by one; it is itself never run."""

    @abstractmethod
    def stands_for(self, options: Opts, source: str) -> Sequence[Meant]:
        """Return the steps in the order they run in; `source` names the step whose result comes in. Pure."""
