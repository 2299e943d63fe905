"""Runs and plans of recipes that name the kinds beside this file; as a script, one that can be killed.

python drive.py HOME RECIPE [NAME=VALUE ...]      events as JSON lines, as `emi run --json`
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import EmiError
from pipelines import kinds, ui
from pipelines.course import Outcome
from pipelines.events import Event
from pipelines.home import Home
from pipelines.journal import Journal
from pipelines.kinds import Directory
from pipelines.plan import Prospect
from pipelines.recipe import Recipe, load
from pipelines.request import Request
from pipelines.run import Calls, Runner
from pipelines.step import Step
from pipelines.store import FileStore
from pipelines.targets import open_target

HERE = Path(__file__).parent
OURS = Directory(folder=HERE / "kinds", package="tests.pipelines.leasing.kinds")


class Both:
    """The kinds of emi and those beside this file."""

    def names(self) -> tuple[str, ...]:
        return tuple(sorted((*kinds.BUILT_IN.names(), *OURS.names())))

    def load(self, kind: str) -> Step[Any]:
        return (OURS if kind in OURS.names() else kinds.BUILT_IN).load(kind)


def read(path: Path, variables: dict[str, str]) -> Recipe:
    """Return the recipe."""
    return load(path, variables, kinds=Both())


@dataclass(frozen=True)
class Driver:
    """Runs one recipe in one home, against its sandbox."""

    home: Home
    recipe: Path

    def runner(self, variables: dict[str, str], watch: Callable[[Event], None], *, keep: bool = False) -> Runner:
        calls = Calls()
        return Runner(
            home=self.home,
            journal=Journal(self.home.journal),
            store=FileStore(self.home.objects),
            recipe=read(self.recipe, variables),
            request=Request(recipe=self.recipe, variables=variables, cloud="sandbox"),
            target=open_target("sandbox", self.home, on_call=calls),
            calls=calls,
            watch=watch,
            keep_helper=keep,
        )

    def run(self, *, keep: bool = False, **variables: str) -> tuple[Outcome, list[Event], Calls]:
        events: list[Event] = []
        runner = self.runner(variables, events.append, keep=keep)
        try:
            return runner.run(), events, runner.calls
        finally:
            runner.journal.close()

    def plan(self, **variables: str) -> dict[str, Prospect]:
        runner = self.runner(variables, lambda _: None)
        try:
            return {prospect.node.id: prospect for prospect in runner.plan()}
        finally:
            runner.journal.close()


def main() -> int:
    """Run as the words of the command say; return emi's exit code."""
    home, recipe, *pairs = sys.argv[1:]
    variables = dict(pair.split("=", 1) for pair in pairs)
    runner = Driver(Home(Path(home)).make(), Path(recipe)).runner(variables, ui.JsonWatcher(sys.stdout))
    try:
        runner.run()
    except EmiError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
