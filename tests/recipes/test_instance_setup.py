"""What the helper image makes of metadata and user-data: the program itself, on a root of its own."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess  # noqa: TID251 - the program runs in guests, by itself
import sys
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder import pool
from builder.cloud.user_data import user_data
from builder.remote.keys import KeyPair

PROGRAM = Path(__file__).parents[2] / "recipes/helper/root/usr/local/lib/instance_setup.py"
STATE = "var/lib/instance-setup"
KEY, OTHER = "ssh-ed25519 AAAAfirst mine", "ssh-ed25519 AAAAsecond"
HOST = KeyPair.generate()
BASE = {
    "meta-data/instance-id": "i-1",
    "meta-data/local-hostname": "ip-10-0-0-5.ec2.internal",
    "meta-data/public-keys/": "0=mine",
    "meta-data/public-keys/0/openssh-key": f"{KEY}\n",
}
HOST_KEYS = f"""\
ssh_keys:
  ed25519_private: |
    {"    ".join(HOST.private.decode().splitlines(keepends=True))}
  ed25519_public: {HOST.public}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("etc/ssh", "home/debian", "root", "var/lib"):
        (root / name).mkdir(parents=True)
    accounts = (
        f"{name}:x:{os.getuid()}:{os.getgid()}::{home}:/bin/sh\n"
        for name, home in (("root", "/root"), ("debian", "/home/debian"))
    )
    (root / "etc/passwd").write_text("".join(accounts))
    return root


