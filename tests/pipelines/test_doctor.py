"""Every check of the doctor, on machines that have the thing and on machines that lack it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from builder import proc
from builder.errors import CloudError, EmiError, HostError, ToolMissing, UsageError
from pipelines import doctor
from pipelines.home import Home

QUICK = [*proc.PACKAGES, "libguestfs binding", "kernel for the appliance", "virtual machines", "acceleration"]
LATER = ["space in EMI_HOME", "space for the appliance", "memory"]
LAST = ["user namespaces for mmdebstrap", "sandbox", "cloud credentials"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that puts a program first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return make


def test_this_machine_is_healthy_and_nothing_is_left(home: Home) -> None:
    checks = list(doctor.doctor(home, cloud="sandbox"))
    assert [check.name for check in checks] == [*QUICK, "appliance launch", *LATER, *LAST]
    assert [check for check in checks if not check.ok and check.severity == "needed"] == []
    assert doctor.healthy(checks)
    assert not home.root.exists()


def test_quick_leaves_out_the_launch(home: Home) -> None:
    names = [check.name for check in doctor.doctor(home, quick=True)]
    assert names == [*QUICK, *LATER, *LAST]


def test_a_cloud_that_does_not_exist(home: Home) -> None:
    with pytest.raises(UsageError, match="nimbus"):
        list(doctor.doctor(home, cloud="nimbus"))


def test_only_what_is_needed_decides() -> None:
    def check(severity: doctor.Severity, *, ok: bool) -> doctor.Check:
        return doctor.Check(name="x", ok=ok, severity=severity, found="")

    assert doctor.healthy([check("needed", ok=True), check("advised", ok=False)])
    assert not doctor.healthy([check("needed", ok=False), check("advised", ok=True)])


def test_a_failed_check_carries_its_fix(program: Callable[[str, str], None], home: Home) -> None:
    program("sgdisk", "kill -SEGV $$")
    (found,) = [check for check in doctor.doctor(home, quick=True) if check.name == "sgdisk"]
    assert not found.ok
    assert found.severity == "needed"
    assert "sgdisk --version" in found.found
    assert found.fix == "sudo apt-get install --reinstall gdisk"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo sgdisk version 9.8.7; echo more", "sgdisk version 9.8.7"),
        ("echo >&2; echo sgdisk 9.8 >&2", "sgdisk 9.8"),
        ("echo usage: sgdisk DISK >&2; exit 1", "it runs"),
    ],
)
def test_versions(program: Callable[[str, str], None], script: str, said: str) -> None:
    program("sgdisk", script)
    assert doctor.tool("sgdisk") == said


def test_a_tool_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(proc.PACKAGES, "emi-no-such-tool", "emi-tools")  # type: ignore[attr-defined]
    with pytest.raises(ToolMissing) as caught:
        doctor.tool("emi-no-such-tool")
    assert caught.value.hint == "sudo apt-get install emi-tools"


@pytest.mark.parametrize("tool", sorted(proc.PACKAGES))
def test_tools_are_found_without_sbin_on_the_path(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert doctor.tool(tool)


def test_no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "guestfs", None)
    assert "python3-guestfs" in refusal(doctor.binding, HostError).hint


def kernels(tmp_path: Path, versions: Mapping[str, int]) -> tuple[Path, Path]:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    boot.mkdir()
    modules.mkdir()
    for version, mode in versions.items():
        (boot / f"vmlinuz-{version}").touch(mode)
        if not version.endswith("bare"):
            (modules / version).mkdir()
    return boot, modules


def test_the_newest_kernel_with_modules(tmp_path: Path) -> None:
    boot, modules = kernels(tmp_path, {"6.1-1": 0o644, "6.1-2": 0o644, "6.1-3-bare": 0o644})
    assert doctor.kernel(boot, modules) == f"{boot}/vmlinuz-6.1-2"


def test_no_kernel(tmp_path: Path) -> None:
    boot, modules = kernels(tmp_path, {"6.1-3-bare": 0o644})
    error = refusal(lambda: doctor.kernel(boot, modules), HostError)
    assert error.hint == "sudo apt-get install linux-image-cloud-amd64"


def test_a_kernel_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, modules = kernels(tmp_path, {"6.1-1": 0o600})
    monkeypatch.setattr(os, "access", lambda *_: False)  # root reads everything, so the kernel cannot be asked
    error = refusal(lambda: doctor.kernel(boot, modules), HostError)
    assert error.hint == f"sudo chmod a+r {boot}/vmlinuz-*"


def test_space_is_measured_where_the_directory_will_be(tmp_path: Path) -> None:
    wanted = tmp_path / "not" / "yet"
    assert doctor.space(wanted, need=1).startswith(f"{wanted}: ")
    error = refusal(lambda: doctor.space(wanted, need=1 << 60), HostError)
    assert "needed for the demo" in error.message
    assert "EMI_HOME" in error.hint


def test_a_directory_that_cannot_be_written() -> None:
    error = refusal(lambda: doctor.space(Path("/proc/emi"), need=1), HostError)
    assert "/proc" in error.message


@pytest.mark.parametrize(("kilobytes", "enough"), [(1 << 20, False), (1536 << 10, True), (64 << 20, True)])
def test_memory(tmp_path: Path, kilobytes: int, enough: bool) -> None:  # noqa: FBT001
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal:       99999999 kB\nMemAvailable:   {kilobytes} kB\nHugePages_Total:       0\n")
    if enough:
        assert doctor.memory(meminfo).endswith("available")
    else:
        assert "1 GiB available" in refusal(lambda: doctor.memory(meminfo), HostError).message


@pytest.mark.parametrize(
    ("text", "enough"),
    [("ann:100000:65536\n", True), ("bob:1:65536\nann:2:1000\n", False), ("annette:1:65536\n", False), ("", False)],
)
def test_subordinate_ids(tmp_path: Path, text: str, enough: bool) -> None:  # noqa: FBT001
    subuid = tmp_path / "subuid"
    subuid.write_text(text)
    if enough:
        assert doctor.user_namespaces(subuid, user="ann") == "ann has subordinate ids"
    else:
        error = refusal(lambda: doctor.user_namespaces(subuid, user="ann"), HostError)
        assert error.hint.endswith(" ann")
        assert error.hint.startswith("sudo usermod --add-subuids")


def test_no_subuid_file_at_all(tmp_path: Path) -> None:
    assert refusal(lambda: doctor.user_namespaces(tmp_path / "none", user="ann"), HostError)


def test_the_sandbox_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.sandbox() == "installed"
    monkeypatch.setattr(doctor, "_SANDBOX_MODULES", ("moto", "emi_no_such_module"))
    error = refusal(doctor.sandbox, HostError)
    assert error.message == "not installed: emi_no_such_module"
    assert "[sandbox]" in error.hint


def test_without_credentials_the_fix_says_so(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens: no test may leave this machine
    error = refusal(lambda: doctor.credentials("aws", home), CloudError)
    assert "credentials" in error.message.lower()


def test_no_secret_is_shown(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(doctor.targets, "open_target", _refusing)
    (found,) = [check for check in doctor.doctor(home, cloud="aws", quick=True) if check.name == "cloud credentials"]
    assert not found.ok
    assert "hunter2" not in found.found + found.fix


def _refusing(*_: object) -> None:
    raise CloudError("sts:GetCallerIdentity: InvalidClientTokenId")


def refusal(call: Callable[[], str], expected: type[EmiError]) -> EmiError:
    """Return the error that the call raises; it must have words and a fix."""
    with pytest.raises(expected) as caught:
        call()
    assert caught.value.message
    assert caught.value.hint
    return caught.value
