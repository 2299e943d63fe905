"""Makes a machine of the helper image the instance that its cloud's metadata describes, before sshd starts.

It stands in for cloud-init, as one process that imports little (docs/design/helper-image.md), and reads the same
user-data: `#cloud-config` with the keys in `_KNOWN`, scripts (`#!`), both also in MIME parts and gzipped; what else is
asked for is named on the console and not done. Once per instance: keys, files, runcmd, scripts; bootcmd at each boot.

    instance_setup.py ROOT ADDRESS PORT LIMIT   keys, name, files and bootcmd; leaves the rest in STATE for
    instance_setup.py later                     which runs it once sshd is there

Files: RFC 4253 keys as OpenSSH has them; metadata as in "Use the Instance Metadata Service" of the EC2 guide, version 2
where there is one, else 1 (Eucalyptus). Without metadata within LIMIT seconds a host key is made and nobody can log in.
"""

# ruff: noqa: S105, S506, S607, T201 - no password; a subclass of SafeLoader; guests have a PATH; the console is its page
import os
import shlex
import socket
import subprocess  # noqa: TID251 - runs in a guest, where nothing of builder/ is
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Step = Callable[[], object]

STATE = Path("/var/lib/instance-setup")
USER = "debian"
_ANSWER = 10  # seconds for one answer of the service
_TOKEN_LIFE = "300"  # seconds
_KNOWN = {
    *("bootcmd", "runcmd", "write_files", "power_state", "hostname", "fqdn"),
    *("ssh_keys", "ssh_authorized_keys", "ssh_deletekeys", "ssh_genkeytypes", "ssh_pwauth", "disable_root"),
    *("manage_etc_hosts", "preserve_hostname"),  # the image does as they say at best, and says nothing of these
}
_POWER = {"poweroff": "-P", "halt": "-H", "reboot": "-r"}


class Metadata:
    """The service at `place`, asked with plain sockets: http.client imports much, which emulation makes slow."""

    def __init__(self, place: tuple[str, int]) -> None:
        self.place = place
        self.token = ""

    def wait(self, limit: float) -> bool:
        """Ask for a token until anything answers, the network not being up yet; say whether it did in `limit` s."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                status, said = self._ask("PUT", "api/token", f"X-aws-ec2-metadata-token-ttl-seconds: {_TOKEN_LIFE}")
            except OSError:
                time.sleep(0.1)
                continue
            self.token = said.decode() if status == 200 else ""
            return True
        return False

    def get(self, path: str) -> bytes:
        """Return what is at `path`, below latest/; nothing when there is nothing. Raises OSError after six attempts."""
        status, said = 0, b""
        for attempt in range(6):
            try:
                status, said = self._ask("GET", path, f"X-aws-ec2-metadata-token: {self.token}" if self.token else "")
            except OSError:
                status, said = 0, b""
            if status in (200, 404):
                return said if status == 200 else b""
            time.sleep(attempt)
        raise OSError(f"the metadata service does not give latest/{path}: status {status}")

    def _ask(self, verb: str, path: str, header: str) -> tuple[int, bytes]:
        lines = [f"{verb} /latest/{path} HTTP/1.0", f"Host: {self.place[0]}", "Content-Length: 0"]
        with socket.create_connection(self.place, timeout=_ANSWER) as connection:
            connection.sendall("\r\n".join([*lines, *([header] if header else []), "", ""]).encode())
            with connection.makefile("rb") as answer:
                head, _, body = answer.read().partition(b"\r\n\r\n")
        words = head.split(None, 2)
        if len(words) < 2 or not words[1].isdigit():
            raise OSError("no HTTP")
        return int(words[1]), body


class UserData:
    """What user-data asks for: the cloud-config's keys, scripts in their order, and what is not understood."""

    def __init__(self) -> None:
        self.config: dict[str, object] = {}
        self.scripts: list[bytes] = []
        self.strange: list[str] = []

    @property
    def unknown(self) -> list[str]:
        """What is not understood, in words."""
        return [*self.strange, *sorted(f"`{key}:`" for key in self.config.keys() - _KNOWN)]

    def list(self, key: str) -> list[object]:
        """Return a list of the cloud-config; no list counts as an empty one."""
        found = self.config.get(key)
        return found if isinstance(found, list) else []

    def mapping(self, key: str) -> dict[str, object]:
        """Return a mapping of the cloud-config; anything else counts as an empty one."""
        found = self.config.get(key)
        return found if isinstance(found, dict) else {}

    def take(self, data: bytes) -> None:
        """Add what one piece of user-data asks for; of a key that is there twice the last counts."""
        if data.startswith(b"\x1f\x8b"):
            import gzip  # here and below: imports are slow under emulation, and few user-data need them

            data = gzip.decompress(data)
        begin = data.lstrip()
        first = begin.splitlines()[0].strip().decode(errors="replace") if begin else ""
        if first == "#cloud-config":
            self.config.update(_parsed(begin) or {})
        elif first.startswith("#!"):
            self.scripts.append(begin)
        elif first.lower().startswith(("content-type: multipart", "mime-version:")):
            import email

            for part in email.message_from_bytes(begin).walk():
                if isinstance(payload := part.get_payload(decode=True), bytes):
                    self.take(payload)
        elif first:
            self.strange.append(f"user-data that begins with {first[:60]!r}")


