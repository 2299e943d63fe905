"""Account files edited as values; pwck and grpck of Debian's `passwd` say whether what comes out is right."""

import re

import pytest

from builder import proc
from builder.errors import GuestError
from builder.guest.accounts import GROUP, GSHADOW, HASH, PASSWD, SHADOW, SUBGID, SUBUID, Accounts, User, read_accounts
from builder.guest.facts import KnownFacts

FILES = {
    PASSWD: b"root:x:0:0:root:/root:/bin/bash\n"
    b"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
    b"debian:x:1000:1000:Debian:/home/debian:/bin/bash\n"
    b"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    SHADOW: b"root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"
    b"debian:$6$salt$hash:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
    GROUP: b"root:x:0:\ndaemon:x:1:\nsudo:x:27:debian\nusers:x:100:\ndebian:x:1000:\nnogroup:x:65534:\n",
    GSHADOW: b"root:*::\ndaemon:*::\nsudo:*::debian\nusers:*::\ndebian:!::\nnogroup:*::\n",
    SUBUID: b"debian:100000:65536\n",
    SUBGID: b"debian:100000:65536\n",
    "/etc/login.defs": b"UID_MIN\t\t 1000\nUID_MAX 60000 # why\n#UID_MAX 7\nUSERGROUPS_ENAB yes\nSYS_GID_MAX 999\n",
}
ADMIN = User(name="admin", uid=-1, gid=-1, gecos="Admin", home="/home/admin", shell="/bin/bash")


@pytest.fixture
def right(tmp_path):
    """Say what pwck and grpck find wrong with the files."""

    def judge(accounts: Accounts) -> list[str]:
        paths = []
        for path in (PASSWD, SHADOW, GROUP, GSHADOW):
            file = tmp_path / path.rpartition("/")[2]
            file.write_text(accounts.texts[path], encoding="utf-8", errors="surrogateescape")
            paths.append(file)
        commands = (["pwck", "-r", "-q", *paths[:2]], ["grpck", "-r", *paths[2:]])
        said = b"".join(proc.run(command, allowed=range(256)).stdout for command in commands)
        # grpck looks members up among this host's own users.
        return [line for line in said.decode().splitlines() if not re.search("no user|delete member|no changes", line)]

    return judge


def accounts(**more: bytes) -> Accounts:
    return read_accounts(KnownFacts(files=FILES | {f"/etc/{name}": data for name, data in more.items()}))


def added(before: Accounts, after: Accounts, path: str) -> list[str]:
    old = before.texts[path].splitlines()
    return [line for line in after.texts[path].splitlines() if line not in old]


def test_what_is_there_is_read():
    found = accounts()
    assert [(user.name, user.uid, user.may_log_in) for user in found.users] == [
        ("root", 0, True),
        ("daemon", 1, False),
        ("debian", 1000, True),
        ("nobody", 65534, False),
    ]
    assert found.group("sudo").members == ("debian",)
    assert [found.has_password(name) for name in ("root", "debian", "nobody", "absent")] == [False, True, False, False]


def test_a_new_user_has_everything_that_useradd_gives():
    before = accounts()
    after = before.with_user(ADMIN).joined("admin", ["sudo"])
    assert {path: added(before, after, path) for path in (PASSWD, SHADOW, GROUP, GSHADOW, SUBUID, SUBGID)} == {
        PASSWD: ["admin:x:1001:1001:Admin:/home/admin:/bin/bash"],
        SHADOW: ["admin:!::0:99999:7:::"],
        GROUP: ["sudo:x:27:debian,admin", "admin:x:1001:"],
        GSHADOW: ["sudo:*::debian,admin", "admin:!::"],
        SUBUID: ["admin:165536:65536"],
        SUBGID: ["admin:165536:65536"],
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda known: known.with_user(ADMIN),
        lambda known: known.with_user(ADMIN).locked("debian").without_user("debian"),
        lambda known: known.with_group("docker").with_group("web", system=True).joined("debian", ["web"]),
        lambda known: known.with_password("root", "$6$ab$" + "c" * 86).unlocked("debian"),
    ],
)
def test_pwck_and_grpck_find_nothing_wrong(right, change):
    before = accounts()
    assert right(change(before)) == right(before)
    # They do look:
    assert right(before.put(GROUP, ["a b", "x", "1", ""])) != right(before)
    assert right(before.put(SHADOW, ["absent", "!"])) != right(before)


@pytest.mark.parametrize(
    ("numbers", "defs", "expected"),
    [
        ((), "", 1000),
        ((1000, 1005), "", 1006),
        ((1000, 60000), "", 1001),
        ((500,), "UID_MIN 500\n", 501),
        ((1000,), "UID_MIN 1000\nUID_MAX 1000\n", None),
        ((), "UID_MIN ten\n", 1000),
    ],
)
def test_the_next_number_is_useradd_s(numbers, defs, expected):
    passwd = "".join(f"u{number}:x:{number}:100::/:/bin/sh\n" for number in numbers).encode()
    known = accounts(passwd=passwd, **{"login.defs": defs.encode()})
    if expected is None:
        with pytest.raises(GuestError, match="no free number left between its UID_MIN and UID_MAX"):
            known.with_user(ADMIN)
    else:
        assert known.with_user(ADMIN).user("admin").uid == expected


