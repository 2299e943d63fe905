import pytest
from pydantic import ValidationError

from builder import proc
from builder.errors import GuestError, ToolFailed
from builder.guest import sudoers
from builder.guest.edits import MakeDirectory, MakeLink, Remove, Unchanged, WriteFile
from builder.guest.facts import KnownFacts, Stat
from pipelines.steps.users import Users, UsersOptions

STEP = Users()
HASH = "$6$abcdefgh$" + "x" * 86
FILES = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\nd:x:1:1::/:/bin/false\n",
    "/etc/shadow": b"root:$6$root$hash:19000:0:99999:7:::\nann:!$6$ann$hash:19000:0:99999:7:::\nd:*:1::::::\n",
    "/etc/group": b"root:x:0:\nsudo:x:27:ann\nann:x:1000:\n",
    "/etc/login.defs": b"HOME_MODE 0700\nUMASK 022\n",
    "/etc/skel/.bashrc": b"# rc\n",
    "/etc/skel/.config/deep/x": b"x\n",
    "/etc/skel/link": "../x",
    "/etc/sudoers": b"Defaults env_reset\n@includedir /etc/sudoers.d\n",
    "/usr/bin/sudo": b"",
    "/bin/bash": b"",
    "/bin/zsh": b"",
    "/home/ann/notes": b"x",
    "/var/mail/ann": b"x",
    "/var/spool/cron/crontabs/ann": b"x",
    "/etc/sudoers.d/90-emi-ann": b"ann ALL=(ALL) ALL\n",
}  # fmt: skip
OWNERS = {"/home/ann": Stat(mode=0o40755, uid=1000, gid=1000)}


def options(**values) -> UsersOptions:
    return UsersOptions.model_validate(values, strict=False)


def decide(files: dict = FILES, stats: dict = OWNERS, **values):
    return STEP.edits(options(**values), KnownFacts(files=files, stats=stats), {})


def after(files: dict, stats: dict, edits) -> tuple[dict, dict]:
    """Return the files and their attributes as the edits leave them."""
    left, modes = dict(files), dict(stats)
    for edit in [] if isinstance(edits, Unchanged) else edits:
        match edit:
            case WriteFile():
                left[edit.path] = edit.data
                if edit.mode is not None:
                    uid, gid = edit.owner or (0, 0)
                    modes[edit.path] = Stat(mode=0o100000 | edit.mode, uid=uid, gid=gid)
            case MakeDirectory():
                modes[edit.path] = Stat(mode=0o40000 | edit.mode, uid=edit.owner[0], gid=edit.owner[1])
            case MakeLink():
                left[edit.path] = edit.target
            case Remove():
                gone = tuple(f"{path}/" for path in edit.paths)
                left = {path: data for path, data in left.items() if not f"{path}/".startswith(gone)}
                modes = {path: found for path, found in modes.items() if not f"{path}/".startswith(gone)}
    return left, modes


EVERYTHING = {
    "create": [
        {
            "name": "admin",
            "gecos": "The Admin",
            "shell": "/bin/zsh",
            "groups": ["sudo", "web"],
            "sudo": ["ALL=(ALL) NOPASSWD:ALL"],
            "password": HASH,
        }
    ],
    "groups": ["web"],
    "lock": ["root"],
}


def test_a_user_is_made_with_all_that_belongs_to_it():
    edits = decide(**EVERYTHING)
    files, stats = after(FILES, OWNERS, edits)
    assert files["/etc/passwd"].splitlines()[-1] == b"admin:x:1001:1002:The Admin:/home/admin:/bin/zsh"
    assert files["/etc/shadow"].splitlines()[-1] == f"admin:{HASH}::0:99999:7:::".encode()
    assert files["/etc/shadow"].startswith(b"root:!$6$root$hash:19000:")
    assert files["/etc/group"] == b"root:x:0:\nsudo:x:27:ann,admin\nann:x:1000:\nweb:x:1001:admin\nadmin:x:1002:\n"
    assert files["/home/admin/.bashrc"] == b"# rc\n"
    assert files["/home/admin/link"] == "../x"
    assert stats["/home/admin"] == Stat(mode=0o40700, uid=1001, gid=1002)
    assert stats["/home/admin/.config/deep"].uid == stats["/home/admin/.config/deep/x"].uid == 1001
    assert files["/etc/sudoers.d/90-emi-admin"] == b"admin ALL=(ALL) NOPASSWD:ALL\n"
    assert stats["/etc/sudoers.d/90-emi-admin"] == Stat(mode=0o100440)
    assert str(edits[0]).startswith("user admin made, group web made, password of root locked: wrote /etc/shadow")
    assert decide(files, stats, **EVERYTHING) == Unchanged(why="users and groups are as they are to be")


def test_a_user_that_is_there_is_changed_only_where_said():
    edits = decide(create=[{"name": "ann", "shell": "/bin/zsh"}])
    assert {edit.path: edit.data for edit in edits} == {
        "/etc/passwd": FILES["/etc/passwd"].replace(b"/home/ann:/bin/bash", b"/home/ann:/bin/zsh")
    }
    assert decide(create=[{"name": "ann"}]) == Unchanged(why="users and groups are as they are to be")


def test_rules_of_sudo_go_where_none_are_wanted():
    (edit,) = decide(create=[{"name": "ann", "sudo": []}])
    assert edit == Remove(paths=("/etc/sudoers.d/90-emi-ann",), why=edit.why)


