"""What package managers are given: their words, and repository files. apt's is run for real elsewhere."""

from __future__ import annotations

import pytest

from builder import proc
from builder.errors import GuestError
from builder.guest.managers import MANAGERS, Guest, Job, Source, kernels, repository_path, repository_text, script

URL = "http://mirror.example/debian"
DEBIAN = Guest(suite="bookworm")
PACMAN = Guest(
    pacman_conf="# a comment\n[options]\nArchitecture = auto\nInclude = /etc/pacman.d/options\n\n"
    "[core]\nInclude = /etc/pacman.d/mirrorlist\n\n[extra]\nServer = http://old/$repo\nSigLevel = Required\n"
)
ALPINE = Guest(
    apk_repositories="#https://x/v3.19/main\nhttps://dl.example/alpine/v3.20/main\nhttps://dl.example/alpine/v3.20/community\n"
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Source(mirror=URL), f"deb {URL} bookworm main\n"),
        (Source(mirror=URL, unsigned=True), f"deb [trusted=yes] {URL} bookworm main\n"),
        (Source(mirror=URL, key="/k.asc"), f"deb [signed-by=/k.asc] {URL} bookworm main\n"),
        (Source(repository=f"deb {URL} ./"), f"deb {URL} ./\n"),
        (Source(repository=f"deb [arch=amd64] {URL} a b", key="/k"), f"deb [arch=amd64 signed-by=/k] {URL} a b\n"),
    ],
)
def test_apts_line(source, expected):
    assert repository_text("apt", source, DEBIAN) == expected


def test_a_mirror_needs_a_suite():
    with pytest.raises(GuestError, match="which suite"):
        repository_text("apt", Source(mirror=URL), Guest())


@pytest.mark.parametrize("manager", ["dnf", "yum", "zypper"])
def test_an_rpm_repository(manager):
    text = repository_text(manager, Source(mirror=URL, key="/etc/key"), Guest())
    assert text.startswith(f"[emi-recipe]\nname=emi-recipe\nbaseurl={URL}\nenabled=1\ngpgcheck=1\n")
    assert text.endswith("gpgkey=file:///etc/key\n")
    assert "gpgcheck=0\n" in repository_text(manager, Source(repository=URL, unsigned=True), Guest())


def test_pacmans_configuration():
    mirrored = repository_text("pacman", Source(mirror="http://m/$repo"), PACMAN)
    assert mirrored == (
        "# a comment\n[options]\nArchitecture = auto\nInclude = /etc/pacman.d/options\n\n"
        "[core]\nServer = http://m/$repo\n\n[extra]\nServer = http://m/$repo\nSigLevel = Required\n"
    )
    more = repository_text("pacman", Source(repository="http://r", unsigned=True), PACMAN)
    assert more == PACMAN.pacman_conf + "[emi-recipe]\nServer = http://r\nSigLevel = Never\n"
    assert repository_text("pacman", Source(repository="http://r", unsigned=True), Guest(pacman_conf=more)) == more


def test_apks_repositories():
    assert repository_text("apk", Source(mirror="http://m/alpine/"), ALPINE) == (
        "http://m/alpine/v3.20/main\nhttp://m/alpine/v3.20/community\n"
    )
    more = repository_text("apk", Source(repository="http://r/v3.20/testing"), ALPINE)
    assert more == ALPINE.apk_repositories + "http://r/v3.20/testing\n"
    again = repository_text("apk", Source(repository="http://r/v3.20/testing"), Guest(apk_repositories=more))
    assert again == more
    with pytest.raises(GuestError, match="names no branch"):
        repository_text("apk", Source(mirror="http://m"), Guest())


@pytest.mark.parametrize("manager", MANAGERS)
def test_what_is_kept_lies_where_the_guest_looks(manager):
    assert repository_path(manager, Source(mirror=URL, keep=True)).startswith("/etc/")


