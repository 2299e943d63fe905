import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from builder.errors import GuestError, UsageError
from builder.guest.edits import (
    Copied,
    CopyIn,
    CopyTree,
    MakeDirectory,
    MakeLink,
    Remove,
    SetAttributes,
    Unchanged,
    WriteFile,
)
from builder.guest.facts import KnownFacts, Stat
from pipelines.step import Outside
from pipelines.steps.files import Files, FilesOptions

STEP = Files()
ACCOUNTS = {
    "/etc/passwd": b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n",
    "/etc/group": b"root:x:0:\nalice:x:1001:\nadm:x:4:alice\n",
}
FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


def options(*entries: dict) -> FilesOptions:
    return FilesOptions.model_validate_json(json.dumps({"entries": entries}))


def decide(entry: dict, files: dict | None = None, *, recipe: Path = Path("/nonexistent"), **more):
    chosen = options(entry)
    facts = KnownFacts(files=ACCOUNTS | (files or {}), **more)
    return STEP.edits(chosen, facts, STEP.pin(chosen, outside(recipe)))


def outside(recipe: Path) -> Outside:
    return Outside(recipe_directory=recipe, cache=recipe, store=None)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "inner", [{"path": "/etc/app/run.sh", "mode": "0600"}, {"path": "/etc/app/sub/", "owner": "alice"},
              {"path": "/etc/app/sub/data", "content": "x"}]
)  # fmt: skip
def test_what_a_copied_directory_holds_does_not_stand_for_itself_too(recipe, inner):
    chosen = options({"path": "/etc/app", "copy_from": "app"}, inner)
    assert not STEP.check(chosen)
    with pytest.raises(UsageError, match="is also in app, which is copied to /etc/app"):
        STEP.pin(chosen, outside(recipe))
    beside = options({"path": "/etc/app", "copy_from": "app"}, inner | {"path": "/etc/app/other"})
    assert STEP.pin(beside, outside(recipe))


@pytest.fixture
def recipe(tmp_path) -> Path:
    directory = tmp_path / "recipe"
    (directory / "app/sub/empty").mkdir(parents=True)
    (directory / "motd").write_bytes(b"hello\n")
    (directory / "app/run.sh").write_bytes(b"#!/bin/sh\n")
    (directory / "app/run.sh").chmod(0o755)
    (directory / "app/sub/data").write_bytes(bytes(range(256)))
    (directory / "app/sub/data").chmod(0o600)
    (directory / "app/linked").symlink_to("../motd")
    return directory


WRITTEN = [
    ({"content": "hi\n"}, {}, WriteFile(path="/etc/motd", data=b"hi\n")),
    ({"content": ""}, {}, WriteFile(path="/etc/motd", data=b"")),
    ({"content": "\u00e4", "mode": "0600", "owner": "alice"}, {},
     WriteFile(path="/etc/motd", data=b"\xc3\xa4", mode=0o600, owner=(1000, 0))),
    ({"content": "hi\n", "owner": "alice", "group": "adm"}, {"/etc/motd": b"ho\n"},
     WriteFile(path="/etc/motd", data=b"hi\n", owner=(1000, 4))),
    ({"content": "hi\n", "group": 7}, {"/etc/motd": b"hi\n"},
     SetAttributes(path="/etc/motd", owner=(0, 7), why="/etc/motd: owner 0:7 (was 0:0)")),
    ({"content": "hi\n", "mode": "0755"}, {"/etc/motd": b"hi\n"},
     SetAttributes(path="/etc/motd", mode=0o755, why="/etc/motd: mode 0755 (was 0644)")),
    ({"content": "hi\n"}, {"/etc/motd": "../srv/motd", "/srv/motd": b"ho\n"},
     WriteFile(path="/etc/motd", data=b"hi\n")),
    ({"content": "hi\n"}, {"/etc/motd": "../srv/motd"}, WriteFile(path="/etc/motd", data=b"hi\n")),
    ({"link_to": "../a b"}, {}, MakeLink(path="/etc/motd", target="../a b")),
    ({"link_to": "/x"}, {"/etc/motd": "/y"}, MakeLink(path="/etc/motd", target="/x")),
    ({"link_to": "/x"}, {"/etc/motd": b"a file"}, MakeLink(path="/etc/motd", target="/x")),
    ({"delete": True}, {"/etc/motd": b""}, Remove(paths=("/etc/motd",))),
    ({"delete": True}, {"/etc/motd": "/dangling"}, Remove(paths=("/etc/motd",))),
    ({"delete": True}, {"/etc/motd/below/it": b""}, Remove(paths=("/etc/motd",))),
    ({"directory": True, "mode": "1777"}, {}, MakeDirectory(path="/etc/motd", mode=0o1777)),
    ({"directory": True, "owner": 5}, {"/etc/motd/": b""},
     SetAttributes(path="/etc/motd", owner=(5, 0), why="/etc/motd: owner 5:0 (was 0:0)")),
    ({"mode": "0640"}, {"/etc/motd": b""},
     SetAttributes(path="/etc/motd", mode=0o640, why="/etc/motd: mode 0640 (was 0644)")),
    ({"owner": "1000", "recursive": True}, {"/etc/motd/a/.hidden": b""},
     SetAttributes(path="/etc/motd", owner=(1000, 0), recursive=True)),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "files", "expected"), WRITTEN)