def test_numbers_that_are_given_are_taken_or_refused():
    assert accounts().with_user(ADMIN, uid=2000).user("admin").gid == 2000
    with pytest.raises(GuestError, match="debian in the guest has the number 1000 already, which admin was to have"):
        accounts().with_user(ADMIN, uid=1000)


def test_without_groups_of_their_own_users_share_one():
    known = accounts(**{"login.defs": b"USERGROUPS_ENAB no\n"}).with_user(ADMIN)
    assert known.user("admin").gid == 100
    assert known.group("admin") is None


def test_a_taken_group_number_is_no_hindrance():
    known = accounts(group=FILES[GROUP] + b"web:x:1001:\n").with_user(ADMIN)
    assert (known.user("admin").uid, known.group("admin").gid) == (1001, 1002)


def test_system_groups_come_from_the_top_of_their_range():
    known = accounts().with_group("web", system=True).with_group("db", system=True).with_group("people")
    assert [known.group(name).gid for name in ("web", "db", "people")] == [999, 998, 1001]
    assert known.with_group("web") == known


@pytest.mark.parametrize(
    ("field", "locked", "unlocked"),
    [
        ("$6$salt$hash", "!$6$salt$hash", "$6$salt$hash"),
        ("!$6$salt$hash", "!$6$salt$hash", "$6$salt$hash"),
        ("", "!", ""),
        ("*", "*", None),
        ("!", "!", None),
        ("!!", "!!", None),
        ("!*", "!*", None),
    ],
)
def test_locking(field, locked, unlocked):
    known = accounts(shadow=f"debian:{field}:1::::::\n".encode())
    assert known.locked("debian").password("debian") == locked
    if unlocked is None:
        with pytest.raises(GuestError, match="debian in the guest has no password that could be unlocked"):
            known.unlocked("debian")
    else:
        assert known.unlocked("debian").password("debian") == unlocked


def test_a_password_in_passwd_itself_counts_and_moves():
    known = accounts(passwd=b"root::0:0::/root:/bin/sh\n", shadow=b"")
    assert known.has_password("root")  # the empty one
    locked = known.locked("root")
    assert (locked.texts[PASSWD], locked.texts[SHADOW]) == (
        "root:x:0:0::/root:/bin/sh\n",
        "root:!::0:99999:7:::\n",
    )
    assert not locked.has_password("root")


def test_removing_a_user_leaves_no_trace():
    known = accounts().without_user("debian")
    assert not any("debian" in text.lower() for text in known.texts.values())
    shared = accounts(group=FILES[GROUP].replace(b"debian:x:1000:", b"debian:x:1000:daemon"))
    assert shared.without_user("debian").group("debian").members == ("daemon",)
    assert accounts().without_user("absent") == accounts()


def test_lines_that_are_no_entries_stay_and_bytes_too():
    strange = (
        b"# a comment\nroot:x:0:0:\xff\xfe:/root:/bin/sh\n\nbad\nx:x:12345678901234567890:9:::\n+@net::::::\n+::::::"
    )
    known = accounts(passwd=strange).with_user(ADMIN)
    text = known.texts[PASSWD].encode("utf-8", "surrogateescape")
    assert text == strange.replace(b"+@net", b"admin:x:1000:1001:Admin:/home/admin:/bin/bash\n+@net")
    assert [user.name for user in known.users] == ["root", "admin"]
    assert known.changed("root", shell="/bin/bash").texts[PASSWD].count("\udcff") == 1


def test_groups_must_be_there():
    with pytest.raises(GuestError, match="the guest has no group docker for debian to be in"):
        accounts().joined("debian", ["docker"])
    assert accounts().joined("debian", ["sudo"]) == accounts()


@pytest.mark.parametrize("kind", ["5", "6", "1"])
def test_a_real_hash_is_one(kind):
    made = proc.run(["openssl", "passwd", f"-{kind}", "-salt", "abcdefgh", "secret"]).stdout.decode().strip()
    assert HASH.fullmatch(made)


@pytest.mark.parametrize(
    "word",
    ["$y$j9T$abcdefgh$" + "a" * 43, "$2b$12$" + "a" * 53, "$6$rounds=5000$ab$" + "b" * 86, "$gy$j9T$ab$cdefgh12"],
)
def test_other_hashes_are_too(word):
    assert HASH.fullmatch(word)


@pytest.mark.parametrize("word", ["secret", "$6$", "x", "", "$6$ab:cd$efghijkl", "$6$abcdefgh$ijk\n", "aaPwJ9XL9Y99E"])
def test_plain_words_are_none(word):
    assert not HASH.fullmatch(word)
