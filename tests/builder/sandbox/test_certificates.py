"""Signing certificates: the account's own, and those that users bring."""

from __future__ import annotations

import pytest

from builder.sandbox import lifecycle

AREA = "Access: IAM"


@pytest.mark.behaviour(
    AREA, "ListSigningCertificates", "the root has the certificate that the sandbox made for its account"
)
@pytest.mark.behaviour(
    AREA, "UploadSigningCertificate", "two of a user; what is no certificate, or there already, is refused"
)
@pytest.mark.behaviour(AREA, "UpdateSigningCertificate, DeleteSigningCertificate", "by its id; a user with one stays")
def test_signing_certificates(sandbox, code_of):
    identity, iam = lifecycle.identity(sandbox.directory), sandbox.client("iam")
    own = iam.list_signing_certificates()["Certificates"]
    assert [one["CertificateBody"] for one in own] == [identity.certificate.read_text()]
    iam.create_user(UserName="signer")
    bodies = [file.read_text() for file in (identity.cloud_certificate, identity.certificate)]
    made = [iam.upload_signing_certificate(UserName="signer", CertificateBody=body)["Certificate"] for body in bodies]
    assert (
        code_of(iam.upload_signing_certificate, UserName="signer", CertificateBody=bodies[0]) == "DuplicateCertificate"
    )
    other = lifecycle.add_account(sandbox.directory, "other").account
    third = lifecycle.identity(sandbox.directory, other).certificate.read_text()
    assert code_of(iam.upload_signing_certificate, UserName="signer", CertificateBody=third) == "LimitExceeded"
    assert code_of(iam.upload_signing_certificate, CertificateBody="none") == "MalformedCertificate"
    iam.update_signing_certificate(UserName="signer", CertificateId=made[0]["CertificateId"], Status="Inactive")
    found = iam.list_signing_certificates(UserName="signer")["Certificates"]
    assert [(one["Status"], one["CertificateBody"]) for one in found] == [
        ("Inactive", bodies[0]),
        ("Active", bodies[1]),
    ]
    assert code_of(iam.delete_user, UserName="signer") == "DeleteConflict"
    for one in made:
        iam.delete_signing_certificate(UserName="signer", CertificateId=one["CertificateId"])
    assert code_of(iam.delete_signing_certificate, CertificateId=made[0]["CertificateId"]) == "NoSuchEntity"
    iam.delete_user(UserName="signer")
    assert iam.list_account_aliases()["AccountAliases"] == []
