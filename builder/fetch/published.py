"""The checksum that a publisher promises for a file: as it is given, or as a checksum file, signed perhaps, has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from builder.errors import UsageError
from builder.fetch.address import resolve
from builder.fetch.web import Web
from builder.verify import Checksum, Keyring, parse_checksum, parse_sums


def is_url(value: str | None) -> bool:
    """Say whether a checksum is given as the address of a checksum file."""
    return value is not None and "://" in value


def problems(urls: Sequence[str | None], checksum: str | None) -> list[str]:
    """Return what is wrong with addresses, and with a checksum or the address of one, a sentence each."""
    found = []
    for url in (*urls, checksum if is_url(checksum) else None):
        found += _problem(resolve, url) if url else []
    if checksum and not is_url(checksum):
        found += _problem(parse_checksum, checksum)
    return found


def checksum(
    web: Web, url: str, given: str | None, *, signature: str | None = None, keyring: Keyring | None = None
) -> Checksum | None:
    """Return the checksum of what lies at `url`: the `given` one, or that of the checksum file at that address.

    With a keyring the checksum file must be signed, by `signature` (an address) or within itself. Raises InputError,
    SignatureInvalid, NetworkError, UsageError.
    """
    if given is None or not is_url(given):
        return parse_checksum(given) if given else None
    source = str(web.address(given))
    data = web.read(given)
    if keyring and signature:
        keyring.verify_detached(data, web.read(signature), what=f"{source}, signature {web.address(signature)}")
    elif keyring:
        _, data = keyring.verify_clearsigned(data, what=source)
    return parse_sums(data, web.address(url).name, source=source)


def _problem(parse: Callable[[str], object], value: str) -> list[str]:
    try:
        parse(value)
    except UsageError as error:
        return [f"{error.message}. {error.hint}" if error.hint != error.advice else error.message]
    return []
