"""The metadata service as a guest sees it: with tokens, without, when it is off, and as Eucalyptus has it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guests import INSTANCE, facts

from builder.sandbox.machines.metadata import mac_of
from builder.sandbox.machines.service import LIFE, TOKEN, Service

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEexample my-key"


class Asked:
    """Asks as a guest does, a connection for each request."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __call__(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        link = http.client.HTTPConnection("169.254.169.254")
        link.sock = socket.socket(socket.AF_UNIX)
        link.sock.connect(str(self.place))
        sent = {{"token": TOKEN, "life": LIFE}.get(name, name): value for name, value in headers.items()}
        link.request(method, path, headers=sent)
        answer = link.getresponse()
        said = answer.status, answer.read().decode()
        assert answer.getheader("Connection") == "close"
        link.close()
        return said

    def token(self, life: str = "60") -> str:
        status, said = self("/latest/api/token", "PUT", life=life)
        assert status == 200
        return said


@contextmanager
def serving(directory: Path, **changes: object) -> Iterator[Asked]:
    service = Service(directory / "socket", lambda: facts(local_ipv4="127.77.1.2", public_ipv4="127.77.1.2", **changes))
    yield Asked(directory / "socket")
    service.close()
    service.close()
    assert not (directory / "socket").exists()


def test_everything_that_cloud_init_reads_is_there(tmp_path):
    changes = {
        "public_keys": (("my-key", KEY),),
        "user_data": b"#!/bin/sh\n\xff\n",
        "mappings": {"ami": "sda1", "root": "/dev/sda1", "ebs1": "sdf"},
        "security_groups": ("one", "two"),
        "tags": {"Name": "a=b", "emi:run": "r 1"},
    }
    with serving(tmp_path, **{**changes, "user_data": b"#!/bin/sh\n"}) as ask:
        for path, wanted in {
            "/latest/": "meta-data/\nuser-data\ndynamic/",
            "/latest/meta-data/instance-id": INSTANCE,
            "/2021-03-23/meta-data/instance-id": INSTANCE,
            "/latest/meta-data/ami-id": "ami-0123456789abcdef0",
            "/latest/meta-data/instance-type": "t3.micro",
            "/latest/meta-data/hostname": "ip-127-77-1-2.ec2.internal",
            "/latest/meta-data/local-hostname": "ip-127-77-1-2.ec2.internal",
            "/latest/meta-data/local-ipv4": "127.77.1.2",
            "/latest/meta-data/public-ipv4": "127.77.1.2",
            "/latest/meta-data/placement/": "availability-zone\nregion",
            "/latest/meta-data/placement/availability-zone": "us-east-1a",
            "/latest/meta-data/placement/region": "us-east-1",
            "/latest/meta-data/public-keys/": "0=my-key",
            "/latest/meta-data/public-keys/0/": "openssh-key",
            "/latest/meta-data/public-keys/0/openssh-key": KEY + "\n",
            "/latest/meta-data/block-device-mapping/": "ami\nroot\nebs1",
            "/latest/meta-data/block-device-mapping/ebs1": "sdf",
            "/latest/meta-data/security-groups": "one\ntwo",
            "/latest/meta-data/tags/instance/": "Name\nemi:run",
            "/latest/meta-data/tags/instance/Name": "a=b",
            "/latest/meta-data/tags/instance/emi:run": "r 1",
            "/latest/meta-data/network/interfaces/macs/": f"{mac_of(INSTANCE)}/",
            f"/latest/meta-data/network/interfaces/macs/{mac_of(INSTANCE)}/local-ipv4s": "127.77.1.2",
            "/latest/user-data": "#!/bin/sh\n",
            "/latest/dynamic/instance-identity/": "document",
        }.items():
            assert ask(path) == (200, wanted), path
        document = json.loads(ask("/latest/dynamic/instance-identity/document")[1])
        assert (document["instanceId"], document["region"]) == (INSTANCE, "us-east-1")
        assert document["pendingTime"] == "2023-11-14T22:13:20Z"
        assert "latest" in ask("/")[1].split("\n")
        assert ask("/latest/meta-data/instance-id", "HEAD") == (200, "")
        for path in ("/latest/meta-data/none", "/latest/meta-data/instance-id/x", "/1999/meta-data", "/latest/meta-dat",
                     "/latest/meta-data/public-keys/1/openssh-key", "/latest/meta-data/kernel-id"):  # fmt: skip
            assert ask(path)[0] == 404, path


