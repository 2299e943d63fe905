"""Path style: which service a request is for is said by its path, `/services/NAME`, and nothing else.

What the signature's scope says of service and region is not looked at (Hmacv4LoginModule of Eucalyptus).
"""

from __future__ import annotations

from builder.sandbox.wire import Refusal, Request

_PREFIX = "/services/"
# Of 4.0 and later, and the older names that they still answer to.
SERVICES = {
    "compute": "ec2",
    "Eucalyptus": "ec2",
    "objectstorage": "s3",
    "Walrus": "s3",
    "Euare": "iam",
    "Tokens": "sts",
    "Empyrean": "bootstrap",
}


def route(request: Request) -> None:
    """Have the request know the service that its path says, and the rest as its path. Raises Refusal for no service."""
    if request.path.startswith(_PREFIX):
        name = request.path.removeprefix(_PREFIX).partition("/")[0]
        if name in SERVICES:
            request.route(SERVICES[name], f"{_PREFIX}{name}")
            return
    raise Refusal("404 Not Found", f"No service is at {request.path}: paths are /services/NAME.", status=404)
