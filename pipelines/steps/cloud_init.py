"""The step kind `cloud-init`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from builder.errors import GuestError
from builder.guest import cloudinit
from builder.guest.cloudinit import Datasource
from builder.guest.edits import Edit, Remove, Unchanged, WriteFile
from builder.guest.facts import GuestFacts
from builder.guest.os import read_system
from pipelines.step import GuestStep, Options

Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
Link = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+[^\s]*$")]


class DefaultUser(Options):
    """The user that cloud-init makes at first boot and gives the instance's key."""

    name: Name | None = Field(default=None, description="login name")
    gecos: str | None = Field(default=None, description="full name")
    shell: str | None = Field(default=None, pattern=r"^/[^\s:]+$", description="login shell, a path")
    groups: tuple[Name, ...] | None = Field(default=None, description="groups it is in; a list that replaces the old")
    sudo: tuple[str, ...] | None = Field(
        default=None, description="rules for sudoers, like `ALL=(ALL) NOPASSWD:ALL`; an empty list for none"
    )
    lock_passwd: bool | None = Field(default=None, description="no login by password")


class Ec2(Options):
    """How the Ec2 datasource finds its cloud."""

    strict_id: bool | None = Field(
        default=None,
        description="`false` asks for metadata also where the firmware does not say Amazon's name, as on Eucalyptus",
    )
    metadata_urls: tuple[Link, ...] | None = Field(
        default=None, min_length=1, description="where metadata is, like `http://169.254.169.254`, without a path"
    )
    max_wait: int | None = Field(default=None, ge=0, description="seconds to wait for metadata in all")
    timeout: int | None = Field(default=None, ge=1, description="seconds to wait for one answer")


class CloudInitOptions(Options):
    """What cloud-init is to do at first boot. What is not given stays as it is in the image."""

    datasources: tuple[Datasource, ...] | None = Field(
        default=None, min_length=1, description="where cloud-init looks for its cloud, in this order"
    )
    ec2: Ec2 | None = Field(default=None, description="settings of the datasource `Ec2`")
    identify: bool | None = Field(
        default=None,
        description="`true`: the firmware's name for the machine decides which datasources are tried, and whether "
        "cloud-init runs; `false`: all are tried in order. Not given: `false` where `strict_id` is, else as it is",
    )
    default_user: DefaultUser | None = Field(default=None, description="the user made at first boot")
    growpart: bool | None = Field(
        default=None, description="grow the root partition and its filesystem to the size of the disk"
    )
    purge: bool = Field(
        default=False, description="remove what cloud-init remembers of a machine it ran on: state, seed, logs, network"
    )
    keep_seed: bool = Field(
        default=False, description="`purge` leaves /var/lib/cloud/seed, NoCloud's data in the image"
    )


class CloudInit(GuestStep[CloudInitOptions]):
    """Choose cloud-init's datasources and settings, and make it forget the machine it ran on.

    Settings go into one file, /etc/cloud/cloud.cfg.d/99-emi-ec2.cfg, which wins over the distribution's own, Debian's
    and Ubuntu's 90_dpkg.cfg included (what `dpkg-reconfigure cloud-init` writes); mappings are merged key by key and
    lists replaced, as cloud-init does it. What an earlier `cloud-init` step wrote there stays unless it is said anew. A
    file that is read still later and says otherwise is an error. A guest without cloud-init is one too.

    ds-identify, which most systems run before cloud-init, knows Amazon by its firmware; on Eucalyptus and with several
    datasources it would switch cloud-init off. So `strict_id: false` also sets its policy to `enabled`. A datasource
    fixed on the kernel's command line (`ci.ds=`) wins over every file: the report names it, a `grub` step mends it.
    """

    options = CloudInitOptions

    def check(self, options: CloudInitOptions) -> Sequence[str]:
        """Return what is wrong with the options beyond their types."""
        problems = []
        listed = options.datasources or ()
        if len(set(listed)) < len(listed):
            problems.append("`datasources` names one twice")
        if "None" in listed[:-1]:
            problems.append("`None` ends the search: it can only be the last of `datasources`")
        if options.ec2 is not None and listed and "Ec2" not in listed:
            problems.append("`ec2` has settings for a datasource that `datasources` does not name")
        if options.keep_seed and not options.purge:
            problems.append("`keep_seed` is for `purge: true`")
        if not options.purge and not _wanted(options) and options.identify is None:
            problems.append("nothing is asked for: give `datasources`, `purge` or another option")
        return problems

    def edits(
        self, options: CloudInitOptions, facts: GuestFacts, pins: Mapping[str, Any]
    ) -> Sequence[Edit] | Unchanged:
        """Write the settings that differ, and remove state that is there."""
        wanted = _wanted(options)
        if wanted or options.identify is not None:
            _require_installed(facts)
            _require_capable(options, facts)
        settings = _settings(wanted, facts) if wanted else []
        edits = [*settings, *_identify(options, facts), *_enable(options, facts), *_purge(options, facts)]
        return edits or Unchanged(why=_nothing(options))


