"""The knobs: how slow, how strict and how inconsistent the emulator is.

Each knob is a number, set at start from the environment (``AWSDOUBLE_ISSUE_DELAY=0.2``) or at run time by
``POST /_double/config {"issue_delay": 0.2}``; with ``?account=111111111111`` it holds for that account
only, so that tests that run at the same time, each in an account of its own, do not disturb each other.
``{"profile": "aws"}`` sets every knob to what AWS does, ``{"profile": "fast"}`` to the defaults. The rates and
limits of "aws" are AWS's documented ones. Reported are 271 to 533 s for Terraform's tests of a domain name with
mutual TLS, which create and update it more than once, and 15 to 60 minutes for another security policy, which
`update_settle` does not imitate. [Terraform pull requests 21076 and 45741]

Assumed: the other delays of "aws", and `page_size`, which are of the reported order.
"""

import os
from typing import NamedTuple

from ministack.core.responses import get_account_id


class Knob(NamedTuple):
    default: float
    aws: float
    meaning: str


KNOBS: dict[str, Knob] = {
    # ACM
    "certificate_delay": Knob(0, 3, "s after RequestCertificate before Describe and List know the certificate"),
    "record_delay": Knob(0, 5, "s after RequestCertificate before DescribeCertificate shows the DNS record"),
    "issue_delay": Knob(1, 120, "s after the validation CNAME is seen in Route 53 before ISSUED"),
    "in_use_linger": Knob(0, 1800, "s that a certificate stays in use after its domain name released it"),
    "acm_rate_scale": Knob(0, 1, "factor on ACM's per-operation call rates (0: no limit)"),
    # API Gateway
    "create_settle": Knob(0, 60, "s that a new domain name is UPDATING"),
    "update_settle": Knob(1, 60, "s that a domain name is UPDATING after UpdateDomainName"),
    "domain_write_interval": Knob(0, 30, "s per CreateDomainName, per Update-, per DeleteDomainName (0: no limit)"),
    "deployment_interval": Knob(0, 5, "s per CreateDeployment (0: no limit)"),
    "resources_interval": Knob(0, 0.4, "s per GetResources of v1, 5 of them at once (0: no limit)"),
    "ttl_absent": Knob(0, 0, "a v2 authorizer's AuthorizerResultTtlInSeconds of 0: 0 is shown, 1 left out"),
    "apigateway_rate": Knob(0, 10, "API Gateway control-plane calls per second in total (0: no limit)"),
    "apigateway_burst": Knob(40, 40, "API Gateway control-plane calls at once"),
    "domain_limit": Knob(120, 120, "custom domain names per Region"),
    "mapping_list_delay": Knob(0, 5, "s before GetApiMappings lists a new mapping"),
    "page_size": Knob(0, 25, "items per page of the v2 lists when MaxResults is not sent (0: all)"),
    "stage_update_publishes": Knob(1, 1, "UpdateStage of a REST API: 1 publishes the default endpoint's flag, 0 does not"),
    "parameters_merge": Knob(1, 1, "UpdateIntegration of v2: request parameters that it does not name 1 stay, 0 go"),
    "rest_date_lag": Knob(0, 0, "s that the dates of REST APIs and their stages lie back, as if it had been done earlier"),
    "duplicate_is_conflict": Knob(0, 0, "an existing domain name: 1 ConflictException 409, 0 BadRequestException 400"),
    "v2_refuses_tls_1_0": Knob(0, 0, "v2 shows a Regional domain name with the policy TLS_1_0: 0 as any other, 1 refuses it"),
    "leaf_anchor_issues": Knob(0, 0, "a certificate under one in the truststore that says CA:FALSE: 0 is refused, 1 not"),
    "ec_certificates": Knob(1, 1, "a certificate with an elliptic curve on a domain name: 1 is taken, 0 refused"),
    "lone_policy_patch": Knob(0, 0, "back from an enhanced policy with /securityPolicy alone: 0 is refused, 1 is taken"),
    "ignore_key_algorithm": Knob(0, 0, "RequestCertificate: 0 gives the requested key, 1 always RSA_2048"),
    "host_alone_selects": Knob(0, 0, "a domain named by Host only, not by the handshake: 0 is refused, 1 serves anyone"),
    "keep_unresolved_header": Knob(0, 0, "a header mapping without a value: 0 removes the header, 1 lets it pass"),
    # S3
    "versioning_delay": Knob(0, 60, "s after versioning was first enabled in which an object gets no version"),
    "required_encryption": Knob(0, 0, "header that a bucket policy demands of PutObject: 0 none, 1 AES256, 2 aws:kms"),
    # Route 53
    "route53_rate": Knob(0, 5, "Route 53 calls per second and account (0: no limit)"),
    "change_window": Knob(0, 0.5, "s after a change in which the zone answers PriorRequestNotComplete"),
    "insync_delay": Knob(0, 60, "s that a change stays PENDING (0: until it was read once)"),
    "protected_records": Knob(0, 0, "record protections: 1 on every address record, which no change may touch; 0 none"),
    "active_record_check": Knob(0, 0, "change guardrail ACTIVE_RECORD_CHECK: 1 refuses to delete address records, 0 off"),
}

_global: dict[str, float] = {}
_by_account: dict[str, dict[str, float]] = {}


def knob(name: str, account: str | None = None) -> float:
    """Returns the value for the account of the current request, or for `account`."""
    return _by_account.get(account or get_account_id(), {}).get(name, _global[name])


def update(values: dict, account: str = "") -> dict[str, float]:
    """Sets knobs, for every account or for one, and returns the values in force; ValueError for an unknown name."""
    values = dict(values)
    profile = values.pop("profile", None)
    if profile not in (None, "aws", "fast"):
        raise ValueError(f"no such profile: {profile}")
    if unknown := values.keys() - KNOBS.keys():
        raise ValueError(f"no such knob: {', '.join(sorted(unknown))}")
    target = _by_account.setdefault(account, {}) if account else _global
    if profile:
        target.update({name: k.aws if profile == "aws" else k.default for name, k in KNOBS.items()})
    target.update({name: float(value) for name, value in values.items()})
    return _global | _by_account.get(account, {})


def reset() -> None:
    """Restores the values at start: the profile and the knobs of the environment."""
    _by_account.clear()
    update({"profile": os.environ.get("AWSDOUBLE_PROFILE", "fast")})
    update({n: os.environ[v] for n in KNOBS if (v := f"AWSDOUBLE_{n.upper()}") in os.environ})


reset()
