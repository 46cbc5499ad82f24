"""ACM: certificates that take time, and need their DNS record.

A request is PENDING_VALIDATION until the CNAME of every name is found in public DNS (here: in a public zone
of the emulated Route 53, of any account), then ISSUED. The CNAME is the same for a name and its wildcard, and
for every certificate of the account. IdempotencyToken holds for an hour; Describe may not know the
certificate, or its ResourceRecord, at first; ListCertificates lists RSA_1024/2048 only unless asked for more;
DescribeCertificate writes RSA-2048 where the request says RSA_2048; a certificate in use by an API Gateway
domain name cannot be deleted, and the use ends up to an hour after the domain name let go of it. Valid 198
days. [botocore acm model; ACM User Guide, managed-renewal; Terraform acm and its issues 21035 and 9461]

Assumed: ten names per certificate is refused with LimitExceededException; the form of the load balancer ARNs
in InUseBy; that ListCertificates forgets a new certificate for as long as Describe does.
"""

import datetime
import hashlib
import json
import time
from collections.abc import Callable

from ministack.core.responses import get_account_id, json_response
from ministack.services import acm
from ministack.services import apigateway_v1 as v1

from . import route53
from .config import knob
from .patching import replaces
from .wire import Response, aws_error

VALIDITY_DAYS, MAX_NAMES, TOKEN_SECONDS = 198, 10, 3600
_DATES = ("IssuedAt", "NotBefore", "NotAfter")
_SUMMARY = ("CertificateArn", "DomainName", "Status", "Type", "CreatedAt", "RenewalEligibility", *_DATES)

#: certificate ARN -> until when it still is in use, and by which domain name
_lingering: dict[str, tuple[float, str]] = {}


def _iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _validation_option(name: str) -> dict:
    base = name.removeprefix("*.").lower()

    def token(kind: str) -> str:
        return hashlib.md5(f"{kind}:{get_account_id()}:{base}".encode()).hexdigest()

    record = {"Name": f"_{token('name')}.{base}.", "Type": "CNAME",
              "Value": f"_{token('value')}.{token('zone')[:10]}.acm-validations.aws."}
    return {"DomainName": name, "ValidationDomain": name, "ValidationMethod": "DNS",
            "ValidationStatus": "PENDING_VALIDATION", "ResourceRecord": record}


@replaces(acm, "_request_certificate")
def request_certificate(original: Callable, data: dict) -> Response:
    token, name, now = data.get("IdempotencyToken"), data.get("DomainName", ""), time.time()
    for arn, cert in acm._certificates.items():
        if token and cert.get("_token") == (token, name) and now - cert["_requested"] < TOKEN_SECONDS:
            return json_response({"CertificateArn": arn})
    all_names = list(dict.fromkeys([name] + (data.get("SubjectAlternativeNames") or [])))
    if len(all_names) > MAX_NAMES:
        return aws_error("acm", "LimitExceededException", "The number of names exceeds the limit.", 400)
    response = original({**data, "SubjectAlternativeNames": all_names})
    if response[0] != 200:
        return response
    cert = acm._certificates[json.loads(response[2])["CertificateArn"]]
    for key in _DATES:
        del cert[key]
    cert.update(Status="PENDING_VALIDATION", KeyAlgorithm=data.get("KeyAlgorithm") or "RSA_2048", _token=(token, name),
                _requested=now, DomainValidationOptions=[_validation_option(n) for n in all_names])
    return response


@replaces(acm, "_import_certificate")
def import_certificate(original: Callable, data: dict) -> Response:
    """MiniStack does not look into imported certificates; names, dates and issuer are the certificate's own."""
    from . import x509  # late: see truststore

    response = original(data)
    if response[0] == 200:
        record = acm._certificates[json.loads(response[2])["CertificateArn"]]
        if cert := x509.load(record["_pem_body"].encode()):
            names = x509.names(cert) or [record["DomainName"]]
            record.update(DomainName=names[0], SubjectAlternativeNames=names, _issuer=cert.issuer.rfc4514_string(),
                          NotBefore=_iso(cert.not_valid_before_utc.timestamp()),
                          NotAfter=_iso(cert.not_valid_after_utc.timestamp()))
    return response


def refresh(cert: dict) -> dict:
    """Bring the certificate's state up to now: look for its CNAMEs, issue it when they have been there long enough."""
    if cert["Status"] != "PENDING_VALIDATION":
        return cert
    now = time.time()
    for option in cert["DomainValidationOptions"]:
        record = option["ResourceRecord"]
        value = record["Value"].rstrip(".")
        if "_seen" not in option and [value] in route53.published_values(record["Name"], record["Type"]):
            option["_seen"] = now
        if "_seen" in option and now - option["_seen"] >= knob("issue_delay"):
            option["ValidationStatus"] = "SUCCESS"
    if all(o["ValidationStatus"] == "SUCCESS" for o in cert["DomainValidationOptions"]):
        cert.update(Status="ISSUED", IssuedAt=_iso(now), NotBefore=_iso(now),
                    NotAfter=_iso(now + VALIDITY_DAYS * 86400))
    return cert


