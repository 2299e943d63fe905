"""What the verb on parts of an image does: extract."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builder.errors import UsageError
from builder.guest.extract_file import extract_file
from builder.image.extract import Wanted
from builder.progress import SILENT
from builder.units import format_size
from pipelines import ui
from pipelines.events import StepProgress
from pipelines.home import home


def extract(image: Path, to: Path, *, as_json: bool, **choice: Any) -> None:
    """Write one part of a disk image to a raw file. Raises UsageError when it is not said which part."""
    wanted = Wanted(**choice)
    if problems := wanted.problems():
        said = re.sub(r"`(\w+)`", r"--\1", "; ".join(problems))
        raise UsageError(said, hint="`emi extract --help` lists the choices; `emi inspect IMAGE` shows the disk.")
    progress = SILENT if as_json else StepProgress("extract", ui.watcher(as_json=False))
    made = extract_file(image, wanted, to, cache=home().cache, progress=progress)
    if as_json:
        ui.say_json({"file": str(to), **asdict(made)})
        return
    ui.say(f"{to}: {made.title}")
    ui.say(f"  {format_size(made.size)}, {format_size(made.disk_size)} on disk")