def test_what_is_not_so_is_made_so(entry, files, expected):
    assert list(decide({"path": "/etc/motd"} | entry, files)) == [expected]


@pytest.mark.parametrize(
    ("entry", "files"),
    [
        ({"content": "hi\n"}, {"/etc/motd": b"hi\n"}),
        ({"content": ""}, {"/etc/motd": b""}),
        ({"content": "hi\n", "mode": "0644", "owner": "root", "group": 0}, {"/etc/motd": b"hi\n"}),
        ({"content": "hi\n"}, {"/etc/motd": "/srv/motd", "/srv/motd": b"hi\n"}),
        ({"link_to": "/x"}, {"/etc/motd": "/x"}),
        ({"directory": True}, {"/etc/motd/": b""}),
        ({"directory": True}, {"/etc/motd": "/srv", "/srv/x": b""}),
        ({"mode": "0644"}, {"/etc/motd": b""}),
        ({"owner": 0, "recursive": True}, {"/etc/motd/a/.hidden": b"", "/etc/motd/[x]*/b": b"", "/etc/motd/l": "/x"}),
    ],
)
def test_what_is_so_is_left_alone(entry, files):
    assert decide({"path": "/etc/motd"} | entry, files) == Unchanged(why="already so: /etc/motd")


def test_what_is_gone_already():
    assert decide({"path": "/etc/motd", "delete": True}) == Unchanged(why="already so: /etc/motd is gone")


def test_a_difference_deep_below_is_found():
    files = {"/srv/a[1]/.b/c*/d": b"", "/srv/x": b""}
    deep = {"/srv/a[1]/.b/c*/d": Stat(mode=FILE | 0o644, uid=7)}
    (edit,) = decide({"path": "/srv", "owner": "root", "recursive": True}, files, stats=deep)
    assert edit == SetAttributes(path="/srv", owner=(0, 0), recursive=True)


def test_a_file_is_copied_in(recipe):
    entry = {"path": "/etc/motd", "copy_from": "motd", "owner": "alice"}
    (edit,) = decide(entry, recipe=recipe)
    digest = sha256(b"hello\n")
    assert edit == CopyIn(path="/etc/motd", source="motd", sha256=digest, mode=0o644, owner=(1000, 0))
    executable = {"path": "/bin/run", "copy_from": "app/run.sh"}
    assert decide(executable, recipe=recipe)[0].mode == 0o755
    assert decide(executable | {"mode": "0500"}, recipe=recipe)[0].mode == 0o500
    assert decide(executable, {"/bin/run": b"old"}, recipe=recipe)[0].mode is None
    assert decide({"path": "/etc/motd", "copy_from": "motd"}, {"/etc/motd": b"hello\n"}, recipe=recipe) == Unchanged(
        why="already so: /etc/motd"
    )
    assert isinstance(decide(entry, {"/etc/motd": b"hellO\n"}, recipe=recipe)[0], CopyIn)


