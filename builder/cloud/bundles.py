"""A bundle into a bucket of S3 or Walrus: its parts in parallel and each of them once, the manifest last.

Every object is put in one request with the canned ACL that lets the cloud read it, and says in its metadata whose it
is (`Marks`) and what it holds: `emi-digest`, written in the same call as the bytes and so as true as they are. No
multipart upload is ever begun, so that nothing can lie in the bucket that a listing of it does not show.

| killed after | what lies in the bucket | what the next run does |
| --- | --- | --- |
| CreateBucket | an empty bucket | uses it |
| a part's PutObject took effect | that part | finds it in the listing, compares its digest by HEAD, does not send it |
| the last part | parts without a manifest, which no cloud takes for a bundle | puts the manifest |
| the manifest's PutObject took effect (**commit point**) | the bundle | finds it by the claim in its metadata |

What a killed run left and nobody resumes lies under the manifest's prefix and is marked: `belonging` lists it.

Who else may write there: an object without our marks is never replaced, nor is a part that another recipe, another
bundle of the same one, or the same recipe run from elsewhere put there: that run may be at work, or its bundle may be
registered. Parts that an earlier run of the same recipe here left without a manifest are replaced: the recipe's lock
says that this run is over. Whatever is put where nothing lay is put with If-None-Match, so that of two writers at the
same moment one is refused; a service that drops that header (`S3.drops_conditions`) or refuses it is asked by HEAD
right before, and the moment between the two remains. A manifest may also be put over one whose claim is ours. After it
all parts are looked at once more: who wrote between our looking and our writing is found out, and the bundle is not
handed on.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from builder import pool
from builder.bundle.limits import LARGEST_MANIFEST
from builder.cloud.s3 import S3, FileSlice, ObjectRecord, records
from builder.cloud.s3.source import md5_of
from builder.errors import CloudConflict, CloudDenied, CloudError, CloudFailed, CloudTrouble
from builder.progress import SILENT, Progress

# Names of user metadata, beside those of builder/cloud/s3/records.py.
CLAIM = "emi-claim"  # the token of the claim under which the object was put
RECIPE = "emi-recipe"
RUN = "emi-run"
MANIFEST = "emi-manifest"  # the key of the manifest that the object belongs to

WORKERS = 8  # parts on their way at the same time; more than four bring nothing within a data centre
SUFFIX = ".manifest.xml"
# S3: 3 to 63 characters, lowercase; Eucalyptus and older buckets of us-east-1 take capitals and underscores as well.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_UNKNOWN_HEADER = ("NotImplemented", "InvalidArgument", "InvalidRequest")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a bundle goes: `prefix` is "" or ends with a slash, `manifest` is the manifest's file name.

    With `root` the parts lie at the bucket's root, whatever the prefix: where Eucalyptus 4.0 to 4.4.1 look for them.
    """

    bucket: str
    prefix: str
    manifest: str
    root: bool = False

    @property
    def manifest_key(self) -> str:
        """The key of the manifest."""
        return f"{self.prefix}{self.manifest}"

    @property
    def stem(self) -> str:
        """What the keys of the parts begin with, when they are named after the manifest as all tools do."""
        return self.part_key(f"{self.manifest.removesuffix(SUFFIX)}.")

    def part_key(self, filename: str) -> str:
        """Return the key of a part."""
        return filename if self.root else f"{self.prefix}{filename}"

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.manifest_key}"


def place_problems(bucket: str, prefix: str) -> list[str]:
    """Return what is wrong with a bucket's name and with what shall stand before the objects' names in it.

    A path-style URL holds both: a prefix with `..` could lead a server, or a proxy before it, to another bucket.
    """
    wrong = []
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        wrong.append(f"{bucket!r} cannot be a bucket's name: S3 takes 3 to 63 lowercase letters, digits, - and .")
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        wrong.append(f"{prefix!r} cannot be a prefix: letters, digits, . _ - and / between them, as `images/2026`")
    return wrong


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What each object says of who put it there: the token of a claim, the recipe's name, the run.

    `is_over` says of another run's id whether it was one of the same recipe from here, and so is over.
    """

    claim: str
    recipe: str
    run: str
    is_over: Callable[[str], bool] = lambda _: False

    def left(self, found: ObjectRecord, to: Destination) -> bool:
        """Say whether this run, or one that is over, put the object there for the same manifest."""
        said = found.metadata
        if (said.get(RECIPE), said.get(MANIFEST)) != (_plain(self.recipe), _plain(to.manifest_key)):
            return False
        run = unquote(said.get(RUN, ""))
        return bool(run) and (run == self.run or self.is_over(run))


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of a bundle on this machine: its name, where it lies, its bytes' number and digest (`sha1:HEX`, …)."""

    name: str
    path: Path
    size: int
    digest: str


