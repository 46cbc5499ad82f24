"""IAM-lite: denied actions per account, and policies per access key that deny everything they do not list.

Actions are those of IAM policies: ``route53:ChangeResourceRecordSets``, ``s3:GetObjectVersion``, and for API
Gateway the HTTP verbs, ``apigateway:PATCH``, with ``apigateway:AddCertificateToDomain`` and
``RemoveCertificateFromDomain`` for the calls that need them [Service Authorization Reference]. Beyond IAM, the
operation's name can be denied as well (``apigateway:UpdateDomainName``), to deny one call only. ``*`` is a wildcard.

With a policy, each action is checked on its resource. A call also needs: its tags
(``acm:AddTagsToCertificate``, ``s3:TagResource``, ``apigateway:PUT`` on ``/tags``), the service-linked role with
an account's first domain name [API Gateway Developer Guide, using-service-linked-roles], and the KMS key of an
object [S3 User Guide, UsingKMSEncryption]. AddCertificateToDomain is checked on the domain name and on the
collection, as users report. The supported conditions are StringEquals and StringLike, with ForAllValues or
without, on ``iam:AWSServiceName`` and on the names and types of record changes [Route 53 Developer Guide,
specifying-conditions-route53]. ``sts:GetCallerIdentity`` needs no permission [STS API Reference].

Assumed: the messages, and ACM's and Lambda's status; that API Gateway decrypts a truststore with the caller's rights.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import quote

from ministack.core.iam_actions import extract_iam_action
from ministack.services import s3

from .calls import Call, current_call, current_query
from .wire import Response, aws_error

#: service -> error code, status; others answer AccessDenied 403
_FORMS = {"apigateway": ("AccessDeniedException", 403), "apigatewayv2": ("AccessDeniedException", 403),
          "acm": ("AccessDeniedException", 400), "lambda": ("AccessDeniedException", 403)}

_denied: dict[str, list[str]] = {}
#: access key -> statements of its policy
_allowed: dict[str, list[dict]] = {}
#: accounts that have API Gateway's service-linked role
_linked: set[str] = set()


@dataclass
class Need:
    """Action on a resource, with the values that conditions can check."""

    action: str
    resource: str = "*"
    context: dict[str, list[str]] = field(default_factory=dict)


def deny(account: str, actions: list[str]) -> dict[str, list[str]]:
    """Replaces the actions denied to the account; an empty list allows everything again."""
    _denied[account] = actions
    return denied()


def denied() -> dict[str, list[str]]:
    return {account: actions for account, actions in _denied.items() if actions}


def allow(access_key: str, policy: dict | None) -> dict:
    """Restricts every caller that signs with this key to the policy; without one, everything is allowed.
    ValueError for a policy with unsupported elements."""
    statements = (policy or {}).get("Statement", [])
    for statement in statements:
        unknown = set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}
        operators = {o for o in statement.get("Condition", {}) if _comparison(o) is None}
        if unknown or operators or statement.get("Effect") != "Allow":
            raise ValueError(f"only Allow is known, and neither {unknown} nor {operators}")
    if policy is None:
        _allowed.pop(access_key, None)
    else:
        _allowed[access_key] = statements
    return {"statements": len(statements)}


def is_denied(account: str, action: str) -> bool:
    return any(fnmatchcase(action, pattern) for pattern in _denied.get(account, ()))


def _like(pattern: str, text: str) -> bool:
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.S) is not None


def _comparison(operator: str) -> Callable[[str, str], bool] | None:
    return {"StringEquals": str.__eq__, "StringLike": _like}.get(operator.removeprefix("ForAllValues:"))


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _holds(condition: dict, context: dict[str, list[str]]) -> bool:
    for operator, keys in condition.items():
        compare, for_all = _comparison(operator), operator.startswith("ForAllValues:")
        for key, wanted in keys.items():
            values = context.get(key, [])
            if not values and not for_all:
                return False
            if not all(any(compare(pattern, value) for pattern in _list(wanted)) for value in values):
                return False
    return True


def _permits(statements: list[dict], need: Need) -> bool:
    return any(any(_like(a.lower(), need.action.lower()) for a in _list(s["Action"]))
               and any(_like(r, need.resource) for r in _list(s["Resource"]))
               and _holds(s.get("Condition", {}), need.context) for s in statements)


def first_refused(account: str, access_key: str, needs: Iterable[Need]) -> Need | None:
    """Returns the first need that the account is denied, or that the policy of the key does not allow."""
    statements = _allowed.get(access_key)
    return next((n for n in needs if is_denied(account, n.action)
                 or (statements is not None and not _permits(statements, n))), None)


def may(*needs: Need) -> bool:
    """True when the caller of the call in progress may do all of this too."""
    call = current_call.get()
    return first_refused(call.account, call.access_key, needs) is None


def reading(bucket: str, key: str, version: str = "") -> list[Need]:
    """Returns the needs of reading the object."""
    action = "s3:GetObjectVersion" if version else "s3:GetObject"
    versions = s3._object_versions.get((bucket, key), [])
    found = [s3._object_record_from_version(v) for v in versions if v["version_id"] == version]
    found = found or [s3._buckets.get(bucket, {}).get("objects", {}).get(key) or {}]
    kms_key = found[0].get("preserved_headers", {}).get("x-amz-server-side-encryption-aws-kms-key-id")
    decrypting = [Need("kms:Decrypt", kms_key)] if kms_key else []
    return [Need(action, f"arn:aws:s3:::{bucket}/{key}"), *decrypting]


def _resource(call: Call, path: str, document: dict) -> str:
    """Returns the ARN of the call's resource, ``*`` for a call without a particular one."""
    where = f"{call.region}:{call.account}"
    match call.service:
        case "apigateway" | "apigatewayv2":
            return f"arn:aws:apigateway:{call.region}::{path.removeprefix('/v2').rstrip('/')}"
        case "s3":
            return f"arn:aws:s3:::{path.strip('/')}"
        case "route53":
            found = re.search(r"/(hostedzone|change)/([^/]+)", path)
            return f"arn:aws:route53:::{found[1]}/{found[2]}" if found else "*"
        case "acm":
            return document.get("CertificateArn", "*")
        case "lambda":
            found = re.search(r"/functions/([^/]+)", path)
            name = found[1] if found else "*"
            return name if name.startswith("arn:") else f"arn:aws:lambda:{where}:function:{name}"
        case "sts":
            return document.get("RoleArn", "*")
    return "*"


