"""`python -m builder.sandbox DIRECTORY`: serve a sandbox in the foreground, or with --detach in the background."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from pathlib import Path

from builder.errors import EmiError, HostError

_MISSING = "pip install 'emi-pipelines[sandbox]'"


def main() -> None:
    """Serve until killed. With --detach: end with status 0 once the server answers, it going on by itself."""
    parser = argparse.ArgumentParser(prog="python -m builder.sandbox", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction)
    parser.add_argument("--tls-port", type=int, default=0)
    parser.add_argument("--personality")
    parser.add_argument("--release")
    parser.add_argument("--machines")
    parser.add_argument("--detach", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    told = _detach() if options.detach else None
    try:
        _serve(options, told)
    except EmiError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
    except Exception:
        logging.exception("the sandbox failed")  # noqa: LOG015 - the root of this program
    finally:
        sys.stderr.flush()
        os._exit(1)  # the server's threads would keep a failed start alive


def _serve(options: argparse.Namespace, told: int | None) -> None:
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # none but our own images, whatever of moto is imported
    gc.disable()  # a tenth of the start otherwise; the server enables it once all is imported
    try:
        # Lazy on purpose: the extra may be missing, and the fork above wants a small process.
        from builder.sandbox import server
    except ImportError as error:
        raise HostError(f"the sandbox needs a package that is not installed: {error.name}", hint=_MISSING) from error

    def ready() -> None:
        if told is not None:
            os.write(told, b"ready")
            os.close(told)

    directory = options.directory.resolve()
    server.serve(
        directory,
        port=options.port,
        tls=options.tls,
        tls_port=options.tls_port,
        personality=options.personality,
        release=options.release,
        machines=options.machines,
        ready=ready,
    )


def _detach() -> int:
    """Go on in a child process; the parent waits for its word on the returned pipe and ends accordingly."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        return writing
    os.close(writing)
    word = os.read(reading, 16)
    os._exit(0 if word == b"ready" else 1)


if __name__ == "__main__":
    main()
