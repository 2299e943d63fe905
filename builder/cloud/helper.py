"""An instance that works for us for a while: launched under a claim, reached by keys of our own, removed with all.

Order of making, each under the claim's token or name: keys (files of ours, durable), key pair, security group,
instance. A crash leaves a beginning of that list; `find` finds the instance, `start` goes on where it ended, `release`
removes whatever there is, in the opposite order. docs/design/claims.md has each crash window.

The instance has host keys that we made, so that the first connection knows it, and ends itself when nobody extends its
time (user_data.py). A user's own instance is no lease of ours: nothing here changes it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from builder.cloud import user_data
from builder.cloud.api import Cloud
from builder.cloud.claims import TAG, Claim, only
from builder.cloud.instances import InstanceRecord, InstanceSpec, is_running, wait_running, wait_terminated
from builder.cloud.limits import limits
from builder.cloud.source_address import network, source_of
from builder.cloud.wait import found_within
from builder.durable import write_file
from builder.errors import (
    CloudConflict,
    CloudError,
    CloudFailed,
    CloudNotFound,
    EmiError,
    HostKeyWrong,
    RemoteAway,
    RemoteDenied,
    RemoteTrouble,
)
from builder.progress import SILENT, Progress
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair

LOGIN = "login"  # the file of the private key that logs in, in the directory of the lease's keys
_HOST_KEYS = ("host-ed25519", "host-rsa")
_TAIL = 25  # lines of the console in an error
_TRY = 20.0  # seconds of each attempt to log in, between two looks at the instance
_DESCRIPTION = "emi helper, made at {}"  # holdings.py reads the moment: groups have no time of their own


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What kind of helper is wanted; None leaves it to the cloud.

    `ssh_from` is the network that may reach it, None: this machine's address (source_address.py). `seconds` is how long
    it lives when nobody extends its time. `address` says by which of its addresses it is reached.
    """

    image_id: str
    instance_type: str | None = None
    zone: str | None = None
    user: str = "root"
    ssh_from: str | None = None
    address: Literal["public", "private"] = "public"
    form: user_data.Form = "cloud-init"
    seconds: int = 7200
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SshPatience:
    """How long SSH is waited for, in seconds: in all, and while the machine answers and refuses our key.

    It may do so for a while: what installs the key may come after sshd.
    """

    total: float = 900
    denied: float = 300


_PATIENCE = SshPatience()


@dataclass(frozen=True, kw_only=True)
class Ready:
    """An instance that has let us in, and how."""

    instance: InstanceRecord
    login: Login


def source(cloud: Cloud, wish: Wish) -> str:
    """Return the network from which the helper is to be reached. Raises UsageError when it must be said."""
    return network(wish.ssh_from) if wish.ssh_from else source_of(cloud.url("ec2"))


def find(cloud: Cloud, claim: Claim) -> str | None:
    """Return the id of the claim's instance, if there is one that is not about to be gone. Only reads."""
    return only(claim, [one.instance_id for one in cloud.find_instances(claim) if not one.ending], "instance")


def start(cloud: Cloud, claim: Claim, wish: Wish, keys: Path, *, progress: Progress = SILENT) -> str:
    """Launch the helper and return its id at once; what a killed attempt has made already is taken as it is.

    `keys` is a directory (0700) that lasts as long as the lease: the private keys are there, for their owner only,
    before anything is in the cloud. Raises CloudNotFound when the claim's instance was terminated: release it, and
    lease under the next generation. Raises UsageError, before anything is made, when who may log in must be said.
    """
    cidr = source(cloud, wish)
    made = not (keys / LOGIN).exists()
    login, host_keys = _keys(cloud, keys)
    if made:
        cloud.delete_key_pair(claim)  # of a key that is lost
    progress.note("making the helper's key pair and security group")
    name = cloud.import_key_pair(claim, login.public, wish.tags)
    group = cloud.create_security_group(claim, _DESCRIPTION.format(_now()), wish.tags)
    cloud.allow_ssh(group, cidr)
    progress.note(f"launching a helper from {wish.image_id}")
    spec = InstanceSpec(
        image_id=wish.image_id,
        instance_type=wish.instance_type or _type(cloud, wish.image_id),
        zone=wish.zone,
        key_name=name,
        security_group_ids=(group,),
        user_data=user_data.user_data(wish.form, host_keys=host_keys, login=login.public, seconds=wish.seconds),
        tags=wish.tags,
    )
    return cloud.run_instance(claim, spec)


