"""tools/setup.sh on machines that lack something: a copy of it, with apt-get and pip that only take notes."""

from __future__ import annotations

import shutil
import subprocess  # noqa: TID251 - the script is started as make starts it
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# All that the script may use of a machine, beside what is faked: no sudo, no apt-get.
TOOLS = ("cat", "dirname", "env", "flock", "grep", "ln", "mkdir", "rm", "sed", "seq", "sh", "sha256sum", "sleep")
INSTALL = "install --yes --no-install-recommends"


@dataclass(frozen=True)
class Ended:
    status: int
    said: str
    calls: list[str]


class Machine:
    """A checkout in a directory of its own, on a machine with the programs it is given."""

    def __init__(self, place: Path) -> None:
        self.tree, self.bin, self.notes = place / "emi", place / "bin", place / "notes"
        self.bin.mkdir()
        (self.tree / "tools").mkdir(parents=True)
        for name in ("setup.sh", "debian-packages.txt"):
            shutil.copy(ROOT / "tools" / name, self.tree / "tools" / name)
        for name in ("requirements.in", "requirements-dev.in", "requirements-dev.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.tree / name)
        for name in TOOLS:
            (self.bin / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
        self.program("id", 'case "$*" in -u) echo 0;; *) echo root;; esac')
        self.program("dpkg-query", "printf installed")
        self.program("apt-get", "")
        environment = self.tree / ".venv/bin"
        environment.mkdir(parents=True)
        self.site = self.tree / ".venv/lib/python3.11/site-packages"
        self.site.mkdir(parents=True)
        (environment / "activate").write_text(f"VIRTUAL_ENV={self.tree}/.venv\n")
        for name in ("python", "pip", "emi"):
            self.program(name, "", folder=environment)

    def program(self, name: str, script: str, *, folder: Path | None = None) -> None:
        """Put a program there that notes how it is called, then runs `script`."""
        path = (folder or self.bin) / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"{name} $*\" >>{self.notes}\n{script}\n")
        path.chmod(0o755)

    def lacks(self, *packages: str) -> None:
        """Let these packages be absent."""
        self.program(
            "dpkg-query", f'case "$*" in {"|".join("*" + name for name in packages)}) exit 1;; esac\nprintf installed'
        )

    def setup(self, *words: str) -> Ended:
        """Run the script; `calls` are those of apt-get, without its standing options, and of pip and sudo."""
        self.notes.unlink(missing_ok=True)
        done = subprocess.run(
            ["/bin/sh", "tools/setup.sh", *words],
            cwd=self.tree,
            env={"PATH": str(self.bin)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == ""  # whoever reads make's output reads that of the target
        noted = self.notes.read_text().splitlines() if self.notes.exists() else []
        calls = [line.split("Acquire::Retries=3 ")[-1] for line in noted if line.startswith(("apt-get", "pip", "sudo"))]
        return Ended(done.returncode, done.stderr, calls)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """A machine on which the environment is made already."""
    assert machine.setup().status == 0
    return machine


def test_the_environment_is_made_from_the_lock_and_once(machine: Machine) -> None:
    first = machine.setup()
    assert first.status == 0
    assert first.calls == [
        "pip install --quiet --no-compile --require-hashes --requirement requirements-dev.lock",
        "pip install --quiet --no-deps --no-build-isolation --editable .",
    ]
    assert "locked Python packages into .venv" in first.said
    assert machine.setup() == Ended(0, "", [])


def test_the_environment_sees_the_guestfs_binding_and_nothing_else_of_the_distribution(machine: Machine) -> None:
    machine.setup()
    linked = sorted(path.name.partition(".")[0] for path in machine.site.iterdir() if path.resolve(strict=True))
    assert linked == ["guestfs", "libguestfsmod"]


@pytest.mark.parametrize("name", ["requirements-dev.lock", "pyproject.toml"])
def test_a_changed_lock_is_installed(ready: Machine, name: str) -> None:
    with open(ready.tree / name, "a") as file:
        file.write("# changed\n")
    assert len(ready.setup().calls) == 2


def test_an_environment_that_was_cut_half_way_is_finished(machine: Machine) -> None:
    machine.program("pip", "exit 1", folder=machine.tree / ".venv/bin")
    assert machine.setup().status == 1
    machine.program("pip", "", folder=machine.tree / ".venv/bin")
    assert len(machine.setup().calls) == 2


def test_missing_packages_are_named_with_their_reason_and_installed(ready: Machine) -> None:
    ready.lacks("gdisk", "mtools")
    ended = ready.setup()
    assert ended.status == 0
    assert ended.calls == [f"{INSTALL} --simulate gdisk mtools", f"{INSTALL} gdisk mtools"]
    assert "gdisk: sgdisk: GPT partition tables" in ended.said
    assert "mtools: files into that partition" in ended.said
    assert "qemu" not in ended.said


def test_any_kernel_with_modules_will_do(ready: Machine) -> None:
    ready.lacks("linux-image-cloud-amd64")
    assert ready.setup() == Ended(0, "", [])  # the machine that runs this test has one, or no appliance would start


def test_what_only_benchmarks_need_waits_for_them(ready: Machine) -> None:
    ready.lacks("nginx-light")
    assert ready.setup().calls == []
    assert ready.setup("--bench").calls == [f"{INSTALL} --simulate nginx-light", f"{INSTALL} nginx-light"]


def test_lists_are_fetched_where_there_are_none(ready: Machine) -> None:
    ready.lacks("gdisk")
    ready.program("apt-get", 'case "$*" in *--simulate*) exit 100;; esac')
    assert ready.setup().calls == [f"{INSTALL} --simulate gdisk", "update", f"{INSTALL} gdisk"]


def test_stale_lists_are_fetched_anew(ready: Machine) -> None:
    ready.lacks("gdisk")
    fail_once = f"[ -e {ready.tree}/failed ] || {{ >{ready.tree}/failed; exit 100; }}"
    ready.program("apt-get", f'case "$*" in *--simulate*|*update) ;; *) {fail_once};; esac')
    ended = ready.setup()
    assert ended.status == 0
    assert ended.calls == [f"{INSTALL} --simulate gdisk", f"{INSTALL} gdisk", "update", f"{INSTALL} gdisk"]


def test_services_that_packages_switch_on_are_switched_off(ready: Machine) -> None:
    units = ready.tree / "units"
    units.write_text("cron.service enabled enabled\n")
    ready.program("systemctl", f'case "$*" in *list-unit-files*) cat {units};; esac')
    ready.lacks("radosgw")
    enable = f'printf "%s\\n" "ceph.target enabled enabled" "ceph-crash.service enabled enabled" >>{units}'
    ready.program("apt-get", f'case "$*" in *--simulate*) ;; *) {enable};; esac')
    ended = ready.setup()
    assert ended.status == 0
    switched = [line for line in ready.notes.read_text().splitlines() if line.startswith("systemctl --quiet disable")]
    assert switched == ["systemctl --quiet disable ceph.target ceph-crash.service"]
    assert "switching off the services that came with them: ceph.target ceph-crash.service" in ended.said


def test_packages_without_services_switch_nothing_off(ready: Machine) -> None:
    ready.program("systemctl", "echo cron.service enabled enabled")
    ready.lacks("gdisk")
    assert ready.setup().status == 0
    assert "disable" not in ready.notes.read_text()


def test_a_mirror_that_cannot_be_reached_ends_in_words(ready: Machine) -> None:
    ready.lacks("gdisk")
    ready.program("apt-get", "echo E: no route >&2; exit 100")
    ended = ready.setup()
    assert ended.status == 1
    assert "E: no route" in ended.said
    assert ended.said.splitlines()[-1].endswith("apt-get install --no-install-recommends gdisk ")


def test_a_user_installs_through_sudo(ready: Machine) -> None:
    ready.lacks("gdisk")
    ready.program("id", 'case "$*" in -u) echo 1000;; *) echo ann;; esac')
    ready.program("sudo", 'exec "$@"')
    ended = ready.setup()
    assert ended.status == 0
    assert "sudo may ask" in ended.said
    simulate, install = f"{INSTALL} --simulate gdisk", f"{INSTALL} gdisk"
    assert ended.calls == [simulate, simulate, install, install]  # sudo's own note, then that of what it started


def test_a_user_without_sudo_is_told_what_to_ask_for(ready: Machine) -> None:
    ready.lacks("gdisk")
    ready.program("id", 'case "$*" in -u) echo 1000;; *) echo ann;; esac')
    ended = ready.setup()
    assert ended.status == 1
    assert ended.calls == []
    assert "apt-get update && apt-get install --no-install-recommends gdisk" in ended.said


def test_elsewhere_than_debian(ready: Machine) -> None:
    (ready.bin / "dpkg-query").unlink()
    ended = ready.setup()
    assert ended.status == 1
    assert "not Debian" in ended.said
    assert "tools/debian-packages.txt" in ended.said
