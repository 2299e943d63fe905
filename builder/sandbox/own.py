"""The sandbox's own pages under `/_sandbox/`, beside the services: what is in it, what was called, the pause.

Nobody signs for them: whoever reaches the port may look. What changes something is a PUT or DELETE, methods that a page
of another origin in a browser cannot send without asking first, which nobody answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from builder.sandbox import audit, contents, page
from builder.sandbox.access import accounts
from builder.sandbox.bundling import Bundling
from builder.sandbox.cloud import Cloud
from builder.sandbox.faults import page as faults_page
from builder.sandbox.faults.table import Table as Faults
from builder.sandbox.pause import Pause
from builder.sandbox.protocols import rest_json
from builder.sandbox.records import Account
from builder.sandbox.tables import Table
from builder.sandbox.wire import ACCOUNT, Answer, Request

_OWN = "/_sandbox/"
_PAGE = 4 << 20  # bytes of the call list in one answer
_LONGEST = 60  # seconds of a pause without being renewed


class OwnPages:
    """Answers for what is not a service's."""

    def __init__(
        self, directory: Path, cloud: Cloud, faults: Faults, actions: Mapping[str, list[str]], bundling: Bundling
    ) -> None:
        self._directory = directory
        self._cloud = cloud
        self._faults = faults
        self._actions = actions
        self._bundling = bundling
        self.pause = Pause()

    def wanted(self, request: Request) -> bool:
        """Say whether the request is for one of these."""
        return request.path.startswith(_OWN) or page.wanted(request)

    def answer(self, request: Request) -> Answer:
        """Answer it."""
        if request.path == "/":
            return page.answer(self._tables(), place=str(self._directory), address=self._cloud.address)
        answers = {
            "contents": lambda: rest_json.answer({"tables": [asdict(table) for table in self._tables()]}),
            "status": lambda: rest_json.answer(self._cloud.summary()),
            "calls": lambda: self._calls(request.query.get("from", "0")),
            "actions": lambda: rest_json.answer(dict(self._actions)),
            "faults": lambda: faults_page.answer(self._faults, request),
            "accounts": lambda: accounts.answer(self._cloud.state, request),
            "identity": lambda: self._identity(request),
            "forward": lambda: self._forward(request),
            "pause": lambda: self._pause(request),
        }
        return answers.get(request.path.removeprefix(_OWN), lambda: Answer(status=404))()

    def _tables(self) -> list[Table]:
        return contents.tables(self._cloud, self._directory, self._faults.rows())

    def _pause(self, request: Request) -> Answer:
        """Hold calls back for `seconds`, or make that longer (`renew`); 0 lets them go on."""
        holder, text = request.query.get("holder", ""), request.query.get("seconds", "")
        if request.method != "PUT":
            return Answer(status=405, headers={"Allow": "PUT"})
        if not holder or not text.isdecimal() or int(text) > _LONGEST:
            return Answer(status=400)
        act = self.pause.renew if "renew" in request.query else self.pause.hold
        return rest_json.answer({"held": act(holder, int(text))})

    def _identity(self, request: Request) -> Answer:
        """Say in which files an account's pair for bundles and the cloud's certificate are, made if need be.

        PUT with ?account= (the first one's without). Not what is in them: that is for who may read the directory.
        """
        if request.method != "PUT":
            return Answer(status=405, headers={"Allow": "PUT"})
        number = request.query.get("account", ACCOUNT)
        if number != ACCOUNT and number not in self._cloud.state.all(Account):
            return Answer(status=404)
        pair = self._bundling.account(number)
        files = {
            "cloud_certificate": str(self._bundling.cloud().certificate),
            "certificate": str(pair.certificate),
            "private_key": str(pair.key),
        }
        return rest_json.answer({"account": number, **files})

    def _forward(self, request: Request) -> Answer:
        """Let machines that are started from now on reach ?port= of this host; PUT, forgotten at the next start."""
        text = request.query.get("port", "")
        if request.method != "PUT":
            return Answer(status=405, headers={"Allow": "PUT"})
        if not text.isdecimal() or not 0 < int(text) < 1 << 16:
            return Answer(status=400)
        self._cloud.machines.forward(int(text))
        return rest_json.answer({})

    def _calls(self, text: str) -> Answer:
        """Return the calls from a byte of the list, and where the next look begins."""
        if not text.isdecimal():
            return Answer(status=400)
        start = int(text)
        with open(self._directory / audit.FILE, "rb") as file:
            file.seek(start)
            data = file.read(_PAGE)
        whole = data[: data.rfind(b"\n") + 1]
        calls = [json.loads(line) for line in whole.splitlines()]
        return rest_json.answer({"calls": calls, "next": start + len(whole)})
