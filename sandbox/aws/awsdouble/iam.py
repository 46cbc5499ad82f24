"""IAM-lite: a list of denied actions per account.

Actions are those of IAM policies: ``route53:ChangeResourceRecordSets``, ``s3:GetObjectVersion``, and for API
Gateway the HTTP verbs, ``apigateway:PATCH``, with ``apigateway:AddCertificateToDomain`` and
``RemoveCertificateFromDomain`` for the calls that need them [Service Authorization Reference]. Beyond IAM, the
operation's name works as well (``apigateway:UpdateDomainName``), to deny one call only. ``*`` is a wildcard.

Assumed: the messages, and ACM's and Lambda's status.
"""

from fnmatch import fnmatchcase

from ministack.core.iam_actions import extract_iam_action

from .calls import Call, current_query
from .wire import Response, aws_error

#: service -> error code, status; others answer AccessDenied 403
_FORMS = {"apigateway": ("AccessDeniedException", 403), "apigatewayv2": ("AccessDeniedException", 403),
          "acm": ("AccessDeniedException", 400), "lambda": ("AccessDeniedException", 403)}

_denied: dict[str, list[str]] = {}


def deny(account: str, actions: list[str]) -> dict[str, list[str]]:
    """Replace what is denied to the account; an empty list allows everything again."""
    _denied[account] = actions
    return denied()


def denied() -> dict[str, list[str]]:
    return {account: actions for account, actions in _denied.items() if actions}


def is_denied(account: str, action: str) -> bool:
    return any(fnmatchcase(action, pattern) for pattern in _denied.get(account, ()))


def _actions_of(call: Call, method: str, path: str, headers: dict[str, str], body: bytes) -> list[str]:
    service, query = call.service.removesuffix("v2"), current_query.get({})
    actions = [extract_iam_action(service, method, path, headers, body, query) or "", f"{service}:{call.operation}"]
    if call.operation in ("CreateDomainName", "UpdateDomainName"):
        actions.append("apigateway:AddCertificateToDomain")
    elif call.operation == "DeleteDomainName":
        actions.append("apigateway:RemoveCertificateFromDomain")
    return actions


def refusal(call: Call, method: str, path: str, headers: dict[str, str], body: bytes) -> Response | None:
    if not _denied.get(call.account):
        return None
    for action in _actions_of(call, method, path, headers, body):
        if is_denied(call.account, action):
            code, status = _FORMS.get(call.service, ("AccessDenied", 403))
            message = (f"User: arn:aws:iam::{call.account}:user/test is not authorized to perform: {action} "
                       f"because no identity-based policy allows the {action} action")
            return aws_error(call.service, code, message, status)
    return None


def reset() -> None:
    _denied.clear()
