"""How bytes come from a connection and go into it.

cheroot reads and writes through Python's `_pyio`, slower by far than `io` for a request's dozen lines of headers, and
copies what is left of a body for every piece that the kernel takes. These do the same by `io` and `sendall`.
"""

from __future__ import annotations

import io
import socket
from typing import Any


class _Counted(socket.SocketIO):
    """A socket as a raw file that knows how many bytes came."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, "r")
        self.total = 0

    def readinto(self, buffer: Any) -> int | None:
        """Receive what there is, once."""
        count = super().readinto(buffer)
        self.total += count or 0
        return count

    def tell(self) -> int:
        """Return how many bytes came."""
        return self.total


class Reader(io.BufferedReader):
    """What a client sends."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        self._source = _Counted(connection)
        super().__init__(self._source, size)

    def has_data(self) -> bool:
        """Say whether bytes came that nobody has read."""
        return self._source.total > self.tell()

    @property
    def bytes_read(self) -> int:
        """How many bytes came, for cheroot's statistics."""
        return self._source.total


class Writer:
    """What goes to the client: every write is on its way when it returns."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._raw = socket.SocketIO(connection, "w")  # keeps the socket open as long as cheroot does not close this
        self.bytes_written = 0

    def write(self, data: bytes) -> int:
        """Send all of it. Raises OSError."""
        self._connection.sendall(data)
        self.bytes_written += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()

    @property
    def closed(self) -> bool:
        """Whether it was let go of."""
        return self._raw.closed


def make_file(connection: socket.socket, mode: str, size: int) -> Reader | Writer:
    """Return a reader or a writer, in the form that cheroot asks for it."""
    return Reader(connection, size) if "r" in mode else Writer(connection)
