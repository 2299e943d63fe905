"""What a helper is told as it boots: what cloud-init reads of it, and that the machine ends itself, by a real sh."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from builder import proc
from builder.cloud import user_data
from builder.cloud.instances import MOST_USER_DATA
from builder.remote.keys import KeyPair

HOSTS = (KeyPair.generate(), KeyPair.generate_rsa())
LOGIN = KeyPair.generate().public


def made(form: user_data.Form) -> bytes:
    return user_data.user_data(form, host_keys=HOSTS, login=LOGIN, seconds=600)


@pytest.mark.parametrize("form", ["cloud-init", "script"])
def test_the_same_gives_the_same_and_it_fits(form) -> None:
    assert made(form) == made(form)
    assert len(made(form)) < MOST_USER_DATA


def test_cloud_init_sets_the_host_keys_and_lets_root_in() -> None:
    text = made("cloud-init")
    assert text.startswith(b"#cloud-config\n")
    config = yaml.safe_load(text)
    assert config["ssh_keys"] == {
        "ed25519_private": HOSTS[0].private.decode(),
        "ed25519_public": HOSTS[0].public,
        "rsa_private": HOSTS[1].private.decode(),
        "rsa_public": HOSTS[1].public,
    }
    assert b"BEGIN RSA PRIVATE KEY" in HOSTS[1].private  # OpenSSH before 6.5 reads no other
    assert (config["disable_root"], config["ssh_deletekeys"], config["ssh_authorized_keys"]) == (False, True, [LOGIN])


def test_a_script_is_one_that_sh_reads(tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(made("script"))
    proc.run(["sh", "-n", tmp_path / "script"])
    text = made("script").decode()
    assert text.startswith("#!/bin/sh\n")
    assert HOSTS[0].private.decode() in text


@pytest.fixture
def watch(tmp_path: Path, monkeypatch) -> Path:
    """The watch as a script whose every way to end the machine writes a line into `ended`, and which never sleeps."""
    monkeypatch.setattr(user_data, "LEASE", str(tmp_path / "lease"))
    ended = tmp_path / "ended"
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("poweroff", "halt", "sleep", "shutdown"):
        said = f"echo {name} >>{ended}; exit 1" if name != "sleep" else f"echo slept >>{tmp_path / 'sleeps'}"
        (tools / name).write_text(f"#!/bin/sh\n{said}\n")
        (tools / name).chmod(0o755)
    text = yaml.safe_load(made("cloud-init"))["bootcmd"][0][2]
    assert text.count("/proc/sysrq-trigger") == text.count("/dev/console") == 1
    text = text.replace("/proc/sysrq-trigger", f"{tmp_path}/trigger").replace("/dev/console", f"{tmp_path}/console")
    text = text.replace("/proc/uptime", f"{tmp_path}/uptime")
    (tmp_path / "watch").write_text(f"PATH={tools}:$PATH\n{text}\nwait\n")
    (tmp_path / "uptime").write_text("100.25 7.00\n")
    return tmp_path


def test_a_machine_whose_client_is_gone_ends_itself(watch: Path) -> None:
    # Its clock: each look finds the machine 400 seconds older, so that the second look is past the end at 700.
    (watch / "tools" / "sleep").write_text(
        f"#!/bin/sh\nread -r now rest <{watch}/uptime; echo $((${{now%%.*}} + 400)).25 7.00 >{watch}/uptime\n"
    )
    proc.run(["sh", watch / "watch"], timeout=60)
    assert (watch / "ended").read_text().split() == ["shutdown", "poweroff", "halt"]
    assert (watch / "trigger").read_text() == "o\n"
    assert "so this machine ends" in (watch / "console").read_text()
    assert (watch / "lease").read_text() == "700\n"


def test_a_machine_whose_time_is_extended_lives_on(watch: Path) -> None:
    # The same clock; the client comes once, between the first look and the second.
    extension = user_data.extension(2000).replace("/proc/uptime", f"{watch}/uptime")
    (watch / "tools" / "sleep").write_text(
        f"#!/bin/sh\nread -r now rest <{watch}/uptime; echo $((${{now%%.*}} + 400)).25 7.00 >{watch}/uptime\n"
        f"echo $now >>{watch}/looks; [ ${{now%%.*}} != 100 ] || {{ {extension}; }}\n"
    )
    proc.run(["sh", watch / "watch"], timeout=60)
    assert (watch / "lease").read_text() == "2500\n"
    looks = [float(line) for line in (watch / "looks").read_text().split()]
    assert [one for one in looks if one < 2500] == [100.25, 500.25, 900.25, 1300.25, 1700.25, 2100.25]
    assert (watch / "trigger").exists()


def test_an_extension_does_nothing_on_a_machine_that_is_not_to_end(watch: Path) -> None:
    proc.run(["sh", "-c", user_data.extension(60)])
    assert not (watch / "lease").exists()