def _parsed(data: bytes) -> dict[str, object]:
    text = data.partition(b"\n")[2]
    if text.startswith(b"{"):  # JSON is YAML too, and its reader is there sooner
        import json

        with suppress(ValueError):
            return dict(json.loads(text))
    import yaml

    return dict(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {})


def main() -> None:
    """Set the machine up, or do what comes after."""
    if sys.argv[1:] == ["later"]:
        sys.exit(max([_run(_begun(path)) for path in sorted(STATE.glob("later-*"))], default=0))
    root, address, port, limit = sys.argv[1:]
    service = Metadata((address, int(port)))
    if service.wait(float(limit)):
        troubles = set_up(Path(root), service)
    else:
        _say(f"no metadata at {address} within {limit} s: nobody can log in")
        troubles = 1
    _make_host_key(Path(root))
    _show_host_keys(Path(root))
    sys.exit(min(troubles, 1))


def set_up(root: Path, service: Metadata) -> int:
    """Do what metadata and user-data ask for; return how much of it failed. Keys do not wait for anything else."""
    instance, state = service.get("meta-data/instance-id").decode().strip(), root / STATE.relative_to("/")
    known = state / "instance-id"
    new = not known.exists() or known.read_text() != instance
    told = UserData()
    steps: list[Step] = [
        lambda: told.take(service.get("user-data")),
        lambda: _set_name(root, told, service),
        lambda: _command_file(state / "bootcmd", told.list("bootcmd")) and _run(state / "bootcmd"),
    ]
    if new:
        for old in state.glob("later-*"):
            old.unlink()
        steps = [
            steps.pop(0),
            lambda: _let_in(root, USER, _public_keys(service)),
            lambda: _install_host_keys(root, told.mapping("ssh_keys")),
            lambda: _let_in(root, USER, _further_keys(told)),
            lambda: _let_in_root(root, service, told),
            *steps,
            lambda: _write_files(root, told.list("write_files")),
            lambda: _prepare_rest(state, told),
        ]
    state.mkdir(parents=True, exist_ok=True)
    failed = sum(_failed(step) for step in steps)
    for what in told.unknown:
        _say(f"not understood here, and not done: {what}")
    known.write_text(instance)
    return failed


def _failed(step: Step) -> bool:
    try:
        return bool(step())
    except Exception:  # noqa: BLE001 - the next step may still let somebody in
        _say(traceback.format_exc())
        return True


def _public_keys(service: Metadata) -> list[str]:
    numbers = [line.partition("=")[0] for line in service.get("meta-data/public-keys/").decode().splitlines()]
    return [service.get(f"meta-data/public-keys/{number}/openssh-key").decode().strip() for number in numbers]


def _further_keys(told: UserData) -> list[str]:
    return [str(key) for key in told.list("ssh_authorized_keys")]


def _let_in_root(root: Path, service: Metadata, told: UserData) -> None:
    if told.config.get("disable_root", True) is False:
        _let_in(root, "root", [*_public_keys(service), *_further_keys(told)])


def _let_in(root: Path, name: str, keys: list[str]) -> None:
    accounts = (line.split(":") for line in (root / "etc/passwd").read_text().splitlines())
    _, _, user, group, _, place, _ = next(account for account in accounts if account[0] == name)
    home = root / place.lstrip("/")
    directory, file = home / ".ssh", home / ".ssh" / "authorized_keys"
    directory.mkdir(mode=0o700, exist_ok=True)
    had = file.read_text() if file.exists() else ""
    _write(file, had + "".join(f"{key}\n" for key in keys if key not in had), 0o600)
    for path in (directory, file):
        os.chown(path, int(user), int(group))


