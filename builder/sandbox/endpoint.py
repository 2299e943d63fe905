"""How a running sandbox is reached, and how it is asked about itself. Imports nothing of it."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from builder.errors import HostError
from builder.sandbox import settings

_PATIENCE = 10  # seconds for an answer
# "Endpoints" in the facts of Eucalyptus: the paths of 4.0 and later; `bootstrap` is euca2ools' word for Empyrean.
_PATHS = {"ec2": "compute", "s3": "objectstorage", "iam": "Euare", "sts": "Tokens", "bootstrap": "Empyrean"}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """How to reach a running sandbox: `url` is its TLS port where it has one, and `ca_file` then whom to trust."""

    url: str
    plain_url: str
    tls_url: str | None
    region: str
    access_key: str
    secret_key: str
    ca_file: Path | None
    pid: int
    directory: Path
    personality: str = settings.AWS
    release: str = ""
    machines: str = "none"  # what runs behind its instances

    def service(self, name: str) -> str:
        """Return the URL of a service by AWS's name for it: ec2, s3, iam, sts, ...; with Eucalyptus also `bootstrap`.

        AWS's personality tells services apart by what is signed, Eucalyptus' by the path. Raises KeyError there for a
        service that Eucalyptus does not have (ebs, ssm).
        """
        return self.url + (f"/services/{_PATHS[name]}" if self.personality == settings.EUCALYPTUS else "")


def read(directory: Path) -> Endpoint:
    """Return how the running server says it is reached. Raises FileNotFoundError before it has."""
    values = json.loads((directory / settings.ENDPOINT).read_text())
    ca_file = Path(values.pop("ca_file")) if values["ca_file"] else values.pop("ca_file")
    return Endpoint(**values | {"directory": Path(values["directory"])}, ca_file=ca_file)


def ask(endpoint: Endpoint, path: str, *, method: str = "GET", body: bytes = b"") -> dict[str, Any]:
    """Return what the running sandbox answers on a page of its own.

    Raises HostError when it refuses or fails, OSError and HTTPException when it cannot be reached.
    """
    address = urlsplit(endpoint.url).netloc
    connection = (
        http.client.HTTPSConnection(
            address, timeout=_PATIENCE, context=ssl.create_default_context(cafile=endpoint.ca_file)
        )
        if endpoint.ca_file
        else http.client.HTTPConnection(address, timeout=_PATIENCE)
    )
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        text = response.read()
        if response.status >= 400:
            said = f": {text.decode(errors='replace')}" if text else ""
            raise HostError(
                f"the sandbox answered {method} {path} with {response.status} {response.reason}{said}",
                hint=f"{endpoint.directory / settings.LOG} may say why.",
            )
        answer: dict[str, Any] = json.loads(text or b"{}")
        return answer
    finally:
        connection.close()
