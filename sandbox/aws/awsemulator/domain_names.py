"""API Gateway custom domain names and API mappings: the checks and the life cycle that MiniStack leaves out.

One resource seen through two APIs (v1 and v2). UpdateDomainName always carries exactly one configuration; while a
domain name is UPDATING another update is a ConflictException, and it serves its old configuration;
``truststoreUri: ""`` turns mutual TLS off, and a request without the field leaves it alone. Mutual TLS with an
imported certificate needs an ownership certificate issued by ACM; all domain names with mutual TLS of a Region
have one issuer per certificate subject, across accounts. 120 domain names per Region, 200 mappings per domain
name. A mapping key may have commas, but neither empty steps nor a slash at either end. [API Gateway Developer
Guide: rest-api-mutual-tls, how-to-custom-domains, rest-api-mappings, limits; botocore apigatewayv2 and apigateway
models; Terraform issues 18312, 35741; aws/chalice 1986; aws-cdk 10529, 8983; floci
ApiGatewayV2ApiMappingServiceTest]

Assumed: all messages that none of these quotes; that a domain name does not serve before it has been AVAILABLE
once; that an ownership certificate is judged like the certificate itself (ISSUED, for the name); that a domain
name which is PENDING_CERTIFICATE_REIMPORT or PENDING_OWNERSHIP_VERIFICATION takes no update but one that changes
either certificate, which ends that status; that one too many is TooManyRequestsException in v2 and
LimitExceededException in v1; that DeleteDomainName works while UPDATING; that GetApiMapping knows a mapping
before GetApiMappings lists it; that GetDomainName and GetApiMappings of v2 refuse edge-optimized domain names,
and show those with the policy TLS_1_0 (knob `v2_refuses_tls_1_0`); that v1 refuses another policy than TLS_1_2
while mutual TLS is on; that a domain name takes a certificate with an elliptic curve (knob `ec_certificates`); that v1
refuses to go back from an enhanced security policy without `/endpointAccessMode ""` in the same patch (knob
`lone_policy_patch`).

UpdateDomainName of v1, which MiniStack lacks, changes only the security policy: as in v2, with a time of
UPDATING, also of a domain name that v2 refuses. UpdateDomainName of v2 does not change the policy of one with
TLS_1_0. [aws-cli issue 7261; API Gateway Developer Guide: apigateway-custom-domain-tls-version]
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from urllib.parse import unquote

from ministack.core.responses import get_account_id, get_region
from ministack.services import acm as ms_acm
from ministack.services import apigateway as v2
from ministack.services import apigateway_v1 as v1

from . import acm, clock, truststore
from .config import knob
from .patching import replaces, then
from .truststore import Truststore
from .wire import Response, aws_error, bad_request, conflict

MAX_MAPPINGS = 200
LOCKED = ("PENDING_CERTIFICATE_REIMPORT", "PENDING_OWNERSHIP_VERIFICATION")
ONLY_V2 = "Only REGIONAL domain names with a security policy of TLS 1.2 can be managed through the API Gateway V2 API."
#: enhanced security policies, which have an endpoint access mode and exclude mutual TLS
ENHANCED = "SecurityPolicy_"
_POLICY_PATHS = {"/securityPolicy", "/endpointAccessMode"}
_MAPPING_KEY = re.compile(r"(?!.{301})(?:[A-Za-z0-9$_.+!*'(),-]+(?:/[A-Za-z0-9$_.+!*'(),-]+)*)?")

Key = tuple[str, str, str]  # account, Region, domain name


@dataclass(frozen=True)
class Serving:
    """Configuration that a domain name serves from `since` on."""

    since: float
    certificate_arn: str
    truststore: Truststore | None


# The configuration served now, and last the configuration that the control plane shows.
_serving: dict[Key, list[Serving]] = {}
_forced_status: dict[Key, tuple[str, str]] = {}


def _key(name: str) -> Key:
    return get_account_id(), get_region(), name


def latest(key: Key) -> Serving | None:
    """Returns the configuration of the last Create or Update, which the control plane shows."""
    return _serving[key][-1] if key in _serving else None


def current(key: Key) -> Serving | None:
    """Returns the served configuration: the old one during an update, none before the domain name is AVAILABLE."""
    return next((s for s in reversed(_serving.get(key, [])) if s.since <= clock.now(key[0])), None)


def status(key: Key) -> tuple[str, str]:
    """Returns DomainNameStatus and its message."""
    return _forced_status.get(key) or ("AVAILABLE" if latest(key) is current(key) else "UPDATING", "")


def force_status(account: str, name: str, value: str, message: str = "") -> int:
    """Sets a status that only AWS decides; "" removes it. Returns the number of domain names."""
    keys = [k for k in v1._domain_names._data if k[2] == name and account in ("", k[0])]
    for key in keys:
        _forced_status[key] = (value, message)
        if not value:
            del _forced_status[key]
    return len(keys)


# ---- checks ----


def _issuer_conflict(cert: dict, name: str) -> str:
    """Returns the subject that another domain name with mutual TLS of this Region has from another issuer, or ""."""
    for (account, region, other_name), configurations in _serving.items():
        if region == get_region() and other_name != name and configurations[-1].truststore:
            other = ms_acm._certificates.get_scoped(account, region, configurations[-1].certificate_arn, {})
            if other.get("DomainName") == cert["DomainName"] and other.get("_issuer") != cert.get("_issuer"):
                return cert["DomainName"]
    return ""


def _certificate_error(name: str, arn: str) -> str:
    """Returns why this domain name cannot use the certificate, or ""."""
    if arn.count(":") > 4 and arn.split(":")[4] != get_account_id():
        return "The certificate provided must be owned by the account creating the domain"
    cert = ms_acm._certificates.get(arn)
    if cert is None:
        return f"The certificate {arn} does not exist."
    if acm.refresh(cert)["Status"] != "ISSUED":
        return f"Certificate {arn} is not in a valid state: {cert['Status']}"
    if not knob("ec_certificates") and cert.get("KeyAlgorithm", "").startswith("EC_"):
        return f"Certificate {arn} has an unsupported key algorithm."
    if not {name, "*." + name.partition(".")[2]} & set(cert["SubjectAlternativeNames"]):
        return f"The certificate provided does not cover the domain name {name}."
    return ""


def _configuration_error(name: str, data: dict) -> str:
    """Returns why API Gateway refuses the request's DomainNameConfigurations, or ""."""
    configurations = data.get("domainNameConfigurations") or []
    if len(configurations) != 1:
        return "Invalid input. Expected one domain name configuration"
    config = configurations[0]
    if (config.get("endpointType", "REGIONAL"), config.get("securityPolicy", "TLS_1_2")) != ("REGIONAL", "TLS_1_2"):
        return ONLY_V2
    arn, ownership_arn = (config.get(f) or "" for f in ("certificateArn", "ownershipVerificationCertificateArn"))
    if error := _certificate_error(name, arn):
        return error
    cert, before, mutual_tls = ms_acm._certificates[arn], latest(_key(name)), data.get("mutualTlsAuthentication")
    if mutual_tls.get("truststoreUri") if mutual_tls else before and before.truststore:
        if cert["Type"] == "IMPORTED":
            if not ownership_arn:
                return "Missing ownershipVerificationCertificate."
            if error := _certificate_error(name, ownership_arn):
                return error
            if ms_acm._certificates[ownership_arn]["Type"] != "AMAZON_ISSUED":
                return "The ownershipVerificationCertificate must be issued by ACM."
        if subject := _issuer_conflict(cert, name):
            return f"The certificate subject {subject} conflicts with an existing certificate from a different issuer."
    return ""