@pytest.fixture
def boot(root: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run the program against a metadata service that tells `BASE` and what is given, with tokens or without."""
    servers = []

    def boot(
        user_data: str | bytes | None = None, *, tokens: bool = True, **told: str
    ) -> subprocess.CompletedProcess[str]:
        facts: dict[str, str | bytes] = {**BASE, **told}
        if user_data is not None:
            facts["user-data"] = user_data
        servers.append(server := ThreadingHTTPServer(("127.0.0.1", 0), service(facts, tokens=tokens)))
        pool.Background(server.serve_forever)
        words = [str(root), "127.0.0.1", str(server.server_port), "60"]
        return subprocess.run([sys.executable, "-I", PROGRAM, *words], capture_output=True, text=True, check=False)

    yield boot
    for server in servers:
        server.shutdown()
        server.server_close()


def service(facts: Mapping[str, str | bytes], *, tokens: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_PUT(self) -> None:
            self.answer(200 if tokens else 404, b"a-token")

        def do_GET(self) -> None:
            if tokens and self.headers.get("X-aws-ec2-metadata-token") != "a-token":
                return self.answer(401, b"")
            found = facts.get(self.path.removeprefix("/latest/"))
            return self.answer(
                404 if found is None else 200, found.encode() if isinstance(found, str) else found or b""
            )

        def answer(self, status: int, said: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    return Handler


def keys_of(root: Path, home: str = "home/debian") -> list[str]:
    return (root / home / ".ssh/authorized_keys").read_text().splitlines()


def later(root: Path) -> list[str]:
    return sorted(path.name for path in (root / STATE).glob("later-*"))


@pytest.mark.parametrize("tokens", [True, False])
def test_keys_and_names_come_from_metadata(boot, root, tokens):
    done = boot(f"#cloud-config\n{HOST_KEYS}ssh_authorized_keys: [{OTHER}]\n", tokens=tokens)
    assert done.returncode == 0, done.stdout + done.stderr
    assert keys_of(root) == [KEY, OTHER]
    assert (root / "home/debian/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
    private = root / "etc/ssh/ssh_host_ed25519_key"
    assert (KeyPair.read(private).public, private.stat().st_mode & 0o777) == (HOST.public, 0o600)
    assert HOST.public in done.stdout
    assert HOST.private.decode().splitlines()[1] not in done.stdout
    assert "127.0.1.1 ip-10-0-0-5.ec2.internal ip-10-0-0-5 " in (root / "etc/hosts").read_text()
    assert (root / "etc/hostname").read_text() == "ip-10-0-0-5\n"


def test_what_a_helper_instance_is_told_is_understood(boot, root):
    config = json.loads(user_data("cloud-init", host_keys=[HOST], login=OTHER, seconds=3600).partition(b"\n")[2])
    assert len(config.pop("bootcmd")) == 1  # never run here: it ends the machine that it runs on
    mark = root / "mark"
    done = boot("#cloud-config\n" + json.dumps(config | {"bootcmd": [["touch", str(mark)]]}))
    assert (done.returncode, "not done" in done.stdout, mark.exists()) == (0, False, True)
    assert keys_of(root) == keys_of(root, "root") == [KEY, OTHER]
    assert KeyPair.read(root / "etc/ssh/ssh_host_ed25519_key").public == HOST.public


def test_without_user_data_a_host_key_is_made_and_shown(boot, root):
    done = boot()
    assert done.returncode == 0, done.stdout + done.stderr
    (private,) = (root / "etc/ssh").glob("ssh_host_*_key")
    assert KeyPair.read(private).public in done.stdout
    assert keys_of(root) == [KEY]


def test_each_instance_has_its_own_and_a_second_boot_changes_nothing(boot, root):
    mark = root / "mark"
    user_data = f"#cloud-config\nruncmd: [one]\nbootcmd: [[touch, '{mark}']]\n"
    boot(user_data)
    (host,) = (root / "etc/ssh").glob("ssh_host_*_key")
    first = host.read_bytes()
    mark.unlink()
    (root / STATE / "later-1-runcmd").unlink()  # it has run
    boot(user_data)
    assert (host.read_bytes(), later(root), mark.exists()) == (first, [], True)
    boot("#cloud-config\nruncmd: [one]\n", **{"meta-data/instance-id": "i-2"})
    assert host.read_bytes() != first
    assert later(root) == ["later-1-runcmd"]


MIME = """\
Content-Type: multipart/mixed; boundary="=="
MIME-Version: 1.0

--==
Content-Type: text/cloud-config

#cloud-config
runcmd: [echo 1, [echo, a b]]
--==
Content-Type: text/x-shellscript

#!/bin/sh
echo 2
--==--
"""


@pytest.mark.parametrize("packed", [str.encode, lambda text: gzip.compress(text.encode())])
def test_what_is_to_run_later_is_left_as_scripts(boot, root, packed):
    assert boot(packed(MIME)).returncode == 0
    assert later(root) == ["later-1-runcmd", "later-2-script-000"]
    assert (root / STATE / "later-1-runcmd").read_text() == "#!/bin/sh\necho 1\necho 'a b'\n"
    assert (root / STATE / "later-2-script-000").read_text() == "#!/bin/sh\necho 2"


def test_files_are_written_and_an_end_is_set(boot, root):
    packed = base64.b64encode(gzip.compress(b"packed")).decode()
    done = boot(f"""#cloud-config
write_files:
  - {{path: /opt/a, content: text, permissions: '0750'}}
  - {{path: /opt/b, content: {packed}, encoding: gz+b64}}
  - {{path: /opt/a, content: more, append: true, permissions: '0750'}}
  - {{path: /opt/c, content: !!binary AAH/, permissions: 0600}}
power_state: {{mode: poweroff, delay: 30, message: it is late}}
""")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(root / "opt" / name).read_bytes() for name in "ab"] == [b"textmore", b"packed"]
    assert (root / "opt/c").read_bytes() == b"\0\1\xff"
    assert [(root / "opt" / name).stat().st_mode & 0o777 for name in "abc"] == [0o750, 0o644, 0o600]
    assert "shutdown -P +30 'it is late'\n" in (root / STATE / "later-3-power_state").read_text()


@pytest.mark.parametrize(
    ("user_data", "said", "fails"),
    [
        ("#cloud-config\npackages: [nano]\nusers: []\n", "not done: `packages:`\n", False),
        (
            "#include https://example.org\n",
            "not done: user-data that begins with '#include https://example.org'",
            False,
        ),
        ("#cloud-config\na: [\n", "yaml", True),
        ("#cloud-config\nssh_keys: {ed25519_secret: x}\n", "KeyError: 'secret'", True),
        ("#cloud-config\nbootcmd: [exit 3]\n", "bootcmd of the user-data ended with status 3", True),
    ],
)
def test_what_cannot_be_done_is_said_and_still_somebody_can_log_in(boot, root, user_data, said, fails):
    done = boot(user_data)
    assert (said in done.stdout, done.returncode != 0) == (True, fails), done.stdout
    assert keys_of(root) == [KEY]
    assert list((root / "etc/ssh").glob("ssh_host_*_key"))


def test_without_metadata_there_is_a_host_key_and_a_word(root):
    words = [str(root), "127.0.0.1", "9", "0.5"]
    done = subprocess.run([sys.executable, "-I", PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no metadata at 127.0.0.1 within 0.5 s: nobody can log in" in done.stdout
    assert list((root / "etc/ssh").glob("ssh_host_*_key"))
