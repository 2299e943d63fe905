"""Every edit by its effect, looked at by calls of the appliance that the edits do not use."""

import hashlib
import posixpath
import stat
from collections.abc import Iterator

import pytest

from builder.errors import GuestError, InputError
from builder.guest.edits import (
    Command,
    Copied,
    CopyIn,
    CopyOut,
    CopyTree,
    MakeDirectory,
    MakeLink,
    Remove,
    SetAttributes,
    SetUuid,
    WriteFile,
)
from builder.guest.guest import Exchange, Guest

LATIN = "caf\udce9"  # not UTF-8
TREE: dict[str, bytes | str] = {
    "etc/os-release": b"ID=debian\n",
    "etc/fstab": b"# none\n",
    "etc/target": b"old",
    "etc/linked": "target",
    "etc/dangling": "../run/nowhere/file",
    "etc/directory-link": "/srv/real",
    "var/run": "/run",  # absolute: below the guest's root it must not lead into the appliance
    "run/keep": b"",
    "run/lock/held": b"",
    "srv/real/file": b"",
    f"srv/real/{LATIN}/new\nline": b"",
    f"srv/real/{LATIN}/{LATIN}": b"",
    "srv/real/out": "/etc/target",
    "boot/vmlinuz": bytes(range(256)) * 5000,
    "boot/kernel": "vmlinuz",
}
SOURCES = {"motd": b"from the recipe\n", "large": bytes(range(251)) * 12000, "app/run": b"#!", "app/sub/data": b"d"}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Exchange:
    directory = tmp_path_factory.mktemp("exchange")
    for name, data in SOURCES.items():
        (directory / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / "sources" / name).write_bytes(data)
    (directory / "exports").mkdir()
    return Exchange(sources=directory / "sources", exports=directory / "exports")


@pytest.fixture(scope="module")
def guest(appliance, module_disks, part, places) -> Iterator[Guest]:
    disk = module_disks.filesystem(module_disks.directory / "edits.raw", part(type="ext4", size=48, files=TREE))
    appliance.attach(module_disks.overlay(disk))
    yield Guest(appliance, places)
    appliance.detach()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Look:
    """The guest as libguestfs' own calls see it, after the edits."""

    def __init__(self, guest: Guest) -> None:
        self._call = guest._call

    def kind(self, path: str) -> tuple[int, int, int]:
        """Return the mode (octal, without the type), user and group of what is at the path itself."""
        (told,) = self._call("lstatnslist", posixpath.dirname(path), [posixpath.basename(path)])
        return stat.S_IMODE(told["st_mode"]), told["st_uid"], told["st_gid"]

    def data(self, path: str) -> bytes:
        pieces = [self._call("pread", path, 1 << 20, 0)]
        while pieces[-1]:
            pieces.append(self._call("pread", path, 1 << 20, sum(map(len, pieces))))
        return b"".join(pieces)

    def names(self, path: str) -> list[str]:
        return sorted(self._call("find", path))


@pytest.fixture
def seen(guest) -> Look:
    return Look(guest)


def test_a_new_file(guest, seen):
    guest.apply(WriteFile(path="/opt/new/deep/file", data=b"x" * (2 << 20) + b"\0end"))
    assert seen.data("/opt/new/deep/file") == b"x" * (2 << 20) + b"\0end"
    assert seen.kind("/opt/new/deep/file") == (0o644, 0, 0)
    assert seen.kind("/opt/new/deep") == (0o755, 0, 0)
    guest.apply(WriteFile(path="/opt/new/owned", data=b"", mode=0o4750, owner=(12, 34)))
    assert seen.kind("/opt/new/owned") == (0o4750, 12, 34)
    assert seen.names("/opt/new") == ["/deep", "/deep/file", "/owned"]


def test_a_file_that_is_there(guest, seen):
    guest._call("chown", 7, 8, "/etc/target")
    guest._call("chmod", 0o640, "/etc/target")
    guest.apply(WriteFile(path="/etc/linked", data=b"shorter"))
    assert (seen.data("/etc/target"), seen.kind("/etc/target")) == (b"shorter", (0o640, 7, 8))
    assert guest._call("readlink", "/etc/linked") == "target"
    guest.apply(WriteFile(path="/etc/target", data=b"", mode=0o600, owner=(0, 0)))
    assert (seen.data("/etc/target"), seen.kind("/etc/target")) == (b"", (0o600, 0, 0))