def _wanted(options: CloudInitOptions) -> dict[str, Any]:
    """Return the settings as cloud-init has them."""
    wanted: dict[str, Any] = {}
    if options.datasources:
        wanted["datasource_list"] = list(options.datasources)
    if options.ec2 and (ec2 := _given(options.ec2)):
        wanted["datasource"] = {"Ec2": ec2}
    if options.growpart is not None:
        wanted["growpart"] = {"mode": "auto", "devices": ["/"]} if options.growpart else {"mode": "off"}
        wanted["resize_rootfs"] = options.growpart
    if options.default_user and (user := _given(options.default_user)):
        wanted["system_info"] = {"default_user": user}
    return wanted


def _given(options: Options) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.model_dump(exclude_none=True).items()
    }


def _require_installed(facts: GuestFacts) -> None:
    if cloudinit.installed(facts):
        return
    system = read_system(facts)
    if system.family == "flatcar":
        raise GuestError(f"{system} has no cloud-init: it is set up by Ignition", hint="Leave this step out.")
    raise GuestError(
        f"cloud-init is not installed in the guest ({system})",
        hint="Put a `packages` step with `install: [cloud-init]` before this one.",
    )


def _require_capable(options: CloudInitOptions, facts: GuestFacts) -> None:
    present = cloudinit.datasources(facts)
    lacking = [name for name in options.datasources or () if present and name not in present]
    if lacking:
        raise GuestError(
            f"the guest's cloud-init has no datasource {' or '.join(lacking)}; it has {', '.join(present)}",
            hint="Leave it out of `datasources`, or install a newer cloud-init with a `packages` step.",
        )
    if options.growpart and not any(map(facts.exists, ("/usr/bin/growpart", "/usr/sbin/growpart"))):
        raise GuestError(
            "`growpart: true` needs the program growpart, which is not in the guest: cloud-init would do nothing",
            hint="A `packages` step installs it: cloud-guest-utils on Debian and Ubuntu, else cloud-utils-growpart.",
        )


def _settings(wanted: Mapping[str, Any], facts: GuestFacts) -> list[Edit]:
    before = cloudinit.ours(facts)
    merged = cloudinit.merge(before, wanted)
    if path := cloudinit.overruling(facts, wanted):
        raise GuestError(
            f"{path} in the guest says otherwise and is read after {cloudinit.OURS}",
            hint="Remove it with a `files` step before this one.",
        )
    if merged == before:
        return []
    why = f"{cloudinit.OURS} sets {', '.join(_told(wanted))}"
    if words := cloudinit.chosen_by_kernel(facts):
        why += f"; the kernel's command line says {' '.join(words)}, which wins over it"
    return [WriteFile(path=cloudinit.OURS, data=cloudinit.render(merged), why=why)]


def _told(wanted: Mapping[str, Any]) -> list[str]:
    told = []
    for key, value in wanted.items():
        match value:
            case dict():
                told += [f"{key}.{each}" for each in _told(value)]
            case list():
                told.append(f"{key} to {' '.join(map(str, value)) or 'nothing'}")
            case bool():
                told.append(f"{key} to {str(value).lower()}")
            case _:
                told.append(f"{key} to {value}")
    return told


def _identify(options: CloudInitOptions, facts: GuestFacts) -> list[Edit]:
    if not cloudinit.has_ds_identify(facts):
        return []
    identify = options.identify
    if identify is None and options.ec2 and options.ec2.strict_id is False:
        identify = False
    before = facts.text(cloudinit.DS_IDENTIFY)
    fixed = cloudinit.fixed_datasource(before)
    others = set(options.datasources or ()) - {fixed, "None"}
    if identify is None and not (fixed and others):
        return []
    policy = {None: None, True: "search", False: "enabled"}[identify]
    text = cloudinit.identified(before, policy)
    if text == before:
        return []
    said = [f"sets policy {policy}"] if policy else []
    said += [f"fixes {fixed} no more"] if fixed else []
    data = text.encode("utf-8", "surrogateescape")
    return [WriteFile(path=cloudinit.DS_IDENTIFY, data=data, why=f"{cloudinit.DS_IDENTIFY} {' and '.join(said)}")]


def _enable(options: CloudInitOptions, facts: GuestFacts) -> list[Edit]:
    if options.datasources is None or not facts.exists(cloudinit.DISABLED):
        return []
    return [Remove(paths=(cloudinit.DISABLED,), why=f"removed {cloudinit.DISABLED}, so that cloud-init runs")]


def _purge(options: CloudInitOptions, facts: GuestFacts) -> list[Edit]:
    found = cloudinit.state(facts, keep_seed=options.keep_seed) if options.purge else ()
    if not found:
        return []
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    return [Remove(paths=found, why=f"removed cloud-init's state: {shown}")]


def _nothing(options: CloudInitOptions) -> str:
    said = []
    if _wanted(options) or options.identify is not None:
        said.append(f"{cloudinit.OURS} says all of it already")
    if options.purge:
        said.append("cloud-init has no state here")
    return "; ".join(said)