def test_of_a_directory_what_differs_is_copied_in(recipe):
    entry = {"path": "/opt/app", "copy_from": "app"}
    (edit,) = decide(entry, recipe=recipe)
    run = Copied(name="run.sh", sha256=sha256(b"#!/bin/sh\n"), mode=0o755)
    data = Copied(name="sub/data", sha256=sha256(bytes(range(256))), mode=0o644)
    linked = Copied(name="linked", sha256=sha256(b"hello\n"), mode=0o644)
    assert edit == CopyTree(
        path="/opt/app",
        source="app",
        files=(linked, run, data),
        directories=("sub", "sub/empty"),
        why="copied app to /opt/app: 3 of 3 files (linked, run.sh, sub/data)",
    )
    there = {"/opt/app/run.sh": b"#!/bin/sh\n", "/opt/app/linked": b"hello\n", "/opt/app/sub/data": bytes(range(256))}
    stats = {"/opt/app/run.sh": Stat(mode=FILE | 0o755, size=10)}
    (edit,) = decide(entry, there | {"/opt/app/beside": b""}, recipe=recipe, stats=stats)
    assert (edit.files, edit.directories) == ((), ("sub/empty",))
    assert edit.why == "copied app to /opt/app: 0 of 3 files, and directories"
    (edit,) = decide(entry, there | {"/opt/app/sub/empty/": b""}, recipe=recipe)
    assert edit.files == (run,)  # whose mode is not that of an executable
    whole = there | {"/opt/app/sub/empty/": b""}
    assert decide(entry, whole, recipe=recipe, stats=stats) == Unchanged(why="already so: /opt/app")


def test_the_root_is_a_place_to_copy_to(recipe):
    (edit,) = decide({"path": "/", "copy_from": "app"}, {"/run.sh": b"#!/bin/sh\n"}, recipe=recipe)
    assert [file.name for file in edit.files] == ["linked", "run.sh", "sub/data"]


def test_entries_are_done_in_order_and_what_was_so_is_told():
    chosen = options(
        {"path": "/a", "content": "a"},
        {"path": "/b", "content": "b"},
        {"path": "/old", "delete": True},
        {"path": "/c", "link_to": "b"},
    )
    edits = STEP.edits(chosen, KnownFacts(files={"/b": b"b"}), STEP.pin(chosen, outside(Path("/"))))
    assert [str(edit) for edit in edits] == ["wrote /a", "linked /c to b; already so: /b, /old is gone"]


def test_owners_below_are_set_anew_when_something_was_put_there():
    chosen = options({"path": "/srv/x", "content": "x"}, {"path": "/srv", "owner": 5, "recursive": True})
    facts = KnownFacts(files={"/srv/": b""}, stats={"/srv": Stat(mode=DIRECTORY | 0o755, uid=5)})
    edits = STEP.edits(chosen, facts, STEP.pin(chosen, outside(Path("/"))))
    assert edits[1] == SetAttributes(path="/srv", owner=(5, 0), recursive=True)


@pytest.mark.parametrize(
    ("entry", "files", "expected"),
    [
        ({"content": "x"}, {"/etc/motd/": b""}, "/etc/motd in the guest is there and is not a regular file"),
        ({"directory": True}, {"/etc/motd": b""}, "is there and is not a directory"),
        ({"link_to": "x"}, {"/etc/motd/": b""}, "is a directory, and no link can take its place"),
        ({"mode": "0600"}, {}, "/etc/motd is not in the guest, so that its mode"),
        ({"mode": "0600"}, {"/etc/motd": "/dangling"}, "is not in the guest"),
        ({"content": "x", "owner": "bob"}, {}, "the guest has no user bob"),
        ({"content": "x", "group": "wheel"}, {}, "the guest has no group wheel"),
    ],
)
def test_what_cannot_be_is_an_error(entry, files, expected):
    with pytest.raises(GuestError, match=expected):
        decide({"path": "/etc/motd"} | entry, files)


