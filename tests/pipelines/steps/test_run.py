import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from builder import proc
from builder.errors import UsageError
from builder.guest.edit import Plan, edit_image
from builder.guest.edits import Command, Unchanged
from builder.guest.facts import KnownFacts
from builder.guest.guest import Exchange
from builder.guest.overlay import Layer
from pipelines.step import Outside
from pipelines.steps.files import Files, FilesOptions
from pipelines.steps.run import Run, RunOptions

STEP = Run()


def options(**given) -> RunOptions:
    return RunOptions.model_validate_json(json.dumps(given))


def outside(recipe: Path) -> Outside:
    return Outside(recipe_directory=recipe, cache=recipe, store=None)


def decide(facts: KnownFacts, recipe: Path = Path("/"), **given):
    chosen = options(**given)
    return STEP.edits(chosen, facts, STEP.pin(chosen, outside(recipe)))


@pytest.mark.parametrize(
    ("given", "script", "arguments", "why"),
    [
        ({"command": "make install"}, b"set -e\nmake install\n", (), "ran make install"),
        ({"command": "one\ntwo"}, b"set -e\none\ntwo\n", (), "ran one …"),
        ({"command": "x" * 61}, b"set -e\n" + b"x" * 61 + b"\n", (), f"ran {'x' * 60} …"),
        ({"command": ["id", "-u", "a b"]}, b'exec "$@"\n', ("id", "-u", "a b"), "ran id -u 'a b'"),
    ],
)
def test_what_is_run(given, script, arguments, why):
    (edit,) = decide(KnownFacts(), **given)
    assert edit == Command(script=script, arguments=arguments, why=why, shown=True)


def test_what_it_is_run_with():
    (edit,) = decide(KnownFacts(), command="x", environment={"A": "1"}, secrets={"B": "s3cret"}, limit=7, network=True)
    assert (edit.environment, edit.secret) == ((("A", "1"), ("B", "s3cret")), ("s3cret",))
    assert (edit.limit, edit.network) == (7, True)
    assert STEP.network(options(command="x", network=True))
    assert not STEP.network(options(command="x"))


def test_a_script_is_pinned_by_its_digest(tmp_path):
    (tmp_path / "setup.sh").write_text("#!/bin/sh\n")
    chosen = options(script="setup.sh", arguments=["a"])
    pins = STEP.pin(chosen, outside(tmp_path))
    (edit,) = STEP.edits(chosen, KnownFacts(), pins)
    assert (edit.script, edit.source, edit.sha256, edit.arguments) == (b"", "setup.sh", pins["script"], ("a",))
    assert edit.why == "ran setup.sh"
    (tmp_path / "setup.sh").write_text("#!/bin/bash\n")
    assert STEP.pin(chosen, outside(tmp_path)) != pins


def test_what_is_no_script_is_refused(tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    (tmp_path / "out").symlink_to("/etc/passwd")
    for name, expected in {"directory": "no file", "large": "no file", "out": "leads out", "absent": "No such"}.items():
        with pytest.raises(UsageError, match=expected):
            STEP.pin(options(script=name), outside(tmp_path))


def test_what_it_creates_is_there_already():
    facts = KnownFacts(files={"/opt/app/done": "/dangling"})
    assert decide(facts, command="x", creates="/opt/app/done") == Unchanged(why="/opt/app/done is there already")
    assert decide(facts, command="x", creates="/opt/app")
    assert len(decide(facts, command="x", creates="/opt/absent")) == 1


def test_secrets_are_in_the_key_and_nowhere_to_be_seen():
    one, two = (options(command="x", secrets={"A": value}) for value in ("s3cret-1", "s3cret-2"))
    assert STEP.pin(one, outside(Path("/"))) != STEP.pin(two, outside(Path("/")))
    assert "s3cret" not in f"{one!r} {one.model_dump(mode='json')} {STEP.pin(one, outside(Path('/')))}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"command": "x"}, None),
        ({"command": ["x", ""]}, None),
        ({"script": "a/b.sh", "arguments": ["x"]}, None),
        ({}, "give either `command` or `script`"),
        ({"command": "x", "script": "y"}, "give either"),
        ({"command": " \n"}, "`command` is empty"),
        ({"command": []}, "`command` is empty"),
        ({"command": [""]}, "`command` is empty"),
        ({"script": "../x"}, "'../x' is not a path inside the recipe's directory"),
        ({"command": "x", "arguments": ["y"]}, "`arguments` are for a `script`"),
        ({"command": "x", "environment": {"A": ""}, "secrets": {"A": ""}}, "A stands under `environment` and"),
        ({"command": "x", "secrets": {"A": "\0"}}, "the secret A has a zero byte"),
    ],
)  # fmt: skip
def test_options_are_checked(given, expected):
    problems = STEP.check(options(**given))
    assert not problems if expected is None else expected in problems[0]


