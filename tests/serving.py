"""A web server for tests: a directory, on a port of loopback."""

from __future__ import annotations

import http.server
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder import pool


@contextmanager
def serve(directory: Path, address: str = "127.0.0.1") -> Iterator[int]:
    """Serve the files of a directory; yield the port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(directory))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((address, 0), Quiet) as server:
        serving = pool.Background(server.serve_forever)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.result()
