"""The whole AWS state of one account, as JSON: `dump` returns it and `load` restores it, in another process too.

A dump holds the stores of MiniStack's modules for the services that the operator uses, entry by entry in their
order, and the state that this package keeps beside them. Knobs, faults, denials, the journal, the clock, spent
quotas, and the time for which a zone still answers PriorRequestNotComplete are not AWS's state and no part of a
dump. Times are absolute: an elapsed time stays elapsed, and a certificate expires at the same moment. Changes
that would happen within a second are lost (a new function that is Pending stays Pending), so dump an idle
account.

Values without a JSON form are objects with one member that begins with a dollar sign: ``{"$text": "..."}`` and
``{"$base64": "..."}`` are bytes, ``$tuple``, ``$set`` and ``$dict`` (pairs) the types of these names.
"""

import base64
from collections.abc import Iterator
from dataclasses import asdict
from types import ModuleType
from typing import Any

from ministack.core.responses import AccountRegionScopedDict, AccountScopedDict
from ministack.services import acm as ms_acm
from ministack.services import apigateway, apigateway_v1, lambda_svc, s3
from ministack.services import iam as ms_iam
from ministack.services import route53 as ms_route53

from . import acm, apis, buckets, domain_names, iam
from .truststore import Truststore

#: Modules whose stores are dumped, by their names in a dump.
_SERVICES: dict[str, ModuleType] = {
    "acm": ms_acm, "apigateway": apigateway, "apigateway_v1": apigateway_v1, "iam": ms_iam, "lambda": lambda_svc,
    "route53": ms_route53, "s3": s3}
#: Stores of content that MiniStack has fetched from elsewhere.
_CACHES = ("apigateway._jwks_cache", "apigateway._oidc_config_cache")


def encode(value: Any) -> Any:
    """Returns the value in JSON types; TypeError for a value that could not be read back."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [encode(v) for v in value]
        case tuple():
            return {"$tuple": [encode(v) for v in value]}
        case set() | frozenset():
            return {"$set": sorted((encode(v) for v in value), key=repr)}
        case bytes() | bytearray():
            try:
                return {"$text": bytes(value).decode()}
            except UnicodeDecodeError:
                return {"$base64": base64.b64encode(value).decode()}
        case dict() if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: encode(v) for k, v in value.items()}
        case dict():
            return {"$dict": [[encode(k), encode(v)] for k, v in value.items()]}
    raise TypeError(f"a dump cannot hold a {type(value).__name__}")


def decode(value: Any) -> Any:
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$tuple": inner}:
            return tuple(decode(v) for v in inner)
        case {"$set": inner}:
            return {decode(v) for v in inner}
        case {"$text": text}:
            return text.encode()
        case {"$base64": text}:
            return base64.b64decode(text)
        case {"$dict": pairs}:
            return {decode(k): decode(v) for k, v in pairs}
    return {k: decode(v) for k, v in value.items()}


def _stores() -> Iterator[tuple[str, AccountScopedDict | AccountRegionScopedDict]]:
    for service, module in _SERVICES.items():
        for attribute, store in vars(module).items():
            name = f"{service}.{attribute}"
            if isinstance(store, AccountScopedDict | AccountRegionScopedDict) and name not in _CACHES:
                yield name, store


def dump(account: str) -> dict:
    stores = {}
    for name, store in _stores():
        # (account, key), or (account, Region, key)
        if entries := [[*map(encode, k[1:]), encode(v)] for k, v in store._data.items() if k[0] == account]:
            stores[name] = entries
    return {"account": account, "stores": stores, "double": _dump_emulator(account)}


def load(snapshot: dict) -> dict:
    """Replaces everything that the account of the dump has; ValueError for a dump with unknown names, which changes
    nothing."""
    account, stores = snapshot["account"], dict(_stores())
    if unknown := snapshot["stores"].keys() - stores.keys():
        raise ValueError(f"no such store: {', '.join(sorted(unknown))}")
    read = {name: {(account, *map(decode, key)): decode(value) for *key, value in entries}
            for name, entries in snapshot["stores"].items()}
    for name, store in stores.items():
        for key in [k for k in store._data if k[0] == account]:
            del store._data[key]
        store._data.update(read.get(name, {}))
    _load_emulator(account, snapshot["double"])
    return {"entries": sum(map(len, read.values()))}


# ---- state that this package keeps beside MiniStack's stores ----


def _deployments(account: str) -> set[str]:
    """Returns the ids of all deployments of the account."""
    all_of = (*apigateway._deployments._data.items(), *apigateway_v1._deployments_v1._data.items())
    return {deployment for key, deployments in all_of if key[0] == account for deployment in deployments}


def _dump_emulator(account: str) -> dict:
    serving = [[region, name, [asdict(s) for s in configurations]]
               for (owner, region, name), configurations in domain_names._serving.items() if owner == account]
    forced = [[region, name, *forced] for (owner, region, name), forced in domain_names._forced_status.items()
              if owner == account]
    mine = _deployments(account)
    return {
        "serving": serving,
        "forced_status": forced,
        "endpoint_closed": sorted([region, api] for owner, region, api in apis._endpoint_closed if owner == account),
        "deployed": {id_: encode(content) for id_, content in apis._deployed.items() if id_ in mine},
        "versioning_enabled": [[name, at] for (owner, name), at in buckets._enabled.items() if owner == account],
        "lingering": [[arn, *use] for arn, use in acm._lingering.items() if arn.split(":")[4] == account],
        "service_linked_role": account in iam._linked,
    }


def _load_emulator(account: str, held: dict) -> None:
    for keyed in (domain_names._serving, domain_names._forced_status, buckets._enabled):
        for key in [k for k in keyed if k[0] == account]:
            del keyed[key]
    for region, name, configurations in held["serving"]:
        domain_names._serving[(account, region, name)] = [
            domain_names.Serving(**s | {"truststore": s["truststore"] and Truststore(**s["truststore"])})
            for s in configurations]
    for region, name, status, message in held["forced_status"]:
        domain_names._forced_status[(account, region, name)] = (status, message)
    apis._endpoint_closed.difference_update([k for k in apis._endpoint_closed if k[0] == account])
    apis._endpoint_closed.update((account, region, api) for region, api in held["endpoint_closed"])
    apis._deployed.update({id_: decode(content) for id_, content in held["deployed"].items()})
    buckets._enabled.update({(account, name): at for name, at in held["versioning_enabled"]})
    for arn in [a for a in acm._lingering if a.split(":")[4] == account]:
        del acm._lingering[arn]
    acm._lingering.update({arn: (until, domain) for arn, until, domain in held["lingering"]})
    (iam._linked.add if held["service_linked_role"] else iam._linked.discard)(account)