def test_a_link_that_leads_nowhere_is_replaced(guest, seen):
    guest.apply(WriteFile(path="/etc/dangling", data=b"here"))
    assert guest._call("is_file", "/etc/dangling") == 1
    assert seen.data("/etc/dangling") == b"here"


def test_a_name_as_long_as_names_may_be(guest, seen):
    path = "/opt/x" + "\u00e4" * 127  # 255 bytes
    for data in (b"1", b"2"):
        guest.apply(WriteFile(path=path, data=data))
        assert seen.data(path) == data


@pytest.mark.parametrize("name", [LATIN, "new\nline", "a'b\"c$(d)`e`", "-rf", " "], ids=ascii)
def test_any_name_is_a_name(guest, seen, name):
    path = f"/odd/{name}"
    guest.apply(WriteFile(path=path, data=b"1"))
    guest.apply(WriteFile(path=path, data=b"2", mode=0o600))
    assert (seen.data(path), seen.kind(path)) == (b"2", (0o600, 0, 0))
    guest.apply(MakeLink(path=f"{path}.link", target=name))
    assert guest.link(f"{path}.link") == name
    assert guest.read(f"{path}.link") == b"2"
    guest.apply(MakeDirectory(path=f"{path}.d/{name}", mode=0o700))
    assert guest.names(f"/odd/{name}.d/*") == (f"{path}.d/{name}",)
    guest.apply(Remove(paths=(path, f"{path}.link", f"{path}.d")))
    assert guest.names("/odd/*") == ()


def test_a_copy_of_a_file(guest, seen):
    guest.apply(CopyIn(path="/opt/large", source="large", sha256=sha256(SOURCES["large"]), mode=0o755, owner=(5, 6)))
    assert (seen.data("/opt/large"), seen.kind("/opt/large")) == (SOURCES["large"], (0o755, 5, 6))
    guest.apply(CopyIn(path="/opt/large", source="motd", sha256=sha256(SOURCES["motd"])))
    assert (seen.data("/opt/large"), seen.kind("/opt/large")) == (SOURCES["motd"], (0o755, 5, 6))


def test_a_copy_of_a_tree(guest, seen):
    files = tuple(
        Copied(name=name, sha256=sha256(SOURCES[f"app/{name}"]), mode=mode)
        for name, mode in (("run", 0o755), ("sub/data", 0o644))
    )
    guest.apply(CopyTree(path="/opt/tree", source="app", files=files, directories=("sub", "sub/empty"), owner=(9, 9)))
    assert seen.names("/opt/tree") == ["/run", "/sub", "/sub/data", "/sub/empty"]
    assert [seen.kind(f"/opt/tree/{name}") for name in ("run", "sub/data", "sub/empty")] == [
        (0o755, 9, 9),
        (0o644, 9, 9),
        (0o755, 9, 9),
    ]


@pytest.mark.parametrize(
    "edit",
    [
        CopyIn(path="/opt/never", source="motd", sha256=sha256(b"other")),
        CopyIn(path="/opt/never", source="absent", sha256=sha256(b"")),
        Command(script=b"", source="motd", sha256=sha256(b"other"), why="run it"),
    ],
    ids=lambda edit: f"{type(edit).__name__} {edit.source}",
)
def test_what_is_not_what_was_pinned_is_not_copied(guest, edit):
    with pytest.raises(InputError, match=r"was changed while the recipe ran|cannot be copied into the guest: No such"):
        guest.apply(edit)
    assert not guest.exists("/opt/never")


def test_a_copy_out(guest, places):
    guest.apply(CopyOut(path="/boot/kernel", name="kernel"))
    assert (places.exports / "kernel").read_bytes() == TREE["boot/vmlinuz"]


def test_a_directory(guest, seen):
    guest.apply(MakeDirectory(path="/srv/one/two", mode=0o1777, owner=(3, 4)))
    assert (seen.kind("/srv/one/two"), seen.kind("/srv/one")) == ((0o1777, 3, 4), (0o755, 0, 0))
    guest.apply(MakeDirectory(path="/srv/one/two"))
    assert seen.kind("/srv/one/two") == (0o1777, 3, 4)


def test_a_link_takes_the_place_of_a_file_or_link(guest):
    for target in ("one", "/two", "../\u00e4 b"):
        guest.apply(MakeLink(path="/lnk/deep/link", target=target))
        assert guest._call("readlink", "/lnk/deep/link") == target
    guest.apply(MakeLink(path="/etc/directory-link2", target="/srv/real"))
    guest.apply(MakeLink(path="/etc/directory-link2", target="/srv"))  # not within what it leads to
    assert guest._call("readlink", "/etc/directory-link2") == "/srv"
    assert not guest.exists("/srv/real/real")


