"""qemu's control socket (QMP): JSON lines, one reply per command, events in between.

Source: qemu, docs/interop/qmp-spec.txt.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder.errors import GuestError

_PATIENCE = 60  # seconds for an answer: qemu answers at once unless the host is starved or the process hangs

Event = Mapping[str, Any]


class Monitor:
    """A conversation with one running qemu."""

    def __init__(self, place: Path | socket.socket) -> None:
        """Talk over a connected socket, or connect to one that qemu is listening on. Raises GuestError."""
        self.events: list[Event] = []
        self._socket = place if isinstance(place, socket.socket) else socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE)
        if isinstance(place, Path):
            try:
                self._socket.connect(str(place))
            except OSError as error:
                self._socket.close()
                raise GuestError(f"qemu's control socket {place} does not answer: {error.strerror}") from error
        self._stream = self._socket.makefile("rwb")
        self._read()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Give a command and return what it returns. Raises GuestError with qemu's own words when it refuses."""
        line = json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n"
        try:
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:
            raise GuestError(f"qemu is gone: it did not take {command}") from error
        while True:
            said = self._read()
            if "event" in said:
                self.events.append(said)
            elif "error" in said:
                raise GuestError(f"qemu refused {command}: {said['error']['desc']}")
            else:
                return said["return"]

    def wait_for(self, name: str, matches: Callable[[Mapping[str, Any]], bool]) -> None:
        """Take the first event `name` whose data `matches`, come already or still to come. Raises GuestError."""
        while True:
            for event in self.events:
                if event["event"] == name and matches(event.get("data", {})):
                    self.events.remove(event)
                    return
            said = self._read()
            if "event" in said:
                self.events.append(said)

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):  # a command that never left, to a qemu that is gone
            self._stream.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._stream.readline()
        except OSError as error:
            raise GuestError(f"qemu said nothing for {_PATIENCE} s") from error
        if not line:
            raise GuestError("qemu ended in the middle of the conversation")
        said: dict[str, Any] = json.loads(line)
        return said
