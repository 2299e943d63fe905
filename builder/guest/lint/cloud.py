"""Rules on what makes an instance of an image: cloud-init, its datasources, what it remembers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from builder.guest import cloudinit
from builder.guest.lint.rule import Found, Mend, Rule, Severity, delete, install
from builder.guest.lint.subject import Subject

_OTHERS = (  # what sets an instance up elsewhere
    "/usr/bin/ignition",
    "/usr/lib/dracut/modules.d/30ignition/module-setup.sh",
    "/usr/bin/coreos-cloudinit",
    "/usr/bin/afterburn",
    "/usr/bin/amazon-init",
    "/usr/sbin/tiny-cloud",
    "/bin/tiny-cloud",
)
_UNITS = ("cloud-init.service", "cloud-init-local.service", "cloud-config.service", "cloud-init.target")
_GROWERS = ("growpart", "systemd-repart", "growroot")


def no_cloud_init(subject: Subject) -> Iterator[Found]:
    """Nothing in the guest asks the cloud for the instance's key and user data: nobody can log in.

    Source: cloud-init's documentation, "Boot stages"; EC2 User Guide, "Shared AMIs".
    """
    if cloudinit.installed(subject.facts) or subject.first(*_OTHERS) or subject.system.family == "flatcar":
        return
    yield Found(
        severity="note" if subject.target == "qemu" else "warning",
        what="neither cloud-init nor another that fetches keys and user data is in the guest",
        where="/etc/cloud",
        mends=(install("cloud-init"),),
    )


def cloud_init_disabled(subject: Subject) -> Iterator[Found]:
    """cloud-init is in the guest and switched off, so that no key is fetched.

    Source: cloud-init's documentation, "Disable cloud-init": a file, the kernel's command line, a masked unit.
    """
    if not cloudinit.installed(subject.facts):
        return
    severity: Severity = "note" if subject.target == "qemu" else "error"
    where = [cloudinit.DISABLED] if subject.facts.exists(cloudinit.DISABLED) else []
    masks = (f"/etc/systemd/system/{unit}" for unit in _UNITS)
    where += [path for path in masks if subject.facts.link(path) == "/dev/null"]
    if where:
        yield Found(
            severity=severity,
            what="cloud-init is switched off",
            where=where[0],
            mends=(delete(*where),),
        )
    elif "cloud-init=disabled" in cloudinit.chosen_by_kernel(subject.facts):
        yield Found(
            severity=severity,
            what="the kernel's command line switches cloud-init off",
            where="/etc/default/grub",
            quote="cloud-init=disabled",
            mends=(Mend(step="grub", options={"remove": ["cloud-init=disabled"]}),),
        )


def no_ec2_datasource(subject: Subject) -> Iterator[Found]:
    """cloud-init is not to look for EC2's metadata, which AWS and Eucalyptus offer.

    Source: cloud-init's `datasource_list`.
    """
    listed = _listed(subject)
    if subject.target == "qemu" or not listed or "Ec2" in listed:
        return
    yield Found(
        severity="error",
        what=f"cloud-init looks for {' and '.join(listed)}, and not for Ec2",
        where=_where(subject, "datasource_list"),
        quote=f"datasource_list: [{', '.join(listed)}]",
        mends=(_datasource(subject),),
    )


def ec2_not_recognised(subject: Subject) -> Iterator[Found]:
    """ds-identify decides by the firmware whether cloud-init runs, and Eucalyptus' does not say Amazon's name.

    With Ec2 as the only datasource (or `Ec2, None`) it does not ask; nor with `policy: enabled`. Source:
    tools/ds-identify of cloud-init, dscheck_Ec2 and "single entry in datasource_list".
    """
    facts = subject.facts
    if not subject.target.startswith("eucalyptus") or not cloudinit.installed(facts):
        return
    if not cloudinit.has_ds_identify(facts) or "policy: enabled" in facts.text(cloudinit.DS_IDENTIFY):
        return
    listed = _listed(subject)
    if listed in (("Ec2",), ("Ec2", "None")) or (listed and "Ec2" not in listed):
        return
    ec2 = _mapping(_mapping(subject.cloud.get("datasource")).get("Ec2"))
    if ec2.get("strict_id") is False:
        return
    yield Found(
        severity="error",
        what="ds-identify does not take Eucalyptus for EC2, and switches cloud-init off: no key is fetched",
        where=_where(subject, "datasource_list"),
        quote=f"datasource_list: [{', '.join(listed)}]" if listed else "",
        mends=(_datasource(subject),),
    )


def cloud_init_state(subject: Subject) -> Iterator[Found]:
    """cloud-init remembers an instance: what it does once it may not do again, and logs tell of the build.

    Source: cloud-init(1), `clean`; packer's and EC2's advice to run it before an image is taken.
    """
    found = [
        path
        for path in (*subject.facts.names("/var/lib/cloud/instances/*"), *subject.filled("/var/lib/cloud/data/*"))
        if not path.endswith("/README")
    ]
    if found:
        yield Found(
            severity="warning",
            what=f"cloud-init remembers an instance ({len(found)} traces)",
            where=found[0],
            mends=(Mend(step="cloud-init", options={"purge": True}),),
        )


def cloud_seed(subject: Subject) -> Iterator[Found]:
    """A NoCloud seed lies in the image: cloud-init takes its data, and never asks the cloud.

    Source: cloud-init's documentation, "NoCloud": /var/lib/cloud/seed/nocloud is looked at first.
    """
    seeds = list(subject.filled("/var/lib/cloud/seed/*/meta-data", "/var/lib/cloud/seed/*/user-data"))
    if seeds:
        yield Found(
            severity="note" if subject.target == "qemu" else "error",
            what="a seed in the image takes the place of the cloud's metadata",
            where=seeds[0],
            mends=(Mend(step="cloud-init", options={"purge": True}),),
        )


def root_does_not_grow(subject: Subject) -> Iterator[Found]:
    """Nothing grows the root partition to the volume, which may be larger than the image.

    Source: cloud-init's cc_growpart, which needs the program growpart; systemd-repart(8).
    """
    if subject.bare or any(map(subject.program, _GROWERS)) or subject.system.family == "flatcar":
        return
    if subject.first("/usr/lib/systemd/systemd-repart", "/usr/bin/systemd-repart") and subject.facts.names(
        "/*/repart.d/*.conf"
    ):
        return
    yield Found(
        severity="note",
        what="nothing grows the root partition at first boot (growpart is not there)",
        where="/usr/bin/growpart",
        mends=(install(_growpart(subject)),),
    )


def _listed(subject: Subject) -> tuple[str, ...]:
    """Return the datasources that cloud-init is told to look for; none when it is told nothing, and looks for all."""
    if not cloudinit.installed(subject.facts):
        return ()
    listed = subject.cloud.get("datasource_list")
    return tuple(map(str, listed)) if isinstance(listed, list) else ()


def _where(subject: Subject, key: str) -> str:
    """Return where the setting stands that holds: the last file that has it."""
    found = [
        f"{path}:{number}"
        for path, number, line in subject.lines(cloudinit.BASE, f"{cloudinit.DIRECTORY}/*.cfg")
        if line.startswith(f"{key}:")
    ]
    return found[-1] if found else cloudinit.BASE


def _datasource(subject: Subject) -> Mend:
    options: dict[str, Any] = {"datasources": ["Ec2", "None"]}
    if subject.target.startswith("eucalyptus"):
        options |= {"ec2": {"strict_id": False}}
    return Mend(step="cloud-init", options=options)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _growpart(subject: Subject) -> str:
    return "cloud-guest-utils" if subject.system.family == "debian" else "cloud-utils-growpart"


RULES = (
    Rule(check=no_cloud_init, worst="warning", mended_by=("packages",)),
    Rule(check=cloud_init_disabled, worst="error", mended_by=("files", "grub")),
    Rule(check=no_ec2_datasource, worst="error", mended_by=("cloud-init",)),
    Rule(check=ec2_not_recognised, worst="error", mended_by=("cloud-init",)),
    Rule(check=cloud_init_state, worst="warning", mended_by=("cloud-init",)),
    Rule(check=cloud_seed, worst="error", mended_by=("cloud-init",)),
    Rule(check=root_does_not_grow, worst="note", mended_by=("packages",)),
)
