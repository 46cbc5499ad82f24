"""The control API, ``/_double/...``: JSON in, JSON out, 400 with ``{"error": ...}`` for a malformed request."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from ministack import app as ministack

from . import acm, apis, calls, config, dataplane, domain_names, faults, iam, quotas, route53
from .wire import Reply, json_reply

Query = dict[str, str]


def _filters(query: Query) -> dict:
    where: dict = {k: v for k, v in query.items() if k in ("account", "service", "operation")}
    return where | {"since": int(query.get("since", 0)), "writes": query.get("writes") in ("1", "true")}


def _edge(query: Query) -> dict:
    return {"secret": dataplane.front_secret, "secretHeader": dataplane.SECRET,
            "certificateHeaders": dataplane.CERTIFICATE_HEADERS,
            "domains": domain_names.edge_view(query.get("account", ""), query.get("host", "").lower())}


def _reset() -> dict:
    ministack._reset_all_state()
    faults.clear()
    for module in (acm, apis, calls, config, domain_names, iam, quotas, route53):
        module.reset()
    return {"reset": True}


_ROUTES: dict[tuple[str, str], Callable[[Query, Any], object]] = {
    ("GET", "health"): lambda q, d: {"ok": True},
    ("GET", "config"): lambda q, d: config.update({}, q.get("account", "")),
    ("POST", "config"): lambda q, d: config.update(d, q.get("account", "")),
    ("GET", "calls"): lambda q, d: calls.listing(**_filters(q)),
    ("GET", "stats"): lambda q, d: calls.stats(**_filters(q)),
    ("GET", "faults"): lambda q, d: faults.listing(),
    ("POST", "faults"): lambda q, d: faults.add(d if isinstance(d, list) else [d]),
    ("DELETE", "faults"): lambda q, d: faults.clear(int(q["id"]) if "id" in q else None),
    ("POST", "release"): lambda q, d: {"released": faults.release(d.get("id"))},
    ("GET", "deny"): lambda q, d: iam.denied(),
    ("POST", "deny"): lambda q, d: iam.deny(d["account"], d["actions"]),
    ("GET", "edge"): lambda q, d: _edge(q),
    ("GET", "dns"): lambda q, d: route53.dns_view(q.get("account", ""), q.get("name", "").lower()),
    ("POST", "acm"): lambda q, d: {"changed": acm.set_state(**d)},
    ("POST", "domain"): lambda q, d: {"changed": domain_names.force_status(
        d.get("account", ""), d["domainName"], d["status"], d.get("message", ""))},
    ("POST", "reset"): lambda q, d: _reset(),
}


def handle(scope: dict, body: bytes) -> Reply:
    route = _ROUTES.get((scope["method"], scope["path"].removeprefix("/_double/")))
    if route is None:
        return json_reply({"error": f"no such control call: {scope['method']} {scope['path']}"}, 404)
    query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
    try:
        return json_reply(route(query, json.loads(body or b"{}")))
    except (ValueError, TypeError, KeyError) as problem:
        return json_reply({"error": f"{type(problem).__name__}: {problem}"}, 400)