def _new_name_error(name: str, from_v1: bool) -> Response | None:
    if any(region == get_region() and taken == name for _, region, taken in v1._domain_names._data):
        answer = conflict if knob("duplicate_is_conflict") and not from_v1 else bad_request
        return answer("The domain name you provided already exists.")
    if len(v1._domain_names) >= knob("domain_limit"):
        code = "LimitExceededException" if from_v1 else "TooManyRequestsException"
        return aws_error("apigateway", code, "Maximum number of domain names in the Region has been reached", 429)
    return None


def _read_truststore(key: Key, data: dict) -> Truststore | None:
    """Returns the truststore after this request; without the field, the previous one."""
    before, mutual_tls = latest(key), data.get("mutualTlsAuthentication")
    if mutual_tls is None:
        return before.truststore if before else None
    uri = mutual_tls.get("truststoreUri")
    if uri is None and before and before.truststore:
        uri = before.truststore.uri  # another version of the same object
    return truststore.read(uri, mutual_tls.get("truststoreVersion") or "") if uri else None


def _write(name: str, data: dict, settle: float, store: Callable[[], Response], show: Callable) -> Response:
    """Reads the truststore, lets MiniStack store the request, and starts serving it after `settle` seconds."""
    key = _key(name)
    try:
        bundle = _read_truststore(key, data)
    except truststore.Refused as refused:
        return bad_request(str(refused))
    response = store()
    if response[0] >= 300:
        return response
    record = v1._domain_names[name]
    shown = {"truststoreUri": bundle.uri, "truststoreVersion": bundle.version,
             "truststoreWarnings": bundle.warnings} if bundle else {}
    record["mutualTlsAuthentication"] = {k: v for k, v in shown.items() if v}
    new = Serving(clock.now() + settle, record["regionalCertificateArn"], bundle)
    _serving[key] = [s for s in (current(key), new) if s]
    return show(record, response[0])