def _install_host_keys(root: Path, keys: dict[str, object]) -> None:
    """Replace the host keys by those of user-data (`ed25519_private`, ...); without any, remove another machine's."""
    for old in (root / "etc/ssh").glob("ssh_host_*_key*"):
        old.unlink()
    for name, text in keys.items():
        kind, _, part = str(name).rpartition("_")
        suffix = {"private": "", "public": ".pub", "certificate": "-cert.pub"}[part]
        mode = 0o644 if suffix else 0o600
        _write(root / f"etc/ssh/ssh_host_{kind}_key{suffix}", str(text).rstrip("\n") + "\n", mode)


def _make_host_key(root: Path) -> None:
    if not list((root / "etc/ssh").glob("ssh_host_*_key")):
        key = root / "etc/ssh/ssh_host_ed25519_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)


def _show_host_keys(root: Path) -> None:
    """Print them as cloud-init does, so that whoever reads the console output knows the machine."""
    _say("-----BEGIN SSH HOST KEY KEYS-----")
    for path in sorted((root / "etc/ssh").glob("ssh_host_*_key")):
        public = path.with_suffix(".pub")
        if not public.exists():
            found = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True)
            _write(public, found.stdout, 0o644)
        _say(public.read_text().strip())
    _say("-----END SSH HOST KEY KEYS-----")


def _set_name(root: Path, told: UserData, service: Metadata) -> None:
    """Set the hostname, /etc/hosts first: sudo looks it up at any moment."""
    named = told.config.get("fqdn") or told.config.get("hostname")
    full = str(named or service.get("meta-data/local-hostname").decode().split(" ")[0].strip())
    short = full.partition(".")[0]
    if not short:
        return
    now = socket.gethostname()
    names = " ".join(dict.fromkeys([full, short, now]))
    hosts = f"127.0.0.1 localhost\n127.0.1.1 {names}\n::1 localhost ip6-localhost ip6-loopback\n"
    _write(root / "etc/hosts", hosts, 0o644)
    _write(root / "etc/hostname", f"{short}\n", 0o644)
    if root == Path("/"):
        socket.sethostname(short)


def _write_files(root: Path, files: list[object]) -> None:
    import base64
    import gzip
    import shutil

    for entry in files:
        content, encoding = entry.get("content", ""), str(entry.get("encoding", ""))  # type: ignore[attr-defined]
        content = content if isinstance(content, bytes) else str(content).encode()  # bytes: YAML's !!binary
        if any(word in encoding for word in ("b64", "base64", "gz+b64")):
            content = base64.b64decode(content)
        if encoding.startswith(("gz", "gzip")):
            content = gzip.decompress(content)
        path = root / str(entry["path"]).lstrip("/")  # type: ignore[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab" if entry.get("append") else "wb") as file:  # type: ignore[attr-defined]
            file.write(content)
        mode = entry.get("permissions", 0o644)  # type: ignore[attr-defined]
        path.chmod(mode if isinstance(mode, int) else int(mode, 8))  # YAML reads 0600 without quotes as that number
        if owner := entry.get("owner"):  # type: ignore[attr-defined]
            user, _, group = owner.partition(":")
            shutil.chown(path, user, group or None)


def _prepare_rest(state: Path, told: UserData) -> None:
    _command_file(state / "later-1-runcmd", told.list("runcmd"))
    for number, script in enumerate(told.scripts):
        _write(state / f"later-2-script-{number:03}", script, 0o700)
    if power := told.mapping("power_state"):
        delay = str(power.get("delay", "now"))
        delay = delay if delay == "now" or delay.startswith("+") else f"+{delay}"
        words = ["shutdown", _POWER[str(power["mode"])], delay, str(power.get("message", ""))]
        _command_file(state / "later-3-power_state", [[word for word in words if word]])


def _command_file(path: Path, commands: list[object]) -> bool:
    """Write commands as a script, as cloud-init does: a list is words, a text a line of the shell. False for none."""
    lines = [shlex.join(map(str, each)) if isinstance(each, list) else str(each) for each in commands]
    if lines:
        _write(path, "\n".join(["#!/bin/sh", *lines, ""]), 0o700)
    return bool(lines)


def _begun(path: Path) -> Path:
    """Return the new name of a script that is not to be run another time, whatever becomes of it."""
    return path.rename(path.with_name(path.name.replace("later-", "begun-", 1)))


def _run(path: Path) -> int:
    status = subprocess.run([path], check=False, stdin=subprocess.DEVNULL).returncode
    if status:
        _say(f"{path.name} of the user-data ended with status {status}")
    return status


def _write(path: Path, text: str | bytes, mode: int) -> None:
    """Replace the file in one moment, with its mode from the beginning."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    new.replace(path)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
