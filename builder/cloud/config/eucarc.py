"""An `eucarc` file, or its variables in the environment: what a Eucalyptus cloud gave its users up to 4.2.

The file is a shell script, and is read without a shell: assignments are taken, everything else is passed over. Source:
"Client configuration" of the facts; `euca-generate-environment-config` of later releases writes `A=B; export A;`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from builder.cloud.config.found import Configured, endpoints
from builder.cloud.eucalyptus import REGION, query_dialect, s3_dialect
from builder.cloud.identity import Said, Sources, said_in
from builder.cloud.releases import Release
from builder.cloud.settings import Settings
from builder.errors import UsageError

_LARGEST = 1 << 20  # bytes
_URLS: Mapping[str, tuple[str, ...]] = {
    "ec2": ("EC2_URL",),
    "s3": ("S3_URL",),
    "iam": ("AWS_IAM_URL", "EUARE_URL"),
    "sts": ("TOKEN_URL",),
    "bootstrap": ("EUCA_BOOTSTRAP_URL",),
}
_ACCESS = ("EC2_ACCESS_KEY", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
_SECRET = ("EC2_SECRET_KEY", "AWS_SECRET_KEY", "AWS_SECRET_ACCESS_KEY")
_ACCOUNT = ("EC2_USER_ID", "EC2_ACCOUNT_NUMBER")
_OTHERS = ("EC2_CERT", "EC2_PRIVATE_KEY", "EUCALYPTUS_CERT", "EUCA_CERT", "EUCA_PRIVATE_KEY", "AWS_CREDENTIAL_FILE")
KNOWN = frozenset((*(name for names in _URLS.values() for name in names), *_ACCESS, *_SECRET, *_ACCOUNT, *_OTHERS))

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
# The stretches of a word: '…', "…" with escapes, an escaped character, a substitution, plain text.
_STRETCH = re.compile(
    r"""'(?P<literal>[^']*)' | "(?P<quoted>(?:[^"\\]|\\.)*)" | \\(?P<escaped>.)
      | (?P<run>\$\(.*?\)(?=[\s;"']|$) | `[^`]*`) | (?P<plain>[^\s;'"\\`#]+ | \#)""",
    re.VERBOSE,
)


def variables(path: Path) -> dict[str, Said]:
    """Return the variables that the file sets, with the lines that set them.

    `${EUCA_KEY_DIR}` is the file's own directory, however the file finds that out. Raises UsageError for a file that
    cannot be read, and for a value of use here that only a shell could tell.
    """
    found = {"EUCA_KEY_DIR": Said(str(path.expanduser().absolute().parent), f"the directory of {path}")}
    for number, line in enumerate(_text(path).splitlines(), 1):
        where = f"{path}:{number}"
        for name, value in _assignments(line):
            if name != "EUCA_KEY_DIR":
                found[name] = Said(_Reader(found, where, name).text(value), where)
    return found


def in_environment(environment: Mapping[str, str]) -> dict[str, Said]:
    """Return what the environment holds of an eucarc's variables."""
    return {name: Said(environment[name], name) for name in sorted(KNOWN) if environment.get(name)}


def configured(found: Mapping[str, Said], where: str) -> Configured:
    """Return the cloud that the variables describe; `where` is where they come from. Raises UsageError."""
    urls = {service: said for service, names in _URLS.items() if (said := _first(found, names))}
    if "ec2" not in urls:
        raise UsageError(f"{where} sets no EC2_URL", hint="Is it the eucarc of a cloud?")
    access, secret = _first(found, _ACCESS), _first(found, _SECRET)
    if (not access or not secret) and "AWS_CREDENTIAL_FILE" in found:
        access, secret = _credential_file(found["AWS_CREDENTIAL_FILE"])
    if not access or not secret:
        raise UsageError(
            f"{where} sets {'no access key' if not access else 'no secret key'}",
            hint="It needs EC2_ACCESS_KEY and EC2_SECRET_KEY, or AWS_ACCESS_KEY and AWS_SECRET_KEY.",
        )
    release = Release()  # the file does not say; what every release takes is used
    return Configured(
        kind="eucalyptus",
        settings=Settings(
            region=REGION,
            endpoints=endpoints(urls),
            access_key=access.value,
            secret_key=secret.value,
            location="",
            s3=s3_dialect(release),
            query=query_dialect(release),
        ),
        release=release,
        sources=_sources(found, where),
    )


def _sources(found: Mapping[str, Said], where: str) -> Sources:
    said = {name: found[said.where] for name, said in said_in({key: found[key].value for key in found}).items()}
    account = _first(found, _ACCOUNT)
    settable = {
        "account": f"EC2_USER_ID of {where}",
        "cloud_certificate": f"EUCALYPTUS_CERT of {where}",
    }
    return Sources(**{**said, **({"account": account} if account else {})}, settable=settable)


def _first(found: Mapping[str, Said], names: tuple[str, ...]) -> Said | None:
    return next((found[name] for name in names if name in found and found[name].value), None)


def _text(path: Path) -> str:
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError, RuntimeError) as error:
        words = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {words}", hint="Name the file: --cloud eucarc:FILE.") from error
    if len(data) > _LARGEST:
        raise UsageError(f"{path} is larger than 1 MiB, so it is no eucarc")
    return data.decode(errors="replace")


def _assignments(line: str) -> Iterator[tuple[str, list[re.Match[str]]]]:
    """Yield the names that a line assigns to, each with the stretches of its value."""
    position, command = 0, True  # where a command may begin: only there is `A=B` an assignment
    while position < len(line):
        if line[position] in " \t\r":
            position += 1
        elif line[position] == ";":
            position, command = position + 1, True
        elif line[position] == "#":
            return
        elif command and (name := _ASSIGNED.match(line, position)):
            stretches, position = _word(line, name.end())
            yield name.group(1), stretches
        else:
            first = _NAME.match(line, position)
            _, after = _word(line, position)
            command = command and first is not None and first.group() == "export" and first.end() == after
            position = after


def _word(line: str, position: int) -> tuple[list[re.Match[str]], int]:
    """Return the stretches of the word at the position, and where it ends."""
    stretches = []
    while found := _STRETCH.match(line, position):
        stretches.append(found)
        position = found.end()
    if position < len(line) and line[position] not in " \t\r;":
        position = len(line)  # a quote that is never closed: the rest of the line is in it
    return stretches, position


class _Reader:
    """The value of one assignment."""

    def __init__(self, known: Mapping[str, Said], where: str, name: str) -> None:
        self._known, self._where, self._name = known, where, name

    def text(self, stretches: list[re.Match[str]]) -> str:
        return "".join(map(self._stretch, stretches))

    def _stretch(self, found: re.Match[str]) -> str:
        match found.lastgroup:
            case "literal" | "escaped":
                return found.group(found.lastgroup)
            case "quoted":
                if "$(" in found.group("quoted") or "`" in found.group("quoted"):
                    self._refuse("runs a command")
                return re.sub(r'\\([$"\\`])', r"\1", self._expanded(found.group("quoted")))
            case "run":
                self._refuse("runs a command")
                return ""
            case _:
                return self._expanded(found.group())

    def _expanded(self, text: str) -> str:
        return _VARIABLE.sub(lambda name: self._variable(name.group(1) or name.group(2)), text)

    def _variable(self, name: str) -> str:
        if name not in self._known:
            self._refuse(f"needs the variable {name}, which the file does not set before")
            return ""
        return self._known[name].value

    def _refuse(self, why: str) -> None:
        if self._name in KNOWN:
            raise UsageError(
                f"{self._where}: {self._name} {why}; emi runs nothing of the file", hint="Write the value out."
            )


def _credential_file(said: Said) -> tuple[Said | None, Said | None]:
    """Return the keys of a file of lines `AWSAccessKeyId=…` and `AWSSecretKey=…`, as Amazon's old tools have it."""
    path = Path(said.value).expanduser()
    found: dict[str, Said] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        name, equals, value = line.partition("#")[0].partition("=")
        if equals:
            found[name.strip()] = Said(value.strip(), f"{path}:{number}")
    return found.get("AWSAccessKeyId"), found.get("AWSSecretKey")
