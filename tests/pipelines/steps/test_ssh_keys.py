import pytest
from pydantic import ValidationError

from builder.errors import GuestError, InputError
from builder.guest.edits import MakeDirectory, SetAttributes, Unchanged, WriteFile
from builder.guest.facts import KnownFacts, Stat
from builder.guest.sshd import sshd_settings
from pipelines.step import Outside
from pipelines.steps.ssh_keys import SshKeys, SshKeysOptions

STEP = SshKeys()
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx2gVvS5nBqzE8vHc0V0yM7b9cO5v0mT7x3tq1bVd3y"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAx2gVvS5nBqzE8vHc0V0yM7b9cO5v0mT7x3tq1bVd3y"
FILES = {
    "/etc/passwd": b"root:x:0:0::/root:/bin/bash\nann:x:1000:1001::/home/ann:/bin/bash\n"
    b"bob:x:1002:1002::/srv/bob:/bin/sh\nweb:x:33:33::/home/ann:/usr/sbin/nologin\n",
    "/etc/ssh/sshd_config": b"Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\n"
    b"Match User x\nPasswordAuthentication no\n",
}  # fmt: skip
STATS = {"/root": Stat(mode=0o40700), "/home/ann": Stat(mode=0o40755, uid=1000, gid=1001)}
AUTHORIZED = "/home/ann/.ssh/authorized_keys"


def decide(guest: dict = FILES, stats: dict = STATS, pins: dict | None = None, **values):
    options = SshKeysOptions.model_validate(values, strict=False)
    return STEP.edits(options, KnownFacts(files=guest, stats=stats), pins or {})


def after(files: dict, stats: dict, edits) -> tuple[dict, dict]:
    left, modes = dict(files), dict(stats)
    for edit in edits:
        kind = 0o100000
        if isinstance(edit, WriteFile):
            left[edit.path] = edit.data
        if isinstance(edit, MakeDirectory) or (isinstance(edit, SetAttributes) and edit.path.endswith(".ssh")):
            kind = 0o40000
        if edit.mode is not None:
            modes[edit.path] = Stat(mode=kind | edit.mode, uid=edit.owner[0], gid=edit.owner[1])
    return left, modes


def test_a_first_key_comes_with_its_directory():
    edits = decide(user="ann", keys=[f"{KEY} ann@host"])
    assert edits[0] == MakeDirectory(path="/home/ann/.ssh", mode=0o700, owner=(1000, 1001))
    assert edits[1] == WriteFile(
        path=AUTHORIZED,
        data=f"{KEY} ann@host\n".encode(),
        mode=0o600,
        owner=(1000, 1001),
        why=f"{AUTHORIZED} lets in ssh-ed25519 …tq1bVd3y ann@host",
    )
    files, stats = after(FILES, STATS, edits)
    assert decide(files, stats, user="ann", keys=[KEY]) == Unchanged(why="the keys are there, and sshd does as asked")


def test_keys_that_are_there_stay_unless_only_these_are_wanted():
    files = FILES | {AUTHORIZED: f"# hers\n{OTHER}".encode()}
    added, only = (
        after(files, STATS, decide(files, user="ann", keys=[KEY], only=only))[0][AUTHORIZED] for only in (False, True)
    )
    assert added == f"# hers\n{OTHER}\n{KEY}\n".encode()
    assert only == f"{KEY}\n".encode()
    assert after(files, STATS, decide(files, user="ann", only=True))[0][AUTHORIZED] == b""


def test_owner_and_modes_are_what_sshd_insists_on():
    files = FILES | {AUTHORIZED: f"{KEY}\n".encode()}
    stats = STATS | {"/home/ann/.ssh": Stat(mode=0o40777, uid=1000, gid=1001), AUTHORIZED: Stat(mode=0o100644)}
    edits = decide(files, stats, user="ann", keys=[KEY])
    assert [(edit.path, edit.mode, edit.owner) for edit in edits] == [
        ("/home/ann/.ssh", 0o700, (1000, 1001)),
        (AUTHORIZED, 0o600, (1000, 1001)),
    ]
    assert isinstance(decide(*after(files, stats, edits), user="ann", keys=[KEY]), Unchanged)


@pytest.mark.parametrize(
    ("said", "path", "mode"),
    [
        ("AuthorizedKeysFile .ssh/keys .ssh/keys2", "/home/ann/.ssh/keys", 0o600),
        ("AuthorizedKeysFile /etc/ssh/keys/%u", "/etc/ssh/keys/ann", 0o644),
        ("AuthorizedKeysFile %h/.ssh/../k%%", "/home/ann/k%", 0o600),
        ("AuthorizedKeysFile none", AUTHORIZED, 0o600),
    ],
)
def test_the_file_is_the_one_that_sshd_reads(said, path, mode):
    edits = decide(FILES | {"/etc/ssh/sshd_config": said.encode()}, user="ann", keys=[KEY])
    assert (edits[-1].path, edits[-1].mode) == (path, mode)


