"""A directory of ours on another machine: made empty, removed, and never what somebody has mounted in it."""

from contextlib import suppress

import pytest

from builder.errors import RemoteFailed
from builder.remote.script import Script, run, workplace


@pytest.mark.parametrize("user", ["root", "bob"])
def test_what_a_script_has_mounted_is_unmounted_and_not_removed(server, user):
    shell = server.shell(user)
    directory, precious = f"/var/tmp/emi-test-{user}", server.directory / f"precious-{user}"
    precious.mkdir()
    (precious / "file").write_text("kept")
    text = f"mkdir 'a b'\nmount --bind {precious} 'a b'\nmkdir 'a b/deep'\nmount -t tmpfs none 'a b/deep'\nexit 3\n"
    with workplace(shell, directory, root=True):
        shell.run(["tee", f"{directory}/script"], stdin=text.encode())
        with pytest.raises(RemoteFailed, match="exit status 3"):
            run(shell, Script(name="script", interpreted=False), directory)
    assert (precious / "file").read_text() == "kept"
    assert shell.run(["ls", "-d", directory], allowed=(0, 2)).status == 2
    assert directory not in shell.run(["cat", "/proc/self/mountinfo"]).stdout.decode()


def test_what_cannot_be_unmounted_keeps_the_directory_and_is_named(server):
    root, shell = server.shell(), server.shell("bob")
    directory, precious = "/var/tmp/emi-test-held", server.directory / "precious-held"
    precious.mkdir()
    precious.chmod(0o777)
    (precious / "file").write_text("kept")
    with workplace(shell, directory, root=False):
        root.run(["mount", "--bind", str(precious), directory])
    assert (precious / "file").read_text() == "kept"
    try:
        with pytest.raises(RemoteFailed, match=f"something is mounted there: {directory}"):  # noqa: SIM117 - as it is used
            with workplace(shell, directory, root=False):
                raise AssertionError("a directory with something mounted on it is not empty")
    finally:
        with suppress(RemoteFailed):
            root.run(["umount", directory])
    with workplace(shell, directory, root=False):
        assert shell.run(["ls", "-A", directory]).stdout == b""
