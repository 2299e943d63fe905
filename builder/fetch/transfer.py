"""One download over http: requests for what is missing, until the spool is whole."""

from __future__ import annotations

import re
from collections.abc import Callable

from builder.errors import NetworkError, NetworkTrouble
from builder.fetch.address import Address
from builder.fetch.client import Answer, Client
from builder.fetch.spool import Spool, Validators
from builder.progress import Progress

# However much each connection brings, a server that cuts a thousand of them is broken.
_MOST_CUTS = 1000
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
# Web servers name the compression of a file that *is* compressed here as well (Apache's AddEncoding).
_ENCODED_NAMES = {
    "gzip": (".gz", ".tgz"),
    "x-gzip": (".gz", ".tgz"),
    "x-bzip2": (".bz2", ".tbz2"),
    "x-xz": (".xz", ".txz"),
    "zstd": (".zst", ".tzst"),
}


class Transfer:
    """Fills one spool from one address."""

    def __init__(self, client: Client, address: Address, spool: Spool, progress: Progress) -> None:
        self._client = client
        self._address = address
        self._spool = spool
        self._progress = progress
        self._farthest = spool.size  # bytes ever held: only more than that is progress
        self._ranges = True
        self._cut = False

    def run(self, retrying: Callable[[Callable[[], bool]], bool]) -> None:
        """Return when the spool is whole. Each stretch that brought bytes gives the next one all its attempts again."""
        if self._spool.size:
            self._progress.note(f"continuing {self._address} at byte {self._spool.size}")
            self._tell_size()
            self._progress.advance(self._spool.size)
        for _ in range(_MOST_CUTS):
            if self._spool.whole or retrying(self._stretch):
                return
        raise NetworkTrouble(f"{self._address}: the connection was cut {_MOST_CUTS} times")

    def _stretch(self) -> bool:
        """Make one request and say whether the spool is whole now; False: not yet, ask for the rest."""
        condition = self._spool.validators.condition
        headers = {}
        if self._ranges and self._spool.size and condition:
            headers = {"Range": f"bytes={self._spool.size}-", "If-Range": condition}
        with self._client.request("GET", self._address, headers) as answer:
            if headers and (answer.status == 416 or (answer.status == 206 and not self._continues(answer))):
                # Nothing it says about parts can be believed: the whole file, by a request without Range.
                self._progress.note(f"{self._address}: the server cannot continue at byte {self._spool.size}")
                self._ranges = False
                return False
            if answer.status not in (200, 206) or (answer.status == 206 and not headers):
                raise answer.refusal()
            require_identity(answer, self._address)
            if answer.status == 200:
                self._begin(answer)
            return self._receive(answer)

    def _begin(self, answer: Answer) -> None:
        if self._spool.size:
            self._progress.note(f"{self._address}: the server sends the whole file again")
            self._progress.advance(-self._spool.size)
        self._spool.begin(Validators.of(answer))
        self._tell_size()

    def _receive(self, answer: Answer) -> bool:
        try:
            self._read_body(answer)
        except NetworkTrouble as cut:
            self._cut = True
            if self._spool.size <= self._farthest:
                raise
            self._farthest = self._spool.size
            self._progress.note(f"{cut}; continuing")
            return False
        return True

    def _read_body(self, answer: Answer) -> None:
        while data := answer.read(as_it_comes=self._cut):
            self._spool.write(data)
            self._progress.advance(len(data))
        if self._spool.validators.size not in (None, self._spool.size):
            # A server may send less than the rest that was asked for (RFC 9110, 14.2).
            raise NetworkTrouble(f"{self._address}: the answer ended at byte {self._spool.size}")

    def _continues(self, answer: Answer) -> bool:
        """Say whether a 206 is the rest of the very version that the spool holds the beginning of."""
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if not found:
            return False
        first, last, total = found.groups()
        said, held = Validators.of(answer), self._spool.validators
        size = held.size if held.size is not None else said.size
        return (
            size is not None
            and int(first) == self._spool.size
            and (said.etag or held.etag) == held.etag
            and total in ("*", str(size))
            and (int(last) == size - 1 or (held.size is not None and int(last) < size))
        )

    def _tell_size(self) -> None:
        if self._spool.validators.size is not None:
            self._progress.total(self._spool.validators.size)


def require_identity(answer: Answer, address: Address) -> None:
    """Refuse a body that was compressed for the way although none was asked for: its bytes are not the file's."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity") or address.name.lower().endswith(_ENCODED_NAMES.get(encoding, ("\0",))):
        return
    raise NetworkError(f"{address}: the server compresses the file on the way (Content-Encoding: {encoding})")