JOBS = [
    ("apt", Job(install=("a", "b=1")), Source(mirror=URL),
     ["-o Dir::Etc::sourceparts=- -o APT::Update::Error-Mode=any update", "--no-remove install a b=1"]),
    ("apt", Job(install=("a",), update=False, recommends=False), Source(),
     ["--no-install-recommends --no-remove install a"]),
    ("apt", Job(remove=("a",)), Source(), [" remove a"]),
    ("apt", Job(remove=("a",), purge=True), Source(), [" purge a"]),
    ("apt", Job(upgrade=True), Source(), ["APT::Update::Error-Mode=any update", "Upgrade-Allow-New=true upgrade"]),
    ("apt", Job(files=("/p/x.deb",)), Source(), ["--no-remove install /p/x.deb"]),
    ("dnf", Job(install=("a",), recommends=False), Source(mirror=URL),
     ["for name in a; do", "dnf -y '--disablerepo=*' --enablerepo=emi-recipe --setopt=install_weak_deps=False install",
      "dnf -y clean all"]),
    ("yum", Job(upgrade=True), Source(), ["before=", "yum -y upgrade", "yum -y clean all"]),
    ("dnf", Job(remove=("a",)), Source(), ["dnf -y '--disablerepo=*' remove $there"]),
    ("dnf", Job(files=("/p/x.rpm",)), Source(unsigned=True), ["'--disablerepo=*' --nogpgcheck install /p/x.rpm"]),
    ("zypper", Job(install=("a",)), Source(mirror=URL, key="/k"),
     ["before=", "rpm --import /k", "zypper --non-interactive refresh emi-recipe",
      "zypper --non-interactive install --auto-agree-with-licenses --repo emi-recipe $missing",
      "zypper --non-interactive clean --all"]),
    ("zypper", Job(upgrade=True), Source(), ["refresh", "update --auto-agree-with-licenses"]),
    ("pacman", Job(install=("a",)), Source(repository=URL),
     ["pacman --config /var/tmp/emi-packages/pacman.conf --noconfirm --noprogressbar -Sy", "-S --needed a",
      "rm -rf /var/cache/pacman/pkg/*"]),
    ("pacman", Job(upgrade=True, remove=("b",)), Source(), ["-R b", "-Syu"]),
    ("apk", Job(install=("a",), remove=("b",)), Source(mirror=URL),
     ["apk --no-progress --no-cache --repositories-file /var/tmp/emi-packages/repositories del b", " add a"]),
    ("apk", Job(files=("/p/x.apk",)), Source(), ["--no-network --allow-untrusted add /p/x.apk"]),
]  # fmt: skip


@pytest.mark.parametrize(("manager", "job", "source", "expected"), JOBS)
def test_its_words_in_their_order(manager, job, source, expected):
    text = script(manager, job, source)
    at = 0
    for words in expected:
        assert words in text[at:], text
        at = text.index(words, at)
    proc.run(["sh", "-n"], stdin=text.encode())


@pytest.mark.parametrize("update", [True, False])
def test_apts_lists_are_the_guests_own_unless_they_are_read_anew(update):
    text = script("apt", Job(install=("a",), update=update), Source())
    assert ("Dir::State::lists" in text) is update


@pytest.mark.parametrize("manager", MANAGERS)
def test_nothing_of_a_name_is_for_the_shell(manager):
    job = Job(install=("$(touch /x)",), remove=("`y`",), files=("/p/z;z",))
    text = script(manager, job, Source(mirror=URL))
    for name in ("'$(touch /x)'", "'`y`'", "'/p/z;z'"):
        assert name in text


RPM = """\
rpm() {
    case "$*" in
    "-q gpg-pubkey") echo gpg-pubkey-1; [ ! -e imported ] || echo gpg-pubkey-2 ;;
    "-e --allmatches gpg-pubkey-2") rm imported ;;
    "-q there") echo there-1.0 ;;
    "-q new") [ -e new ] && echo new-2.0 ;;
    "-q --whatprovides virtual") echo provider-1 ;;
    *) return 1 ;;
    esac
}
dnf() {
    echo "dnf: $*"
    case "$*" in *"install new"*) : >new; : >imported ;; esac
}
mkdir() { :; }
"""


@pytest.mark.parametrize(
    ("job", "keep", "said", "left"),
    [
        (Job(install=("there", "virtual")), False, ["there-1.0", "provider-1", "dnf: -y clean all"], []),
        (Job(install=("there", "new")), False,
         ["there-1.0", "dnf: -y install new", "new-2.0", "dnf: -y clean all"], ["new"]),
        (Job(install=("new",)), True, ["dnf: -y install new", "new-2.0", "dnf: -y clean all"], ["imported", "new"]),
        (Job(remove=("there", "absent")), False,
         ["absent is not installed", "dnf: -y --disablerepo=* remove there", "dnf: -y clean all"], []),
    ],
)  # fmt: skip
def test_rpm_is_asked_first_and_keys_go_again(tmp_path, job, keep, said, left):
    """The frame around dnf, run by a real shell; rpm and dnf are the shell's functions, since no such guest is here."""
    text = RPM + script("dnf", job, Source(keep=keep))
    done = proc.run(["sh"], stdin=text.encode(), directory=tmp_path)
    assert done.stdout.decode().splitlines() == said
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_a_package_that_is_not_there_afterwards_is_an_error(tmp_path):
    text = RPM + script("dnf", Job(install=("never",)), Source())
    assert proc.run(["sh"], stdin=text.encode(), directory=tmp_path, allowed=(1,)).status == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linux-image-amd64", True),
        ("linux-image-6.1.0-9-cloud-amd64=6.1", True),
        ("kernel", True),
        ("kernel-core", True),
        ("kernel-5.14.0-1.el9", True),
        ("kernel-default", True),
        ("linux", True),
        ("linux-lts", True),
        ("kernel-tools", False),
        ("linux-libc-dev", False),
        ("linux-firmware", False),
        ("curl", False),
    ],
)
def test_kernels_are_known(name, expected):
    assert bool(kernels([name])) is expected
