"""The step kind `run`."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, SecretStr, StringConstraints

from builder.errors import UsageError
from builder.guest import sources
from builder.guest.edits import Command, Edit, Unchanged
from builder.guest.facts import GuestFacts
from pipelines.step import GuestStep, Options, Outside

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
GuestPath = Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
_SCRIPT_LIMIT = 1 << 20  # bytes; it is kept in memory, and a program is better copied in by `files`
_SHOWN = 60  # characters of a command in messages


class RunOptions(Options):
    """What to run, and with what."""

    command: Text | tuple[Text, ...] | None = Field(
        default=None,
        description="lines for the guest's /bin/sh, ended by the first that fails (`set -e`); or a list: a program of "
        "the guest and its arguments, taken to the letter",
    )
    script: str | None = Field(
        default=None,
        description="instead of `command`: a file of the recipe's directory, run by what its first line (`#!`) names, "
        "else by /bin/sh; pinned by its digest",
    )
    arguments: tuple[Text, ...] = Field(default=(), description="what the script is given")
    environment: Mapping[Name, Text] = Field(default={}, description="variables for it, shown in the plan")
    secrets: Mapping[Name, SecretStr] = Field(
        default={},
        description="variables whose values are never shown: they are blotted out of its output. emi keeps their "
        "digests, and what came by `--var` in its journal and report, which only you can read",
    )
    limit: float = Field(
        default=600, gt=0, le=86400, description="seconds after which it is ended, and the run fails; nothing is kept"
    )
    network: bool = Field(default=False, description="let it reach the network; otherwise there is none")
    creates: GuestPath | None = Field(
        default=None, description="a path of the guest that it makes: nothing is run when that is there already"
    )


class Run(GuestStep[RunOptions]):
    """Run a command or a script inside the guest, by the guest's own programs, in the appliance.

    It runs as root, with the root directory as its working directory, everything of the guest's /etc/fstab on this disk
    mounted, and nothing to read from standard input. Its output is shown, the last 64 KiB. Any exit status but 0 fails
    the run, and so does `limit`; nothing of the image is kept then. Processes that it leaves behind are ended with it.
    A guest for another kind of processor than this machine's cannot run anything. As in all of a recipe, a brace is
    written twice: `${{HOME}}`; in a `script` it is not.

    Only `creates` can say that there is nothing to do: without it the command runs each time the step does, which is
    whenever the image or the recipe before it has changed.
    """

    options = RunOptions

    def check(self, options: RunOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = []
        if (options.command is None) == (options.script is None):
            problems.append("give either `command` or `script`")
        if options.command is not None and not "".join(options.command[:1]).strip():
            problems.append("`command` is empty")
        if options.script is not None and (wrong := sources.problem(options.script)):
            problems.append(f"`script`: {wrong}")
        if options.arguments and options.script is None:
            problems.append("`arguments` are for a `script`; a list under `command` holds its own")
        problems += [f"{name} stands under `environment` and `secrets`" for name in _both(options)]
        problems += [
            f"the secret {name} has a zero byte in it, which no variable can hold"
            for name, value in options.secrets.items()
            if "\0" in value.get_secret_value()
        ]
        return problems

    def network(self, options: RunOptions) -> bool:
        """Say whether it asks for the network."""
        return options.network

    def pin(self, options: RunOptions, outside: Outside) -> Mapping[str, Any]:
        """Return the digests of the script and of the secrets."""
        secrets = {
            name: hashlib.sha256(value.get_secret_value().encode()).hexdigest()
            for name, value in options.secrets.items()
        }
        pins: dict[str, Any] = {"secrets": secrets} if secrets else {}
        if options.script is not None:
            found = sources.pinned(outside.recipe_directory, options.script)
            if "files" in found or found["size"] > _SCRIPT_LIMIT:
                raise UsageError(f"`script` {options.script} is no file of at most {_SCRIPT_LIMIT >> 20} MiB")
            pins["script"] = found["sha256"]
        return pins

    def edits(self, options: RunOptions, facts: GuestFacts, pins: Mapping[str, Any]) -> Sequence[Edit] | Unchanged:
        """Return the command, unless what it creates is there."""
        if options.creates is not None and facts.exists(options.creates):
            return Unchanged(why=f"{options.creates} is there already")
        secrets = {name: value.get_secret_value() for name, value in options.secrets.items()}
        script, arguments = _asked(options)
        return (
            Command(
                script=script,
                source=options.script or "",
                sha256=pins.get("script", ""),
                why=f"ran {_named(options)}",
                arguments=arguments,
                environment=tuple({**options.environment, **secrets}.items()),
                limit=options.limit,
                network=options.network,
                shown=True,
                secret=tuple(secrets.values()),
            ),
        )


def _both(options: RunOptions) -> list[str]:
    return sorted(options.environment.keys() & options.secrets.keys())


def _asked(options: RunOptions) -> tuple[bytes, tuple[str, ...]]:
    """Return the script, unless it is a file, and what it is given."""
    if isinstance(options.command, tuple):
        return b'exec "$@"\n', options.command
    if options.command is not None:
        return f"set -e\n{options.command}\n".encode(), ()
    return b"", options.arguments


def _named(options: RunOptions) -> str:
    if options.script is not None:
        return options.script
    text = shlex.join(options.command) if isinstance(options.command, tuple) else (options.command or "").strip()
    first, _, more = text.partition("\n")
    return f"{first[:_SHOWN]} …" if more or len(first) > _SHOWN else first