class Delivery:
    """One bundle on its way to its destination. Parts may be sent from several threads at once.

    Raises CloudConflict for what others put there, CloudDenied where a permission is missing, and what the calls raise.
    """

    def __init__(self, s3: S3, to: Destination, marks: Marks, *, acl: str, progress: Progress = SILENT) -> None:
        self._s3, self._to, self._marks = s3, to, marks
        self._acl, self._progress = acl, progress
        self._unconditional = s3.drops_conditions  # the service takes If-None-Match for nothing, or refuses it
        self._listed: frozenset[str] | None = None  # the keys under the stem, once they were looked at
        self._seen: dict[str, str] = {}  # key -> the MD5 that its ETag must be, where the service gives MD5s

    def begin(self, location: str | None) -> None:
        """Have the bucket be there; one that is made takes ACLs."""
        self._s3.ensure_bucket(self._to.bucket, location=location, acls=bool(self._acl))

    def list(self) -> None:
        """Look once what lies at the destination already, so that what does not is sent without asking."""
        self._listed = frozenset(found.key for found in self._s3.objects(self._to.bucket, self._to.stem))

    def send_all(self, parts: Sequence[Item], *, workers: int = WORKERS) -> int:
        """Have all parts lie there; return how many were sent now."""
        self.list()
        self._progress.total(sum(part.size for part in parts))
        sent: list[bool] = []
        pool.drain(lambda part: sent.append(self.send(part)), parts, workers=workers)
        return sum(sent)

    def send(self, part: Item, *, replace: bool = True) -> bool:
        """Have the part lie there with its ACL; say whether it had to be sent.

        With `replace` what an earlier run of the same recipe left under its key, of other bytes, gives way.
        """
        key = self._to.part_key(part.name)
        found = self._find(key)
        sent = found is None or not _holds(found, part)
        if found is None:
            found = self._put_first(key, part)
        if found is not None and _holds(found, part):
            self._adopt(found)
        elif found is not None:
            if not (replace and self._marks.left(found, self._to)):
                raise self._foreign(found)
            self._put(key, part)
        self._progress.advance(part.size)
        return sent

    def _put_first(self, key: str, part: Item) -> ObjectRecord | None:
        """Put the part where nothing lies, or return what lies there by now: another's, or ours by a lost answer."""
        try:
            self._put(key, part, only_if_absent=True)
        except CloudConflict:
            found = self._s3.head(self._to.bucket, key)
            if found is None:
                raise
            return found
        return None

    def commit(self, manifest: Item, ours: Collection[str]) -> None:
        """Have the manifest lie there, last of all; `ours` are the claims whose manifest it may replace."""
        key = self._to.manifest_key
        found = self.manifest(ours)
        if found is not None and _holds(found, manifest) and found.metadata.get(CLAIM) == self._marks.claim:
            self._adopt(found)
            return
        try:
            self._put(key, manifest, only_if_absent=found is None)
        except CloudConflict:
            found = self.manifest(ours)  # raises for that of another
            if found is None or not _holds(found, manifest):
                raise
            # ours: the answer to our first attempt was lost

    def manifest(self, ours: Collection[str]) -> ObjectRecord | None:
        """Return the manifest that lies there, which carries one of our claims. Raises CloudConflict for another."""
        found = self._s3.head(self._to.bucket, self._to.manifest_key)
        if found is not None and found.metadata.get(CLAIM, "") not in ours:
            raise taken(self._to, found)
        return found

    def check(self, parts: Sequence[Item]) -> None:
        """Look, by listing, that every part is there as it was sent. Raises CloudFailed naming one that is not."""
        there = {found.key: found for found in _listing(self._s3, self._to, [part.name for part in parts])}
        for part in parts:
            key = self._to.part_key(part.name)
            found = there.get(key)
            if found is None or found.size != part.size or (found.md5 and found.md5 != self._seen.get(key, found.md5)):
                state = "is gone" if found is None else "holds other bytes"
                raise CloudFailed(
                    f"s3://{self._to.bucket}/{key} {state}: something else wrote there while the bundle was uploaded",
                    hint="Give the bundle a prefix of its own, or stop the other writer; then `emi resume`.",
                )

    def _find(self, key: str) -> ObjectRecord | None:
        known = self._listed is not None and key.startswith(self._to.stem) and not self._unconditional
        if known and key not in (self._listed or ()):
            return None  # who puts it there after the listing is noticed by If-None-Match
        return self._s3.head(self._to.bucket, key)

    def _foreign(self, found: ObjectRecord) -> CloudConflict:
        recipe, run = found.metadata.get(RECIPE), found.metadata.get(RUN)
        maker = f"the recipe {recipe} put there in run {run}" if recipe else "something else than emi put there"
        return CloudConflict(
            f"s3://{self._to.bucket}/{found.key} holds other bytes, which {maker}",
            hint="Choose another prefix, name or bucket, or delete that object; emi never replaces what it did not "
            "make.",
        )

    def _adopt(self, found: ObjectRecord) -> None:
        self._seen[found.key] = found.md5
        if self._acl and found.metadata.get(records.ACL) != self._acl:
            self._s3.set_acl(self._to.bucket, found.key, self._acl)

    def _put(self, key: str, item: Item, *, only_if_absent: bool = False) -> None:
        descriptor = os.open(item.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            body = FileSlice(descriptor, path=item.path, offset=0, size=item.size)
            md5 = md5_of(body)
            answer = self._ask(key, body, self._request(key, item, md5), only_if_absent=only_if_absent)
        finally:
            os.close(descriptor)
        stored = records.described(key, answer)
        if stored.md5 and stored.md5 != md5.hex():
            raise CloudTrouble(f"s3:PutObject: s3://{self._to.bucket}/{key} was acknowledged with another MD5")
        self._seen[key] = md5.hex()

    def _request(self, key: str, item: Item, md5: bytes) -> dict[str, Any]:
        marks = {
            CLAIM: self._marks.claim,
            RECIPE: _plain(self._marks.recipe),
            RUN: _plain(self._marks.run),
            MANIFEST: _plain(self._to.manifest_key),
        }
        acl = {records.ACL: self._acl} if self._acl else {}
        request = {
            "Bucket": self._to.bucket,
            "Key": key,
            "ContentMD5": base64.b64encode(md5).decode(),
            "Metadata": {records.DIGEST: item.digest, **marks, **acl},
        }
        return {**request, "ACL": self._acl} if self._acl else request

    def _ask(self, key: str, body: FileSlice, request: dict[str, Any], *, only_if_absent: bool) -> Mapping[str, Any]:
        try:
            if only_if_absent and not self._unconditional:
                try:
                    return self._s3.send("PutObject", body, **request, IfNoneMatch="*")
                except CloudError as error:
                    if error.code not in _UNKNOWN_HEADER:
                        raise
                self._unconditional = True
                if self._s3.head(self._to.bucket, key) is not None:
                    raise CloudConflict(f"s3://{self._to.bucket}/{key} was put there by another a moment ago")
            return self._s3.send("PutObject", body, **request)
        except CloudError as error:
            if error.code == "NotImplemented" and self._acl:
                raise self._true_cause(key, error) from error
            raise

    def _true_cause(self, key: str, error: CloudError) -> CloudDenied:
        # packer#3615, #5818: S3 says 501 NotImplemented of a header when the ACL that it asks for may not be set.
        return CloudDenied(
            f"{error.message}\ns3://{self._to.bucket}/{key} was to have the ACL {self._acl}: S3 answers so when these"
            " credentials lack s3:PutObjectAcl",
            hint="Grant s3:PutObjectAcl to these credentials, then `emi resume`.",
        )


def taken(to: Destination, found: ObjectRecord) -> CloudConflict:
    """Return the error that says whose manifest lies where one is to be put."""
    recipe, run = found.metadata.get(RECIPE), found.metadata.get(RUN)
    maker = f"the recipe {recipe} put there in run {run}" if recipe else "something else than emi put there"
    return CloudConflict(
        f"{to} exists already: the manifest of another bundle, which {maker}",
        hint="Choose another name or prefix for this bundle, or remove that one; emi never replaces what it did not"
        " make.",
    )


def is_present(s3: S3, bucket: str, manifest_key: str, manifest_sha256: str, keys: Sequence[str]) -> bool:
    """Say whether the manifest lies there with that SHA-256 (hex), and every part's key is listed. Only reads."""
    found = s3.head(bucket, manifest_key)
    if found is None:
        return False
    if not found.digest and found.size > LARGEST_MANIFEST:
        return False
    digest = (
        found.digest or f"sha256:{hashlib.sha256(s3.read(bucket, manifest_key, most=LARGEST_MANIFEST)).hexdigest()}"
    )
    if digest != f"sha256:{manifest_sha256}":
        return False
    return set(keys) <= {one.key for one in s3.objects(bucket, _common(keys))}


def belonging(s3: S3, to: Destination) -> Iterator[ObjectRecord]:
    """Yield, with their metadata, the objects under the destination's names that emi put there for its manifest."""
    for listed in s3.objects(to.bucket, to.stem):
        found = s3.head(to.bucket, listed.key)
        if found is not None and found.metadata.get(MANIFEST) == _plain(to.manifest_key):
            yield found


def discard(s3: S3, to: Destination, marks: Marks) -> None:
    """Delete what was put there under these marks; the manifest first: what is left then is a bundle to no cloud.

    Fine when it is gone already. The parts may lie beside the manifest or at the bucket's root.
    """
    manifest = s3.head(to.bucket, to.manifest_key)
    if manifest is not None and manifest.metadata.get(CLAIM) == marks.claim:
        s3.delete(to.bucket, to.manifest_key)
    for place in {to, replace(to, root=True)}:
        s3.delete_many(to.bucket, [one.key for one in belonging(s3, place) if marks.left(one, to)])


def _listing(s3: S3, to: Destination, names: Sequence[str]) -> Iterator[ObjectRecord]:
    return s3.objects(to.bucket, _common([to.part_key(name) for name in names]))


def _common(keys: Sequence[str]) -> str:
    """Return what all keys begin with."""
    return os.path.commonprefix(list(keys))  # noqa: RUF071 - characters are meant: a listing's prefix is no path


def _holds(found: ObjectRecord, item: Item) -> bool:
    return found.size == item.size and found.digest == item.digest


def _plain(text: str) -> str:
    """Return the text as user metadata can hold it: ASCII, everything else as %XX."""
    return quote(text, safe="/ ._-")
