"""The command line: verbs, their options and their help; the only place that ends the process.

The work is in verbs/, imported when a verb runs, so that `emi --help` answers at once.
"""

from __future__ import annotations

import atexit
import gc
import signal
import sys
import tempfile
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from builder.errors import EmiError, InternalError
from pipelines import cli_bundles
from pipelines.lazily import Lazily

if TYPE_CHECKING:
    from pipelines import ui
    from pipelines.verbs import clouds as clouds_verb
    from pipelines.verbs import faults, images, parts, places, recipes, reference, sandbox
    from pipelines.verbs import gc as gc_verb
else:
    ui = Lazily("pipelines.ui")
    clouds_verb, gc_verb = Lazily("pipelines.verbs.clouds"), Lazily("pipelines.verbs.gc")
    faults, images, parts, places, recipes, reference, sandbox = (
        Lazily(f"pipelines.verbs.{name}")
        for name in ("faults", "images", "parts", "places", "recipes", "reference", "sandbox")
    )

app = typer.Typer(
    name="emi",
    help="Machine-image pipelines for AWS and Eucalyptus: a YAML recipe becomes exactly one registered image.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 the recipe or usage is wrong, 130 interrupted; docs/errors.md lists the others.",
)
sandbox_app = typer.Typer(no_args_is_help=True, help="The embedded cloud on this machine: start, stop, look.")
store_app = typer.Typer(no_args_is_help=True, help="The content-addressed files that finished steps left.")
app.add_typer(sandbox_app, name="sandbox")
app.add_typer(store_app, name="store")

