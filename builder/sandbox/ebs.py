"""The EBS direct APIs: StartSnapshot to GetSnapshotBlock, on the sandbox's disks.

Shapes, error types and reasons are those of botocore's `ebs` 2019-11-02 service model. The path of a block
(PutSnapshotBlock, GetSnapshotBlock) goes from the socket into one buffer and from there to the file, past every
framework.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterable
from itertools import islice

from builder import pool
from builder.digest import BLOCK
from builder.sandbox.access import needs
from builder.sandbox.cloud import Cloud, blocks_of
from builder.sandbox.ebs_start import Starter, request_tags
from builder.sandbox.protocols import rest_json
from builder.sandbox.records import Snapshot
from builder.sandbox.tokens import BLOCK_TOKEN_LIFE, Tokens
from builder.sandbox.wire import Answer, Caller, Denied, Need, Refusal, Request

_SNAPSHOT = r"/snapshots/(?P<snapshot>[^/]+)"
_ROUTES = [
    ("PUT", re.compile(_SNAPSHOT + r"/blocks/(?P<block>[^/]+)"), "PutSnapshotBlock"),
    ("GET", re.compile(_SNAPSHOT + r"/blocks/(?P<block>[^/]+)"), "GetSnapshotBlock"),
    ("GET", re.compile(_SNAPSHOT + r"/blocks"), "ListSnapshotBlocks"),
    ("GET", re.compile(_SNAPSHOT + r"/changedblocks"), "ListChangedBlocks"),
    ("POST", re.compile(r"/snapshots/completion/(?P<snapshot>[^/]+)"), "CompleteSnapshot"),
    ("POST", re.compile(r"/snapshots"), "StartSnapshot"),
]
_SNAPSHOT_ID = re.compile(r"snap-[0-9a-f]{1,59}")
_LEAST_PER_PAGE, _MOST_PER_PAGE = 100, 10000  # of MaxResults

Handler = Callable[[Request, Caller, dict[str, str]], Answer]


def invalid(message: str, reason: str = "INVALID_PARAMETER_VALUE") -> Refusal:
    """Return the ValidationException with that reason."""
    return Refusal("ValidationException", message, reason=reason)


class EbsDirect:
    """The service `ebs`."""

    service = "ebs"

    def __init__(self, cloud: Cloud, tokens: Tokens) -> None:
        self._cloud = cloud
        self._tokens = tokens
        self._buffers = pool.Local()
        starter = Starter(cloud)
        self._actions: dict[str, Handler] = {
            "StartSnapshot": lambda request, caller, _: starter.start(request, caller),
            "PutSnapshotBlock": self._put_block,
            "CompleteSnapshot": self._complete,
            "ListSnapshotBlocks": self._list_blocks,
            "ListChangedBlocks": self._list_changed,
            "GetSnapshotBlock": self._get_block,
        }

    @property
    def actions(self) -> frozenset[str]:
        """The names of the calls that are answered."""
        return frozenset(self._actions)

    def action(self, request: Request) -> str:
        """Return the name of the call, or `METHOD PATH` when the service has no such call."""
        for method, path, action in _ROUTES:
            if request.method == method and path.fullmatch(request.path):
                return action
        return f"{request.method} {request.path}"

    def permissions(self, action: str, request: Request, caller: Caller) -> Iterable[Need]:
        """Return what the caller must be allowed."""
        if action not in self._actions:
            return ()
        if action == "StartSnapshot":
            snapshots, tags = ["*"], request_tags(request.body)
        else:
            named = request.path.split("/")[3 if action == "CompleteSnapshot" else 2]
            snapshots, tags = [named, *filter(None, [request.query.get("firstSnapshotId")])], {}
        return needs.of_ebs(action, snapshots, tags, caller, self._cloud.state)

    def perform(self, action: str, request: Request, caller: Caller) -> Answer:
        """Do what the call asks. Raises Refusal."""
        for method, path, name in _ROUTES:
            if name == action and request.method == method and (match := path.fullmatch(request.path)):
                return self._actions[action](request, caller, match.groupdict())
        raise Refusal("UnsupportedOperation", f"The sandbox has no {action}.")

    def refuse(self, refusal: Refusal, request: Request) -> Answer:
        """Return the refusal as the service words it."""
        if refusal.code == "InternalError":
            refusal = Refusal("InternalServerException", refusal.message, status=refusal.status)
        return rest_json.refuse(refusal, request)

    # Writing

    def _put_block(self, request: Request, caller: Caller, path: dict[str, str]) -> Answer:
        snapshot = self._find(caller, path["snapshot"])
        index = _block_index(path["block"], snapshot)
        claimed, progress = self._check_put(request)
        try:
            buffer: memoryview = self._buffers.block
        except AttributeError:  # this thread's first put
            buffer = self._buffers.block = memoryview(bytearray(BLOCK))
        if not request.read_into(buffer):
            raise invalid("The client closed the connection within the block.", "INVALID_BLOCK")
        checksum = hashlib.sha256(buffer).digest()
        text = base64.b64encode(checksum).decode()
        if request.signature is not None and request.signature.forbids(checksum.hex()):
            raise Denied("payload")
        if claimed != text:
            raise invalid(f"The checksum of the block is {text}, not {claimed}.", "INVALID_BLOCK")
        with self._cloud.writers(snapshot).writing(index):
            self._require_pending(caller, snapshot.snapshot_id)
            self._cloud.disk(snapshot).put(index, buffer, checksum)
        self._cloud.report_progress(snapshot, progress)
        return Answer(status=201, headers={"x-amz-Checksum": text, "x-amz-Checksum-Algorithm": "SHA256"})

    def _check_put(self, request: Request) -> tuple[str, int]:
        """Return the checksum and the progress that the headers of a put claim, the rest of them being right."""
        if request.header("x-amz-Checksum-Algorithm") != "SHA256":
            raise invalid("The x-amz-Checksum-Algorithm header must be SHA256.")
        if request.header("x-amz-Data-Length") != str(BLOCK):
            raise invalid(f"The x-amz-Data-Length header must be {BLOCK}.")
        if request.length != BLOCK:
            raise invalid(f"A block has {BLOCK} bytes, this one {request.length}.", "INVALID_BLOCK")
        claimed = request.header("x-amz-Checksum")
        if not claimed:
            raise invalid("The x-amz-Checksum header is missing.")
        return claimed, _number(request.header("x-amz-Progress") or 0, "Progress", 0, 100)

    def _complete(self, request: Request, caller: Caller, path: dict[str, str]) -> Answer:
        snapshot = self._find(caller, path["snapshot"])
        claimed = _number(request.header("x-amz-ChangedBlocksCount"), "ChangedBlocksCount", 0, None)
        checksum = request.header("x-amz-Checksum")
        if checksum and request.header("x-amz-Checksum-Algorithm") != "SHA256":
            raise invalid("The x-amz-Checksum-Algorithm header must be SHA256.")
        if checksum and request.header("x-amz-Checksum-Aggregation-Method") != "LINEAR":
            raise invalid("The x-amz-Checksum-Aggregation-Method header must be LINEAR.")
        with self._cloud.writers(snapshot).sealing():
            snapshot = self._find(caller, snapshot.snapshot_id)
            _require_started(snapshot)
            count, aggregate = self._cloud.disk(snapshot).written()
            if count != claimed:
                raise invalid(f"ChangedBlocksCount is {claimed}, but {count} blocks were written to the snapshot.")
            if checksum and checksum != (text := base64.b64encode(aggregate).decode()):
                raise invalid(f"The aggregated checksum of the written blocks is {text}, not {checksum}.")
            # Completing again what was completed with the same count is a retry after a lost answer.
            if snapshot.sealed_time is None:
                self._require_pending(caller, snapshot.snapshot_id)
                self._cloud.seal(snapshot)
        return rest_json.answer({"Status": self._cloud.status(self._find(caller, snapshot.snapshot_id))}, status=202)

    def _require_pending(self, caller: Caller, snapshot_id: str) -> None:
        snapshot = self._find(caller, snapshot_id)
        _require_started(snapshot)
        if snapshot.sealed_time is not None:
            raise invalid(f"The snapshot {snapshot_id} is not pending any more.", "INVALID_SNAPSHOT_ID")
        if self._cloud.status(snapshot) == "error":
            raise invalid(f"The snapshot {snapshot_id} timed out.", "WRITE_REQUEST_TIMEOUT")

    # Reading

    def _get_block(self, request: Request, caller: Caller, path: dict[str, str]) -> Answer:
        snapshot = self._completed(caller, path["snapshot"])
        index = _block_index(path["block"], snapshot)
        if not self._tokens.reads(request.query.get("blockToken", ""), snapshot.snapshot_id, index):
            raise invalid("The block token is not valid for this block, or has expired.", "INVALID_BLOCK_TOKEN")
        disk = self._cloud.disk(snapshot)
        return Answer(
            headers={
                "Content-Type": "application/octet-stream",
                "x-amz-Data-Length": str(BLOCK),
                "x-amz-Checksum": base64.b64encode(disk.look(index)[1]).decode(),
                "x-amz-Checksum-Algorithm": "SHA256",
            },
            body=disk.read(index),
        )

    def _list_blocks(self, request: Request, caller: Caller, path: dict[str, str]) -> Answer:
        snapshot = self._completed(caller, path["snapshot"])
        scope = f"blocks/{snapshot.snapshot_id}"
        start, most = self._page(request, scope)
        expiry = int(time.time()) + BLOCK_TOKEN_LIFE
        indexes = list(islice(self._cloud.disk(snapshot).present(start), most + 1))
        blocks = [
            {"BlockIndex": index, "BlockToken": self._tokens.for_block(snapshot.snapshot_id, index, expiry)}
            for index in indexes[:most]
        ]
        return self._listing({"Blocks": blocks}, snapshot, expiry, scope, indexes[most:])

    def _list_changed(self, request: Request, caller: Caller, path: dict[str, str]) -> Answer:
        second = self._completed(caller, path["snapshot"])
        first_id = request.query.get("firstSnapshotId")
        first = self._completed(caller, first_id) if first_id else None
        if first is not None and first.lineage != second.lineage:
            raise invalid(f"{first_id} and {second.snapshot_id} share no parent.", "UNRELATED_SNAPSHOTS")
        scope = f"changed/{first_id}/{second.snapshot_id}"
        start, most = self._page(request, scope)
        expiry = int(time.time()) + BLOCK_TOKEN_LIFE
        disk = self._cloud.disk(second)
        if first is not None:
            changes = disk.changed(self._cloud.disk(first), start)
        else:
            changes = ((index, False, True) for index in disk.present(start))
        found = list(islice(changes, most + 1))
        blocks = []
        for index, in_first, in_second in found[:most]:
            block: dict[str, object] = {"BlockIndex": index}
            if first is not None and in_first:
                block["FirstBlockToken"] = self._tokens.for_block(first.snapshot_id, index, expiry)
            if in_second:
                block["SecondBlockToken"] = self._tokens.for_block(second.snapshot_id, index, expiry)
            blocks.append(block)
        return self._listing({"ChangedBlocks": blocks}, second, expiry, scope, [entry[0] for entry in found[most:]])

    def _page(self, request: Request, scope: str) -> tuple[int, int]:
        """Return the first index and the most entries of the page asked for; a page token outranks a start index."""
        query = request.query
        most = _number(query.get("maxResults", _MOST_PER_PAGE), "MaxResults", _LEAST_PER_PAGE, _MOST_PER_PAGE)
        if token := query.get("pageToken"):
            start = self._tokens.page(token, scope)
            if start is None:
                raise invalid("The page token is not valid.", "INVALID_PAGE_TOKEN")
            return start, most
        return _number(query.get("startingBlockIndex", 0), "StartingBlockIndex", 0, None), most

    def _listing(self, body: dict[str, object], snapshot: Snapshot, expiry: int, scope: str, rest: list[int]) -> Answer:
        body |= {"ExpiryTime": expiry, "VolumeSize": snapshot.volume_size, "BlockSize": BLOCK}
        if rest:
            body["NextToken"] = self._tokens.for_page(scope, rest[0])
        return rest_json.answer(body)

    def _find(self, caller: Caller, snapshot_id: str) -> Snapshot:
        if not _SNAPSHOT_ID.fullmatch(snapshot_id):
            raise invalid(f"{snapshot_id!r} is not a snapshot id.", "INVALID_SNAPSHOT_ID")
        snapshot = self._cloud.snapshot(caller, snapshot_id)
        if snapshot is None:
            message = f"The snapshot '{snapshot_id}' does not exist."
            raise Refusal("ResourceNotFoundException", message, status=404, reason="SNAPSHOT_NOT_FOUND")
        return snapshot

    def _readable(self, caller: Caller, snapshot_id: str) -> Snapshot:
        """Return the caller's snapshot, or one that its owner shared with their account by name.

        What is shared with everybody alone cannot be read here: the EBS direct APIs do not support public snapshots.
        """
        found = self._cloud.readable_snapshot(caller, snapshot_id)
        if found is None or found.account == caller.account:
            return self._find(caller, snapshot_id)
        if caller.account not in found.create_volume_permissions:
            message = f"The snapshot '{snapshot_id}' is public: copy it, and read the copy."
            raise Refusal("AccessDeniedException", message, status=403, reason="UNAUTHORIZED_ACCOUNT")
        return found

    def _completed(self, caller: Caller, snapshot_id: str) -> Snapshot:
        snapshot = self._readable(caller, snapshot_id)
        if (status := self._cloud.status(snapshot)) != "completed":
            raise invalid(f"The snapshot '{snapshot_id}' is {status}, not completed.", "INVALID_SNAPSHOT_ID")
        return snapshot


def _require_started(snapshot: Snapshot) -> None:
    if snapshot.taken:
        message = f"The snapshot {snapshot.snapshot_id} was not started by StartSnapshot."
        raise invalid(message, "INVALID_SNAPSHOT_ID")


def _block_index(text: str, snapshot: Snapshot) -> int:
    if not text.isdecimal():
        raise invalid(f"{text!r} is not a block index.")
    if int(text) >= (count := blocks_of(snapshot.volume_size)):
        raise invalid(f"Block {text} is beyond the volume's {count} blocks.")
    return int(text)


def _number(value: str | int | None, name: str, least: int, most: int | None) -> int:
    if value is None or not str(value).isdecimal() or not least <= (number := int(value)) <= (most or int(value)):
        limits = f"between {least} and {most}" if most else f"{least} or more"
        raise invalid(f"{name} must be a number, {limits}.")
    return number
