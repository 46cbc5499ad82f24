"""Call quotas, as token buckets, and the throttling errors of each service.

- API Gateway: CreateDomainName, UpdateDomainName and DeleteDomainName 1 per 30 s each, CreateDeployment
  1 per 5 s, GetResources 5 per 2 s, everything together 10 per second with bursts of 40, per account and Region; 429
  ``TooManyRequestsException``, in v1 with ``Retry-After``. [API Gateway Developer Guide, limits]
- ACM: per operation, account and Region; 400 ``ThrottlingException``. [ACM User Guide, acm-limits]
- Route 53: 5 per second and account; 400 ``Throttling``. [Route 53 Developer Guide, DNSLimitations]

Assumed: v1 and v2 share one quota per operation; calls that fail validation count, throttled ones do not;
a call that its own quota refuses takes nothing of the common one; ACM and Route 53 allow a burst of one
second's worth.

All quotas are off by default (see `config.KNOBS`).
"""

import math

from . import clock
from .calls import Call
from .config import knob
from .wire import Response, aws_error

DOMAIN_WRITES = ("CreateDomainName", "UpdateDomainName", "DeleteDomainName")
ACM_RATES = {
    "RequestCertificate": 5, "DescribeCertificate": 10, "DeleteCertificate": 10, "ListCertificates": 8,
    "AddTagsToCertificate": 5, "RemoveTagsFromCertificate": 5, "ListTagsForCertificate": 10, "GetCertificate": 10,
    "ImportCertificate": 1, "RenewCertificate": 5, "UpdateCertificateOptions": 5,
}

_buckets: dict[tuple, tuple[float, float]] = {}  # key -> tokens left, at time


def _seconds_short(key: tuple, rate: float, burst: float) -> float:
    """Takes a token; returns 0.0 when there was one, else the seconds until there is one."""
    now = clock.now()
    tokens, at = _buckets.get(key, (burst, now))
    tokens = min(burst, tokens + (now - at) * rate)
    if tokens < 0.999:
        _buckets[key] = tokens, now
        return (1 - tokens) / rate
    _buckets[key] = tokens - 1, now
    return 0.0


def _api_gateway(call: Call) -> float:
    place = (call.account, call.region)
    interval, burst = 0.0, 1
    if call.operation in DOMAIN_WRITES:
        interval = knob("domain_write_interval")
    elif call.operation == "CreateDeployment":
        interval = knob("deployment_interval")
    elif call.operation == "GetResources":
        interval, burst = knob("resources_interval"), 5
    if interval and (short := _seconds_short((*place, call.operation), 1 / interval, burst)):
        return short
    rate = knob("apigateway_rate")
    return _seconds_short((*place, "apigateway"), rate, knob("apigateway_burst")) if rate else 0.0


def refusal(call: Call) -> Response | None:
    """Returns the throttling error that AWS would answer to this call now, if any."""
    if call.service in ("apigateway", "apigatewayv2"):
        if short := _api_gateway(call):
            v1 = call.service == "apigateway"
            return aws_error(call.service, "TooManyRequestsException", "Too Many Requests", 429,
                             {"retry-after": str(math.ceil(short))} if v1 else None)
    elif call.service == "acm":
        rate = ACM_RATES.get(call.operation, 5) * knob("acm_rate_scale")
        if rate and _seconds_short((call.account, call.region, "acm", call.operation), rate, max(rate, 1)):
            return aws_error("acm", "ThrottlingException", "Rate exceeded", 400)
    elif call.service == "route53":
        rate = knob("route53_rate")
        if rate and _seconds_short((call.account, "route53"), rate, max(rate, 1)):
            return aws_error("route53", "Throttling", "Rate exceeded", 400)
    return None


def reset() -> None:
    _buckets.clear()