@pytest.mark.parametrize(
    ("user", "stats", "expected"),
    [
        ("web", STATS, "; but /usr/sbin/nologin lets nobody work"),
        ("ann", {"/home/ann": Stat(mode=0o40775, uid=1000)}, "; but sshd refuses them while /home/ann is another's or"),
        ("ann", {"/home/ann": Stat(mode=0o40755, uid=7)}, "StrictModes"),
    ],
)
def test_what_would_keep_the_user_out_is_told(user, stats, expected):
    assert expected in decide(stats=stats, user=user, keys=[KEY])[-1].why


SETTINGS = {"password_authentication": False, "permit_root_login": "prohibit-password"}
WANTED = {
    "passwordauthentication": "no",
    "challengeresponseauthentication": "no",
    "permitrootlogin": "without-password",
}


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (FILES["/etc/ssh/sshd_config"], "/etc/ssh/sshd_config.d/00-emi.conf"),
        (b"PermitRootLogin yes\nInclude /etc/ssh/sshd_config.d/*.conf\n", "/etc/ssh/sshd_config"),
        (b"PasswordAuthentication yes\nMatch User x\n  PermitRootLogin no\n", "/etc/ssh/sshd_config"),
    ],
)
def test_settings_go_where_they_count(config, path):
    later = {"/etc/ssh/sshd_config.d/50-cloud-init.conf": b"PasswordAuthentication yes\n"}
    files = FILES | later | {"/etc/ssh/sshd_config": config}
    (edit,) = decide(files, **SETTINGS)
    assert edit.path == path
    left = files | {path: edit.data}
    assert {name: sshd_settings(KnownFacts(files=left))[name].value for name in WANTED} == WANTED
    assert isinstance(decide(left, **SETTINGS), Unchanged)
    (other,) = decide(left, permit_root_login=False)
    left |= {path: other.data}
    assert sshd_settings(KnownFacts(files=left))["permitrootlogin"].value == "no"
    assert sshd_settings(KnownFacts(files=left))["passwordauthentication"].value == "no"


@pytest.mark.parametrize(
    ("values", "files", "expected"),
    [
        ({"user": "eve", "keys": [KEY]}, FILES, "the guest has no user eve; those who may log in are root, ann, bob"),
        ({"user": "bob", "keys": [KEY]}, FILES, "the home of bob, /srv/bob, is not in the guest"),
        (SETTINGS, {}, "sshd is not installed in the guest"),
        (SETTINGS, {"/usr/etc/ssh/sshd_config": b""}, "is the system's own and includes no /etc/ssh/sshd_config.d"),
    ],
)
def test_what_cannot_be_is_an_error(values, files, expected):
    with pytest.raises(GuestError, match=expected):
        decide(files, **values)


@pytest.fixture
def outside(tmp_path) -> Outside:
    return Outside(recipe_directory=tmp_path, cache=tmp_path, store=None)


def test_keys_in_files_are_pinned(outside, tmp_path):
    (tmp_path / "keys.pub").write_text(f"# team\n\n{KEY} a\n{OTHER} b\n")
    options = SshKeysOptions(user="ann", files=("keys.pub",))
    pins = STEP.pin(options, outside)
    assert pins == {"keys": [f"{KEY} a", f"{OTHER} b"]}
    assert decide(user="ann", files=["keys.pub"], pins=pins)[-1].data == f"{KEY} a\n{OTHER} b\n".encode()
    assert STEP.pin(SshKeysOptions(user="ann", keys=(KEY,)), outside) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "holds a private key, which belongs in no image"),
        (f"{KEY}\n{KEY[:-9]}\n".encode(), "keys, line 2, is a damaged ssh-ed25519 key"),
        (b"# none\n", "keys holds no key"),
        (b"\xff\xfe", "keys, line 1, is no line of authorized_keys"),
        (None, "the keys in keys cannot be read: No such file"),
    ],
)
def test_files_that_hold_something_else_are_refused(text, expected, outside, tmp_path):
    if text is not None:
        (tmp_path / "keys").write_bytes(text)
    with pytest.raises(InputError, match=expected):
        STEP.pin(SshKeysOptions(user="ann", files=("keys",)), outside)


def test_a_link_out_of_the_recipe_s_folder_is_refused(outside, tmp_path):
    (tmp_path / "keys").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="leads out of the recipe's folder"):
        STEP.pin(SshKeysOptions(user="ann", files=("keys",)), outside)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["nothing is asked for"]),
        ({"user": "ann"}, ["no keys are given"]),
        ({"keys": [KEY]}, ["`user` says whose keys"]),
        ({"user": "ann", "keys": [KEY, "x"]}, ["`keys` number 2 is no line"]),
        ({"user": "ann", "files": ["../x", "/x", ""]}, ["`files`: ../x is not", "`files`: /x is", "`files`:  is not"]),
        ({"user": "ann", "only": True}, []),
        ({"permit_root_login": False}, []),
    ],
)
def test_options_are_checked(values, expected):
    problems = STEP.check(SshKeysOptions.model_validate(values, strict=False))
    assert len(problems) == len(expected)
    assert all(part in problem for part, problem in zip(expected, problems, strict=True))


def test_options_are_closed():
    with pytest.raises(ValidationError):
        SshKeysOptions(permit_root_login="forced-commands-only")
