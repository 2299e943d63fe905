"""Write docs/sandbox-behaviour.md: what the sandbox does as the real services do, and the test that proves each line.

    python tools/behaviour.py            writes the page
    python tools/behaviour.py --check    says how it differs, with status 1 when it does

A line is a mark on a test, `@pytest.mark.behaviour(area, call, property)`; pytest collects them, so every line belongs
to a test that exists, and a test that could be skipped or may fail is refused. What is missing comes from each file's
`MISSING = [(area, call, what instead)]`, from the list in docs/design/sandbox.md, and, for the calls that are not
answered at all, from the services' models less what a running sandbox says it answers.
"""

from __future__ import annotations

import difflib
import json
import sys
import tempfile
import textwrap
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import botocore.session  # noqa: TID251 - the models of the services, as everywhere the truth
import pytest

from builder.sandbox import lifecycle

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "sandbox-behaviour.md"
DESIGN = ROOT / "docs" / "design" / "sandbox.md"
EMULATED = "## What is emulated or missing"  # the section of DESIGN that is repeated here
SERVICES = ("ec2", "ebs", "s3", "iam", "sts", "ssm")
MARKS = ("mark.behaviour(", "MISSING = ")  # a file without them need not be imported
DOUBTFUL = ("skip", "skipif", "xfail")
HEAD = """<!-- Written by `make docs` from the marks on the tests; do not edit. -->
# What the sandbox does, and which test proves it

Every line is what a test observed on a running sandbox: bytes compared, states seen, errors matched. The tests run
with `make test` (those of the long sweeps with `make test-all`). None of it was compared with AWS itself: what is right
comes from the service models and the documentation.
"""


@dataclass(frozen=True, order=True, kw_only=True)
class Line:
    """One behaviour, and the file and name of the test that proves it."""

    area: str
    call: str
    behaviour: str
    file: str
    test: str


class Collector:
    """A pytest plugin that reads the marks of what is collected."""

    def __init__(self) -> None:
        self.lines: set[Line] = set()
        self.missing: set[tuple[str, str, str]] = set()
        self.refused: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        for item in items:
            marks = list(item.iter_markers("behaviour"))
            if marks and any(item.get_closest_marker(name) for name in DOUBTFUL):
                self.refused.append(f"{item.nodeid}: a test that may be skipped or may fail proves nothing")
            file, name = str(item.path.relative_to(ROOT)), item.originalname or item.name
            for mark in marks:
                if len(mark.args) != 3 or mark.kwargs or not all(isinstance(word, str) for word in mark.args):
                    self.refused.append(f"{item.nodeid}: behaviour() takes an area, a call and a property")
                    continue
                area, call, behaviour = mark.args
                self.lines.add(Line(area=area, call=call, behaviour=behaviour, file=file, test=name))
            missing = getattr(item.module, "MISSING", None)  # another file may mean something else by that name
            self.missing |= {tuple(entry) for entry in missing} if isinstance(missing, list) else set()


def collect() -> Collector:
    """Return the marks of all tests. Raises SystemExit when a file cannot be read or a mark says nothing."""
    found = Collector()
    files = sorted(ROOT.glob("tests/**/test_*.py"))
    files = [file for file in files if any(mark in file.read_text() for mark in MARKS)]
    words = ["--collect-only", "-qq", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *map(str, files)]
    with redirect_stdout(StringIO()) as said:
        status = pytest.main(words, plugins=[found])
    if status != pytest.ExitCode.OK:
        raise SystemExit(f"{said.getvalue()}\npytest could not collect the tests: {status!r}")
    if found.refused or not found.lines:
        raise SystemExit("\n".join(found.refused) or "no test is marked")
    return found


def answered() -> Mapping[str, list[str]]:
    """Return the calls that a running sandbox says it answers, by service."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "sandbox"
        try:
            url = f"{lifecycle.start(directory).url}/_sandbox/actions"
            with urllib.request.urlopen(url) as answer:
                return dict(json.load(answer))
        finally:
            lifecycle.stop(directory)


def page() -> str:
    """Return the page."""
    found, actions = collect(), answered()
    lines = sorted(found.lines)
    areas = sorted({line.area for line in lines} | {area for area, _, _ in found.missing})
    text = [HEAD, f"{len(lines)} properties in {len(areas)} areas, by {len({line.test for line in lines})} tests.", ""]
    for area in areas:
        text += [f"## {area}", ""]
        text += _proven([line for line in lines if line.area == area])
        text += _missing([(call, instead) for where, call, instead in sorted(found.missing) if where == area])
    text += ["## Emulated, refused or missing, in general", "", _emulated(), ""]
    text += ["## Calls that are refused on purpose", "", *_refused(actions)]
    return "\n".join(text)


def _proven(lines: Iterable[Line]) -> list[str]:
    rows = []
    for line in lines:
        proof = f"[`{line.test}`](../{line.file})"
        rows.append(f"| {_cell(line.call)} | {_cell(line.behaviour)} | {proof} |")
    return ["| call | observed | proven by |", "| --- | --- | --- |", *rows, ""] if rows else []


def _missing(entries: Iterable[tuple[str, str]]) -> list[str]:
    rows = [f"| {_cell(call)} | {_cell(instead)} |" for call, instead in entries]
    return ["Not, or not as the real service:", "", "| call | instead |", "| --- | --- |", *rows, ""] if rows else []


def _emulated() -> str:
    section = DESIGN.read_text().partition(f"\n{EMULATED}\n")[2].partition("\n## ")[0].strip()
    if not section:
        raise SystemExit(f"{DESIGN} has no section `{EMULATED}`")
    return section


def _refused(actions: Mapping[str, list[str]]) -> list[str]:
    text = [
        "Each of these exists in the service's model, and answers UnsupportedOperation (S3: NotImplemented) in its",
        "service's own words; so does every call of every other service. All are written to the list of calls.",
        "",
    ]
    for service in SERVICES:
        known = set(botocore.session.get_session().get_service_model(service).operation_names)
        there, absent = set(actions.get(service, [])) & known, sorted(known - set(actions.get(service, [])))
        names = ", ".join(sorted(there)) or "none"
        text += _lines(f"**{service}**: {len(there)} of {len(known)} calls are answered: {names}.")
        text += ["", "<details><summary>refused</summary>", "", *_lines(", ".join(absent)), "", "</details>"]
        text.append("")
    return text


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_on_hyphens=False) or ["none"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str]) -> int:
    """Write or check the page; return the exit status."""
    wanted = page()
    if "--check" not in arguments:
        PAGE.write_text(wanted)
        return 0
    current = PAGE.read_text() if PAGE.exists() else ""
    both = (current.splitlines(keepends=True), wanted.splitlines(keepends=True))
    difference = "".join(difflib.unified_diff(*both, str(PAGE), f"{PAGE} as it should be"))
    sys.stdout.write(f"{difference}run `make docs` and commit\n" if difference else "")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