# ---- v2 operations ----


@replaces(v2, "_domain_view")
def domain_view(original: Callable, record: dict) -> dict:
    view = original(record)
    value, message = status(_key(record["domainName"]))
    view["domainNameConfigurations"][0].update(domainNameStatus=value, domainNameStatusMessage=message or None)
    return view


def _show(record: dict, http_status: int) -> Response:
    return v2._apigw_response(v2._domain_view(record), http_status)


@replaces(v2, "_create_domain_name")
def create_domain_name(original: Callable, data: dict) -> Response:
    name = data.get("domainName") or ""
    if refused := _new_name_error(name, from_v1=False):
        return refused
    if error := _configuration_error(name, data):
        return bad_request(error)
    return _write(name, data, knob("create_settle"), lambda: original(data), _show)


@replaces(v2, "_update_domain_name")
def update_domain_name(original: Callable, name: str, data: dict) -> Response:
    record = v1._domain_names.get(name)
    if record is None:
        return v2._domain_not_found()
    if not _is_of_v2(record):
        return bad_request(ONLY_V2)
    if status(_key(name))[0] == "UPDATING":
        return conflict("There is already an update in progress")
    if error := _configuration_error(name, data):
        return bad_request(error)
    policy = record["securityPolicy"]
    old, config = _certificates_of(record), data["domainNameConfigurations"][0]
    same = all((config.get(field.replace("regionalC", "c")) or "") == arn for field, arn in old.items())
    if status(_key(name))[0] in LOCKED and same:
        return conflict(f"The domain name is {status(_key(name))[0]} and cannot be updated")

    def store() -> Response:
        stored = original(name, data)
        record["securityPolicy"] = policy  # v2 takes TLS_1_2 only, and leaves another one alone
        return stored

    response = _write(name, data, knob("update_settle"), store, _show)
    if response[0] < 300:
        for arn in set(old.values()) - set(_certificates_of(record).values()):
            acm.let_go(arn, name)
        if status(_key(name))[0] in LOCKED:
            del _forced_status[_key(name)]
    return response


def _certificates_of(record: dict) -> dict[str, str]:
    return {f: record.get(f) or "" for f in ("regionalCertificateArn", "ownershipVerificationCertificateArn")}


