"""The only place that prints: progress bars for a person at a terminal, plain lines elsewhere, or JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from builder.errors import EmiError, HostError, UsageError
from builder.pool import Lock
from builder.units import format_size
from pipelines.artifact import (
    ARTIFACT,
    AnyArtifact,
    Bundle,
    BundleLocation,
    File,
    Helper,
    ImageFile,
    MachineImage,
    Snapshot,
    Volume,
)
from pipelines.events import (
    Event,
    LeaseAcquired,
    LeaseEvent,
    LeaseKept,
    LeaseReleased,
    RunFinished,
    RunStarted,
    StepAdvanced,
    StepFinished,
    StepNote,
    StepStarted,
    StepTotal,
    Watcher,
)

_QUIET = 10.0  # seconds between two progress lines of one step where no terminal redraws them
_OFTEN = 1.0  # the same for programs that read JSON lines


def summary(artifact: AnyArtifact) -> str:
    """Return a result in a few words."""
    match artifact:
        case File():
            return f"{artifact.name}, {format_size(artifact.size)}, {_short(artifact.digest)}"
        case ImageFile():
            part = f"bytes from {artifact.offset} of " if artifact.window else ""
            size = format_size(artifact.virtual_size)
            return f"{artifact.format} disk of {size}, {part}{_short(artifact.digest)}"
        case Bundle():
            size = format_size(artifact.size)
            return f"{artifact.manifest.name}, {artifact.type}, {len(artifact.parts)} parts, {size} inside"
        case BundleLocation():
            return artifact.location
        case Snapshot():
            proven = "read back and equal" if artifact.verified else "not read back"
            return f"{artifact.snapshot_id}, {artifact.volume_size} GiB, {artifact.blocks} blocks, {proven}"
        case MachineImage() | Helper() | Volume():
            return _thing(artifact)


def _thing(artifact: MachineImage | Helper | Volume) -> str:
    match artifact:
        case MachineImage():
            return f"{artifact.image_id} `{artifact.name}`"
        case Helper():
            return f"{artifact.instance_id}, {artifact.user}@{artifact.address}"
        case Volume():
            where = f", {artifact.device} of {artifact.helper.instance_id}" if artifact.helper else ""
            held = f", {_short(artifact.content)}" if artifact.content else ""
            return f"{artifact.volume_id}, {artifact.size} GiB{where}{held}"


def _of_lease(event: LeaseEvent) -> str:
    match event:
        case LeaseAcquired():
            did = "adopted" if event.how == "adopted" else "acquired"
            return f"{did} in {event.seconds:.1f} s, {summary(event.result)}"
        case LeaseReleased():
            return f"released, {event.resource}"
        case LeaseKept():
            return f"kept, {event.resource}: {event.text}"


def summary_of(stored: Mapping[str, Any]) -> str:
    """Return a result, as reports hold it, in a few words."""
    return summary(ARTIFACT.validate_python(stored))


def _short(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}:{value[:12]}"


class PlainWatcher:
    """Plain lines, for logs and cron: a line when a step begins and ends, and one now and then between."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = Lock()
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._said: dict[str, float] = {}
        self._note = ""

    def __call__(self, event: Event) -> None:
        """Print the event's line, if it has one."""
        with self._lock:
            line = self._line(event)
            if line:
                _write(line, self._out)

    def _line(self, event: Event) -> str | None:
        line = None
        match event:
            case RunStarted(resumed=resumed):
                line = f"{'resuming' if resumed else 'run'} {event.run}: {event.recipe} on {event.target}"
            case StepStarted():
                line = f"{event.step}: starts ({event.why})"
            case StepTotal(step=step, count=count):
                self._totals[step] = count
            case StepAdvanced(step=step, count=count):
                line = self._advance(step, count)
            case StepNote():
                line = self._noted(f"{event.step}: {event.text}")
            case StepFinished(how="done"):
                line = f"{event.step}: unchanged, {summary(event.result)}"
            case StepFinished():
                line = f"{event.step}: {event.how} in {event.seconds:.1f} s, {summary(event.result)}"
            case LeaseAcquired() | LeaseReleased() | LeaseKept():
                line = f"{event.step}: {_of_lease(event)}"
            case RunFinished():
                pass
        return line

    def _noted(self, note: str) -> str | None:
        same, self._note = note == self._note, note
        return None if same else note

    def _advance(self, step: str, count: int) -> str | None:
        self._done[step] = self._done.get(step, 0) + count
        now = time.monotonic()
        if now - self._said.setdefault(step, now) < _QUIET:
            return None
        self._said[step] = now
        total = self._totals.get(step)
        of = f" of {format_size(total)}" if total else ""
        return f"{step}: {format_size(self._done[step])}{of}"


class _NoteColumn(ProgressColumn):
    """What the step does now, in the room that the figures leave: they stay readable on 80 columns."""

    def render(self, task: Task) -> Text:
        """Return the note, cut to its column."""
        return Text(str(task.fields["note"]), style="dim", no_wrap=True, overflow="ellipsis")


