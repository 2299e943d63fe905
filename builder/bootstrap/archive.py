"""Where the packages come from, and in what state that archive is: what a build is keyed by.

An archive's state is the set of SHA-256 sums that its signed index gives for the package lists in use; the index
itself is signed anew several times a day without any package having changed.
Source: "DebianRepository/Format" in Debian's wiki.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from builder import durable, pool, proc
from builder.errors import HostError, InputError, UsageError
from builder.fetch import Web, resolve

Distribution = Literal["debian", "ubuntu"]
ARCHITECTURE = "amd64"
KEYS = Path("/usr/share/keyrings")  # where DISTRIBUTION-archive-keyring installs the archive's keys
_LINE = re.compile(r"deb[ \t]+(?:(\[[^]\n]*\])[ \t]+)?(\S+)[ \t]+(\S+)((?:[ \t]+[\w./-]+)*)[ \t]*")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place packages come from: a `deb` line of apt's sources.list (sources.list(5))."""

    options: str  # `[signed-by=…]`, or empty
    uri: str
    suite: str
    components: tuple[str, ...]

    @classmethod
    def parse(cls, line: str) -> Source:
        """Return the source that `line` means. Raises UsageError."""
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise UsageError(
                f"{line!r} is no line for apt", hint="Write it like: deb URL SUITE COMPONENT (sources.list(5))."
            )
        options, uri, suite, components = found.groups()
        return cls(options=options or "", uri=uri, suite=suite, components=tuple(components.split()))

    def __str__(self) -> str:
        return " ".join(filter(None, ("deb", self.options, self.uri, self.suite, *self.components)))

    def through(self, mirrors: Sequence[tuple[str, str]]) -> Source:
        """Return the source with its URL's prefix replaced as `mirrors` say."""
        address = resolve(self.uri.replace("copy:", "file:", 1), mirrors)
        moved = address.actual if address.actual != address.url else self.uri
        return Source(options=self.options, uri=moved, suite=self.suite, components=self.components)

    @property
    def index(self) -> str:
        """The URL of its signed index. The copy: method is apt's own word for file:."""
        directory = f"{self.uri.replace('copy:', 'file:', 1).rstrip('/')}/"
        return (
            f"{directory}{self.suite}InRelease"
            if self.suite.endswith("/")
            else f"{directory}dists/{self.suite}/InRelease"
        )


@dataclass(frozen=True, kw_only=True)
class State:
    """The archive at one moment: `lists` names each package list and its sum, `date` (seconds) the suite's release."""

    lists: Mapping[str, str]
    date: int


def sources(
    distribution: Distribution,
    suite: str,
    *,
    mirror: str | None,
    components: Sequence[str],
    further: Sequence[str] = (),
    cache: Path,
    keys: Path | None = KEYS,
) -> Sequence[Source]:
    """Return where a system's packages come from: `mirror`, or mmdebstrap's own choice for the suite; then `further`.

    Asks mmdebstrap once and remembers its answer in `cache`. Raises UsageError if the suite is not the distribution's,
    and HostError if `mirror` is left open and `keys` (None: others are used) has none for the distribution's archive.
    """
    extra = [Source.parse(line) for line in further]
    if mirror:
        return [Source(options="", uri=mirror, suite=suite, components=tuple(components)), *extra]
    program = proc.find("mmdebstrap")
    words = (suite, *components, str(program), str(program.stat().st_mtime_ns))
    remembered = cache / f"sources-{sha256(' '.join(words).encode()).hexdigest()[:16]}"
    if not remembered.exists():
        cache.mkdir(parents=True, exist_ok=True)
        durable.write_file(remembered, "\n".join(_ask(suite, components)).encode())
    lines = remembered.read_text().splitlines()
    if not lines or not all(distribution in line for line in lines):
        raise UsageError(
            f"{suite} is no suite of {distribution} that mmdebstrap knows",
            hint="Correct `suite` or `distribution`, or name the archive with `mirror`.",
        )
    if keys and not (keys / f"{distribution}-archive-keyring.gpg").exists():
        raise HostError(
            f"this machine has no key of {distribution}'s archive in {keys}",
            hint=f"sudo apt-get install {distribution}-archive-keyring; or name a file of keys with `keyring`.",
        )
    return [*map(Source.parse, lines), *extra]


def state(found: Sequence[Source], web: Web) -> State:
    """Return the state of the archive, by reading each source's index. Raises NetworkError and InputError.

    Nothing is trusted here: apt checks the signatures when it installs.
    """
    texts = list(pool.in_order(lambda source: web.read(source.index).decode(errors="replace"), found, workers=4))
    lists: dict[str, str] = {}
    for source, text in zip(found, texts, strict=True):
        lists |= _lists(source, text)
    return State(lists=lists, date=_date(found[0], texts[0]))


def _ask(suite: str, components: Sequence[str]) -> Sequence[str]:
    # Nothing is installed or fetched: the hook shows the sources.list that mmdebstrap would begin with.
    said = proc.run(
        [
            *("mmdebstrap", "--mode=chrootless", "--variant=custom", "--skip=update"),
            *(f"--components={','.join(components)}", '--setup-hook=cat "$1"/etc/apt/sources.list >&2'),
            *("--", suite, "/dev/null"),
        ]
    )
    lines = said.stderr.decode(errors="replace").splitlines()
    return [line for line in lines if line.startswith("deb ")]


def _lists(source: Source, text: str) -> Mapping[str, str]:
    by_path = {path: digest for digest, path in re.findall(r"^ ([0-9a-f]{64}) +\d+ (\S+)$", text, re.M)}
    found = {}
    for component in source.components:
        for kind in ("", ".xz", ".gz"):
            path = f"{component}/binary-{ARCHITECTURE}/Packages{kind}"
            if path in by_path:
                found[f"{source.uri} {source.suite} {component}"] = by_path[path]
                break
    return found or {f"{source.uri} {source.suite}": sha256(text.encode()).hexdigest()}


def _date(source: Source, text: str) -> int:
    found = re.search(r"^Date: (.+)$", text, re.M)
    if not found:
        raise InputError(f"{source.index} is no index of a package archive: it has no Date")
    return int(parsedate_to_datetime(found[1]).timestamp())
