"""An eucarc is read as a shell would, as far as that needs no shell; its values know their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cloud.config import eucarc
from builder.errors import UsageError

# What the CLC of 4.2 gave its users, shortened; and what euca-generate-environment-config of later releases prints.
OLD = """\
EUCA_KEY_DIR=$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)
export EC2_URL=http://clc.test:8773/services/compute
export S3_URL=http://clc.test:8773/services/objectstorage
export EUARE_URL=http://clc.test:8773/services/Euare
export TOKEN_URL=http://clc.test:8773/services/Tokens
echo WARN:  CloudFormation service URL is not configured. >&2
export EC2_PRIVATE_KEY=${EUCA_KEY_DIR}/euca2-admin-pk.pem
export EC2_CERT=${EUCA_KEY_DIR}/euca2-admin-cert.pem
export EC2_JVM_ARGS=-Djavax.net.ssl.trustStore=${EUCA_KEY_DIR}/jssecacerts
export EUCALYPTUS_CERT=${EUCA_KEY_DIR}/cloud-cert.pem
export EC2_ACCOUNT_NUMBER='000123456789'
export EC2_ACCESS_KEY='AKIA'
export EC2_SECRET_KEY='s3cr3t$x'
export AWS_CREDENTIAL_FILE=${EUCA_KEY_DIR}/iamrc
export EC2_USER_ID='000123456789'
alias ec2-bundle-image="ec2-bundle-image --cert ${EC2_CERT} --user 000123456789"
"""
NEW = """\
EC2_URL=https://ec2.cloud.test:8773/; export EC2_URL;
AWS_ACCESS_KEY=AKIA; export AWS_ACCESS_KEY;
AWS_SECRET_KEY=s3cr3t; export AWS_SECRET_KEY;
"""


def written(place: Path, text: str, name: str = "eucarc") -> Path:
    (place / name).write_text(text)
    return place / name


def test_the_file_of_the_clc_is_a_whole_cloud(tmp_path: Path) -> None:
    path = written(tmp_path, OLD)
    found = eucarc.configured(eucarc.variables(path), str(path))
    settings, sources = found.settings, found.sources
    assert settings.endpoints == {
        "ec2": "http://clc.test:8773/services/compute",
        "s3": "http://clc.test:8773/services/objectstorage",
        "iam": "http://clc.test:8773/services/Euare",
        "sts": "http://clc.test:8773/services/Tokens",
        "bootstrap": "http://clc.test:8773/services/Empyrean",
    }
    assert (settings.access_key, settings.secret_key, settings.s3.signature) == ("AKIA", "s3cr3t$x", "s3")
    assert sources.account.value == "000123456789"
    assert sources.cloud_certificate.value == f"{tmp_path}/cloud-cert.pem"
    assert sources.cloud_certificate.where == f"{path}:10"
    assert sources.user_certificate.value == f"{tmp_path}/euca2-admin-cert.pem"
    assert sources.private_key.value == f"{tmp_path}/euca2-admin-pk.pem"
    assert "s3cr3t" not in repr(found)


def test_the_shape_of_later_releases_is_read_too(tmp_path: Path) -> None:
    settings = eucarc.configured(eucarc.variables(written(tmp_path, NEW)), "it").settings
    assert settings.endpoints == {"ec2": "https://ec2.cloud.test:8773/"}
    assert (settings.access_key, settings.secret_key) == ("AKIA", "s3cr3t")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("export EC2_URL=plain", "plain"),
        ("EC2_URL='a b'\"c d\"e", "a bc de"),
        ("EC2_URL=a\\ b", "a b"),
        ("EC2_URL='${HOME}'", "${HOME}"),
        ('EC2_URL="a\\"b"', 'a"b'),
        ("EC2_URL=a#b # c", "a#b"),
        ("X=1; EC2_URL=$X${X}2", "112"),
        ('X=1 EC2_URL="<$X>"', "<1>"),
        ("export X=1 EC2_URL=2", "2"),
        ("EC2_URL=1\nEC2_URL=2", "2"),
        ("EC2_URL=", ""),
    ],
)
def test_a_value_is_what_a_shell_would_make_of_it(tmp_path: Path, line: str, value: str) -> None:
    assert eucarc.variables(written(tmp_path, line))["EC2_URL"].value == value


@pytest.mark.parametrize("line", ["# EC2_URL=x", "echo EC2_URL=x", "unexported; echo A EC2_URL=x", "[ -f EC2_URL=x ]"])
def test_what_is_no_assignment_is_passed_over(tmp_path: Path, line: str) -> None:
    assert "EC2_URL" not in eucarc.variables(written(tmp_path, line))


@pytest.mark.parametrize("value", ["$(touch {0})", "`touch {0}`", '"$(touch {0})"', '"`touch {0}`"'])
def test_nothing_is_run(tmp_path: Path, value: str) -> None:
    left = tmp_path / "left"
    path = written(tmp_path, f"X={value.format(left)}\nEC2_URL={value.format(left)}\n")
    with pytest.raises(UsageError, match=r"eucarc:2: EC2_URL runs a command; emi runs nothing"):
        eucarc.variables(path)
    assert not left.exists()


def test_a_variable_that_nothing_sets_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"eucarc:2: EC2_URL needs the variable HOST"):
        eucarc.variables(written(tmp_path, "\nEC2_URL=http://$HOST/\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "sets no EC2_URL"),
        ("EC2_URL=http://x/", "sets no access key"),
        ("EC2_URL=http://x/\nEC2_ACCESS_KEY=A", "sets no secret key"),
        (
            "EC2_URL=http://me:hidden@x/\nEC2_ACCESS_KEY=A\nEC2_SECRET_KEY=B",
            "eucarc:1 names a user in the URL of a service",
        ),
        ("EC2_URL=ftp://x/\nEC2_ACCESS_KEY=A\nEC2_SECRET_KEY=B", "eucarc:1: 'ftp://x/' is no URL"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=words):
        eucarc.configured(eucarc.variables(path), str(path))


def test_keys_may_stand_in_the_file_of_amazon_s_old_tools(tmp_path: Path) -> None:
    written(tmp_path, "AWSAccessKeyId=AKIA # mine\nAWSSecretKey = s3cr3t\n", "iamrc")
    path = written(tmp_path, "EC2_URL=http://x/\nAWS_CREDENTIAL_FILE=${EUCA_KEY_DIR}/iamrc\n")
    settings = eucarc.configured(eucarc.variables(path), str(path)).settings
    assert (settings.access_key, settings.secret_key) == ("AKIA", "s3cr3t")


def test_the_environment_says_the_same(tmp_path: Path) -> None:
    environment = {
        "EC2_URL": "http://x/",
        "EC2_ACCESS_KEY": "A",
        "EC2_SECRET_KEY": "B",
        "EC2_CERT": "/c",
        "PATH": "/bin",
    }
    found = eucarc.configured(eucarc.in_environment(environment), "the environment")
    assert (found.settings.access_key, found.settings.secret_key) == ("A", "B")
    assert (found.sources.user_certificate.value, found.sources.user_certificate.where) == ("/c", "EC2_CERT")


@pytest.mark.parametrize("name", ["", "missing", "a\0b"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        eucarc.variables(tmp_path / name)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        eucarc.variables(tmp_path / "large")