@replaces(v1, "_delete_domain_name")
@replaces(v2, "_delete_domain_name")
def delete_domain_name(original: Callable, name: str) -> Response:
    if record := v1._domain_names.get(name):
        for arn in _certificates_of(record).values():
            acm.let_go(arn, name)
        _serving.pop(_key(name), None)
        _forced_status.pop(_key(name), None)
    return original(name)


# ---- v1 operations ----


def _v1_view(record: dict) -> dict:
    value, message = status(_key(record["domainName"]))
    tags = v1._v1_tags.get(v2._domain_arn(record["domainName"])) or record["tags"]
    shown = {k: v for k, v in record.items() if k != "endpointAccessMode" or v}
    return shown | {"domainNameStatus": value, "domainNameStatusMessage": message, "tags": tags}


@replaces(v1, "_create_domain_name")
def v1_create_domain_name(original: Callable, data: dict) -> Response:
    """Checks Regional TLS_1_2 domain names as v2 does; stores edge-optimized and TLS_1_0 ones unchanged."""
    name, types = data.get("domainName", ""), (data.get("endpointConfiguration") or {}).get("types")
    as_v2 = {"mutualTlsAuthentication": data.get("mutualTlsAuthentication"), "domainNameConfigurations": [{
        "certificateArn": data.get("regionalCertificateArn"),
        "ownershipVerificationCertificateArn": data.get("ownershipVerificationCertificateArn")}]}
    if refused := _new_name_error(name, from_v1=True):
        return refused
    as_of_v2 = types == ["REGIONAL"] and data.get("securityPolicy", "TLS_1_2") == "TLS_1_2"
    if error := as_of_v2 and _configuration_error(name, as_v2):
        return bad_request(error)
    return _write(name, as_v2, knob("create_settle"), lambda: original(data),
                  lambda record, http_status: v1._v1_response(_v1_view(record), http_status))


@replaces(v1, "_get_domain_name")
def v1_get_domain_name(original: Callable, name: str) -> Response:
    record = v1._domain_names.get(name)
    return v1._v1_response(_v1_view(record)) if record else original(name)


@replaces(v1, "handle_request")
async def v1_handle_request(original: Callable, method: str, path: str, headers: dict, body: bytes, query: dict) -> Response:
    parts = path.strip("/").split("/")
    if method == "PATCH" and parts[0] == "domainnames" and len(parts) == 2:
        return v1_update_domain_name(unquote(parts[1]), json.loads(body).get("patchOperations") or [])
    return await original(method, path, headers, body, query)


def v1_update_domain_name(name: str, operations: list[dict]) -> Response:
    record, key = v1._domain_names.get(name), _key(name)
    if record is None:
        return v1._get_domain_name(name)
    if status(key)[0] == "UPDATING":
        return conflict("There is already an update in progress")
    patch = {o.get("path"): o.get("value", "") for o in operations if o.get("op") == "replace"}
    if len(patch) != len(operations) or "/securityPolicy" not in patch or patch.keys() - _POLICY_PATHS:
        return bad_request("Only the security policy can be changed here")
    before, policy, mode = latest(key), patch["/securityPolicy"], patch.get("/endpointAccessMode")
    if before and before.truststore and policy != "TLS_1_2":
        return bad_request("Mutual TLS needs the security policy TLS_1_2")
    if mode and not policy.startswith(ENHANCED):
        return bad_request("/endpointAccessMode Invalid request input")
    if record.get("endpointAccessMode") and mode is None and not policy.startswith(ENHANCED) and not knob("lone_policy_patch"):
        return bad_request("/endpointAccessMode Invalid request input")
    record["securityPolicy"] = policy
    record["endpointAccessMode"] = (mode or "BASIC") if policy.startswith(ENHANCED) else None
    if before:
        _serving[key] = [s for s in (current(key), replace(before, since=clock.now() + knob("update_settle"))) if s]
    return v1._v1_response(_v1_view(record))


