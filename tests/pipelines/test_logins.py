"""Logging in to a helper by what its artifact says, at a real sshd."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cloud.aws import Aws, Settings
from builder.errors import CloudFailed, HostKeyWrong, InputError
from builder.progress import SILENT
from builder.remote.keys import KeyPair
from builder.sandbox import lifecycle
from pipelines.artifact import Helper
from pipelines.logins import log_in
from tests.builder.remote.machine import ADDRESS, Machine, machine


@pytest.fixture(scope="module")
def server() -> Iterator[Machine]:
    # Not in pytest's directories: they are closed to other users, who are to find their keys.
    with tempfile.TemporaryDirectory(prefix="emi-sshd-") as directory, machine(Path(directory)) as made:
        yield made


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    directory = tmp_path_factory.mktemp("sandbox")
    endpoint = lifecycle.start(directory)
    keys = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key}
    made = Aws(Settings(region=endpoint.region, endpoint_url=endpoint.url, **keys))
    yield made
    made.close()
    lifecycle.stop(directory)


@pytest.fixture
def helper(server: Machine, tmp_path: Path) -> Helper:
    (tmp_path / "leases" / "key.0").mkdir(parents=True)
    (tmp_path / "leases" / "key.0" / "login").write_bytes(server.key.private)
    return Helper(
        instance_id="i-1",
        address=ADDRESS,
        port=server.port,
        user="bob",
        key_file="leases/key.0/login",
        host_keys=(server.host_key.public,),
        zone="z",
    )


def test_commands_run_there_and_go_on_after_a_cut(helper: Helper, cloud: Aws, tmp_path: Path) -> None:
    with log_in(helper, tmp_path, cloud, SILENT) as shell:
        assert shell.run(["id", "-un"]).stdout == b"bob\n"
        shell.remote.cut()
        assert shell.run(["id", "-u"], root=True).stdout == b"0\n"


def test_a_users_own_helper_has_a_key_and_known_hosts_elsewhere(
    helper: Helper, cloud: Aws, server, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[{ADDRESS}]:{server.port} {server.host_key.public}\n")
    own = helper.model_copy(
        update={"key_file": str(tmp_path / helper.key_file), "host_keys": (), "known_hosts": str(known)}
    )
    with log_in(own, tmp_path / "elsewhere", cloud, SILENT) as shell:
        assert shell.run(["id", "-un"]).stdout == b"bob\n"


def test_another_machine_in_its_place_and_a_key_that_is_lost_are_named(
    helper: Helper, cloud: Aws, tmp_path: Path
) -> None:
    other = helper.model_copy(update={"host_keys": (KeyPair.generate().public,)})
    with log_in(other, tmp_path, cloud, SILENT) as shell, pytest.raises(HostKeyWrong):
        shell.run(["true"])
    (tmp_path / helper.key_file).unlink()
    with pytest.raises(InputError, match="login cannot be read"), log_in(helper, tmp_path, cloud, SILENT):
        pass


def test_nobody_waits_for_a_helper_that_the_cloud_has_no_more(helper: Helper, cloud: Aws, tmp_path: Path) -> None:
    gone = helper.model_copy(update={"instance_id": "i-0123456789abcdef0", "port": 1})
    with (
        log_in(gone, tmp_path, cloud, SILENT) as shell,
        pytest.raises(CloudFailed, match="which helps, is gone") as told,
    ):
        shell.run(["true"])
    assert "emi resume" in told.value.hint
