"""Accounts beside the directory's first one: made over our own page, kept as records."""

from __future__ import annotations

import secrets
import time

from builder.sandbox.protocols import rest_json
from builder.sandbox.records import Account
from builder.sandbox.state import State
from builder.sandbox.wire import ACCOUNT, Answer, Request

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_LONGEST = 50  # characters of an account's name, as in AWS Organizations


def answer(state: State, request: Request) -> Answer:
    """Answer our own page `accounts`: GET lists them; PUT with ?name= makes one and answers with its root's keys.

    PUT, because a stranger's web page cannot make a browser send one.
    """
    if request.method == "GET":
        found = [{"account": one.account, "name": one.name} for one in list(state.all(Account).values())]
        return rest_json.answer({"accounts": [{"account": ACCOUNT, "name": "first"}, *found]})
    if request.method != "PUT":
        return Answer(status=405, headers={"Allow": "GET, PUT"})
    name = request.query.get("name", "")
    if not 1 <= len(name) <= _LONGEST:
        return Answer(status=400)
    made = add(state, name)
    keys = {"account": made.account, "access_key": made.access_key, "secret_key": made.secret_key}
    return rest_json.answer(keys, status=201)


def add(state: State, name: str) -> Account:
    """Make an account and return it: durable once this returns."""
    with state.lock:
        number = str(secrets.randbelow(9 * 10**11) + 10**11)
        while number == ACCOUNT or number in state.all(Account):
            number = str(secrets.randbelow(9 * 10**11) + 10**11)
        made = Account(
            account=number,
            name=name,
            access_key=new_id("AKIA"),
            secret_key=new_secret(),
            creation_time=time.time(),
        )
        state.put(made)
    return made


def new_id(prefix: str) -> str:
    """Return a fresh id of IAM: its prefix says of what, 16 letters follow."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(16))


def new_secret() -> str:
    """Return a fresh secret access key: 40 characters."""
    return secrets.token_urlsafe(30)
