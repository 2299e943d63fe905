import pytest
from pydantic import ValidationError

from builder.errors import GuestError
from builder.guest.edits import Command, Remove, Unchanged, WriteFile
from builder.guest.facts import KnownFacts
from pipelines.steps.selinux import Selinux, SelinuxOptions

STEP = Selinux()
CONFIG = b"# SELINUX= can take one of\nSELINUX=enforcing\n# type\nSELINUXTYPE=targeted\n"
CONTEXTS = "/etc/selinux/targeted/contexts/files/file_contexts"
EL9 = {
    "/etc/selinux/config": CONFIG,
    CONTEXTS: b"",
    "/usr/lib/systemd/system-generators/selinux-autorelabel-generator.sh": b"",
}
EL6 = {"/etc/selinux/config": CONFIG, CONTEXTS: b"", "/etc/rc.d/rc.sysinit": b'if [ -f "/.autorelabel" ]; then\n'}
OFF = EL9 | {"/etc/selinux/config": CONFIG.replace(b"=enforcing", b"=disabled")}
BARE = EL9 | {"/etc/selinux/config": b"SELINUXTYPE=targeted\n\xff"}
MLS = {"/etc/selinux/config": CONFIG.replace(b"targeted", b"mls"), CONTEXTS.replace("targeted", "mls"): b""}


def decide(files: dict, **options):
    return STEP.edits(SelinuxOptions(**options), KnownFacts(files=files), {})


@pytest.mark.parametrize("files", [EL9, EL6])
def test_by_default_the_first_boot_labels_everything(files):
    (edit,) = decide(files)
    assert edit == WriteFile(path="/.autorelabel", data=b"", why="/.autorelabel has the first boot label all files")
    again = decide(files | {"/.autorelabel": b""})
    assert again == Unchanged(why="SELinux is enforcing already, and /.autorelabel is there")


@pytest.mark.parametrize(("files", "contexts"), [(EL9, CONTEXTS), (MLS, CONTEXTS.replace("targeted", "mls"))])
def test_now_runs_the_guest_s_setfiles_on_its_own_policy(files, contexts):
    command, remove = decide(files | {"/.autorelabel": b""}, relabel="now")
    assert isinstance(command, Command)
    assert command.arguments == (contexts,)
    assert remove == Remove(paths=("/.autorelabel",), why="removed /.autorelabel: it is done")
    assert len(decide(files, relabel="now")) == 1


@pytest.mark.parametrize(
    ("files", "mode", "expected"),
    [
        (EL9, "permissive", CONFIG.replace(b"=enforcing", b"=permissive")),
        (EL9, "disabled", CONFIG.replace(b"=enforcing", b"=disabled")),
        (OFF, "enforcing", CONFIG),
        (BARE, "permissive", b"SELINUXTYPE=targeted\n\xff\nSELINUX=permissive\n"),
    ],
)
def test_the_mode_is_set_and_files_are_labelled_unless_it_is_off(files, mode, expected):
    edits = decide(files, mode=mode)
    assert edits[0].data == expected
    assert len(edits) == (1 if mode == "disabled" else 2)
    assert len(decide(files, mode=mode, relabel="never")) == 1
    left = files | {edit.path: edit.data for edit in edits}
    assert isinstance(decide(left, mode=mode), Unchanged)


@pytest.mark.parametrize(
    ("files", "options", "why"),
    [
        ({}, {}, "the guest has no SELinux policy"),
        ({}, {"mode": "disabled"}, "the guest has no SELinux policy"),
        ({"/etc/selinux/semanage.conf": b""}, {"relabel": "now"}, "the guest has no SELinux policy"),
        ({"/etc/selinux/config": CONFIG}, {}, "the guest has no SELinux policy"),
        (OFF, {}, "SELinux is off in the guest"),
        (OFF, {"mode": "disabled", "relabel": "now"}, "SELinux is off in the guest"),
        (EL9, {"mode": "enforcing", "relabel": "never"}, "SELinux is enforcing already"),
    ],
)
def test_a_guest_that_needs_nothing_is_left_alone(files, options, why):
    assert decide(files, **options) == Unchanged(why=why)


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        ({}, {"mode": "enforcing"}, "the guest has no SELinux policy to be enforcing about"),
        (MLS, {}, "nothing in the guest would label its files at boot, although it has a policy"),
    ],
)
def test_what_cannot_be_is_an_error(files, options, expected):
    with pytest.raises(GuestError, match=expected):
        decide(files, **options)


def test_options_are_checked():
    assert STEP.check(SelinuxOptions(relabel="never"))
    assert not STEP.check(SelinuxOptions(relabel="never", mode="disabled"))
    with pytest.raises(ValidationError):
        SelinuxOptions(mode="off")
