"""X.509 signing certificates, with which users sign bundles, and the alias that an account has on Eucalyptus.

The pair that the sandbox made for an account (bundling.py) is listed for its root; what is uploaded is kept beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cryptography import x509

from builder.sandbox.access.accounts import new_id
from builder.sandbox.access.iam_action import Iam, Values, full, gone, moment, page
from builder.sandbox.records import Account, SigningCertificate, User
from builder.sandbox.wire import Caller, Refusal

Handler = Callable[[Iam, Caller, Values], Values]
_MOST = 2  # of one user; IAM's quota
_ADMINISTRATORS = "eucalyptus"  # the alias of their account


def _upload(iam: Iam, caller: Caller, values: Values) -> Values:
    user, body = _whose(iam, caller, values), values["CertificateBody"].strip() + "\n"
    try:
        x509.load_pem_x509_certificate(body.encode())
    except ValueError:
        raise Refusal("MalformedCertificate", "The certificate is not a PEM-encoded X.509 certificate.") from None
    with iam.state.lock:
        found = _of(iam, caller, user)
        if any(one.body == body for one in found):
            raise Refusal("DuplicateCertificate", "The certificate already exists.", status=409)
        if len(found) >= _MOST:
            raise full(f"SigningCertificatesPerUser: {_MOST}")
        made = SigningCertificate(
            certificate_id=new_id("CERTIFIC"), account=caller.account, user=user, body=body, upload_time=time.time()
        )
        iam.state.put(made)
    return {"Certificate": _shape(made)}


def _list(iam: Iam, caller: Caller, values: Values) -> Values:
    user = _whose(iam, caller, values)
    return page("Certificates", _of(iam, caller, user), _shape, values)


def _update(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        iam.state.put(replace(_kept(iam, caller, values), active=values["Status"] == "Active"))
    return {}


def _delete(iam: Iam, caller: Caller, values: Values) -> Values:
    with iam.state.lock:
        iam.state.remove(_kept(iam, caller, values))
    return {}


def _whose(iam: Iam, caller: Caller, values: Values) -> str:
    """Return the user that is named, or the caller; "" for the account's root. Raises Refusal."""
    if name := values.get("UserName"):
        found: User = iam.find(caller, "user", name)
        return found.name
    if caller.root:
        return ""
    holder = iam.keys.holder(caller.principal)
    if not isinstance(holder, User):
        raise Refusal("ValidationError", "Must specify userName when calling with non-User credentials")
    return holder.name


def _of(iam: Iam, caller: Caller, user: str) -> list[SigningCertificate]:
    uploaded = list(iam.state.all(SigningCertificate).values())
    found = [one for one in uploaded if (one.account, one.user) == (caller.account, user)]
    if user or iam.bundling is None:
        return found
    body = iam.bundling.account(caller.account).certificate.read_text()
    since = x509.load_pem_x509_certificate(body.encode()).not_valid_before_utc.timestamp()
    own = SigningCertificate(
        certificate_id=f"CERTIFICATE0{caller.account}", account=caller.account, user="", body=body, upload_time=since
    )
    return [own, *found]


def _kept(iam: Iam, caller: Caller, values: Values) -> SigningCertificate:
    """Return one that was uploaded, by its id. Raises Refusal; the account's own pair cannot be changed."""
    found = iam.state.all(SigningCertificate).get(values["CertificateId"])
    if found is None or (found.account, found.user) != (caller.account, _whose(iam, caller, values)):
        raise gone(f"The Certificate with id {values['CertificateId']} cannot be found.")
    return found


def _shape(one: SigningCertificate) -> Mapping[str, Any]:
    return {
        "UserName": one.user,
        "CertificateId": one.certificate_id,
        "CertificateBody": one.body,
        "Status": "Active" if one.active else "Inactive",
        "UploadDate": moment(one.upload_time),
    }


def _list_account_aliases(iam: Iam, caller: Caller, values: Values) -> Values:
    if not iam.like.is_eucalyptus:
        return page("AccountAliases", [], str, values)
    other = iam.state.all(Account).get(caller.account)
    return page("AccountAliases", [other.name if other is not None else _ADMINISTRATORS], str, values)


ACTIONS: dict[str, Handler] = {
    "DeleteSigningCertificate": _delete,
    "ListAccountAliases": _list_account_aliases,
    "ListSigningCertificates": _list,
    "UpdateSigningCertificate": _update,
    "UploadSigningCertificate": _upload,
}
