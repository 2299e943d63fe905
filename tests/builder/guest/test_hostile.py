"""Images that mean harm: links to what is the host's, names that are no text, and a host that runs full."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import proc
from builder.digest import file_sha256
from builder.errors import GuestError
from builder.guest import native
from builder.guest.edits import CopyIn, CopyOut, MakeLink, Remove, SetAttributes, WriteFile
from builder.guest.guest import Exchange, Guest

ROOT = Path(__file__).parents[3]
UP = "../" * 20
LATIN, BROKEN = "caf\udce9", "\udcff\udcfe"
TREE: dict[str, bytes | str] = {
    "etc/fstab": b"# none\n",
    "etc/hostname": b"the guest's own\n",
    "boot/absolute": "/etc/hostname",
    "boot/relative": f"{UP}etc/hostname",
    "boot/through": "up/etc/hostname",
    "boot/up": UP,
    "boot/shadow": "/etc/shadow",
    "boot/marker": "MARKER",  # a file that only the host has, by its whole path
    "boot/marker-up": "MARKER-UP",
    "boot/environ": "/proc/self/environ",
    "boot/init": "/proc/1/root/etc/hostname",
    "boot/disk": "/dev/sda",
    "boot/appliance": "/init",
    "boot/circle": "circle",
    f"boot/{LATIN}": f"/etc/{BROKEN}",
    f"etc/{BROKEN}": b"not text",
    "boot/new\nline": b"a line",
    "boot/\u202egpj.exe": b"right to left",
}
OWN = ("absolute", "relative", "through")
NOWHERE = ("shadow", "marker", "marker-up", "environ", "init", "disk", "appliance", "circle")


@pytest.fixture(scope="module")
def exchange(tmp_path_factory) -> Exchange:
    directory = tmp_path_factory.mktemp("exchange")
    (directory / "sources").mkdir()
    (directory / "exports").mkdir()
    (directory / "sources" / "file").write_bytes(b"copied\n")
    return Exchange(sources=directory / "sources", exports=directory / "exports")


@pytest.fixture(scope="module")
def marker(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("host") / "marker"
    path.write_text("the host's own\n")
    return path


@pytest.fixture(scope="module")
def guest(appliance, module_disks, part, exchange, marker) -> Iterator[Guest]:
    links = {"MARKER": str(marker), "MARKER-UP": f"{UP}{str(marker)[1:]}"}
    files = {name: links.get(to, to) if isinstance(to, str) else to for name, to in TREE.items()}
    disk = module_disks.filesystem(module_disks.directory / "hostile.raw", part(type="ext4", size=16, files=files))
    appliance.attach(module_disks.overlay(disk))
    found = Guest(appliance, exchange)
    found.disk.mount("rw")
    appliance.call("mkfifo", 0o644, "/boot/fifo")
    appliance.call("mknod_b", 0o644, 8, 0, "/boot/block")
    appliance.call("mknod_c", 0o644, 1, 1, "/boot/memory")
    yield found
    appliance.detach()


@pytest.mark.parametrize("name", OWN)
def test_links_lead_to_the_guest_s_own_files(guest, exchange, name):
    assert guest.read(f"/boot/{name}") == TREE["etc/hostname"]
    guest.apply(CopyOut(path=f"/boot/{name}", name=f"own-{name}"))
    assert (exchange.exports / f"own-{name}").read_bytes() == TREE["etc/hostname"]


@pytest.mark.parametrize("name", [*NOWHERE, "fifo", "block", "memory", "up"])
def test_what_is_no_file_of_the_guest_is_not_read_nor_copied_out(guest, exchange, name):
    assert guest.read(f"/boot/{name}") is None
    assert guest.stream(f"/boot/{name}") is None
    with pytest.raises(GuestError, match="is not a regular file, and is not copied out"):
        guest.apply(CopyOut(path=f"/boot/{name}", name=name))
    assert not (exchange.exports / name).exists()


def test_names_that_are_no_text_survive(guest, exchange):
    assert guest.names("/boot/*\n*") == ("/boot/new\nline",)
    assert f"/boot/{LATIN}" in guest.names("/boot/*")
    assert (guest.link(f"/boot/{LATIN}"), guest.read(f"/boot/{LATIN}")) == (f"/etc/{BROKEN}", b"not text")
    assert guest.stat(f"/etc/{BROKEN}").size == 8
    assert guest.stat(f"/etc/{LATIN}") is None
    guest.apply(CopyOut(path=f"/boot/{LATIN}", name="latin"))
    assert (exchange.exports / "latin").read_bytes() == b"not text"
    guest.apply(SetAttributes(path="/etc", owner=(3, 3), recursive=True))
    assert guest.stat(f"/etc/{BROKEN}").uid == 3
    guest.apply(WriteFile(path=f"/boot/{LATIN}", data=b"through the link"))
    assert guest.read(f"/etc/{BROKEN}") == b"through the link"
    guest.apply(MakeLink(path=f"/etc/{LATIN}/{BROKEN}", target=LATIN))
    guest.apply(Remove(paths=(f"/etc/{LATIN}", f"/boot/{LATIN}")))
    assert guest.names(f"/*/{LATIN}") == ()
    assert guest.read(f"/etc/{BROKEN}") == b"through the link"


@pytest.mark.parametrize("call", [("ls", f"/{BROKEN}"), ("cat", f"/{BROKEN}"), ("mkmountpoint", f"/{LATIN}")])
def test_a_call_that_knows_only_text_says_so_and_the_session_lives(guest, call):
    with pytest.raises(GuestError, match="a name that is not UTF-8 is in the way"):
        guest._session.call(*call)
    assert guest._session.call("exists", "/etc/fstab") == 1


def test_calls_past_the_binding_answer_as_it_does(guest):
    """The same calls for the same names, by the binding and past it."""
    guest.apply(WriteFile(path="/etc/plain", data=b"0123456789"))
    guest.apply(MakeLink(path="/etc/to-plain", target="plain"))
    session = guest._session
    for name, *arguments in (
        ("exists", "/etc/plain"),
        ("exists", "/etc/none"),
        ("is_file", "/etc/to-plain"),
        ("is_dir", "/etc"),
        ("is_symlink", "/etc/to-plain"),
        ("find", "/boot/up"),
        ("glob_expand", "/etc/*plain*"),
        ("glob_expand", "/none/*"),
        ("readlink", "/etc/to-plain"),
        ("realpath", "/etc/to-plain"),
        ("pread", "/etc/plain", 4, 3),
        ("pread", "/etc/plain", 4, 30),
    ):
        past = session._worker.begin(lambda n=name, a=arguments: native.call(session._handle, n, a, {})).result(60)
        assert past == session.call(name, *arguments), name
    found = session.call("lstatnslist", "/etc", ["plain", "none"])
    past = session._worker.begin(
        lambda: native.call(session._handle, "lstatnslist", ["/etc", ["plain", "none"]], {})
    ).result(60)
    assert past == [{name: value for name, value in each.items() if name in past[0]} for each in found]
    with pytest.raises(GuestError, match="No such file"):
        session.call("readlink", f"/etc/{LATIN}")


def test_nothing_was_written_beside_the_guest(guest, marker):
    for path in (f"/boot/up/{str(marker)[1:]}", f"/boot/up{marker}.new"):
        guest.apply(CopyIn(path=path, source="file", sha256=file_sha256(guest._exchange.sources / "file")[7:]))
        assert guest.read(path) == b"copied\n"
    assert marker.read_text() == "the host's own\n"
    assert list(marker.parent.iterdir()) == [marker]


FULL = """
import sys
from pathlib import Path
from builder.errors import DiskFull
from builder.guest.edit import Plan, edit_image
from builder.guest.edits import Command, WriteFile
from builder.guest.overlay import Layer
base, target, what = Path(sys.argv[1]), Path(sys.argv[2]) / "over.qcow2", sys.argv[3]
edits = {
    "command": Command(script=b"dd if=/dev/urandom of=/big bs=1048576 count=24 && echo written", why="fill it"),
    "edit": WriteFile(path="/big", data=Path("/dev/urandom").open("rb").read(24 << 20)),
}
try:
    edit_image(Layer(path=base, format="raw"), target, [Plan(decide=lambda facts: [edits[what]])], backing_name="x")
except DiskFull as error:
    print("DiskFull:", error.message, "left:", list(target.parent.iterdir()))
"""


@pytest.mark.sweep
@pytest.mark.parametrize("what", ["command", "edit"])
def test_a_full_scratch_says_so_and_leaves_the_image_alone(runnable, tmp_path, what):
    image, small = tmp_path / "image.raw", tmp_path / "small"
    shutil.copytree(runnable, tmp_path / "tree", symlinks=True)
    with open(image, "xb") as file:
        file.truncate(64 << 20)
    proc.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tmp_path / "tree", image])
    before = file_sha256(image)
    small.mkdir()
    script = f'mount -t tmpfs -o size=8m tmpfs {small} && exec {sys.executable} -c "$0" "$@"'
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, FULL, image, small, what]
    said = proc.run(words, directory=ROOT).stdout.decode()
    assert said == "DiskFull: no space left for the image's overlay while its guest was edited left: []\n"
    assert file_sha256(image) == before
