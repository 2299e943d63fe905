"""What a person at a terminal sees: names as they are, figures that stay readable on 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from builder.errors import GuestError
from pipelines.artifact import MachineImage
from pipelines.events import RunStarted, StepAdvanced, StepFinished, StepNote, StepProgress, StepStarted, StepTotal
from pipelines.ui import TerminalWatcher, complain

NAME = "image [x] a[/b] [bold]"  # EC2 takes it as an image's name; rich would take it for markup
STEPS = ["register"]


def watched() -> tuple[TerminalWatcher, io.StringIO]:
    screen = io.StringIO()
    return TerminalWatcher(Console(file=screen, force_terminal=True, width=80, color_system=None)), screen


def test_a_name_that_looks_like_markup_is_shown_as_it_is() -> None:
    watch, screen = watched()
    watch(RunStarted(run="run[/1]", recipe="r[/x]", target="aws:[/p]", steps=STEPS, resumed=False))
    watch(StepStarted(step="register", kind="register", why=NAME))
    watch(StepNote(step="register", text=NAME))
    image = MachineImage(image_id="ami-1", name=NAME, region="here")
    watch(StepFinished(step="register", kind="register", how="ran", seconds=1, result=image))
    watch.close()
    assert "Running r[/x] on aws:[/p] (run[/1])" in screen.getvalue()
    assert f"register ran in 1.0 s: ami-1 `{NAME}`" in screen.getvalue()


def test_a_long_note_leaves_rate_and_size_whole() -> None:
    watch, screen = watched()
    watch(RunStarted(run="run", recipe="r", target="sandbox", steps=STEPS, resumed=False))
    watch(StepStarted(step="snapshot", kind="snapshot", why="first run"))
    watch(StepTotal(step="snapshot", count=150 << 20))
    watch(StepAdvanced(step="snapshot", count=75 << 20))
    watch(StepNote(step="snapshot", text="waiting for snapshot snap-00dccbc54da344e67, as long as it takes (0 s)"))
    watch.close()
    assert "75.0/150.0 MiB" in screen.getvalue()
    assert "waiting for s" in screen.getvalue()


HOSTILE = "/boot/\x1b[2J\x07\udcff\u202ex"  # a name in a guest, as os.fsdecode makes it


def test_a_guests_names_do_not_steer_the_terminal_nor_end_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    notes: list[StepNote] = []
    StepProgress("kernel", notes.append).note(f"{HOSTILE}\nsecond\tline")
    assert [note.text for note in notes] == ["/boot/\ufffd[2J\ufffd\ufffd\ufffdx second  line"]
    complain(GuestError(f"{HOSTILE}:\n\tgone"))
    said = capfd.readouterr().err
    assert "/boot/\ufffd[2J\ufffd\ufffd\ufffdx:\n" in said
    assert "\x1b[2J" not in said