@route53.after_change.append
def _look_for_records(zone_name: str) -> None:
    """A zone has changed: note what certificates were waiting for, so that their time starts to run."""
    for cert in acm._certificates.all_values():
        if any(o["ResourceRecord"]["Name"].endswith(f".{zone_name}") for o in cert["DomainValidationOptions"]):
            refresh(cert)


def let_go(arn: str, domain: str) -> None:
    """A domain name no longer uses the certificate."""
    if arn:
        _lingering[arn] = (time.time() + knob("in_use_linger"), domain)


def _users(arn: str) -> list[str]:
    until, former = _lingering.get(arn, (0.0, ""))
    domains = [former] if time.time() < until else []
    domains += [d["domainName"] for d in v1._domain_names.values() if arn in (
        d.get("regionalCertificateArn"), d.get("certificateArn"), d.get("ownershipVerificationCertificateArn"))]
    balancer = "arn:aws:elasticloadbalancing:us-east-1:392220576650:loadbalancer/app/prod-iad-1-cdtls"
    return [f"{balancer}-{domain[:8]}/0" for domain in domains]


@replaces(acm, "_cert_shape")
def cert_shape(original: Callable, cert: dict) -> dict:
    shape = original(refresh(cert))
    del shape["Tags"]
    users, age = _users(cert["CertificateArn"]), time.time() - cert.get("_requested", 0)
    shape["KeyAlgorithm"] = cert.get("KeyAlgorithm", "RSA_2048").replace("_", "-")
    shape["InUseBy"] = users
    shape["RenewalEligibility"] = "ELIGIBLE" if users and cert["Type"] == "AMAZON_ISSUED" else "INELIGIBLE"
    for key in ("FailureReason", "RenewalSummary"):
        if cert.get(key):
            shape[key] = cert[key]
    if "NotAfter" not in cert:
        for key in _DATES:
            del shape[key]
    hidden = "ResourceRecord" if age < knob("record_delay") else ""
    shape["DomainValidationOptions"] = [{k: v for k, v in o.items() if not k.startswith("_") and k != hidden}
                                        for o in cert.get("DomainValidationOptions", [])]
    return shape


@replaces(acm, "_get_local_certificate")
def get_local_certificate(original: Callable, arn: str) -> dict | None:
    """None while the certificate is too new to be known everywhere."""
    cert = original(arn)
    return cert if cert and time.time() - cert.get("_requested", 0) >= knob("certificate_delay") else None


@replaces(acm, "_list_certificates")
def list_certificates(_: Callable, data: dict) -> Response:
    key_types = (data.get("Includes") or {}).get("keyTypes") or ["RSA_1024", "RSA_2048"]
    statuses = data.get("CertificateStatuses")
    rows = []
    for arn in acm._certificates:
        if cert := acm._get_local_certificate(arn):
            shape, algorithm = acm._cert_shape(cert), cert.get("KeyAlgorithm", "RSA_2048")
            if algorithm in key_types and (not statuses or shape["Status"] in statuses):
                rows.append({k: shape[k] for k in _SUMMARY if k in shape} | {
                    "KeyAlgorithm": algorithm, "InUse": bool(shape["InUseBy"]),
                    "HasAdditionalSubjectAlternativeNames": False,
                    "SubjectAlternativeNameSummaries": shape["SubjectAlternativeNames"]})
    start, size = int(data.get("NextToken") or 0), int(data.get("MaxItems") or 100)
    page: dict = {"CertificateSummaryList": rows[start:start + size]}
    if start + size < len(rows):
        page["NextToken"] = str(start + size)
    return json_response(page)


@replaces(acm, "_delete_certificate")
def delete_certificate(original: Callable, data: dict) -> Response:
    arn = data.get("CertificateArn", "")
    if _users(arn):
        message = f"Certificate {arn} in account {get_account_id()} is in use."
        return aws_error("acm", "ResourceInUseException", message, 400)
    return original(data)


def set_state(arn: str, status: str = "", reason: str = "", not_after: float = 0, renewal: str = "") -> int:
    """Force what only AWS decides: a failure, an expiry, a renewal's state. How many certificates changed."""
    certs = [c for c in acm._certificates.all_values() if c["CertificateArn"] == arn]
    for cert in certs:
        options = [{k: v for k, v in o.items() if k != "_seen"} for o in cert["DomainValidationOptions"]]
        summary = {"RenewalStatus": renewal, "UpdatedAt": time.time(), "DomainValidationOptions": options}
        changes = {"Status": status, "FailureReason": reason, "NotAfter": not_after and _iso(not_after),
                   "RenewalSummary": renewal and summary}
        cert.update({k: v for k, v in changes.items() if v})
    return len(certs)


def reset() -> None:
    _lingering.clear()