@replaces(v2, "_get_domain_name")
def get_domain_name(original: Callable, name: str) -> Response:
    record = v1._domain_names.get(name)
    return bad_request(ONLY_V2) if record and not _is_of_v2(record) else original(name)


@replaces(v1, "_get_domain_names")
def v1_get_domain_names(_: Callable, query: dict) -> Response:
    return v1._v1_paginated_response([_v1_view(r) for r in v1._domain_names.values()], query)


# ---- API mappings ----


def _mapping_error(data: dict) -> Response | None:
    if not _MAPPING_KEY.fullmatch(data.get("apiMappingKey") or ""):
        return bad_request("An ApiMapping key may contain only letters, numbers and one of $-_.+!*'(),/")
    return None


@replaces(v2, "_create_api_mapping")
def create_api_mapping(original: Callable, name: str, data: dict) -> Response:
    if len(v1._base_path_mappings.get(name, {})) >= MAX_MAPPINGS:
        return bad_request(f"Maximum of {MAX_MAPPINGS} API mappings reached.")
    return _mapping_error(data) or original(name, data)


@then(v2, "_create_api_mapping")
def _note_creation(name: str, data: dict) -> None:
    v1._base_path_mappings[name][data.get("apiMappingKey") or "(none)"]["_created"] = clock.now()


@replaces(v2, "_update_api_mapping")
def update_api_mapping(original: Callable, name: str, mapping_id: str, data: dict) -> Response:
    return _mapping_error(data) or original(name, mapping_id, data)


def _is_of_v2(record: dict) -> bool:
    of_v2 = record["securityPolicy"] == "TLS_1_2" or not knob("v2_refuses_tls_1_0")
    return record["endpointConfiguration"].get("types") == ["REGIONAL"] and of_v2


@replaces(v2, "_get_api_mappings")
def get_api_mappings(original: Callable, name: str, query: dict) -> Response:
    if name not in v1._domain_names:
        return original(name, query)
    if not _is_of_v2(v1._domain_names[name]):
        return bad_request(ONLY_V2)
    known = clock.now() - knob("mapping_list_delay")
    return v2._page([v2._mapping_view(path, m) for path, m in v1._base_path_mappings.get(name, {}).items()
                     if m.get("_created", 0) <= known], query)


# ---- view of the TLS front ----


def edge_view(account: str = "", host: str = "") -> list[dict]:
    """Returns every custom domain name with the configuration of its TLS endpoint; with `host`, only the domain names
    that match it or have it as their target."""
    names = (host, "*." + host.partition(".")[2])
    return [_edge_of(key, record) for key, record in v1._domain_names.all_items()
            if account in ("", key[0]) and (not host or key[2].lower() in names or record["regionalDomainName"] == host)]


def _edge_of(key: Key, record: dict) -> dict:
    serving, newest, (value, message) = current(key), latest(key), status(key)
    cert = serving and ms_acm._certificates.get_scoped(key[0], key[1], serving.certificate_arn)
    shown = cert and acm.material(cert)
    return {
        "account": key[0], "region": key[1], "domainName": key[2], "regionalDomainName": record["regionalDomainName"],
        "ipAddressType": record["endpointConfiguration"].get("ipAddressType", "ipv4"),
        "status": value, "statusMessage": message, "serving": serving is not None,
        "changesAt": newest.since if newest and newest is not serving else None,
        "mutualTls": bool(serving and serving.truststore),
        "hostAloneSelects": bool(knob("host_alone_selects", key[0])),
        "leafAnchorIssues": bool(knob("leaf_anchor_issues", key[0])),
        "truststore": serving and serving.truststore and asdict(serving.truststore),
        "certificate": cert and {
            "arn": cert["CertificateArn"], "names": cert["SubjectAlternativeNames"], "type": cert["Type"],
            "status": cert["Status"], "notAfter": cert.get("NotAfter"),
            "pem": shown and shown.pem + shown.chain, "key": shown and shown.key},
    }


def reset() -> None:
    _serving.clear()
    _forced_status.clear()
