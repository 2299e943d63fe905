"""What the verbs on bundles of this machine do: bundle-info, unbundle, migrate-manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builder.bundle import check, keys, manifest, migrate, signature
from builder.bundle.certificates import PrivateKey
from builder.bundle.check import Inspection
from builder.bundle.folder import parts_in, surplus
from builder.bundle.limits import LARGEST_MANIFEST
from builder.bundle.records import Manifest, is_id_of
from builder.bundle.unbundle import unbundle as unbundle_parts
from builder.cloud.counterparts import counterpart
from builder.errors import BundleRefused, InputError, UsageError
from builder.progress import SILENT, Progress
from builder.units import format_size
from pipelines import ui
from pipelines.events import StepProgress
from pipelines.verbs.identity import Who


def info(path: Path, *, source: Path | None, identity: Mapping[str, Any], as_json: bool) -> None:
    """Show what a manifest says and what of it holds. Raises BundleRefused where something does not.

    No cloud is asked for certificates unless one is named: this is a look at files.
    """
    who = Who(**identity, offline=True)
    data = read_manifest(path)
    says = manifest.read(data, where=str(path))
    parts = source or path.parent
    there = any((parts / part.filename).exists() for part in says.parts)
    found = check.inspect(
        data,
        where=str(path),
        certificates=who.certificates(),
        private_key=who.private_key(),
        open_part=parts_in(parts, says, alone=False) if there else None,
        surplus=surplus(parts, says),
        progress=watched("bundle-info", as_json=as_json),
    )
    if as_json:
        ui.say_json(_json(found))
    else:
        _show(path, found)
    if found.problems:
        raise BundleRefused(
            f"{path}: {len(found.problems)} of its claims do not hold", hint="Each is named above, with its cause."
        )


def unbundle(
    path: Path,
    *,
    to: Path | None,
    destination: Path,
    source: Path | None,
    unsigned: bool,
    identity: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Write the image in a bundle to a file that is not there yet. Raises InputError, BundleRefused, UsageError."""
    who = Who(**identity)
    data = read_manifest(path)
    says = manifest.read(data, where=str(path))
    target = to or destination / says.name
    if os.path.lexists(target):
        raise InputError(f"{target} is there already", hint="Remove it, or name another file with --to.")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is no directory", hint="Make it first, or name another place.")
    key = who.need_private_key()
    if not unsigned:
        _require_signature(data, who, key, str(path))
    opened = keys.decrypt(says, key)
    progress = watched("unbundle", as_json=as_json)
    unbundle_parts(says, parts_in(source or path.parent, says), opened, target, progress=progress)
    if as_json:
        ui.say_json({"file": str(target), "size": says.size, "type": says.type, "architecture": says.architecture})
        return
    ui.say(f"{target}: {format_size(says.size)}, {says.type}, {says.architecture}; every digest is right")