def ready(
    cloud: Cloud,
    claim: Claim,
    instance_id: str,
    wish: Wish,
    keys: Path,
    *,
    patience: SshPatience = _PATIENCE,
    progress: Progress = SILENT,
) -> Ready:
    """Return once the helper lets us in; re-entrant.

    Where this machine's address has changed, it is let in too. Raises CloudFailed when the instance ended or stopped,
    or its keys are not here: it is of no use then, release it. Raises RemoteAway, RemoteDenied or HostKeyWrong, with
    the last lines of its console, when it does not let us in.
    """
    if not (keys / LOGIN).exists():
        raise CloudFailed(f"the keys of helper {instance_id} are not in {keys}: nobody can log in to it any more")
    login, host_keys = _keys(cloud, keys)
    record = wait_running(cloud, instance_id, progress=progress)
    if record.tags.get(TAG) != claim.token:
        cloud.tag_instance(instance_id, claim, wish.tags)  # a crash came between RunInstances and CreateTags
    _admit(cloud, claim, wish)
    record = _addressed(cloud, record, wish, progress)
    host = _address(record, wish)
    entry = Login(host=host, user=wish.user, key=login, pinned=tuple(key.public for key in host_keys))
    _wait_for_ssh(cloud, entry, instance_id, wish, _Waiting(patience), progress)
    return Ready(instance=record, login=entry)


def extend(shell: Shell, seconds: int) -> None:
    """Let the helper live for `seconds` from now. Does nothing on a machine that is not to end itself."""
    shell.script(user_data.extension(seconds), root=True, timeout=60, shown="a longer life for the helper")


def is_usable(cloud: Cloud, instance_id: str) -> bool:
    """Say whether the instance runs, or is about to. Only reads."""
    record = cloud.describe_instance(instance_id)
    return record is not None and record.state in ("pending", "running")


def release(cloud: Cloud, claim: Claim, *, instance_id: str | None = None, progress: Progress = SILENT) -> None:
    """Terminate the claim's instance, wait until it is, then remove its security group and its key pair.

    Re-entrant, and fine when any of it is gone. The group cannot go while an instance has it: when one that no describe
    shows yet keeps it, that is waited for. The directory of the keys is the caller's to remove, after this.
    """
    ids = {one.instance_id for one in cloud.find_instances(claim) if one.state != "terminated"}
    _terminate(cloud, ids | ({instance_id} if instance_id else set()), progress)
    group = cloud.find_security_group(claim)
    if group is not None:
        _delete_group(cloud, claim, group.group_id, progress)
    cloud.delete_key_pair(claim)


def _terminate(cloud: Cloud, ids: set[str], progress: Progress) -> None:
    for one in sorted(ids):
        cloud.terminate_instance(one)
    for one in sorted(ids):
        wait_terminated(cloud, one, progress=progress)


def _delete_group(cloud: Cloud, claim: Claim, group_id: str, progress: Progress) -> None:
    """Delete the group; what still has it may be an instance that no describe shows yet, or one that has just ended."""
    until = time.time() + limits().settle

    def gone() -> bool | None:
        try:
            cloud.delete_security_group(group_id)
        except CloudConflict:
            found = cloud.find_instances(claim)
            _terminate(cloud, {one.instance_id for one in found if one.state != "terminated"}, progress)
            return None
        return True

    if found_within(gone, until=until, what=f"what still has the security group {group_id}", progress=progress) is None:
        raise CloudConflict(
            f"the security group {group_id} of the helper is still in use {limits().settle:.0f} s after its end",
            hint=f"Look what else has it: DescribeNetworkInterfaces, filter group-id={group_id}. `emi gc` removes it.",
        )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _keys(cloud: Cloud, place: Path) -> tuple[KeyPair, tuple[KeyPair, ...]]:
    """Return the key that logs in and the host keys; those that are not there yet are made, and are durable then.

    The one that logs in is written last: where it is, all are.
    """
    hosts = tuple(_kept(place / name, rsa=name.endswith("rsa")) for name in _HOST_KEYS)
    return _kept(place / LOGIN, rsa="ed25519" not in cloud.capabilities.key_kinds), hosts


