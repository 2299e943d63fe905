"""AWS's query protocols (EC2's own and STS's): form parameters in, XML out, both by botocore's service model.

moto.core parses and serializes; which calls exist and what they do is ours. Importing it and reading EC2's model
takes 0.2 s, so it happens once, on the first call or in the background after the start.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec
from typing import Any
from xml.sax.saxutils import escape

from builder import pool
from builder.sandbox.wire import Answer, Refusal, Request

_XML = {"Content-Type": "text/xml;charset=UTF-8"}
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


class QueryService:
    """The model of one service, `ec2` or `sts`."""

    def __init__(self, service: str) -> None:
        # Lazy on purpose: see the module's docstring.
        _without_its_own_imports("moto", "moto.core")
        from botocore.model import OperationNotFoundError  # noqa: TID251 - the model's words, no call to a cloud
        from moto.core.parse import PROTOCOL_PARSERS
        from moto.core.serialize import SERIALIZERS, SerializationContext
        from moto.core.utils import get_service_model

        self._model = get_service_model(service)
        self._unknown: type[Exception] = OperationNotFoundError
        protocol = "ec2" if service == "ec2" else "query"
        self._parser, self._serializer = PROTOCOL_PARSERS[protocol], SERIALIZERS[protocol]
        self._context = SerializationContext

    def has(self, action: str) -> bool:
        """Say whether the real service has such a call."""
        return action in self._model.operation_names

    def words(self, shape: str) -> frozenset[str]:
        """Return the values that the model lists for an enumeration such as `InstanceType`."""
        return frozenset(self._model.shape_for(shape).enum)

    def parse(self, action: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Return the call's parameters by their names in the model. Raises Refusal for what it does not allow."""
        operation = self._model.operation_model(action)
        parser = self._parser(operation)
        shape = operation.input_shape
        if shape is None:
            return {}
        names = {self._wire_name(parser, member, name): name for name, member in shape.members.items()}
        for given in form:
            if given not in _COMMON and given.split(".")[0] not in names and not given.startswith("X-Amz-"):
                raise Refusal("UnknownParameter", f"The parameter {given.split('.')[0]} is not recognized")
        try:
            request: Any = {"values": _Form(form)}  # the one key of moto's RequestDict that a query has
            values: dict[str, Any] = parser.parse(request)
        except ValueError as error:
            raise Refusal("InvalidParameterValue", f"A parameter is not of its type: {error}") from error
        for wire, name in names.items():
            if name in shape.required_members and values.get(name) in (None, "", []):
                raise Refusal("MissingParameter", f"The request must contain the parameter {wire}")
        return values

    def answer(self, action: str, result: Mapping[str, Any], request: Request) -> Answer:
        """Return the result as the model says it is serialized."""
        serializer = self._serializer(self._model.operation_model(action), context=self._context(request.id))
        body = serializer.serialize(result)["body"]
        return Answer(headers=_XML, body=body if isinstance(body, bytes) else body.encode())

    @staticmethod
    def _wire_name(parser: Any, member: Any, name: str) -> str:
        wire: str = parser._get_serialized_name(member, name)  # noqa: SLF001 - moto has no public word for it
        return wire


def _without_its_own_imports(*packages: str) -> None:
    """Let modules of these packages be imported though the packages themselves have not run.

    moto's do so for its mocks: boto3, requests, responses and unittest.mock, 0.1 s of each start and never used here.
    """
    for name in packages:
        spec = find_spec(name)
        if spec and name not in sys.modules:
            sys.modules[name] = module_from_spec(spec)


_COMMON = {"Action", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "Timestamp"}


class _Form(dict[str, str]):
    """The form as moto's parser wants it: a mapping with `getlist`."""

    def __init__(self, form: Mapping[str, str]) -> None:
        super().__init__(form)

    def getlist(self, name: str) -> list[str]:
        """Return the values of that name."""
        return [self[name]] if name in self else []


# moto's modules import each other in a ring: a second thread that came in meanwhile would find them half made.
_READING = pool.Lock()


def service(name: str) -> QueryService:
    """Return the model of a service, read once."""
    with _READING:
        return _service(name)


@cache
def _service(name: str) -> QueryService:
    return QueryService(name)


def refuse_ec2(refusal: Refusal, request: Request) -> Answer:
    """Return the refusal as EC2 words it."""
    error = f"<Error><Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message></Error>"
    text = f"{_DECLARATION}<Response><Errors>{error}</Errors><RequestID>{request.id}</RequestID></Response>"
    return Answer(status=refusal.status, headers=_XML, body=text.encode())


def refuse_query(refusal: Refusal, request: Request) -> Answer:
    """Return the refusal as STS, IAM and the other services of the plain query protocol word it."""
    error = f"<Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message>"
    text = (
        f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>{request.id}</RequestId></ErrorResponse>"
    )
    return Answer(status=refusal.status, headers=_XML, body=text.encode())


def refuse_s3(refusal: Refusal, request: Request) -> Answer:
    """Return the refusal as S3 words it, whose own word for a call it does not have is NotImplemented."""
    code, status = ("NotImplemented", 501) if refusal.code == "UnsupportedOperation" else (refusal.code, refusal.status)
    error = f"<Code>{escape(code)}</Code><Message>{escape(refusal.message)}</Message>"
    text = f"{_DECLARATION}<Error>{error}<RequestId>{request.id}</RequestId></Error>"
    return Answer(status=status, headers={"Content-Type": "application/xml"}, body=text.encode())