def _needs(call: Call, method: str, path: str, headers: dict[str, str], body: bytes) -> list[Need]:
    service = call.service.removesuffix("v2")
    resource = _resource(call, path, call.document)
    action = extract_iam_action(service, method, path, headers, body, current_query.get({})) or ""
    needs = [Need(action, resource)]
    domains = f"arn:aws:apigateway:{call.region}::/domainnames"
    match call.operation:
        case "GetCallerIdentity":
            return [Need(action, "*")] if is_denied(call.account, action) else []
        case "CreateDomainName":
            name = call.document.get("domainName", "")
            mutual_tls = "apigateway:AddCertificateToDomain"
            needs += [Need(mutual_tls, domains), Need(mutual_tls, f"{domains}/{name}")]
            if call.document.get("tags"):
                tagged = quote(f"{domains}/{name}", safe="")
                needs.append(Need("apigateway:PUT", f"arn:aws:apigateway:{call.region}::/tags/{tagged}"))
            if call.account not in _linked:
                service = "ops.apigateway.amazonaws.com"
                role = f"arn:aws:iam::{call.account}:role/aws-service-role/{service}/AWSServiceRoleForAPIGateway"
                needs.append(Need("iam:CreateServiceLinkedRole", role, {"iam:AWSServiceName": [service]}))
        case "UpdateDomainName":
            needs += [Need("apigateway:AddCertificateToDomain", at) for at in (domains, resource)]
        case "DeleteDomainName":
            needs.append(Need("apigateway:RemoveCertificateFromDomain", resource))
        case "RequestCertificate" if call.document.get("Tags"):
            needs.append(Need("acm:AddTagsToCertificate", f"arn:aws:acm:{call.region}:{call.account}:certificate/new"))
        case "CreateBucket" if b"<Tag>" in body:
            needs.append(Need("s3:TagResource", resource))
        case "PutObject" if headers.get("x-amz-tagging"):
            needs.append(Need("s3:PutObjectTagging", resource))
        case "GetObject":
            bucket, _, key = path.strip("/").partition("/")
            needs = reading(bucket, key, current_query.get({}).get("versionId", [""])[0])
        case "ChangeResourceRecordSets":
            names, types = (re.findall(f"<{tag}>([^<]*)</{tag}>", body.decode()) for tag in ("Name", "Type"))
            needs[0].context = {
                "route53:ChangeResourceRecordSetsNormalizedRecordNames": [n.rstrip(".").lower() for n in names],
                "route53:ChangeResourceRecordSetsRecordTypes": types}
    return needs


def refusal(call: Call, method: str, path: str, headers: dict[str, str], body: bytes) -> Response | None:
    if not _denied.get(call.account) and call.access_key not in _allowed:
        return None
    operation = f"{call.service.removesuffix('v2')}:{call.operation}"
    refused = Need(operation) if is_denied(call.account, operation) else None
    refused = refused or first_refused(call.account, call.access_key, _needs(call, method, path, headers, body))
    if refused:
        return _refuse(call, refused)
    if call.operation == "CreateDomainName":
        _linked.add(call.account)
    return None


def refusal_besides(need: Need) -> Response | None:
    """Returns the refusal of a need that is known only while the call is in progress."""
    return None if may(need) else _refuse(current_call.get(), need)


def _refuse(call: Call, need: Need) -> Response:
    code, status = _FORMS.get(call.service, ("AccessDenied", 403))
    message = (f"User: arn:aws:iam::{call.account}:user/test is not authorized to perform: {need.action} on resource: "
               f"{need.resource} because no identity-based policy allows the {need.action} action")
    return aws_error(call.service, code, message, status)


def reset() -> None:
    _denied.clear()
    _allowed.clear()
    _linked.clear()
