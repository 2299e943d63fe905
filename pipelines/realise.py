"""One node at a time: from the journal's last word about its key to its result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from builder.cloud.api import Cloud
from builder.cloud.claims import Claim
from builder.errors import CloudFailed, CloudNotFound, EmiError, InternalError
from builder.progress import Progress
from pipelines import locks
from pipelines.artifact import AnyArtifact, Bundle, File, ImageFile
from pipelines.early import Early
from pipelines.home import Home
from pipelines.lazily import Later
from pipelines.leases import Leases
from pipelines.plan import Bound, Node, Prospect, Standing, bind, ingredients, key_of, labels
from pipelines.step import CloudStep, GuestStep, Inputs, LocalStep, Outside, Work
from pipelines.survey import Surveyor
from pipelines.words import Abandon, Effect, Intent, Result

if TYPE_CHECKING:
    from builder.guest.session import Session
    from pipelines import guest_work, logins
else:  # many runs edit no guest, most speak no SSH
    guest_work = Later("pipelines.guest_work")
    logins = Later("pipelines.logins")

_ROUNDS = 4  # that results which pass are made again for one step: each may change its key once


class Ahead:
    """An appliance that launches beside the steps before the first guest step, and ends with the block at the latest.

    It serves one image, which may have taken it over: once it has seen a disk it is shown no other, but a part of that
    disk, or a layer over it. Raises HostError as it is made when libguestfs' binding is missing: before anything is
    spent.
    """

    def __init__(self, node: Node | None, *, cache: Path) -> None:
        self._session: Session | None = guest_work.launch(node.items, cache) if node else None
        self._seen: frozenset[str] = frozenset()  # digests

    def take(self, image: ImageFile, *, network: bool | None = None) -> Session | None:
        """Return the session, once; None when it was taken, has seen another image, or has not the network wanted."""
        session, self._session = self._session, None
        if session and (network not in (None, session.network) or not self._seen <= set(image.digests())):
            session.close()
            return None
        return session

    @contextmanager
    def lend(self, image: ImageFile) -> Iterator[Session | None]:
        """Lend the session for a look at the image by a step before the guest steps; when that fails it is ended."""
        session = self.take(image)
        try:
            yield session
        except BaseException:
            if session:
                session.close()
            raise
        self._session, self._seen = session, frozenset(image.digests())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._session:
            self._session.close()


@dataclass(frozen=True, kw_only=True)
class Realiser:
    """Brings nodes to their results, for one run."""

    surveyor: Surveyor
    home: Home
    outside: Outside
    pins: Mapping[str, Any]
    run: str
    epoch: int | None
    ahead: Ahead
    early: Early
    leases: Leases
    surveyed: Mapping[str, Prospect]  # by key: what the survey at the start of this run found
    results: Mapping[str, Standing]  # of the steps so far, by id
    again: Callable[[str], None]  # brings the step of that id, whose result has passed, to its result once more

    def realise(
        self, node: Node, progress: Progress, announce: Callable[[Prospect], None], *, wanted: bool = False
    ) -> tuple[str, AnyArtifact]:
        """Return how (done, ran, adopted) and what; every word is durable before the next thing happens.

        A result that has passed with its lease counts as done, unless it is `wanted`: for what takes it and must run.
        """
        for _ in range(_ROUNDS):
            bound = bind(node, self.results)
            assert bound is not None, f"{node.id} comes before its input"
            found = self._realise(node, bound, progress, announce, wanted=wanted)
            if isinstance(found, tuple):
                return found
            for id_ in found:
                self.again(id_)  # with what it makes now, this one's key may be another
        raise InternalError(f"what {node.id} takes does not last until it can be used")

    def _realise(
        self, node: Node, bound: Bound, progress: Progress, announce: Callable[[Prospect], None], *, wanted: bool
    ) -> tuple[str, AnyArtifact] | list[str]:
        """Return the same, or which results must be there again before."""
        made_of = ingredients(self.surveyor.recipe, node, bound, self.pins, self.surveyor.target)
        key = key_of(made_of)
        journal = self.surveyor.journal
        lock = self.home.key_lock(key)
        # Two recipes may share a step; the second waits for the first and then finds it done.
        with locks.hold(lock, what=f"step {node.title}", wait=True, tell=progress.note) as sign:
            sign(self.run)
            journal.use(self.run, key)
            prospect = self._prospect(node, bound, key)
            if prospect.verdict == "not needed" and not wanted:
                self.leases.spent.add(node.id)
            elif prospect.verdict == "not needed":
                prospect = replace(prospect, verdict="will run", why="what it wrote into has passed", result=None)
            if prospect.verdict == "will run" and (passed := self._passed(node)):
                return passed
            announce(prospect)
            self.early.sees(node, key)
            if prospect.result is None:
                journal.remember(self.surveyor.recipe.name, node.id, key, made_of)
                how, artifact = self._made(node, self.leases.inputs(node, bound), key, progress)
            else:
                how, artifact = "done", prospect.result
            self.early.close(node, artifact)
            return how, artifact

    def _passed(self, node: Node) -> list[str]:
        return [id_ for item in node.items for id_ in self.surveyor.ties.passing(item.id) if id_ in self.leases.spent]

    def _made(self, node: Node, inputs: Inputs, key: str, progress: Progress) -> tuple[str, AnyArtifact]:
        if node.cloud_step:
            self.early.settle(node)
            return self._in_cloud(node.cloud_step, node, inputs, key, progress)
        return "ran", self._here(node, inputs, key, progress)

    def _prospect(self, node: Node, bound: Bound, key: str) -> Prospect:
        """Look again, now that the key is ours and held against a prune; what a cloud said a moment ago still holds."""
        surveyed = self.surveyed.get(key)
        if surveyed and surveyed.verdict == "done" and node.cloud_step:
            return surveyed
        with self.surveyor.store.shared():
            return self.surveyor.prospect(node, bound, self.pins)

    def _here(self, node: Node, inputs: Inputs, key: str, progress: Progress) -> AnyArtifact:
        journal = self.surveyor.journal
        last = journal.last(key)
        generation = last.generation if last else 0
        if last and isinstance(last.word, Result) and isinstance(last.word.artifact, File | ImageFile | Bundle):
            self.surveyor.store.drop_if_cut(last.word.artifact)
        step = node.items[0].step
        scratch = self.home.scratch / key[:32]
        if not (isinstance(step, LocalStep) and step.continues):
            _empty(scratch)
        scratch.mkdir(parents=True, exist_ok=True)
        self.leases.renew(node)
        journal.write(key, generation, Intent(at=time.time()), run=self.run)
        match step:
            case LocalStep():
                work = self._work(node, scratch, progress)
                work = replace(work, early=self.early.taker(node, work))
                artifact = step.build(node.items[0].options, inputs, work)
            case GuestStep():
                artifact = self._guest(node, inputs, scratch, progress)
            case _:
                raise InternalError(f"{node.kind} is no step of a known shape")
        journal.write(key, generation, Result(artifact=artifact), run=self.run)
        _empty(scratch)
        return artifact

    def _in_cloud(
        self, step: CloudStep[Any], node: Node, inputs: Inputs, key: str, progress: Progress
    ) -> tuple[str, AnyArtifact]:
        journal, cloud = self.surveyor.journal, self.surveyor.target.cloud
        options = node.items[0].options
        for attempt in (1, 2):
            generation, effect, intended = self._claim_of(key)
            scratch = self.home.scratch / f"{key[:32]}.{generation}"
            scratch.mkdir(parents=True, exist_ok=True)
            claim = Claim(key, generation)
            work = replace(self._work(node, scratch, progress), claim=claim, intended=intended)
            how = "ran"
            if effect is None:
                effect = step.find(options, inputs, claim, cloud)
                how = "adopted" if effect else "ran"
                effect = effect or step.start(options, inputs, claim, cloud, work)
                journal.write(key, generation, Effect(resource=effect), run=self.run)
            else:
                how = "adopted"
            try:
                artifact = step.finish(options, inputs, effect, cloud, work)
            except CloudFailed as error:
                # Removed before it is given up: a crash between the two finds it gone, which is the next case.
                _discard(step, effect, cloud, work, error)
                journal.write(key, generation, Abandon(why=error.message), run=self.run)
                _empty(scratch)
                raise
            except CloudNotFound as error:
                # What we began was deleted by someone else: claim anew, once, so that nothing loops for ever.
                journal.write(key, generation, Abandon(why=error.message), run=self.run)
                _empty(scratch)
                if attempt == 2:
                    raise
                continue
            journal.write(key, generation, Result(artifact=artifact), run=self.run)
            _empty(scratch)
            return how, artifact
        raise InternalError("a second attempt neither ended nor failed")

    def _claim_of(self, key: str) -> tuple[int, str | None, float | None]:
        """Return the generation to claim under, with its Intent written, the Effect there is already, and, where an
        earlier attempt may have begun something whose Effect was lost, when it was first intended."""
        journal = self.surveyor.journal
        last = journal.last(key)
        match last:
            case None:
                generation = 0
            case _:
                generation = last.generation
                match last.word:
                    case Effect(resource=resource):
                        return generation, resource, None
                    case Intent(at=at):
                        return generation, None, at
                    case Result():
                        # The survey looked: the cloud has it no more. Its token is spent, so a new generation.
                        journal.write(key, generation, Abandon(why="gone from the cloud"), run=self.run)
                        generation += 1
                    case Abandon():
                        generation += 1
        journal.write(key, generation, Intent(at=time.time()), run=self.run)
        return generation, None, None

    def _guest(self, node: Node, inputs: Inputs, scratch: Path, progress: Progress) -> ImageFile:
        assert isinstance(inputs.source, File | ImageFile)
        base = self.surveyor.store.image(inputs.source)
        bench = guest_work.Bench(
            scratch=scratch,
            sources=self.outside.recipe_directory,
            cache=self.home.cache,
            store=self.surveyor.store,
            pins=self.pins,
            progress=progress,
        )
        session = self.ahead.take(base, network=guest_work.wants_network(node.items))
        return guest_work.edit(node.items, base, bench, session)

    def _work(self, node: Node, scratch: Path, progress: Progress) -> Work:
        return Work(
            scratch=scratch,
            outside=self.outside,
            pins=self.pins.get(node.items[0].id) or {},
            progress=progress,
            epoch=self.epoch,
            run=self.run,
            is_over=self._is_over,
            labels=labels(self.surveyor.recipe),
            appliance=self.ahead.lend,
            remote=lambda helper: logins.log_in(helper, self.home.root, self.surveyor.target.cloud, progress),
        )

    def _is_over(self, run: str) -> bool:
        """Say whether that was a run of this recipe on this target from here; we hold their lock."""
        found = self.surveyor.journal.run(run)
        mine = (self.surveyor.recipe.name, self.surveyor.target.identity)
        return found is not None and (found.recipe, found.target) == mine


def _discard(step: CloudStep[Any], effect: str, cloud: Cloud, work: Work, error: CloudFailed) -> None:
    """Remove what failed. If that fails too, both are told, and the next run tries to remove it once more."""
    try:
        step.discard(effect, cloud, work)
    except EmiError as second:
        raise CloudFailed(
            f"{error.message}\n{effect} is still there: {second.message}",
            hint=f"{second.hint} `emi resume` removes {effect} and begins anew.",
        ) from error


def _empty(scratch: Path) -> None:
    if scratch.exists():
        shutil.rmtree(scratch)
