"""The step kind `helper`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from builder.cloud import helper, keeper
from builder.cloud.api import Call, Cloud
from builder.cloud.claims import Claim, tag_problems
from builder.cloud.helper import Wish
from builder.cloud.instances import InstanceRecord, is_running
from builder.durable import write_file
from builder.errors import CloudConflict, CloudFailed, EmiError, UsageError
from builder.remote.command import Shell
from builder.remote.connection import Login, Remote
from builder.remote.keys import KeyPair, is_public
from pipelines.artifact import AnyArtifact, Helper, MachineImage
from pipelines.lease import LeaseStep
from pipelines.step import NOTHING, Before, Inputs, Options, Reference, Work

_KNOWN = "known_hosts"  # for a person who logs in by hand, in the lease's directory
_CALLS = (
    "AuthorizeSecurityGroupIngress",
    "CreateSecurityGroup",
    "CreateTags",
    "DeleteKeyPair",
    "DeleteSecurityGroup",
    "DescribeImages",
    "DescribeInstances",
    "DescribeSecurityGroups",
    "GetConsoleOutput",
    "ImportKeyPair",
    "RunInstances",
    "TerminateInstances",
)
_OF_OURS = ("instance_type", "zone", "ssh_from", "user_data", "ends_after", "tags")
_ELSEWHERE = "With a `zone:` of its own in the recipe it is launched there, and the volume is made and written anew."


class HelperOptions(Options):
    """Which instance helps: one that is launched for it, or one of the user's own."""

    image: Annotated[str | None, Reference(MachineImage)] = Field(
        default=None, description="the `register` step whose image the helper is launched from"
    )
    image_id: str | None = Field(
        default=None, description="instead of `image`: an image that is registered already, `ami-…` or `emi-…`"
    )
    instance: str | None = Field(
        default=None,
        description="instead of both: an instance of your own that runs, `i-…`; never terminated nor rebooted, and "
        "left as it was found",
    )
    instance_type: str | None = Field(
        default=None, description="what is launched; by default t3.small or t4g.small, on Eucalyptus the cloud's own"
    )
    zone: str | None = Field(
        default=None,
        description="its availability zone; by default that of the volume that a failed run has kept, else the cloud "
        "chooses",
    )
    user: str = Field(default="root", description="who logs in; where it is not root, sudo must ask for no password")
    ssh_from: str | None = Field(
        default=None,
        description="the network that may reach it by SSH, `198.51.100.7/32`; by default this machine's own address, "
        "where the cloud sees that: behind a translation of addresses (NAT) it must be said",
    )
    address: Literal["public", "private"] = Field(
        default="public", description="by which of its addresses it is reached"
    )
    user_data: Literal["cloud-init", "script"] = Field(
        default="cloud-init",
        description="how it learns its host keys: `cloud-init` does it before sshd starts; `script` is for images "
        "without cloud-init that run user data which begin with `#!`",
    )
    ends_after: int = Field(
        default=120, ge=10, le=10080, description="minutes after which it ends itself when emi is gone"
    )
    private_key: str | None = Field(
        default=None, description="with `instance`: the file of the private key that logs in; `~` is your home"
    )
    host_key: str | None = Field(
        default=None, description="with `instance`: its public host key, `ssh-ed25519 AAAA…`; else ~/.ssh/known_hosts"
    )
    tags: dict[str, str] = Field(default_factory=dict, description="tags of what is launched and made for it")