@pytest.mark.parametrize(
    "given",
    [
        {"command": "a\0b"},
        {"command": "x", "environment": {"A-B": "x"}},
        {"command": "x", "environment": {"A": "\0"}},
        {"command": "x", "secrets": {"A B": "x"}},
        {"command": "x", "creates": "relative"},
        {"command": "x", "limit": 0},
    ],
)
def test_options_are_closed(given):
    with pytest.raises(ValidationError):
        options(**given)


class Recipe:
    """Two kinds of steps on one image: `files` and `run`, for real."""

    def __init__(self, directory: Path, tree: Path) -> None:
        self.directory, self.target = directory, directory / "over.qcow2"
        self.recipe = directory / "recipe"
        (self.recipe / "app/sub").mkdir(parents=True)
        (self.recipe / "app/run").write_text(
            '#!/bin/bash\necho "${BASH_VERSION:+bash} $1 $TOKEN"; cat /opt/app/sub/data\n'
        )
        (self.recipe / "app/sub/data").write_text("from the recipe\n")
        (self.recipe / "app/run").chmod(0o755)
        shutil.copytree(tree, directory / "tree", symlinks=True)
        self.image = directory / "image.raw"
        with open(self.image, "xb") as file:
            file.truncate(48 << 20)
        proc.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", directory / "tree", self.image])

    def plan(self, step: Files | Run, chosen: FilesOptions | RunOptions) -> Plan:
        assert not step.check(chosen)
        pins = json.loads(json.dumps(step.pin(chosen, outside(self.recipe))))
        return Plan(decide=lambda facts: step.edits(chosen, facts, pins), network=False)

    def edit(self, *plans: Plan):
        exchange = Exchange(sources=self.recipe)
        base = Layer(path=self.image, format="raw")
        return edit_image(base, self.target, plans, backing_name="image.raw", exchange=exchange)

    def debugfs(self, request: str) -> str:
        flat = self.directory / "flat.raw"
        if not flat.exists():
            proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.target, flat])
        return proc.run(["debugfs", "-R", request, flat]).stdout.decode()


@pytest.fixture
def recipe(tmp_path, runnable) -> Recipe:
    return Recipe(tmp_path, runnable)


@pytest.mark.sweep
def test_files_are_put_and_run_in_one_launch_and_the_second_time_is_nothing_to_do(recipe):
    entries = [
        {"path": "/opt/app", "copy_from": "app", "owner": "alice", "group": "adm"},
        {"path": "/etc/motd", "content": "hello\n", "mode": "0600"},
        {"path": "/etc/os-release", "delete": True},
        {"path": "/usr/bin/app", "link_to": "/opt/app/run"},
        {"path": "/srv/deep/er", "directory": True, "mode": "1777"},
    ]
    files = recipe.plan(Files(), FilesOptions.model_validate_json(json.dumps({"entries": entries})))
    line = recipe.plan(Run(), options(command="/usr/bin/app one; echo made >/srv/made", secrets={"TOKEN": "s3cret"},
                                      creates="/srv/made"))  # fmt: skip
    script = recipe.plan(Run(), options(script="app/run", arguments=["two"], environment={"TOKEN": "token"}))
    words = recipe.plan(Run(), options(command=["stat", "-c", "%U %G %a", "/opt/app/sub/data", "/opt/app/run"]))
    done = recipe.edit(files, line, script, words, files, line)
    assert [each.output for each in done] == [
        "",
        "bash one ***\nfrom the recipe",
        "bash two token\nfrom the recipe",
        "alice adm 644\nalice adm 755",
        "",
        "",
    ]
    assert str(done[0]).startswith("copied app to /opt/app: 2 of 2 files (run, sub/data); wrote /etc/motd; removed")
    assert str(done[4]) == (
        "unchanged: already so: /opt/app, /etc/motd, /etc/os-release is gone, /usr/bin/app, /srv/deep/er"
    )
    assert str(done[5]) == "unchanged: /srv/made is there already"
    assert recipe.debugfs("cat /etc/motd") == "hello\n"
    assert recipe.debugfs("cat /srv/made") == "made\n"
    assert "Mode:  0600" in recipe.debugfs("stat /etc/motd")
    assert "Mode:  01777" in recipe.debugfs("stat /srv/deep/er")
    assert 'Fast link dest: "/opt/app/run"' in recipe.debugfs("stat /usr/bin/app")
    assert "os-release" not in recipe.debugfs("ls -p /etc")
    assert ".emi" not in recipe.debugfs("ls -p /") + recipe.debugfs("ls -p /opt/app") + recipe.debugfs("ls -p /etc")
