"""The one door to botocore: its sessions, its clients, and the translation of all its exceptions.

Imported late by its callers: loading botocore costs 0.15 s, creating an EC2 client as much again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import botocore.config  # noqa: TID251 - this is the door
import botocore.credentials  # noqa: TID251
import botocore.exceptions as foreign  # noqa: TID251
import botocore.parsers  # noqa: TID251
import botocore.session  # noqa: TID251
from botocore import xform_name  # noqa: TID251

from builder import pool
from builder.cloud.refusals import Refusal
from builder.cloud.settings import Settings
from builder.cloud.sigv4 import Keys
from builder.errors import CloudDenied, CloudError, CloudTrouble, EmiError, InternalError, UsageError

_CONNECT_TIMEOUT = 10  # seconds
_READ_TIMEOUT = 60  # seconds; RegisterImage answers within 10
_CONNECTIONS = 64  # kept open per service: more threads than anybody lets upload
_PIECE = 1 << 20  # bytes of a body read at once
_LONGEST_PAUSE = 60  # seconds of Retry-After that are obeyed
_MODELS = Path(__file__).parent / "models"  # of services that botocore does not know, in its own format
_ADDED = "emi-added"  # in a call's context: what is sent beyond botocore's model

# Before their bases: the first match decides. What none matches is a defect in how we call.
_MEANING: tuple[tuple[tuple[type[Exception], ...], type[EmiError]], ...] = (
    (
        (
            foreign.NoCredentialsError,
            foreign.PartialCredentialsError,
            foreign.CredentialRetrievalError,
            foreign.UnknownCredentialError,
            foreign.MetadataRetrievalError,
            foreign.RefreshWithMFAUnsupportedError,
            foreign.SSOError,
            foreign.LoginError,
            foreign.TokenRetrievalError,
            foreign.NoAuthTokenError,
            foreign.UnknownTokenProviderError,
        ),
        CloudDenied,
    ),
    (
        (
            foreign.ConnectionError,
            foreign.HTTPClientError,
            foreign.IncompleteReadError,
            foreign.ChecksumError,
            foreign.FlexibleChecksumError,
            foreign.AwsChunkedWrapperError,
            foreign.CapacityNotAvailableError,
        ),
        CloudTrouble,
    ),
    (
        (
            foreign.ProfileNotFound,
            foreign.ConfigNotFound,
            foreign.ConfigParseError,
            foreign.InvalidConfigError,
            foreign.InvalidDefaultsMode,
            foreign.InvalidProxiesConfigError,
            foreign.InvalidRetryConfigurationError,
            foreign.InvalidChecksumConfigError,
            foreign.InvalidIMDSEndpointError,
            foreign.InvalidIMDSEndpointModeError,
            foreign.InvalidSTSRegionalEndpointsConfigError,
            foreign.InvalidS3UsEast1RegionalEndpointConfigError,
            foreign.InvalidS3AddressingStyleError,
            foreign.InvalidEndpointConfigurationError,
            foreign.InvalidEndpointDiscoveryConfigurationError,
            foreign.InvalidDNSNameError,
            foreign.InvalidHostLabelError,
            foreign.BaseEndpointResolverError,
            foreign.EndpointProviderError,
            foreign.UnknownRegionError,
            foreign.ServiceNotInRegionError,
            foreign.ValidationError,
            foreign.ParamValidationError,
            foreign.MissingDependencyException,
        ),
        UsageError,
    ),
    ((foreign.WaiterError, foreign.PaginationError, botocore.parsers.ResponseParserError), CloudError),
)


def translate(error: Exception, call: str) -> EmiError:
    """Return our error for one of botocore's; `call` is the API call, or what else was attempted."""
    if isinstance(error, foreign.ClientError):
        return _refusal(error, call).error()
    if isinstance(error, foreign.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return CloudError(
            f"{call}: {error}",
            hint="Give the certificate authority's file: AWS_CA_BUNDLE, or `ca_file` in clouds.yaml.",
        )
    for classes, ours in _MEANING:
        if isinstance(error, classes):
            return ours(f"{call}: {error}")
    return InternalError(f"{call}: {type(error).__name__}: {error}")


def _refusal(error: foreign.ClientError, call: str) -> Refusal:
    details, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    return Refusal(
        call=call,
        code=str(details.get("Code", "Unknown")),
        message=str(details.get("Message") or error.response.get("Message") or ""),
        status=int(about.get("HTTPStatusCode", 0)),
        reason=str(error.response.get("Reason", "")),
        date=about.get("HTTPHeaders", {}).get("date"),
        retry_after=_seconds(about.get("HTTPHeaders", {}).get("retry-after", "")),
    )


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), _LONGEST_PAUSE) if retry_after.isdecimal() else 0