def test_bytes_of_user_data_are_not_changed(tmp_path):
    data = bytes(range(256))
    with serving(tmp_path, user_data=data), socket.socket(socket.AF_UNIX) as link:
        link.connect(str(tmp_path / "socket"))
        link.sendall(b"GET /latest/user-data HTTP/1.0\r\n\r\n")
        assert b"".join(iter(lambda: link.recv(4096), b"")).partition(b"\r\n\r\n")[2] == data


def test_without_user_data_tags_or_keys_these_are_not_there(tmp_path):
    with serving(tmp_path) as ask:
        for path in ("user-data", "meta-data/tags/instance/", "meta-data/public-keys/"):
            assert ask(f"/latest/{path}")[0] == 404


def test_a_token_opens_what_requires_one(tmp_path):
    path = "/latest/meta-data/instance-id"
    with serving(tmp_path, tokens_required=True) as ask:
        assert ask(path) == (401, "")
        assert ask("/") == (401, "")
        token = ask.token()
        assert ask(path, token=token) == (200, INSTANCE)
        assert ask("/latest/none", token=token)[0] == 404
        for wrong in ("", "x", token[:-1], f"9{token}", "9999999999.", "é"):
            assert ask(path, token=wrong)[0] == 401
        for life in ("0", "-1", "x", "21601", "", "1.5", "\u0661".encode().decode("latin-1")):
            assert ask("/latest/api/token", "PUT", life=life)[0] == 400
        assert ask("/latest/api/token", "PUT")[0] == 400
        assert ask("/latest/api/token", "PUT", life="60", **{"X-Forwarded-For": "192.0.2.1"})[0] == 403
        assert ask("/latest/meta-data/", "PUT", life="60")[0] == 405
        assert ask("/latest/meta-data/", "POST")[0] == 501


def test_tokens_are_optional_else_but_a_wrong_one_is_refused(tmp_path):
    path = "/latest/meta-data/instance-id"
    with serving(tmp_path) as ask:
        assert ask(path)[0] == 200
        assert ask(path, token=ask.token("21600"))[0] == 200
        assert ask(path, token="wrong")[0] == 401


def test_a_token_is_of_one_instance_and_of_one_time(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    with serving(tmp_path, tokens_required=True) as ask, serving(tmp_path / "other", tokens_required=True) as other:
        token = ask.token("60")
        assert other("/latest/", token=token)[0] == 401
        assert ask("/latest/", token=token)[0] == 200
        monkeypatch.setattr("builder.sandbox.machines.service.time.time", lambda: 1e10)
        assert ask("/latest/", token=token)[0] == 401


def test_a_service_that_is_off_refuses_all(tmp_path):
    with serving(tmp_path, endpoint=False) as ask:
        assert ask("/latest/meta-data/")[0] == 403
        assert ask("/latest/api/token", "PUT", life="60")[0] == 403


def test_eucalyptus_knows_no_tokens(tmp_path):
    with serving(tmp_path, tokens=False, tags={"a": "b"}, public_keys=(("k", KEY),)) as ask:
        assert ask("/latest/api/token", "PUT", life="60")[0] == 404
        assert ask("/latest/meta-data/instance-id") == (200, INSTANCE)
        assert ask("/latest/meta-data/instance-id", token="any") == (200, INSTANCE)
        assert ask("/latest/meta-data/public-keys/0/openssh-key") == (200, KEY + "\n")
        for path in ("dynamic/instance-identity/document", "meta-data/tags/instance/a", "meta-data/network/"):
            assert ask(f"/latest/{path}")[0] == 404


def test_a_guest_that_hangs_up_or_says_nonsense_ends_nothing(tmp_path):
    with serving(tmp_path) as ask:
        for nonsense in (b"", b"GET", b"\xff\xfe\r\n\r\n", b"GET / HTTP/1.1\r\n", b"x" * 70_000 + b"\r\n\r\n"):
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(str(tmp_path / "socket"))
                link.sendall(nonsense)
        assert ask("/latest/meta-data/instance-id") == (200, INSTANCE)