ImageFile = Annotated[Path, typer.Argument(help="A disk image file.", show_default=False)]
Machines = Literal["aws", "eucalyptus-kvm", "eucalyptus-xen", "qemu"]  # Target of builder.guest.lint.subject
RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Variables = Annotated[
    list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="Set a variable of the recipe; repeatable.")
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option("--mirror", metavar="PREFIX=URL", help="Read URLs that begin with PREFIX from URL; repeatable."),
]
CloudName = Annotated[
    str | None,
    typer.Option("--cloud", metavar="NAME", help="sandbox (default), aws, or another that `emi clouds` lists."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, for programs.")]
Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        metavar="DIR",
        help="Another sandbox than EMI_HOME/sandbox: that like Eucalyptus is EMI_HOME/sandbox-eucalyptus.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
KeepHelper = Annotated[
    bool, typer.Option("--keep-helper", help="Leave the helper instance running at the end, and say how to log in.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for another run of this recipe instead of refusing.")]


def _show_version(asked: bool) -> None:  # noqa: FBT001 - typer's callbacks are called so
    if asked:
        reference.version()
        raise typer.Exit


@app.callback()
def _emi(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Hold the options of `emi` itself; its help is above."""


@app.command()
def validate(recipe: RecipeFile, var: Variables = None) -> None:
    """Check a recipe and show every problem on its line; runs nothing."""
    recipes.validate(recipe, var or [])


@app.command()
def plan(
    recipe: RecipeFile, var: Variables = None, mirror: Mirrors = None, cloud: CloudName = None, json: AsJson = False
) -> None:
    """Show what a run would do: which steps, why, how many bytes, which cloud calls."""
    recipes.plan(recipe, var or [], mirror or [], cloud, as_json=json)


@app.command()
def run(
    recipe: RecipeFile,
    var: Variables = None,
    mirror: Mirrors = None,
    cloud: CloudName = None,
    wait: Wait = False,
    keep_helper: KeepHelper = False,
    json: AsJson = False,
) -> None:
    """Run a recipe to its registered image; continues a run that was cut."""
    recipes.run(recipe, var or [], mirror or [], cloud, wait=wait, keep_helper=keep_helper, as_json=json)


@app.command()
def resume(
    run: Annotated[str | None, typer.Argument(help="The run's id; the newest unfinished one by default.")] = None,
    wait: Wait = False,
    keep_helper: KeepHelper = False,
    json: AsJson = False,
) -> None:
    """Carry on with a run that was killed, interrupted or failed."""
    recipes.resume(run, wait=wait, keep_helper=keep_helper, as_json=json)


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(help="A run's id; all recent runs by default.")] = None,
    json: AsJson = False,
) -> None:
    """Show recent runs, or one run's steps, results and report."""
    reference.status(run, as_json=json)


@app.command()
def steps(kind: Annotated[str | None, typer.Argument(help="A step kind; all of them by default.")] = None) -> None:
    """List the step kinds, or describe one with all its options."""
    reference.steps(kind)


@app.command()
def schema() -> None:
    """Print the recipes' JSON Schema (draft 2020-12), for editors."""
    reference.schema()


@app.command()
def doctor(
    cloud: CloudName = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the appliance launch (about 10 s).")] = False,
    json: AsJson = False,
) -> None:
    """Check that this machine can do it: tools, appliance, acceleration, space, credentials."""
    reference.doctor(cloud, quick=quick, as_json=json)


@app.command()
def clouds(
    check: Annotated[bool, typer.Option("--check/--no-check", help="Ask each whether it answers, by one call.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Wait no longer for them.")] = 8,
    json: AsJson = False,
) -> None:
    """List the clouds that are configured here, for --cloud: where that was found, and whether they answer."""
    clouds_verb.clouds(check=check, timeout=timeout, as_json=json)


@app.command("gc")
def collect(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Only these, and what only they stand on.")
    ] = None,
    *,
    cloud: CloudName = None,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Leave what is younger: 1d, 12h, 30m, 0.")
    ] = "1d",
    all_: Annotated[
        bool, typer.Option("--all", help="Also what is unclear, such as what no journal here knows.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what goes; without it nothing is changed.")] = False,
    json: AsJson = False,
) -> None:
    """Show what emi made in a cloud, and remove with --yes what killed runs left (docs/gc.md)."""
    gc_verb.collect(ids or [], cloud=cloud, older_than=older_than, all_=all_, yes=yes, as_json=json)


@app.command()
def inspect(
    image: ImageFile,
    guest: Annotated[
        bool, typer.Option("--guest/--no-guest", help="Look at the system in it too (an appliance launch, about 10 s).")
    ] = True,
    json: AsJson = False,
) -> None:
    """Show an image's format, sizes, partitions and firmware, and the system in it: kernels, drivers, users."""
    images.inspect(image, guest=guest, as_json=json)


@app.command()
def lint(
    image: ImageFile,
    target: Annotated[Machines, typer.Option("--for", help="The machines that it is to run on.")] = "aws",
    except_: Annotated[
        list[str] | None, typer.Option("--except", metavar="RULE", help="Leave a rule out; repeatable.")
    ] = None,
    volume_size: Annotated[
        int | None,
        typer.Option(
            "--volume-size", metavar="GIB", min=1, help="The volume that it is to become; a larger disk is an error."
        ),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Print the recipe steps that mend what was found.")] = False,
    json: AsJson = False,
) -> None:
    """Look for what keeps an image from booting, or leaks out of it (docs/lint.md); 9 where there are errors."""
    images.lint(image, target, except_ or [], volume_size=volume_size, fix=fix, as_json=json)


@app.command()
def extract(
    image: Annotated[Path, typer.Argument(help="A disk image file.", show_default=False)],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The raw file to write; it must not exist yet.")],
    *,
    partition: Annotated[int | None, typer.Option("--partition", metavar="N", help="The partition's number.")] = None,
    root: Annotated[bool, typer.Option("--root", help="The root filesystem, wherever it is; looks inside.")] = False,
    label: Annotated[
        str | None, typer.Option("--label", metavar="NAME", help="A filesystem's label, or a GPT partition's name.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="A partition type: a GUID, 0x83, or `EFI system`.")
    ] = None,
    volume: Annotated[str | None, typer.Option("--volume", metavar="GROUP/NAME", help="A logical volume.")] = None,
    subvolume: Annotated[
        str | None, typer.Option("--subvolume", metavar="NAME", help="A btrfs subvolume, to be the default one.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write one part of a disk image to a sparse raw file: a partition, the root, a logical volume."""
    choice: dict[str, Any] = {"partition": partition, "root": root, "label": label, "type": kind}
    parts.extract(image, to, **choice, volume=volume, subvolume=subvolume, as_json=json)


for verb in cli_bundles.VERBS:
    app.command(verb.__name__.replace("_", "-"))(verb)


@sandbox_app.command("start")
def sandbox_start(
    directory: Directory = None,
    *,
    port: Annotated[int, typer.Option("--port", help="The plain port; by default the one it had last, or any.")] = 0,
    tls: Annotated[
        bool | None, typer.Option("--tls/--no-tls", help="A port for TLS beside it; by default as it was last.")
    ] = None,
    tls_port: Annotated[int, typer.Option("--tls-port", help="The TLS port; by default as above.")] = 0,
    personality: Annotated[
        str | None,
        typer.Option("--personality", help="The cloud it is like, aws (default) or eucalyptus; fixed at first start."),
    ] = None,
    release: Annotated[
        str | None, typer.Option("--release", help="That of Eucalyptus, such as 4.4.2; by default as last, then 5.1.")
    ] = None,
    machines: Annotated[
        str | None,
        typer.Option("--machines", help="What runs behind instances: none (default), light or qemu; remembered."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Start the embedded cloud, or say that it runs; it keeps its state and is kept until stopped."""
    ports: dict[str, Any] = {"port": port, "tls": tls, "tls_port": tls_port}
    sandbox.start(directory, **ports, personality=personality, release=release, machines=machines, as_json=json)


@sandbox_app.command("stop")
def sandbox_stop(directory: Directory = None) -> None:
    """Stop the embedded cloud; its state stays on disk."""
    sandbox.stop(directory)


@sandbox_app.command("status")
def sandbox_status(directory: Directory = None, json: AsJson = False) -> None:
    """Show whether the embedded cloud runs, where, and what is in it."""
    sandbox.status(directory, as_json=json)


@sandbox_app.command("account")
def sandbox_account(
    name: Annotated[str, typer.Argument(help="What to call it, 50 characters at most.", show_default=False)],
    directory: Directory = None,
    json: AsJson = False,
) -> None:
    """Make another account in the embedded cloud and show its keys."""
    sandbox.account(name, directory, as_json=json)


@sandbox_app.command("reset")
def sandbox_reset(directory: Directory = None, yes: Yes = False) -> None:
    """Empty the embedded cloud; its keys and ports stay. Refused while a run uses it."""
    sandbox.reset(directory, yes=yes)


@sandbox_app.command("export")
def sandbox_export(
    file: Annotated[Path, typer.Argument(help="Where to write it, usually NAME.tar.zst.", show_default=False)],
    directory: Directory = None,
    yes: Yes = False,
) -> None:
    """Write everything that is in the embedded cloud to a file; calls wait meanwhile."""
    sandbox.export(file, directory, yes=yes)


@sandbox_app.command("import")
def sandbox_import(
    file: Annotated[Path, typer.Argument(help="What `emi sandbox export` wrote.", show_default=False)],
    directory: Directory = None,
    yes: Yes = False,
) -> None:
    """Put what is in a file in the place of everything in the embedded cloud. Refused while a run uses it."""
    sandbox.import_(file, directory, yes=yes)


@sandbox_app.command("faults")
def sandbox_faults(
    file: Annotated[Path | None, typer.Argument(help="A table of faults, a YAML file.", show_default=False)] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all faults; what they hold up goes on.")] = False,
    directory: Directory = None,
    json: AsJson = False,
) -> None:
    """Make the embedded cloud fail on demand (docs/sandbox-faults.md); without FILE: what fails, and how often."""
    faults.faults(file, directory, clear=clear, as_json=json)


@store_app.command("prune")
def store_prune() -> None:
    """Remove files that no recipe's newest run needs; safe beside a run in progress."""
    places.store_prune()


@store_app.command("verify")
def store_verify() -> None:
    """Hold every file against its digest; remove what is damaged, so that it is made again."""
    places.store_verify()


@store_app.command("status")
def store_status() -> None:
    """Show how many files the store holds and how much room they take."""
    places.store_status()


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A short process: the collector would walk every imported class again and again for nothing, and once more at the
    # end. 30 % of a short run.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # not when it was closed
            stream.reconfigure(errors="replace")  # a terminal that has no `✓` shows `?`
    try:
        app()  # ends the process itself, with 2 for bad usage
    except EmiError as error:
        _fail(error)
    except Exception as error:  # noqa: BLE001 - the last net: no traceback reaches a user
        _fail(_defect(error))
    sys.exit(0)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _fail(error: EmiError) -> NoReturn:
    ui.complain(error)
    sys.exit(error.exit_code)


def _defect(error: Exception) -> InternalError:
    with tempfile.NamedTemporaryFile("w", prefix="emi-defect-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return InternalError(f"a defect in emi: {type(error).__name__}: {error}; the trace is in {file.name}")