def migrate_manifest(
    path: Path,
    *,
    boots: Mapping[str, str | None],
    mapped: bool,
    unsigned: bool,
    made_by: Mapping[str, Any],
    identity: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Change a manifest in place for another cloud, its old self kept beside it as NAME.bak.

    `boots` says which `kernel` and `ramdisk` take the place of those in it; unless `mapped` both stay. Of one that is
    not said the clouds are asked, when two are named. Where no cloud is named and no cloud's certificate given, the key
    stays encrypted as it is. Raises UsageError for what was said and nothing would come of.
    """
    if not mapped and any(boots.values()):
        raise UsageError("--no-mapping leaves kernel and ramdisk as they are", hint="Leave it out, or --kernel and so.")
    maker, here = Who(**made_by), Who(**identity, offline=True)
    before = manifest.read(read_manifest(path), where=str(path))
    changes = migrate.Changes(
        cloud=here.cloud_certificate(),
        user=here.certificate(),
        sign_with=here.private_key(),
        account=here.account(),
        kernels=_table("kernel", boots, before, maker, here) if mapped else None,
        ramdisks=_table("ramdisk", boots, before, maker, here) if mapped else None,
    )
    signed_by = None if unsigned else maker.need_certificate()
    after = migrate.migrate_file(path, changes, maker.need_private_key(), signed_by=signed_by)
    if as_json:
        ui.say_json({"file": str(path), "backup": f"{path}.bak", **_words(after)})
        return
    ui.say(
        f"{path}: for account {after.user}, kernel {after.kernel_id or 'none'}, ramdisk {after.ramdisk_id or 'none'}"
    )
    ui.say(f"  as it was: {path}.bak; the parts are the same")


def _table(
    what: str, boots: Mapping[str, str | None], before: Manifest, maker: Who, here: Who
) -> dict[str, str | None]:
    """Return what takes the place of an id; empty, so that the id is refused, where nothing tells.

    Raises UsageError for a new id that nothing would come of.
    """
    old, new = (before.kernel_id if what == "kernel" else before.ramdisk_id), boots[what]
    if new is not None and not is_id_of(what, new):
        raise UsageError(f"--{what} {new}: no {what}'s id, such as e{what[0]}i-1a2b3c4d")
    if new is not None and (old is None or before.type != "machine"):
        raise UsageError(
            f"--{what} {new}: the {before.type} {before.name} names no {what} whose place it could take",
            hint=f"Leave --{what} out. `emi register` takes a --{what} of its own.",
        )
    if old and new is None and maker.cloud and here.cloud and maker.cloud != here.cloud:
        new = counterpart(old, maker.target().cloud, here.target().cloud)
    return {old: new} if old and new else {}


def read_manifest(path: Path) -> bytes:
    """Return a manifest's bytes, of a huge file the beginning only. Raises InputError."""
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        raise InputError(f"the manifest {path} cannot be read: {error.strerror}") from error


def watched(step: str, *, as_json: bool) -> Progress:
    """Return what shows a person how far a verb is."""
    return SILENT if as_json else StepProgress(step, ui.watcher(as_json=False))


def _require_signature(data: bytes, who: Who, key: PrivateKey, where: str) -> None:
    certificate = who.certificate()
    if certificate is not None:
        check.require_signature(data, certificate, where=where)
    elif not signature.made_by(data, key):
        raise BundleRefused(
            f"{where} was not signed with the private key {key.where}, and no certificate says who else may have",
            hint="Give the maker's certificate with -c, or take it as it is with --unsigned.",
        )


def _show(path: Path, found: Inspection) -> None:
    says = found.manifest
    bundler = " ".join(filter(None, (says.bundler.name, says.bundler.version, says.bundler.release)))
    rows = [
        ("image", f"{says.name}, {says.type}, {says.architecture}, {format_size(says.size)}"),
        ("account", says.user),
        ("made by", f"{bundler}, manifest {says.version}"),
        ("kernel", says.kernel_id),
        ("ramdisk", says.ramdisk_id),
        ("devices", ", ".join(f"{one.virtual}={one.device}" for one in says.mappings)),
        ("product codes", ", ".join(says.product_codes)),
        ("ancestors", ", ".join(says.ancestry)),
        ("parts", f"{len(says.parts)}, {format_size(says.bundled_size)}"),
        ("tar digest", f"SHA-1 {says.tar_sha1}"),
        ("signature", str(found.signed_by) if found.signed_by else ""),
        ("opened as", " and ".join(found.opened_by)),
    ]
    ui.say(f"{path}")
    for name, value in rows:
        if value:
            ui.say(f"  {name:<14} {value}")
    if found.parts and not any(part.problem for part in found.parts):
        ui.say(f"  {'digests':<14} right, of all {len(found.parts)} parts")
    for sentence in found.remarks:
        ui.say(f"  note: {sentence}")
    for sentence in found.unchecked:
        ui.say(f"  not checked: {sentence}")
    for sentence in found.problems:
        ui.say(f"  WRONG: {sentence}")


def _json(found: Inspection) -> dict[str, Any]:
    signed_by = found.signed_by
    return {
        "manifest": {**_words(found.manifest), "signature": found.manifest.signature},
        "signed_by": signed_by and {
            "certificate": signed_by.certificate.where,
            "fingerprint": signed_by.certificate.fingerprint,
            "raw": signed_by.raw,
            "reserialised": signed_by.reserialised,
        },
        "opened_by": list(found.opened_by),
        "parts": [asdict(part) for part in found.parts],
        "problems": list(found.problems),
        "remarks": list(found.remarks),
        "unchecked": list(found.unchecked),
    }  # fmt: skip


def _words(says: Manifest) -> dict[str, Any]:
    words = asdict(says)
    for secret in ("for_cloud", "for_user", "signature"):  # long, and of use to no reader
        del words[secret]
    return words
