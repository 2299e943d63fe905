"""Nothing that installs outlives the process that asked for it."""

from __future__ import annotations

import os
import signal
import subprocess  # noqa: TID251 - the process to kill is not this one
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builder.bootstrap import install
from builder.bootstrap.install import check_host, remove
from builder.errors import ArchiveRefused, ToolFailed
from builder.progress import SILENT

# What install does with mmdebstrap, done with a script that mounts, leaves a daemon behind and would sleep on.
ASK = """\
import sys
from builder import proc
from builder.bootstrap.install import _namespaces
script = "mount -t tmpfs none {place} && touch {place}/x && (setsid sleep {mark} &) && echo ready >&2; sleep {mark}"
proc.follow([*_namespaces(), "sh", "-c", script], heard=lambda line: print(line, flush=True))
"""


def sleepers(mark: str) -> list[str]:
    """Return the processes that have `mark` for an argument and have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if mark in words:
            found.append(process.name)
    return found


def wait_for(count: int, mark: str, limit: float = 30) -> int:
    """Return how many sleepers there are, once there are `count` or the limit (seconds) is over."""
    deadline = time.monotonic() + limit
    while len(sleepers(mark)) != count and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(sleepers(mark))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_bootstrap_leaves_no_process_and_no_mount(tmp_path, number):
    mark = str(86_400 + os.getpid() + number)
    script = ASK.format(place=tmp_path, mark=mark)
    asking = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with asking:
        assert asking.stdout.readline() == b"ready\n"
        there = wait_for(2, mark)  # the daemon may still be a shell when its parent is ready
        asking.send_signal(number)
        gone = wait_for(0, mark)
    assert (there, gone) == (2, 0)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert list(tmp_path.iterdir()) == []


def test_this_host_can(tmp_path):
    check_host()


def test_remove_is_content_with_nothing(tmp_path):
    remove(tmp_path / "never-made")
    (tmp_path / "made" / "deep").mkdir(parents=True)
    remove(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def install_with(tmp_path, system, monkeypatch):
    """Install where the first mmdebstrap on PATH is a shell script, which writes its tar to standard output."""

    def install_with(script, what=system):
        program = tmp_path / "bin" / "mmdebstrap"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        return install.install(what, install.Supply(), scratch=scratch, progress=SILENT)

    return install_with


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("echo 'E: no such package' >&2; exit 25", ToolFailed, "E: no such package"),
        ("tar -c /etc/hostname | head -c 700; exit 25", ToolFailed, "exit status 25"),
        ("tar -c /etc/hostname | head -c 700", ArchiveRefused, "cut off or damaged"),
        ("tar -c /dev/null --transform s,^dev,opt,; yes; exit 25", ArchiveRefused, "/opt/null .* is a device"),
    ],
)
def test_what_ended_the_installation_is_what_is_said(install_with, script, error, message):
    with pytest.raises(error, match=message):
        install_with(script)


def test_the_tree_is_what_the_program_packed(install_with, tmp_path):
    tree = install_with("echo 'I: installing' >&2; tar -C /etc -c ./os-release ./hosts")
    assert tree.read("hosts") == Path("/etc/hosts").read_bytes()
    assert {node.path for node in tree} == {"", "os-release", "hosts"}


def test_what_is_left_out_is_asked_of_apt_and_of_dpkg(install_with, tmp_path, system):
    said = tmp_path / "said"
    install_with(
        f"printf '%s\\n' \"$@\" >{said}; tar -c -T /dev/null",
        replace(system, packages=["cloud-init-", "nano"], exclude=["/usr/share/doc/*", "!/usr/share/doc/*/copyright"]),
    )
    words = said.read_text().splitlines()
    (packages,) = [word.removeprefix("--include=").split(",") for word in words if word.startswith("--include=")]
    assert [name for name in packages if name.startswith("cloud-init")] == ["cloud-init-"]
    assert {"openssh-server", "nano"} < set(packages)
    options = [word for word in words if word.startswith("--dpkgopt=")]
    assert options == ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"]
