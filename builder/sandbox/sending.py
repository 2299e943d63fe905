"""Bodies that go out of files into the connection: by the kernel's sendfile, and through one buffer under TLS."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Callable
from typing import Any

from builder.sandbox.wire import Request, Stream

Write = Callable[[bytes], object]  # what WSGI's start_response returns

_STRETCH = 4 << 20  # bytes handed to the kernel at once
_PIECE = 256 << 10  # bytes read at once where TLS must see them


def send(stream: Stream, request: Request, write: Write) -> None:
    """Send the headers and, but for HEAD, the whole stream; close it. Raises OSError when the connection is lost.

    `write` is WSGI's. A file shorter than promised cuts the connection, so that the client cannot take the rest for
    whole.
    """
    try:
        write(b"")  # the headers
        if request.method != "HEAD":
            for descriptor, offset, count in stream.stretches():
                _send_stretch(request.socket, descriptor, offset, count)
    except BaseException:
        request.hang_up()
        raise
    finally:
        stream.close()


def _send_stretch(connection: Any, descriptor: int, offset: int, count: int) -> None:
    step = _PIECE if isinstance(connection, ssl.SSLSocket) else _STRETCH
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        while count > 0:
            size = min(step, count)
            if step == _PIECE:
                data = os.pread(descriptor, size, offset)
                connection.sendall(data)
                sent = len(data)
            else:
                sent = connection.sendfile(file, offset, size)
            if sent == 0:
                raise OSError(errno.EIO, "a file is shorter than its record says")
            offset, count = offset + sent, count - sent
