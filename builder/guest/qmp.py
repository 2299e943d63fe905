"""qemu's control socket (QMP): JSON lines, one reply per command, events in between.

Source: qemu, docs/interop/qmp-spec.txt.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder.errors import GuestError

_PATIENCE = 60  # seconds for an answer: qemu answers at once unless the host is starved or the process hangs

Event = Mapping[str, Any]


class Monitor:
    """A conversation with one running qemu. After a silence it can be gone on with: what comes late is passed over."""

    def __init__(self, place: Path | socket.socket, *, patience: float = _PATIENCE) -> None:
        """Talk over a connected socket, or connect to one that qemu is listening on; `patience` is in seconds.

        Raises GuestError.
        """
        self.events: list[Event] = []
        self._patience, self._number, self._come = patience, 0, b""
        self._socket = place if isinstance(place, socket.socket) else socket.socket(socket.AF_UNIX)
        self._socket.settimeout(patience)
        if isinstance(place, Path):
            try:
                self._socket.connect(str(place))
            except OSError as error:
                self._socket.close()
                raise GuestError(f"qemu's control socket {place} does not answer: {error.strerror}") from error
        self._read()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Give a command and return what it returns. Raises GuestError with qemu's own words when it refuses."""
        self._number += 1
        line = json.dumps({"execute": command, "arguments": arguments or {}, "id": self._number}).encode() + b"\n"
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise GuestError(f"qemu is gone: it did not take {command}") from error
        while True:
            said = self._read()
            if "event" in said:
                self.events.append(said)
            elif said.get("id") != self._number:
                continue  # the answer to a command that nobody waits for any more
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
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._come:
            try:
                more = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise GuestError(f"qemu said nothing for {self._patience:g} s") from error
            except OSError:  # reset: it was killed
                more = b""
            if not more:
                raise GuestError("qemu ended in the middle of the conversation")
            self._come += more
        line, _, self._come = self._come.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said
