"""What `emi install-image` and `emi register` do: each writes a recipe down and runs it.

So it is planned, locked, journalled and resumed as any other. The recipe lies in EMI_HOME/recipes, named by what it
says: the same command finds the same recipe again, and with it what a killed run of it left.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from builder import durable
from builder.bundle.records import is_id_of
from builder.errors import InputError, UsageError
from builder.unpack import packing
from pipelines.home import home
from pipelines.recipe import RecipeError
from pipelines.verbs import recipes
from pipelines.verbs.making import devices

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")  # in a recipe's name
# How the command line calls an option of the steps.
_OPTIONS = {
    "architecture": "--arch",
    "block_device_mappings": "-B",
    "bucket": "--bucket",
    "description": "--description",
    "kernel": "--kernel",
    "kernel_id": "--kernel",
    "name": "--name",
    "platform": "--platform",
    "prefix": "--bucket",
    "ramdisk": "--ramdisk",
    "ramdisk_id": "--ramdisk",
    "virtualization": "--virtualization-type",
}
_HEAD = "# Written by `emi {verb}`. It is a recipe like any other: copy it to keep or change it.\n"


def install(
    image: Path,
    made_of: Mapping[str, Any],
    beside: Mapping[str, str | None],
    *,
    only_plan: bool,
    cloud: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Install an image file, or with `only_plan` show how. Raises InputError for a file that is not there.

    `made_of` are options of the step `install`, mappings as VIRTUAL=DEVICE; `beside` says of `kernel` and `ramdisk` a
    file's path or an id.
    """
    _carry_out(_recipe(image, made_of, beside), "install-image", cloud, only_plan=only_plan, wait=wait, as_json=as_json)


def register(
    location: str, made_of: Mapping[str, Any], *, only_plan: bool, cloud: str | None, wait: bool, as_json: bool
) -> None:
    """Register a bundle that lies in a bucket; `made_of` are options of the step `register`."""
    given = {name: value for name, value in made_of.items() if value is not None}
    recipe = {
        "name": _named("register", given["name"]),
        "steps": _plain([{"locate-bundle": {"manifest": location}}, {"register": given}]),
        "outputs": {"image": "register.image_id"},
    }
    _carry_out(recipe, "register", cloud, only_plan=only_plan, wait=wait, as_json=as_json)


def _carry_out(
    recipe: Mapping[str, Any], verb: str, cloud: str | None, *, only_plan: bool, wait: bool, as_json: bool
) -> None:
    path = _written(recipe, verb)
    try:
        if only_plan:
            recipes.plan(path, (), (), cloud, as_json=as_json)
        else:
            recipes.run(path, (), (), cloud, wait=wait, as_json=as_json)
    except RecipeError as error:  # of what the command line said; nobody wrote the lines that it is about
        path.unlink()
        said = "; ".join(dict.fromkeys(problem.message for problem in error.problems))
        raise UsageError(
            re.sub(r"`(\w+)`", lambda word: _OPTIONS.get(word[1], word[0]), said),
            hint=f"Correct the options; `emi {verb} --help` lists them.",
        ) from error


def _recipe(image: Path, made_of: Mapping[str, Any], beside: Mapping[str, str | None]) -> dict[str, Any]:
    options = {**made_of, "block_device_mappings": devices(made_of["block_device_mappings"])}
    steps: list[dict[str, Any]] = []
    outputs = {"image": "install.image_id"}
    for role, said in beside.items():
        if said and is_id_of(role, said):
            options[f"{role}_id"] = said
        elif said:
            steps += [{"download": {"url": _url(Path(said), role)}, "id": role}]
            options[role] = role
            outputs[role] = f"install-{role}.image_id"
    steps += [{"download": {"url": _url(image, "image")}, "id": "file"}]
    if packing(image):
        steps += [{"decompress": None}]
    steps += [{"install": options}]
    return {"name": _named("install", made_of["name"]), "steps": _plain(steps), "outputs": outputs}


def _named(verb: str, name: str) -> str:
    return f"{verb}-{_UNFIT.sub('-', name)}"[:128]


def _url(path: Path, role: str) -> str:
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such {role} file", hint="Name a file; a kernel may be an id (eki-…) too."
        )
    return path.resolve().as_uri()


def _plain(value: Any) -> Any:
    """Return the value as a recipe holds it that has no variables: each brace twice."""
    match value:
        case str():
            return value.replace("{", "{{").replace("}", "}}")
        case list():
            return [_plain(inner) for inner in value]
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case _:
            return value


def _written(recipe: Mapping[str, Any], verb: str) -> Path:
    text = _HEAD.format(verb=verb) + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120)
    path = home().make().recipes / f"{recipe['name']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    durable.write_file(path, text.encode())
    return path