def test_a_directory_has_no_one_mode_for_all(recipe):
    with pytest.raises(GuestError, match="cannot be that of all in app, which is a directory"):
        decide({"path": "/opt", "copy_from": "app", "mode": "0644"}, recipe=recipe)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([{"path": "/a", "content": "x"}], None),
        ([{"path": "/", "copy_from": "app"}], None),
        ([{"path": "/a"}], "/a: nothing is asked for"),
        ([{"path": "/a/../b", "content": "x"}], "has a `..`"),
        ([{"path": "/", "delete": True}], "the guest's root directory is only"),
        ([{"path": "//", "mode": "0755"}], "the guest's root directory is only"),
        ([{"path": "/a", "content": "x", "delete": True}], "give one of `content`, `delete`"),
        ([{"path": "/a", "copy_from": "../x"}], "'../x' is not a path inside the recipe's directory"),
        ([{"path": "/a", "copy_from": "/etc/passwd"}], "is not a path inside"),
        ([{"path": "/a", "copy_from": ""}], "is not a path inside"),
        ([{"path": "/a", "link_to": ""}], "`link_to` is empty"),
        ([{"path": "/a", "link_to": "x", "mode": "0644"}], "what has `link_to` has no mode"),
        ([{"path": "/a", "delete": True, "owner": 1}], "what has `delete` has no mode"),
        ([{"path": "/a", "directory": True, "recursive": True}], "`recursive` sets"),
        ([{"path": "/a", "mode": "0755", "recursive": True}], "`recursive` sets"),
        ([{"path": "/a", "content": "x", "owner": 1, "recursive": True}], "`recursive` sets"),
        ([{"path": "/a", "content": "x"}, {"path": "/a/", "content": "y"}], "/a stands there twice"),
        ([{"path": "/a/b", "content": "x"}, {"path": "/a", "delete": True}], "/a is deleted, and /a/b lies in it"),
        ([{"path": "/a", "owner": 1, "recursive": True}, {"path": "/a/b", "content": "", "owner": 2}],
         "owner of its own"),
        ([{"path": "/a", "delete": True}, {"path": "/ab", "content": "x"}], None),
    ],
)  # fmt: skip
def test_options_are_checked(entries, expected):
    problems = STEP.check(options(*entries))
    assert not problems if expected is None else expected in problems[0]


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "relative", "content": "x"},
        {"path": "/a", "content": "x", "mode": "rwx"},
        {"path": "/a", "content": "x", "mode": 644},
        {"path": "/a", "content": "x", "owner": -1},
        {"path": "/a", "content": "x", "colour": "red"},
    ],
)
def test_options_are_closed(entry):
    with pytest.raises(ValidationError):
        options(entry)


def test_content_is_in_the_key_and_nowhere_to_be_seen(recipe):
    one, two = (options({"path": "/a", "content": text}) for text in ("s3cret-1", "s3cret-2"))
    assert STEP.pin(one, outside(recipe)) != STEP.pin(two, outside(recipe))
    seen = f"{one!r} {one.model_dump(mode='json')} {STEP.pin(one, outside(recipe))}"
    assert "s3cret" not in seen


def test_pins_follow_what_is_copied(recipe):
    chosen = options({"path": "/a", "copy_from": "app"})
    before = STEP.pin(chosen, outside(recipe))
    (recipe / "app/run.sh").chmod(0o700)  # as executable as it was
    assert STEP.pin(chosen, outside(recipe)) == before
    (recipe / "app/run.sh").chmod(0o644)
    assert STEP.pin(chosen, outside(recipe)) != before


def test_what_leads_out_of_the_recipe_s_directory_is_refused(recipe, tmp_path):
    (tmp_path / "secret").write_text("x")
    (recipe / "out").symlink_to("../secret")
    (recipe / "passwd").symlink_to("/etc/passwd")
    (recipe / "up").symlink_to("..")
    (recipe / "loop").symlink_to("loop")
    (recipe / "tree").mkdir()
    (recipe / "tree/out").symlink_to("/etc/passwd")
    (recipe / "dirs").mkdir()
    (recipe / "dirs/again").symlink_to("../app")
    os.mkfifo(recipe / "fifo")
    (recipe / "odd").mkdir()
    (recipe / "odd" / os.fsdecode(b"caf\xe9")).write_text("")
    for source, expected in {
        "out": "leads out of the recipe's directory",
        "passwd": "leads out of the recipe's directory",
        "up/secret": "leads out of the recipe's directory",
        "tree": "leads out of the recipe's directory",
        "loop": "cannot be read",
        "absent": "cannot be read: No such file",
        "dirs": "is a link to a directory",
        "fifo": "is neither a file nor a directory",
        "odd": "is not UTF-8",
    }.items():
        with pytest.raises(UsageError, match=expected):
            STEP.pin(options({"path": "/a", "copy_from": source}), outside(recipe))
