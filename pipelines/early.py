"""Parts of a bundle on their way to the cloud while later ones are made: for the `upload` that directly follows.

Best effort: whatever fails here is told as a note and left to the upload itself, which looks what lies there and sends
what does not. So nothing is sent twice, and no bundling fails for the cloud's sake.

What is begun early has a key of its own in the journal, since the upload's is not known before the bundle is whole:
the SHA-256 of the bundle's key and of what decides the upload. Order of writing, after the bundle step's own Intent:

    Intent of the early key  >  the bucket  >  Effect: where the manifest will lie  >  parts  >  ...
    ... the upload's own Intent, Effect and Result  >  Result of the early key, the same artifact

Each object carries the claim of the early key. A run that is killed in between and never resumed is thus known by its
Effect, and what it left is listed under that place. docs/design/journal.md has the crash windows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Self

from builder import pool
from builder.cloud.claims import Claim
from builder.errors import EmiError
from pipelines.artifact import AnyArtifact, Bundle, BundleLocation, File
from pipelines.journal import Journal
from pipelines.plan import Node, arrange, key_of, labels
from pipelines.recipe import Recipe
from pipelines.step import Forerunner, Work
from pipelines.targets import Target
from pipelines.ties import needs
from pipelines.words import Effect, Intent, Result

_LINES = 4  # parts on their way at the same time; bundling needs the cores


class Early:
    """What is sent ahead in one run. Ends its threads' work when the block ends, whatever is still waiting."""

    def __init__(self, *, recipe: Recipe, target: Target, journal: Journal, run: str) -> None:
        self._target, self._journal, self._run = target, journal, run
        self._recipe = recipe
        self._followers = followers(recipe)
        self._keys: dict[str, str] = {}  # id of the upload -> its early key
        self._sendings: dict[str, Sending] = {}  # likewise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sending in self._sendings.values():
            sending.stop()

    def sees(self, node: Node, key: str) -> None:
        """Learn the key of a node, done or not: the early key of what follows depends on it."""
        follower = self._followers.get(node.id)
        if follower:
            self._keys[follower.id] = early_key(self._recipe, follower, key, self._target)

    def taker(self, node: Node, work: Work) -> Callable[[str, File], None]:
        """Return what takes the node's parts as they are made; the node's Intent is durable by now."""
        follower = self._followers.get(node.id)
        if follower is None:
            return work.early
        sending = Sending(follower, self._keys[follower.id], work, self)
        self._sendings[follower.id] = sending
        return sending.take

    def settle(self, node: Node) -> None:
        """Return when everything that was taken for the node has been sent, or has failed."""
        sending = self._sendings.pop(node.id, None)
        if sending:
            sending.settle()

    def close(self, node: Node, artifact: AnyArtifact) -> None:
        """Record that the node, which is finished, has taken over what was begun early."""
        key = self._keys.get(node.id)
        last = self._journal.last(key) if key else None
        if key and last and isinstance(last.word, (Intent, Effect)):
            self._journal.write(key, last.generation, Result(artifact=artifact), run=self._run)

    def begin(self, follower: Node, key: str, manifest: str, work: Work) -> Forerunner | None:
        """Claim under the early key, make ready in the cloud, and say so; both words durable before the first part."""
        step = follower.cloud_step
        assert step
        last = self._journal.last(key)
        generation = last.generation if last else 0
        begun = last is not None and isinstance(last.word, (Intent, Effect))
        if last is not None and not begun:
            generation += 1
        claimed = replace(work, claim=Claim(key, generation))
        forerunner = step.forerunner(follower.items[0].options, manifest, self._target.cloud, claimed)
        if forerunner is None:
            return None
        if not begun:
            self._journal.write(key, generation, Intent(at=time.time()), run=self._run)
        resource = forerunner.begin()
        if last is None or last.word != Effect(resource=resource):
            self._journal.write(key, generation, Effect(resource=resource), run=self._run)
        return forerunner


class Sending:
    """The parts of one bundle: the first is preceded by the making ready, the others are sent in parallel after it."""

    def __init__(self, follower: Node, key: str, work: Work, early: Early) -> None:
        self._follower, self._key, self._work, self._early = follower, key, work, early
        self._workers = [pool.Worker() for _ in range(_LINES)]
        self._ready: pool.Pending[Forerunner | None] | None = None
        self._pending: list[pool.Pending[None]] = []
        self._stopped = False

    def take(self, manifest: str, part: File) -> None:
        """Have the part sent; returns at once."""
        if self._stopped:
            return
        if self._ready is None:
            self._ready = self._workers[0].begin(lambda: self._begin(manifest))
        ready = self._ready
        worker = self._workers[len(self._pending) % _LINES]
        self._pending.append(worker.begin(lambda: self._send(ready, part)))

    def settle(self) -> None:
        """Wait for all of it. Raises what is a defect of ours; what the cloud refused was told already."""
        for worker in self._workers:
            worker.end()
        for pending in self._pending:
            pending.result()

    def stop(self) -> None:
        """Send nothing more; what is on its way is not waited for."""
        self._stopped = True
        for worker in self._workers:
            worker.end()

    def _begin(self, manifest: str) -> Forerunner | None:
        try:
            return self._early.begin(self._follower, self._key, manifest, self._work)
        except EmiError as error:
            self._give_up(error)
            return None

    def _send(self, ready: pool.Pending[Forerunner | None], part: File) -> None:
        forerunner = ready.result()
        if forerunner is None or self._stopped:
            return
        try:
            forerunner.take(part)
        except EmiError as error:
            self._give_up(error)

    def _give_up(self, error: EmiError) -> None:
        self._stopped = True
        self._work.progress.note(f"parts are sent after the bundling: {error.message}")


def followers(recipe: Recipe) -> Mapping[str, Node]:
    """Return, by the id of a node that makes a bundle, the upload that directly follows and alone takes it."""
    nodes = [node for node in arrange(recipe) if not node.lease]
    users = Counter(need for item in recipe.steps for need in needs(item))
    return {
        node.id: after
        for node, after in pairwise(nodes)
        if after.source == node.id
        and users[node.id] == 1
        and after.cloud_step
        and node.items[-1].step.returns is Bundle
        and after.items[0].step.returns is BundleLocation
    }


def early_key(recipe: Recipe, follower: Node, before: str, target: Target) -> str:
    """Return the key of what is begun for a node before its input is whole, which the node of key `before` makes."""
    item = follower.items[0]
    made_of: dict[str, Any] = {
        "early": {"kind": item.kind, "revision": item.step.revision, "options": item.options.model_dump(mode="json")},
        "before": before,
        "target": target.identity,
        "labels": labels(recipe),
    }
    return key_of(made_of)