def test_a_removed_user_leaves_nothing():
    files, _ = after(FILES, OWNERS, decide(remove=["ann"]))
    assert not [path for path in files if "ann" in path]
    assert not [path for path, data in files.items() if isinstance(data, bytes) and b"ann" in data]
    assert decide(files, {}, remove=["ann"]) == Unchanged(why="users and groups are as they are to be")
    kept, _ = after(FILES, OWNERS, decide(remove=["ann"], keep_home=True))
    assert [path for path in kept if "ann" in path] == ["/home/ann/notes"]


@pytest.mark.parametrize(
    ("home", "owner", "more"),
    [
        ("/home/ann", 0, b""),  # somebody else's
        ("/", 1000, b""),
        ("relative", 1000, b""),
        ("/home/ann/..", 1000, b""),
        ("/home/ann", 1000, b"bob:x:1001:1001::/home/ann/bob:/bin/sh\n"),
    ],
)
def test_a_home_that_is_not_only_its_user_s_stays(home, owner, more):
    passwd = FILES["/etc/passwd"].replace(b":/home/ann:", f":{home}:".encode()) + more
    stats = {"/home/ann": Stat(mode=0o40755, uid=owner), "/home": Stat(mode=0o40755), "/": Stat(mode=0o40755)}
    files, _ = after(FILES, {}, decide(FILES | {"/etc/passwd": passwd}, stats, remove=["ann"]))
    assert "/home/ann/notes" in files


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lock": ["bob"]}, "the guest has no user bob; those who may log in are root, ann"),
        ({"unlock": ["d"]}, "d in the guest has no password that could be unlocked"),
        ({"create": [{"name": "x", "shell": "/bin/fish"}]}, "x is to have the shell /bin/fish, which is not in the"),
        ({"create": [{"name": "x", "groups": ["docker"]}]}, "no group docker for x to be in"),
        ({"create": [{"name": "x", "uid": 1000}]}, "ann in the guest has the number 1000 already"),
        ({"create": [{"name": "ann", "uid": 7}]}, "ann in the guest has the number 1000, not 7"),
        ({"remove": ["toor"]}, "toor in the guest is the only name of root"),
    ],
)
def test_what_cannot_be_is_an_error(values, expected):
    files = FILES | {"/etc/passwd": FILES["/etc/passwd"].replace(b"root:x", b"toor:x")} if "remove" in values else FILES
    with pytest.raises(GuestError, match=expected):
        decide(files, **values)


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ("/usr/bin/sudo", "sudo is not installed in the guest"),
        ("/etc/sudoers", "/etc/sudoers in the guest does not include /etc/sudoers.d"),
        ("/etc/shadow", "the guest has no /etc/shadow"),
    ],
)
def test_a_guest_that_lacks_what_is_needed_is_an_error(gone, expected):
    with pytest.raises(GuestError, match=expected):
        decide({path: data for path, data in FILES.items() if path != gone}, **EVERYTHING)


def test_another_name_of_root_is_removed_and_nothing_of_root_s():
    passwd = FILES["/etc/passwd"] + b"toor:x:0:0::/root:/bin/sh\n"
    files, _ = after(FILES, {}, decide(FILES | {"/etc/passwd": passwd}, remove=["toor"]))
    assert files == FILES


def test_passwords_are_unlocked():
    (edit,) = decide(unlock=["ann"])
    assert b"\nann:$6$ann$hash:" in edit.data
    assert edit.why == "password of ann unlocked: wrote /etc/shadow"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["nothing is asked for"]),
        ({"create": [{"name": "a"}, {"name": "a"}]}, ["`create` has a twice"]),
        ({"create": [{"name": "a", "sudo": ["ALL"]}]}, ["`sudo` of a: 'ALL' is no rule"]),
        ({"lock": ["a"], "remove": ["a"]}, ["a stands under `remove` and `lock`"]),
        ({"create": [{"name": "a"}], "remove": ["a"]}, ["a stands under `remove` and `create`"]),
        ({"remove": ["root"]}, ["root cannot be removed"]),
        ({"lock": ["root"]}, []),
    ],
)
def test_options_are_checked(values, expected):
    problems = STEP.check(options(**values))
    assert len(problems) == len(expected)
    assert all(part in problem for part, problem in zip(expected, problems, strict=True))


def test_a_password_in_the_clear_is_refused_and_not_repeated():
    (problem,) = STEP.check(options(create=[{"name": "ann", "password": "hunter2"}]))
    assert problem.startswith("`password` of ann is no hash: ")
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "person",
    [{"name": "A"}, {"name": "a b"}, {"name": "-a"}, {"name": "a", "gecos": "x:y"}, {"name": "a", "home": "x"}],
)
def test_options_are_closed(person):
    with pytest.raises(ValidationError):
        options(create=[person])


RULES = ["ALL=(ALL) NOPASSWD:ALL", "ALL=(ALL:ALL) ALL", "ALL = NOPASSWD: /usr/bin/apt-get update, /bin/systemctl *"]


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_what_visudo_takes(rule, tmp_path):
    assert sudoers.is_rule(rule)
    file = tmp_path / "rules"
    file.write_bytes(sudoers.render("ann", [rule]))
    file.chmod(0o440)
    proc.run(["visudo", "-c", "-O", "-P", "-f", file], allowed=(0,))


@pytest.mark.parametrize(
    "rule",
    ["", "ALL", "NOPASSWD:ALL", "ALL=(ALL) NOPASSWD", "ALL=(ALL) NOPASWD:ALL", "ALL=(ALL", "ALL=ALL\nroot ALL=ALL"],
)
def test_other_rules_are_refused(rule, tmp_path):
    assert not sudoers.is_rule(rule)


def test_visudo_does_refuse(tmp_path):
    file = tmp_path / "rules"
    file.write_bytes(sudoers.render("ann", ["ALL=(ALL"]))
    with pytest.raises(ToolFailed):
        proc.run(["visudo", "-c", "-f", file])