def _kept(path: Path, *, rsa: bool) -> KeyPair:
    if not path.exists():
        made = KeyPair.generate_rsa() if rsa else KeyPair.generate()
        write_file(path, made.private, private=True)
    # Byte for byte as it is there: read and written again it would differ each time, and so the user data.
    return KeyPair(private=path.read_bytes(), public=KeyPair.read(path).public)


def _type(cloud: Cloud, image_id: str) -> str | None:
    """Return what to launch where no type is named: one of the image's architecture."""
    types = cloud.capabilities.instance_types
    image = cloud.describe_image(image_id) if len(types) > 1 else None
    return types.get(image.architecture if image else "x86_64")


def _admit(cloud: Cloud, claim: Claim, wish: Wish) -> None:
    group = cloud.find_security_group(claim)
    cidr = source(cloud, wish)
    if group is not None and cidr not in group.ssh_from:
        cloud.allow_ssh(group.group_id, cidr)


def _addressed(cloud: Cloud, record: InstanceRecord, wish: Wish, progress: Progress) -> InstanceRecord:
    """Return the instance with its address, which some clouds show a little after they say `running`."""
    if not _address(record, wish):

        def look() -> InstanceRecord | None:
            found = cloud.describe_instance(record.instance_id)
            return found if found and (is_running(found) and _address(found, wish)) else None

        until = time.time() + limits().settle
        found = found_within(look, until=until, what=f"the address of {record.instance_id}", progress=progress)
        if found is None:
            raise CloudFailed(
                f"instance {record.instance_id} runs, but has no {wish.address} address",
                hint="Launch it where instances have public addresses, or say `address: private` if you reach those.",
            )
        return found
    return record


def _address(record: InstanceRecord, wish: Wish) -> str:
    return record.address if wish.address == "public" else record.private_address


class _Waiting:
    """Waits for SSH: since when, why the last attempt failed, and since when nothing but refusals of our key came."""

    def __init__(self, patience: SshPatience) -> None:
        self.patience, self.began = patience, time.monotonic()
        self.why = ""
        self.refused: float | None = None

    def waited(self) -> float:
        return time.monotonic() - self.began

    def is_over(self, error: EmiError) -> bool:
        """Take note of a failed attempt, and say whether there is to be no other."""
        self.why = error.message.partition("\n")[0]
        if not isinstance(error, RemoteDenied):
            self.refused = None
            return self.waited() >= self.patience.total
        now = time.monotonic()
        self.refused = self.refused or now
        return self.waited() >= self.patience.total or now - self.refused >= self.patience.denied

    def __str__(self) -> str:
        why = f"; {self.why}" if self.why else ""
        return f"{self.waited():.0f} s, at most {self.patience.total:.0f} s{why}"


def _wait_for_ssh(
    cloud: Cloud, login: Login, instance_id: str, wish: Wish, waiting: _Waiting, progress: Progress
) -> None:
    """Return once a command has run there. Between attempts it is looked whether the instance still runs."""
    while True:
        progress.note(f"waiting for SSH at {instance_id} ({login.host}; {waiting})")
        try:
            with Remote(login, patience=_TRY) as remote:
                Shell(remote).is_root()
                return
        except (RemoteAway, RemoteTrouble, RemoteDenied, HostKeyWrong) as error:
            # A script sets the host keys when sshd runs already with others; a wrong one was told nothing.
            early = wish.form == "script" if isinstance(error, HostKeyWrong) else True
            if waiting.is_over(error) or not early:
                raise _with_console(cloud, instance_id, error) from error
            try:
                is_running(_described(cloud, instance_id))
            except CloudFailed as ended:
                raise _with_console(cloud, instance_id, ended) from error
            if isinstance(error, RemoteDenied | HostKeyWrong):
                time.sleep(1)  # it answers, so that nothing else has made us wait


def _described(cloud: Cloud, instance_id: str) -> InstanceRecord:
    record = cloud.describe_instance(instance_id)
    if record is None:
        raise CloudNotFound(f"helper {instance_id} is gone, says the cloud")
    return record


def _with_console(cloud: Cloud, instance_id: str, error: EmiError) -> EmiError:
    """Return the error with the last lines that the instance printed on its console, where they can be had."""
    try:
        said = cloud.console_output(instance_id).splitlines()[-_TAIL:]
    except CloudError as other:
        said = [f"(cannot be had: {other.message})"]
    lines = "\n".join(said) or "(nothing yet)"
    return type(error)(f"{error.message}\nthe last lines of the console of {instance_id}:\n{lines}", hint=error.hint)