class HelperStep(LeaseStep[HelperOptions]):
    """Lease an instance that later steps work on: it is there only while they do.

    It is launched with a key pair and a security group of its own, which lets SSH in from one network only; its host
    keys were made here, so that it is known from the first connection; it takes IMDSv2 only, where the cloud knows
    that. It ends itself when emi is gone for `ends_after` minutes. All of it carries the claim's token, and is removed
    when the last step that needs it is done, or one has failed. An unchanged recipe, run again, launches nothing.

    With `instance` it is one of your own, which is only logged in to. It is known by `host_key`, or your known_hosts.
    """

    options = HelperOptions
    returns = Helper

    def check(self, options: HelperOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        given = [name for name in ("image", "image_id", "instance") if getattr(options, name)]
        wrong = list(tag_problems(options.tags))
        if len(given) != 1:
            wrong.append("give one of `image` (a step's id), `image_id` and `instance`")
        if options.instance:
            wrong += [f"`{name}` is not for `instance`" for name in _OF_OURS if options.given(name)]
            if not options.private_key:
                wrong.append("`instance` needs a `private_key`: the file of the key that it lets in")
        elif options.private_key or options.host_key:
            wrong.append("`private_key` and `host_key` are for `instance`; a helper that is launched gets its own")
        if options.host_key and not is_public(options.host_key):
            wrong.append("`host_key` is not a public key: `ssh-ed25519 AAAA…`, without a machine's name before it")
        return wrong

    def calls(self, options: HelperOptions) -> Sequence[Call]:
        """Return every kind of API call that the step may make."""
        actions = ("DescribeInstances",) if options.instance else _CALLS
        return tuple(Call("ec2", action) for action in actions)

    def preflight(self, options: HelperOptions, cloud: Cloud, before: Before = NOTHING) -> None:
        """Raise what would be found out later: nothing there to launch or log in to, or nobody knows from where."""
        if options.instance:
            _running(cloud, options.instance)
            _own_key(options)
            return
        helper.source(cloud, _wish(options, Inputs(), {}))
        if options.image_id and cloud.describe_image(options.image_id) is None:
            raise UsageError(f"the image {options.image_id} of the step `helper` does not exist in {cloud.region}")

    def find(self, options: HelperOptions, claim: Claim, cloud: Cloud) -> str | None:
        """Return the id of the claim's instance; of a user's own, that."""
        return options.instance or helper.find(cloud, claim)

    def acquire(self, options: HelperOptions, inputs: Inputs, claim: Claim, cloud: Cloud, work: Work) -> str:
        """Launch it. What was made before a refusal is removed at once."""
        wish = _wish(options, inputs, work.labels)
        wish = replace(wish, zone=wish.zone or work.zone)
        try:
            return helper.start(cloud, claim, wish, work.scratch, progress=work.progress)
        except EmiError as error:
            if work.zone and not options.zone:
                error.message += f"\nit is launched in {work.zone}, where the volume is that an earlier run has kept"
                error.hint = f"{error.hint} {_ELSEWHERE}".strip()
            if error.retryable:  # it may have taken effect: the next attempt goes on
                raise
            try:
                helper.release(cloud, claim, progress=work.progress)
            except EmiError as second:
                error.message += f"\nwhat was made for it is still there: {second.message}"
            raise

    def ready(self, options: HelperOptions, inputs: Inputs, held: str, cloud: Cloud, work: Work) -> Helper:
        """Wait until it lets us in, and extend its time from then on."""
        if options.instance:
            return self._own(options, cloud)
        assert work.claim
        wish = _wish(options, inputs, work.labels)
        found = helper.ready(cloud, work.claim, held, wish, work.scratch, progress=work.progress)
        keeper.keep(held, found.login, wish.seconds)
        known = "".join(f"{found.login.host} {key}\n" for key in found.login.pinned)
        write_file(work.scratch / _KNOWN, known.encode())
        return Helper(
            instance_id=held,
            address=found.login.host,
            user=found.login.user,
            key_file=f"leases/{work.scratch.name}/{helper.LOGIN}",
            host_keys=found.login.pinned,
            zone=found.instance.zone,
        )

    def present(self, held: str, cloud: Cloud) -> bool:
        """Say whether it runs, or is about to."""
        return helper.is_usable(cloud, held)

    def release(self, options: HelperOptions, held: str, cloud: Cloud, work: Work) -> None:
        """Terminate it, wait until it is, and remove its group and key pair; a user's own is left alone."""
        if options.instance:
            return
        assert work.claim
        keeper.let_go(held)
        helper.release(cloud, work.claim, instance_id=held, progress=work.progress)

    def clear(self, options: HelperOptions, cloud: Cloud, work: Work) -> None:
        """Remove the group and the key pair of a launch that was killed before it."""
        if not options.instance:
            assert work.claim
            helper.release(cloud, work.claim, progress=work.progress)

    def by_hand(self, options: HelperOptions, held: str, artifact: AnyArtifact | None, home: Path) -> str:
        """Return how to log in, and how to remove it."""
        if options.instance:
            return f"{held} is your own"
        remove = (
            f"`emi gc --older-than 0 --yes {held}` removes it; by itself it ends after {options.ends_after} minutes"
        )
        if not isinstance(artifact, Helper):
            return remove
        key = home / artifact.key_file
        words = ["ssh", "-i", str(key), "-o", f"UserKnownHostsFile={key.with_name(_KNOWN)}"]
        return f"`{shlex.join([*words, f'{artifact.user}@{artifact.address}'])}` logs in; {remove}"

    def _own(self, options: HelperOptions, cloud: Cloud) -> Helper:
        assert options.instance
        assert options.private_key
        record = _running(cloud, options.instance)
        address = record.address if options.address == "public" else record.private_address
        if not address:
            raise CloudConflict(f"instance {options.instance} has no {options.address} address")
        known = None if options.host_key else Path("~/.ssh/known_hosts").expanduser()
        pinned = (options.host_key,) if options.host_key else ()
        login = Login(host=address, user=options.user, key=_own_key(options), pinned=pinned, known_hosts=known)
        with Remote(login, patience=60) as remote:
            Shell(remote).is_root()
        return Helper(
            instance_id=options.instance,
            address=address,
            user=options.user,
            key_file=str(Path(options.private_key).expanduser().absolute()),
            host_keys=pinned,
            known_hosts=str(known) if known else None,
            zone=record.zone,
            ours=False,
        )


def _wish(options: HelperOptions, inputs: Inputs, labels: Mapping[str, str]) -> Wish:
    registered = inputs.named.get("image")
    image = registered.image_id if isinstance(registered, MachineImage) else options.image_id
    return Wish(
        image_id=image or "",
        instance_type=options.instance_type,
        zone=options.zone,
        user=options.user,
        ssh_from=options.ssh_from,
        address=options.address,
        form=options.user_data,
        seconds=60 * options.ends_after,
        tags={**labels, **options.tags},
    )


def _running(cloud: Cloud, instance_id: str) -> InstanceRecord:
    """Return the user's own instance. Raises UsageError unless it runs: it is not started by us."""
    record = cloud.describe_instance(instance_id)
    try:
        if record is not None and is_running(record):
            return record
    except CloudFailed:
        pass
    state = record.state if record else "not there"
    raise UsageError(f"the instance {instance_id} of the step `helper` is {state}", hint="Start it, then run again.")


def _own_key(options: HelperOptions) -> KeyPair:
    assert options.private_key
    return KeyPair.read(Path(options.private_key).expanduser())