@contextmanager
def translated(call: str, *, on_throttling: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise what botocore raises inside the block as one of our errors; say first if the cloud finds us too fast."""
    try:
        yield
    except foreign.ClientError as error:
        if _refusal(error, call).throttled:
            on_throttling()
        raise translate(error, call) from error
    except (
        foreign.BotoCoreError,
        foreign.UndefinedModelAttributeError,
        botocore.parsers.ResponseParserError,
    ) as error:
        raise translate(error, call) from error


def configured_region(profile: str | None) -> str | None:
    """Return the region that a profile (None: the default) has. Raises UsageError for an unknown profile."""
    with translated("reading the AWS configuration"):
        region = botocore.session.Session(profile=profile).get_config_variable("region")
    return str(region) if region else None


def configured_profiles() -> list[str]:
    """Return the names of the AWS profiles that are configured. Raises UsageError for files that cannot be read."""
    with translated("reading the AWS configuration"):
        return [str(name) for name in botocore.session.Session().available_profiles]


def _refuse_cut(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
    """Raise botocore's own error for an answer that ends before its Content-Length, which botocore takes for whole."""
    body, headers = response_dict["body"], response_dict["headers"]
    stated = headers.get("content-length", "")
    whole = operation_model.http["method"] == "HEAD" or headers.get("content-encoding") or not stated.isdecimal()
    if isinstance(body, bytes) and not whole and len(body) < int(stated):
        raise foreign.IncompleteReadError(actual_bytes=len(body), expected_bytes=int(stated))


# Handlers of botocore's events. All return None: any other value would be taken for the call's answer.
def _dropping(names: tuple[str, ...]) -> Callable[..., None]:
    """Return what takes parameters out of a request that is built and not yet signed."""

    def drop(params: Mapping[str, Any], **_: Any) -> None:
        for name in names:
            params["body"].pop(name, None)

    return drop


def _taking_aside(names: tuple[str, ...]) -> Callable[..., None]:
    """Return what hides parameters from botocore's check against its model."""

    def take_aside(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_ADDED] = {name: params.pop(name) for name in names if name in params}

    return take_aside


def _put_back(params: Mapping[str, Any], context: Mapping[str, Any], **_: Any) -> None:
    params["body"].update(context.get(_ADDED, {}))


class Session:
    """botocore's clients for one Settings, each created at its first use; retrying is left to the caller."""

    def __init__(self, settings: Settings, *, on_throttling: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._on_throttling = on_throttling
        self._lock = pool.Lock()
        self._clients: dict[str, Any] = {}
        self._credentials: Any = None
        with translated("reading the AWS configuration"):
            # With keys of its own a cloud needs no profile: the one that AWS_PROFILE names is of another cloud.
            own = {"profile": (None, None, None, None)} if settings.access_key and not settings.profile else {}
            self._session = botocore.session.Session(session_vars=own, profile=settings.profile)
            self._session.get_component("data_loader").search_paths.append(str(_MODELS))
            if settings.access_key and settings.secret_key:
                self._session.set_credentials(settings.access_key, settings.secret_key, settings.session_token)

    def call(self, service: str, action: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make one API call, once, and return its answer. Raises only errors of builder/errors.py."""
        with translated(f"{service}:{action}", on_throttling=self._on_throttling):
            answer: Mapping[str, Any] = getattr(self._client(service), xform_name(action))(**parameters)
        return answer

    def control(self, service: str, action: str, parameters: Mapping[str, Any], *, limit: float) -> Mapping[str, Any]:
        """Make one small call as `call` does, but wait for its last byte no longer than `limit` seconds.

        botocore's own limit is between two bytes: an answer that trickles would hold us for hours.
        """
        answer = pool.Background(lambda: self.call(service, action, parameters))
        try:
            return answer.result(limit)
        except TimeoutError as error:
            raise CloudTrouble(f"{service}:{action}: no whole answer within {limit:.0f} s") from error

    def receive(
        self,
        service: str,
        action: str,
        parameters: Mapping[str, Any],
        begin: Callable[[Mapping[str, Any]], Callable[[bytes], None]],
    ) -> None:
        """Make one call, once, whose answer has a body, and hand the body over in pieces of at most 1 MiB.

        `begin` is given the answer before its body and returns what takes the pieces. A body that is cut raises
        CloudTrouble after the pieces that came.
        """
        with translated(f"{service}:{action}", on_throttling=self._on_throttling):
            answer = getattr(self._client(service), xform_name(action))(**parameters)
            with closing(answer["Body"]) as body:
                take = begin(answer)
                while piece := body.read(_PIECE):
                    take(piece)

    def presigned(self, service: str, action: str, parameters: Mapping[str, Any], *, seconds: int) -> str:
        """Return a URL with which anybody can make this one call for so many seconds. Nothing is sent."""
        with translated(f"signing {service}:{action}"):
            client = self._client(service)
            return str(client.generate_presigned_url(xform_name(action), Params=parameters, ExpiresIn=seconds))

    def url(self, service: str) -> str:
        """Return the URL at which the service answers."""
        with translated(f"finding the endpoint of {service}"):
            return str(self._client(service).meta.endpoint_url)

    def keys(self) -> Keys:
        """Return the credentials, refreshed by botocore when they are about to expire. Raises CloudDenied."""
        with translated("finding AWS credentials"):
            with self._lock:
                if self._credentials is None:
                    self._credentials = self._session.get_credentials()
            if self._credentials is None:
                raise foreign.NoCredentialsError
            frozen = self._credentials.get_frozen_credentials()
        return Keys(access_key=frozen.access_key, secret_key=frozen.secret_key, token=frozen.token)

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                client = self._session.create_client(
                    service,
                    region_name=self._settings.region,
                    endpoint_url=self._settings.url(service),
                    verify=self._verify(),
                    config=self._config(service),
                )
                client.meta.events.register("before-parse", _refuse_cut)
                for action, names in self._settings.query.drops.items() if service == "ec2" else ():
                    client.meta.events.register(f"before-call.ec2.{action}", _dropping(names))
                for action, names in self._settings.query.adds.items() if service == "ec2" else ():
                    client.meta.events.register(f"provide-client-params.ec2.{action}", _taking_aside(names))
                    client.meta.events.register(f"before-call.ec2.{action}", _put_back)
                self._clients[service] = client
            return self._clients[service]

    def _verify(self) -> bool | str | None:
        if not self._settings.verify:
            # urllib3 would say so at each call; whoever opened this cloud has said it once.
            warnings.filterwarnings("ignore", message="Unverified HTTPS request")
            return False
        return str(self._settings.ca_file) if self._settings.ca_file else None

    def _config(self, service: str) -> botocore.config.Config:
        common = botocore.config.Config(
            retries={"total_max_attempts": 1},  # ours are bounded in time and shown
            connect_timeout=_CONNECT_TIMEOUT,
            read_timeout=_READ_TIMEOUT,
            max_pool_connections=_CONNECTIONS,
            user_agent_extra="emi",
        )
        if service != "s3":
            # Version 2 has to be asked for; version 4 is what each service's model says, in its own variant.
            old = botocore.config.Config(signature_version="v2")
            return common.merge(old) if self._settings.query.signature == "v2" else common
        dialect = self._settings.s3
        return common.merge(
            botocore.config.Config(
                signature_version=dialect.signature,
                s3={"addressing_style": dialect.addressing},
                request_checksum_calculation=dialect.checksums,
                response_checksum_validation=dialect.checksums,
            )
        )