def test_what_is_removed(guest, seen):
    before = seen.names("/srv/real")
    guest.apply(Remove(paths=("/etc/directory-link/", "/absent", "/absent/deeper")))
    assert not guest.exists("/etc/directory-link")
    assert seen.names("/srv/real") == before
    for path in ("/", "/srv/.."):
        with pytest.raises(GuestError, match="no name of something in a directory"):
            guest.apply(Remove(paths=(path,)))


def test_an_absolute_link_above_stays_within_the_guest(guest, seen):
    """libguestfs runs ln, rm and cp outside of the guest's root, where /var/run -> /run would be the appliance's."""
    guest.apply(MakeLink(path="/var/run/made", target="x"))
    guest.apply(WriteFile(path="/var/run/written", data=b"1"))
    guest.apply(WriteFile(path="/var/run/written", data=b"2"))
    assert seen.names("/run") == ["/keep", "/lock", "/lock/held", "/made", "/written"]
    assert seen.data("/run/written") == b"2"
    guest.apply(SetAttributes(path="/var/run/lock", owner=(5, 5), recursive=True))
    assert seen.kind("/run/lock/held") == (0o644, 5, 5)
    guest.apply(Remove(paths=("/var/run/made", "/var/run/written", "/var/run/lock")))
    assert seen.names("/run") == ["/keep"]


def test_attributes_of_one(guest, seen):
    guest.apply(SetAttributes(path="/boot/vmlinuz", mode=0o4711, owner=(1, 2)))
    assert seen.kind("/boot/vmlinuz") == (0o4711, 1, 2)  # chown alone would have taken setuid away
    guest.apply(SetAttributes(path="/boot/vmlinuz", owner=(3, 4)))
    assert seen.kind("/boot/vmlinuz") == (0o4711, 3, 4)
    guest.apply(SetAttributes(path="/boot/vmlinuz", owner=(1, 2)))
    guest.apply(SetAttributes(path="/boot/kernel", mode=0o600))
    assert (seen.kind("/boot/vmlinuz"), seen.kind("/boot/kernel")[0]) == ((0o600, 1, 2), 0o777)


def test_attributes_of_all_below_but_what_links_lead_to(guest, seen):
    before = seen.kind("/etc/target"), seen.kind("/srv")
    guest.apply(SetAttributes(path="/srv/real", owner=(21, 22), recursive=True))
    below = seen.names("/srv/real")
    assert f"/{LATIN}/{LATIN}" in below
    assert f"/{LATIN}/new\nline" in below
    owners = {name: seen.kind(f"/srv/real{name}")[1:] for name in ("", *below)}
    assert owners.pop("/out") == (0, 0)
    assert set(owners.values()) == {(21, 22)}
    assert (seen.kind("/etc/target"), seen.kind("/srv")) == before


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (WriteFile(path="/etc", data=b""), "/etc in the guest is not a regular file"),
        (WriteFile(path="/etc/directory-link2", data=b""), "is not a regular file"),
        (WriteFile(path="/etc/target/below", data=b""), "not a directory|Not a directory|File exists"),
        (WriteFile(path="relative", data=b""), "must start with|relative"),
        (MakeDirectory(path="/etc/target"), "not a directory|exists"),
        (MakeLink(path="/srv", target="x"), "directory"),
        (SetAttributes(path="/absent", mode=0o600), "No such file"),
        (SetAttributes(path="/absent", owner=(1, 1), recursive=True), "No such file"),
        (CopyOut(path="/absent", name="ramdisk"), "/absent in the guest is not a regular file"),
        (CopyOut(path="/etc", name="ramdisk"), "/etc in the guest is not a regular file"),
    ],
    ids=str,
)
def test_what_cannot_be_done_says_so(guest, places, edit, expected):
    with pytest.raises(GuestError, match=expected):
        guest.apply(edit)
    assert places.exports is not None
    assert not (places.exports / "ramdisk").exists()


def test_another_uuid(guest):
    wanted = "5f7a3c2e-9d41-4c0b-8a57-2f1f0e6c9b11"
    guest.apply(SetUuid(device="/dev/sda", uuid=wanted))
    assert guest._call("vfs_uuid", "/dev/sda") == wanted
    assert guest.filesystem("/dev/sda").uuid == wanted
    assert guest.read("/etc/fstab") == b"# none\n"


def test_nothing_of_ours_stays(guest):
    assert [name for name in guest._call("find", "/") if ".emi" in name] == []
