"""The fourth shape of a step, the lease: what is in a cloud only while other steps need it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from builder.cloud.api import Call, Cloud
from builder.cloud.claims import Claim
from pipelines.artifact import AnyArtifact
from pipelines.step import NOTHING, Before, Inputs, Opts, Step, Work


class LeaseStep(Step[Opts]):
    """Holds one thing in a cloud for as long as later steps need it. It is never finished work, and has no Result.

    It is acquired when the first step that really runs needs it, and released after the last one, also when a step
    fails. An unchanged recipe, all of whose other steps are done, leases nothing. The order of words in the journal:

        Intent  >  acquire  >  Effect (its id)  >  ready  >  steps that use it  >  release  >  Abandon

    Who is killed in between finds it by `find` or by the Effect; after an Abandon the next run claims under the next
    generation. `work.scratch` is a directory (mode 0700) that lasts exactly as long as the claim: what is made before
    `acquire` to be known after a crash, such as a key, is written there durably (builder/durable.py). Its name,
    `leases/NAME` below EMI_HOME, is what a relative `Helper.key_file` begins with.

    What it takes of other leases is given to `acquire` and `ready` acquired and ready; nothing of it is in its key.
    """

    outlives_failure: ClassVar[bool] = False  # True: kept for `emi resume` when a step fails; `--keep-helper` or not

    @abstractmethod
    def calls(self, options: Opts) -> Sequence[Call]:
        """Return every kind of API call that preflight and all the methods below may make."""

    def preflight(self, options: Opts, cloud: Cloud, before: Before = NOTHING) -> None:
        """Raise now, before anything is spent, what `acquire` would be refused for later. Only reads."""

    @abstractmethod
    def find(self, options: Opts, claim: Claim, cloud: Cloud) -> str | None:
        """Return the id of what a crashed run of ours acquired under this claim, if it is still there. Only reads."""

    @abstractmethod
    def acquire(self, options: Opts, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Create it under the claim's token or tag and return its id at once; `find` has found nothing.

        Raises CloudNotFound when the claim is spent: what it made is gone already. It is claimed anew then.
        `work.intended` is set where a killed attempt may have created it, and a lagging describe may hide it: what no
        client token protects must wait that out. `work.zone` is set where an earlier run kept what was leased upon it,
        and that can be gone on with in one availability zone only.
        """

    @abstractmethod
    def ready(self, options: Opts, inputs: Inputs, held: str, cloud: Cloud, work: Work) -> AnyArtifact:
        """Bring what is held into use and return how: an instance that lets us in, a volume attached to its helper.

        Re-entrant: called once in each run that uses it, in whatever state a killed run left it. Raises CloudNotFound
        when it is gone, CloudFailed when it will never be of use (it does not fit, its key is lost): it is released
        then, and one that was adopted is leased anew, once.
        """

    @abstractmethod
    def present(self, held: str, cloud: Cloud) -> bool:
        """Say whether the cloud still has it, in a state from which `ready` can bring it into use. Only reads."""

    def zone(self, options: Opts, held: str, cloud: Cloud) -> str | None:
        """Return the availability zone in which what it is leased upon must lie, None where any will do. Only reads."""

    def part(self, options: Opts, held: str, cloud: Cloud, work: Work) -> None:
        """Part it from what it was leased upon, which goes while it stays: detach the volume. Idempotent."""

    @abstractmethod
    def release(self, options: Opts, held: str, cloud: Cloud, work: Work) -> None:
        """Give it back, and return when it is gone or surely going. Idempotent.

        Called too when it is gone by itself: what was made besides it goes.
        """

    def clear(self, options: Opts, cloud: Cloud, work: Work) -> None:
        """Remove what `acquire` made besides, such as a key pair, where `find` has found nothing. Idempotent."""

    @abstractmethod
    def by_hand(self, options: Opts, held: str, artifact: AnyArtifact | None, home: Path) -> str:
        """Return in a sentence how a person gets at what is kept (a line for a shell), and how to remove it.

        `artifact` is what `ready` returned in this run, None when this run did not make it ready; `home` is EMI_HOME.
        """