class TerminalWatcher:
    """Bars with rate and time left; finished steps stay as lines above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(table_column=_whole()),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12, table_column=_whole()),
            DownloadColumn(binary_units=True, table_column=_whole()),
            TransferSpeedColumn(table_column=_whole()),
            TimeRemainingColumn(compact=True, table_column=_whole()),
            TimeElapsedColumn(table_column=_whole()),
            _NoteColumn(),
            console=console,
            transient=True,
        )

    def __call__(self, event: Event) -> None:
        """Show the event."""
        match event:
            case RunStarted():
                verb = "Resuming" if event.resumed else "Running"
                line = f"{verb} [bold]{escape(event.recipe)}[/] on {escape(event.target)} ({escape(event.run)})"
                self._console.print(line, highlight=False)
                self._progress.start()
            case StepStarted():
                self._bars[event.step] = self._progress.add_task(event.step, total=None, note=event.why)
            case StepTotal(step=step, count=count) if step in self._bars:
                self._progress.update(self._bars[step], total=count)
            case StepAdvanced(step=step, count=count) if step in self._bars:
                self._progress.advance(self._bars[step], count)
            case StepNote(step=step, text=text) if step in self._bars:
                self._progress.update(self._bars[step], note=text)
            case StepNote():  # before the step has a bar: whom it waits for
                self._console.print(escape(f"{event.step}: {event.text}"), highlight=False)
            case StepFinished():
                how = "unchanged" if event.how == "done" else f"{event.how} in {event.seconds:.1f} s"
                self._finish(event.step, f"{how}: {summary(event.result)}")
            case LeaseAcquired() | LeaseReleased() | LeaseKept():
                self._finish(event.step, _of_lease(event))
            case RunFinished():
                self._progress.stop()
            case _:
                pass

    def _finish(self, step: str, words: str) -> None:
        bar = self._bars.pop(step, None)
        if bar is not None:
            self._progress.remove_task(bar)
        line = f"[green]✓[/] [bold]{escape(step)}[/] {escape(words)}"
        self._console.print(line, highlight=False)

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()


def _whole() -> Column:
    return Column(no_wrap=True)


class JsonWatcher:
    """One JSON object a line, the last one `run.finished`; `step.progress` comes now and then, not for each block."""

    _NAMES: Mapping[type, str] = {
        RunStarted: "run.started",
        StepStarted: "step.started",
        StepNote: "step.note",
        StepFinished: "step.finished",
        LeaseAcquired: "lease.acquired",
        LeaseReleased: "lease.released",
        LeaseKept: "lease.kept",
        RunFinished: "run.finished",
    }

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = Lock()
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._said: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Print the event as one line, if it is time for it."""
        with self._lock:
            body = self._body(event)
            if body:
                _write(json.dumps(body), self._out)

    def _body(self, event: Event) -> dict[str, Any] | None:
        match event:
            case StepTotal(step=step, count=count):
                self._totals[step] = count
                return None
            case StepAdvanced(step=step, count=count):
                return self._advance(step, count)
            case StepFinished() | LeaseAcquired():
                fields = {**asdict(event), "result": event.result.model_dump(mode="json")}
            case _:
                fields = {name: value for name, value in asdict(event).items() if value is not None}
        return {"event": self._NAMES[type(event)], **fields}

    def _advance(self, step: str, count: int) -> dict[str, Any] | None:
        self._done[step] = self._done.get(step, 0) + count
        now = time.monotonic()
        if now - self._said.get(step, 0) < _OFTEN:
            return None
        self._said[step] = now
        return {"event": "step.progress", "step": step, "done": self._done[step], "total": self._totals.get(step)}


def watcher(*, as_json: bool) -> Watcher:
    """Return the watcher that fits: JSON lines when asked for, bars at a terminal, plain lines elsewhere."""
    if as_json:
        return JsonWatcher(sys.stdout)
    console = Console(stderr=True)
    return TerminalWatcher(console) if console.is_terminal else PlainWatcher(sys.stderr)


def _write(line: str, out: TextIO) -> None:
    """Print a line. Raises HostError when it cannot be written: a full disk must not pass for success."""
    try:
        print(line, file=out, flush=True)
    except BrokenPipeError:
        raise  # whoever read has seen enough
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # Python would try again at the very end, and complain
        raise HostError(f"cannot write the output: {error.strerror}", hint="Write it to another place.") from error


def say(text: str = "") -> None:
    """Print a line of the answer on standard output."""
    _write(text, sys.stdout)


def say_json(value: Any) -> None:
    """Print a value as one JSON document."""
    _write(json.dumps(value, indent=2), sys.stdout)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    _write(text, sys.stderr)


def complain(error: EmiError) -> None:
    """Print an error, and separately what to do next, on standard error."""
    console = Console(stderr=True, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(error.message, markup=False, highlight=False)
    if error.hint:
        console.print("next: ", style="bold", end=" ")
        console.print(error.hint, markup=False, highlight=False)


def confirm(question: str) -> bool:
    """Ask a person and return whether the answer is yes. Raises UsageError where nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is there to answer.", hint="Say --yes if that is what you want.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output; tab-separated lines where it is not a terminal."""
    console = Console()
    if not console.is_terminal:
        for row in (columns, *rows):
            say("\t".join(row))
        return
    first, *others = columns
    headings = [Column(first, no_wrap=True), *(Column(name, overflow="fold") for name in others)]
    shown = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        shown.add_row(*map(Text, row))  # as it is: a name may hold what rich would take for markup
    console.print(shown)
