"""Every exception of botocore becomes one of ours."""

from __future__ import annotations

import inspect

import botocore.exceptions as foreign  # noqa: TID251 - what is translated
import botocore.parsers  # noqa: TID251
import pytest

from builder.cloud import session
from builder.cloud.settings import Settings
from builder.errors import (
    CloudDenied,
    CloudError,
    CloudTrouble,
    EmiError,
    InternalError,
    UsageError,
)

CLASSES = [
    found
    for _, found in inspect.getmembers(foreign, inspect.isclass)
    if issubclass(found, Exception) and not issubclass(found, Warning) and found.__module__ == foreign.__name__
]


def instance(kind: type[Exception], text: str = "words") -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    if isinstance(error, foreign.ClientError):
        error.response = {"Error": {"Code": "Odd", "Message": text}}
    return error


def test_there_are_classes_to_translate():
    assert len(CLASSES) > 80


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_is_translated_where_it_is_raised(kind):
    with pytest.raises(EmiError) as caught, session.translated("ec2:Anything"):
        raise instance(kind)
    assert "ec2:Anything" in caught.value.message
    assert "words" in caught.value.message
    assert isinstance(caught.value.__cause__, kind)


# Those of which none may be taken for a defect of ours: whatever a user's machine, network or settings can cause.
@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        (foreign.NoCredentialsError, CloudDenied),
        (foreign.PartialCredentialsError, CloudDenied),
        (foreign.CredentialRetrievalError, CloudDenied),
        (foreign.SSOTokenLoadError, CloudDenied),
        (foreign.UnauthorizedSSOTokenError, CloudDenied),
        (foreign.TokenRetrievalError, CloudDenied),
        (foreign.LoginRefreshRequired, CloudDenied),
        (foreign.EndpointConnectionError, CloudTrouble),
        (foreign.ConnectTimeoutError, CloudTrouble),
        (foreign.ReadTimeoutError, CloudTrouble),
        (foreign.ConnectionClosedError, CloudTrouble),
        (foreign.ProxyConnectionError, CloudTrouble),
        (foreign.ResponseStreamingError, CloudTrouble),
        (foreign.IncompleteReadError, CloudTrouble),
        (foreign.SSLError, CloudTrouble),
        (foreign.ProfileNotFound, UsageError),
        (foreign.ConfigParseError, UsageError),
        (foreign.NoRegionError, UsageError),
        (foreign.InvalidRegionError, UsageError),
        (foreign.UnknownEndpointError, UsageError),
        (foreign.ParamValidationError, UsageError),
        (foreign.InvalidRetryModeError, UsageError),
        (foreign.InfiniteLoopConfigError, UsageError),
        (foreign.StubResponseError, InternalError),
        (foreign.UnknownServiceError, InternalError),
        (foreign.UndefinedModelAttributeError, InternalError),
        (botocore.parsers.ResponseParserError, CloudError),
    ],
)
def test_what_a_class_means(kind, ours):
    assert type(session.translate(instance(kind), "x")) is ours


def test_an_untrusted_certificate_is_not_retried():
    error = session.translate(instance(foreign.SSLError, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "x")
    assert type(error) is CloudError
    assert not error.retryable
    assert "AWS_CA_BUNDLE" in error.hint


def test_an_unknown_profile_and_a_missing_region_are_usage_errors(monkeypatch, tmp_path):
    config = tmp_path / "config"
    config.write_text("[profile bare]\noutput = json\n[profile far]\nregion = ap-south-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert Settings.of_profile("far", None).region == "ap-south-1"
    assert Settings.of_profile("far", "eu-west-1").region == "eu-west-1"
    with pytest.raises(UsageError, match="no region is configured for the profile bare"):
        Settings.of_profile("bare", None)
    with pytest.raises(UsageError, match="nobody"):
        Settings.of_profile("nobody", None)


def test_missing_credentials_are_named(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(CloudDenied, match="credentials"):
        session.Session(Settings(region="us-east-1")).keys()


def test_secrets_are_not_shown():
    settings = Settings(region="r", access_key="AKID", secret_key="hush", session_token="hush")
    assert "hush" not in repr(settings)
    assert "hush" not in repr(session.Session(settings).keys())
