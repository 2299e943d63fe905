"""Takes a bundle to another cloud by its manifest alone: other kernel and ramdisk, its key encrypted for that cloud.

The parts stay as they are: only the key that opens them is encrypted anew, which needs the user's private key. The old
ec2-migrate-manifest mapped ids but copied the encrypted key, which a cloud with another certificate cannot read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from builder import durable
from builder.bundle import check, keys, manifest, signature
from builder.bundle.certificates import Certificate, PrivateKey
from builder.bundle.limits import LARGEST_MANIFEST
from builder.bundle.records import Manifest
from builder.errors import HostError, InputError, InternalError, UsageError


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What shall be different afterwards; what is None stays.

    `cloud` is the certificate of the cloud that shall read the bundle, `user` that of the identity there, with its
    private key `sign_with`, when it is another than the one that made the bundle. `account` is the account that will
    register it: Eucalyptus refuses a manifest that names another. `kernels` and `ramdisks` say which id takes the place
    of which, None that it goes; with such a table, an id of the manifest that it lacks is refused.
    """

    cloud: Certificate | None = None
    user: Certificate | None = None
    sign_with: PrivateKey | None = None
    account: str | None = None
    kernels: Mapping[str, str | None] | None = None
    ramdisks: Mapping[str, str | None] | None = None


def migrate(
    data: bytes, changes: Changes, key: PrivateKey, *, where: str, signed_by: Certificate | None = None
) -> bytes:
    """Return the manifest with `changes` made, signed anew, as `manifest.write` writes it; all else is kept.

    `key` is the private key of the user that made the bundle: it opens the bundle's key, and signs unless another
    shall. Given `signed_by`, the manifest must carry that certificate's signature before. The result was read back: it
    says what it should, and its signature verifies in both readings. Raises BundleRefused for a manifest that is
    refused, signed by another or not opened by `key`; UsageError for an id that a table lacks, a name that only XML's
    escapes could write, or a `user` certificate that the signing key does not belong to.
    """
    before = manifest.read(data, where=where)
    if signed_by is not None:
        check.require_signature(data, signed_by, where=where)
    signing = changes.sign_with or key
    wanted = replace(
        before,
        user=changes.account or before.user,
        kernel_id=_mapped("kernel", before, before.kernel_id, changes.kernels),
        ramdisk_id=_mapped("ramdisk", before, before.ramdisk_id, changes.ramdisks),
    )
    if changes.user is not None:
        changes.user.require(signing)
    if changes.cloud is not None or changes.user is not None:
        content_key = keys.decrypt(before, key, fitting=signed_by)
        if changes.cloud is not None:
            wanted = replace(wanted, for_cloud=keys.encrypt(content_key, changes.cloud))
        if changes.user is not None:
            wanted = replace(wanted, for_user=keys.encrypt(content_key, changes.user))
    written = manifest.write(wanted, signing, names_as_they_are=True)
    _verify_result(written, wanted, signing, where)
    return written


def migrate_file(path: Path, changes: Changes, key: PrivateKey, *, signed_by: Certificate | None = None) -> Manifest:
    """Migrate the manifest at `path` in place, as `migrate` does, and return what it says now.

    The old one is kept beside it as NAME.bak. A file of that name is never overwritten: with other bytes in it
    UsageError is raised. Of a symbolic link the file is changed that it leads to. A crash leaves at `path` the old
    manifest or the new one, whole, and the new one never without the backup; where the old one is still there, the
    same call goes on. It may leave a directory `.NAME.new-…`, which the next call removes. Of two calls at once the one
    that ends last decides. Raises InputError for a file that cannot be read, UsageError for a directory that cannot be
    written, HostError for a file that cannot, DiskFull.
    """
    path = path.resolve()
    before, mode = _read(path)
    after = migrate(before, changes, key, where=str(path), signed_by=signed_by)
    with _translated(path), durable.scratch_in(path.parent, f".{path.name}.new-") as own:
        _keep(_written(own / "old", before, mode), path.with_name(f"{path.name}.bak"), before)
        durable.commit(_written(own / "new", after, mode), path)
    return manifest.read(after, where=str(path))


def _mapped(what: str, before: Manifest, old: str | None, table: Mapping[str, str | None] | None) -> str | None:
    if table is None or old is None or before.type == what:  # a kernel's own kernel id is `true`
        return old
    if old not in table:
        raise UsageError(
            f"the {what} {old} of the bundle {before.name} is not in the table, which has {', '.join(table) or 'none'}",
            hint=f"Say which {what} takes its place, or that it has none any more.",
        )
    return table[old]


def _verify_result(written: bytes, wanted: Manifest, key: PrivateKey, where: str) -> None:
    again = manifest.read(written, where=f"{where}, migrated")
    if replace(again, signature="") != replace(manifest.as_written(wanted), signature=""):
        raise InternalError(f"{where}: the migrated manifest does not say what it should; nothing was changed")
    if not signature.seen_by_all(written, key):
        raise InternalError(f"{where}: the migrated manifest's signature does not verify; nothing was changed")


def _read(path: Path) -> tuple[bytes, int]:
    """Return the file's bytes, of a huge one the beginning only, and its permissions."""
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST_MANIFEST + 1), os.fstat(file.fileno()).st_mode & 0o777
    except OSError as error:
        raise InputError(f"the manifest {path} cannot be read: {error.strerror}") from error


def _keep(aside: Path, backup: Path, data: bytes) -> None:
    """Give `aside`, which holds `data`, a second name that is not there yet, or is one of the same bytes, durably."""
    try:
        os.link(aside, backup)  # fails where rename would replace
    except FileExistsError:
        if backup.read_bytes() != data:
            raise UsageError(
                f"{backup} exists already and is not a copy of the manifest as it is now; it was not touched",
                hint="It is an earlier migration's backup: move it away, or bring it back first.",
            ) from None
    durable.fsync_directory(backup.parent)


def _written(path: Path, data: bytes, mode: int) -> Path:
    """Write `data` durably to the file `path`; `mode` are its permissions."""
    with durable.translate_disk_full(path), open(path, "wb") as out:
        os.fchmod(out.fileno(), mode)
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return path


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"the manifest {path} cannot be replaced: {error.strerror}") from error
