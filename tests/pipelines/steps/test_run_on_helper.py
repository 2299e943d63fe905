import time
from pathlib import Path

import pytest

from builder.errors import RemoteDenied, RemoteFailed, UsageError
from pipelines.artifact import File
from pipelines.kinds import load

MIB = 1 << 20
STEP = load("run-on-helper")


@pytest.mark.parametrize(
    ("told", "problems"),
    [
        ({"command": "true"}, []),
        ({}, ["give either `command` or `script`"]),
        ({"command": " "}, ["`command` is empty"]),
        ({"command": "true", "arguments": ("x",)}, ["`arguments` are for a `script`"]),
        ({"script": "../x"}, ["'../x' is not a path inside the recipe's directory"]),
        ({"command": "true", "files": ("a/x", "x")}, ["two files would be called x"]),
    ],
)
def test_options_that_make_no_sense_are_refused(told, problems):
    assert list(STEP.check(STEP.options(**told))) == problems


@pytest.mark.parametrize("user", ["root", "bob"])
def test_what_is_copied_in_is_there_and_what_is_made_comes_back(desk, user):
    image = desk.image({0: b"begin", 5 * MIB: b"end"}, 6 * MIB)
    path = desk.recipe / "list.txt"
    path.write_text("from here\n")
    (desk.recipe / "make.py").write_text(
        "#!/usr/bin/env python3\nimport os, sys\nprint('made', sys.argv[1], os.environ['WORD'], os.getuid())\n"
        "data = open('disk', 'rb').read()\nopen('out.bin', 'wb').write(open('list.txt', 'rb').read() + data)\n"
    )
    told = {"script": "make.py", "arguments": ("a b",), "environment": {"WORD": "$x 'y'"}, "files": ("list.txt",)}
    inputs = {"inputs": {"disk": "image"}, "named": {"inputs.disk": image}}
    made = desk.run("run-on-helper", desk.helper, **told, **inputs, output="out.bin", user=user)
    assert isinstance(made, File)
    assert made.name == "out.bin"
    assert desk.store.path(made).read_bytes() == b"from here\n" + desk.store.path(image).read_bytes()
    assert desk.store.path(made).stat().st_blocks * 512 < 4 * MIB
    assert "made a b $x 'y' 0" in desk.notes.notes
    assert not list(Path("/var/tmp").glob("emi-run-run-on-helper*"))


def test_what_it_prints_is_the_result_where_no_file_is_named(desk):
    made = desk.run("run-on-helper", desk.helper, command="echo one\necho two\necho aside >&2")
    assert desk.store.path(made).read_bytes() == b"one\ntwo\n"
    assert (made.name, desk.notes.notes[-1]) == ("command.txt", "aside")


def test_what_fails_is_told_with_its_status_and_last_words(desk):
    with pytest.raises(RemoteFailed, match=r"exit status 7 from: (.|\n)*too bad"):
        desk.run("run-on-helper", desk.helper, command="echo too bad >&2\nexit 7")
    with pytest.raises(RemoteFailed, match="exit status 1"):  # set -e
        desk.run("run-on-helper", desk.helper, command="false\necho not reached")
    with pytest.raises(RemoteFailed, match="there is no such file"):
        desk.run("run-on-helper", desk.helper, command="true", output="nothing")
    began = time.monotonic()
    with pytest.raises(RemoteFailed, match="no end after 1 s"):
        desk.run("run-on-helper", desk.helper, command="sleep 600", limit=1)
    assert time.monotonic() - began < 300
    with pytest.raises(RemoteDenied, match="without a password"):
        desk.run("run-on-helper", desk.helper, command="true", user="alice")
    with pytest.raises(UsageError, match=r"none\.sh"):
        desk.run("run-on-helper", desk.helper, script="none.sh")


def test_it_runs_as_the_login_where_root_is_not_wanted(desk):
    made = desk.run("run-on-helper", desk.helper, command="id -un", root=False, user="alice")
    assert desk.store.path(made).read_bytes() == b"alice\n"
