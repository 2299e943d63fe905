"""The step kind `run-on-helper`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from builder.errors import UsageError
from builder.guest import sources
from builder.remote import abilities, files
from builder.remote import script as scripts
from builder.remote.command import Shell
from builder.remote.script import Script
from pipelines.artifact import File, Helper, ImageFile
from pipelines.step import Inputs, LocalStep, Options, Outside, Reference, Work

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# A name in the script's directory; none begins with a dot or a dash.
Entry = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
_SCRIPT, _PRINTED = ".emi-script", ".emi-printed"
_SHOWN = 40  # lines of what it printed that are shown


class RunOnHelperOptions(Options):
    """What to run there, with what, and what comes back."""

    command: Text | None = Field(
        default=None, description="lines for the helper's /bin/sh, ended by the first that fails (`set -e`)"
    )
    script: str | None = Field(
        default=None,
        description="instead of `command`: a file of the recipe's directory, run by what its first line (`#!`) names, "
        "else by /bin/sh",
    )
    arguments: tuple[Text, ...] = Field(default=(), description="what the script is given")
    environment: Mapping[Name, Text] = Field(default={}, description="variables for it")
    inputs: Mapping[Entry, Annotated[str, Reference((ImageFile, File))]] = Field(
        default={},
        description="`NAME: ID`: results of earlier steps that lie beside it as NAME; a disk image as a raw one",
    )
    files: tuple[str, ...] = Field(
        default=(), description="files of the recipe's directory that lie beside it, under the last part of their path"
    )
    output: Entry | None = Field(
        default=None, description="the file that it makes there and that comes back; by default what it prints"
    )
    root: bool = Field(default=True, description="run it as root: with sudo where SSH's user is another")
    limit: float = Field(default=3600, gt=0, le=86400, description="seconds after which it is ended, and the run fails")


class RunOnHelper(LocalStep[RunOnHelperOptions]):
    """Run a script on a helper, with files copied in, and one file copied out: the result.

    It runs in a directory of its own, which is there when it starts with what `inputs` and `files` say, and is removed
    afterwards. Any exit status but 0 fails the run and shows its last words; so does `limit`. There is no terminal and
    nothing to read. It is ended, with all its children, when the connection is cut and when emi is killed, and begins
    anew then. What is copied is compared by its digest.

    What it does to the helper besides is its own affair: a helper that emi launched is terminated after its last use.
    It runs again when the script, an input or the `helper` step changes; nothing else is looked at.
    """

    options = RunOnHelperOptions
    accepts = (Helper,)
    returns = File
    helper_matters = True

    def check(self, options: RunOnHelperOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = []
        if (options.command is None) == (options.script is None):
            problems.append("give either `command` or `script`")
        if options.command is not None and not options.command.strip():
            problems.append("`command` is empty")
        if options.arguments and options.script is None:
            problems.append("`arguments` are for a `script`")
        paths = (*([options.script] if options.script is not None else []), *options.files)
        problems += [wrong for path in paths if (wrong := sources.problem(path))]
        names = [*options.inputs, *(PurePosixPath(name).name for name in options.files)]
        problems += [f"two files would be called {name}" for name in sorted({n for n in names if names.count(n) > 1})]
        return problems

    def pin(self, options: RunOnHelperOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the digests of the script and the files."""
        pins: dict[str, Any] = {}
        for name in (*([options.script] if options.script else []), *options.files):
            found = sources.pinned(outside.recipe_directory, name)
            if "sha256" not in found:
                raise UsageError(f"{name} is no file")
            pins[name] = found["sha256"]
        return {"files": pins} if pins else {}

    def build(self, options: RunOnHelperOptions, inputs: Inputs, work: Work) -> File:
        """Copy in, run, copy out, seal."""
        helper = inputs.source
        assert isinstance(helper, Helper)
        directory = f"/var/tmp/emi-run-{work.scratch.name}"  # noqa: S108 - there, where `workplace` makes it safe
        output = options.output or _PRINTED
        target = work.scratch / "output"
        with work.remote(helper) as shell, scripts.workplace(shell, directory, root=options.root):
            able = abilities.ask(shell)
            script = _copied_in(options, inputs, work, shell, directory)
            work.progress.note(f"running {_title(options)} on {shell.name}")
            said = scripts.run(shell, script, directory, output=_PRINTED if options.output is None else "")
            for line in [*said.stdout.decode(errors="replace").splitlines(), *said.stderr.splitlines()][-_SHOWN:]:
                work.progress.note(line)
            sha256 = files.take(shell, able, f"{directory}/{output}", target, root=options.root, progress=work.progress)
        name = options.output or f"{PurePosixPath(_title(options)).stem}.txt"
        return work.store.seal_file(target, name=name, sha256=f"sha256:{sha256}")


def _title(options: RunOnHelperOptions) -> str:
    return options.script or "command"


def _copied_in(options: RunOnHelperOptions, inputs: Inputs, work: Work, shell: Shell, directory: str) -> Script:
    """Copy the inputs, the files and the script; return what is to be run."""
    for name in options.inputs:
        artifact = inputs.named[f"inputs.{name}"]
        work.progress.note(f"copying {name} to {shell.name}")
        if isinstance(artifact, ImageFile):
            with work.store.open_image(artifact) as reader:
                files.put_image(shell, reader, f"{directory}/{name}", progress=work.progress)
        else:
            assert isinstance(artifact, File)
            files.put(shell, work.store.path(artifact), f"{directory}/{name}", progress=work.progress)
    for name in options.files:
        path = _source(work, name)
        files.put(shell, path, f"{directory}/{path.name}", mode=_mode(path), progress=work.progress)
    local = work.scratch / "script"
    if options.script is not None:
        local = _source(work, options.script)
    else:
        local.write_text(f"set -e\n{options.command}\n")
    files.put(shell, local, f"{directory}/{_SCRIPT}", mode=0o700)
    with open(local, "rb") as opened:
        interpreted = opened.read(2) == b"#!"
    return Script(
        name=_SCRIPT,
        interpreted=interpreted,
        arguments=options.arguments,
        environment=options.environment,
        limit=options.limit,
        root=options.root,
    )


def _source(work: Work, name: str) -> Path:
    """Return a file of the recipe's directory, as it was pinned. Raises UsageError when it was changed meanwhile."""
    found = sources.pinned(work.outside.recipe_directory, name)
    if found.get("sha256") != work.pins["files"][name]:
        raise UsageError(f"{name} was changed after this run began", hint="Run again for the file as it is now.")
    return work.outside.recipe_directory / name


def _mode(path: Path) -> int:
    return 0o700 if path.stat().st_mode & 0o100 else 0o600
