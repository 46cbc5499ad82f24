"""Route 53: what MiniStack accepts and AWS refuses, and the DNS view.

AWS refuses names outside the zone, a CNAME beside other types, the same record twice in a batch, and batches
of more than 1,000 records or 32,000 characters, where UPSERT counts twice; it answers PriorRequestNotComplete
while a change of the zone is in work; it shows ``*`` as ``\\052``. [botocore route53 model; Route 53 Developer
Guide, DNSLimitations; external-dns provider/aws]. Assumed: the messages of the size limits.
"""

import time
from collections.abc import Callable
from xml.etree.ElementTree import Element

from ministack.services import apigateway_v1 as v1
from ministack.services import route53 as r53

from .config import knob
from .patching import replaces
from .wire import Response, aws_error

_last_change: dict[str, float] = {}  # zone id -> when it last changed
#: called with the zone's name after every change
after_change: list[Callable[[str], None]] = []


def _invalid(message: str) -> Response:
    return aws_error("route53", "InvalidChangeBatch", message, 400)


def _batch_error(zone: dict, records: list[dict], changes: list[tuple[str, dict]]) -> Response | None:
    present = {(r["Name"].lower(), r["Type"]) for r in records}
    written: set[tuple] = set()
    elements = characters = 0
    for action, record in changes:
        name, kind = record["Name"].lower(), record["Type"]
        weight = 2 if action == "UPSERT" else 1
        elements += weight * len(record.get("ResourceRecords", []))
        characters += weight * sum(map(len, record.get("ResourceRecords", [])))
        if name != zone["name"] and not name.endswith("." + zone["name"]):
            return _invalid(f"[RRSet with DNS name {name} is not permitted in zone {zone['name']}]")
        if action == "DELETE":
            present.discard((name, kind))
            continue
        if (name, kind, record.get("SetIdentifier")) in written:
            return _invalid("[The request contains an invalid set of changes for a resource record set "
                            f"'{action} {kind} {name}']")
        written.add((name, kind, record.get("SetIdentifier")))
        others = sorted(t for n, t in present if n == name and t != kind)
        if others and (kind == "CNAME" or "CNAME" in others):
            return _invalid(f"[RRSet of type {kind} with DNS name {name} is not permitted because a conflicting RRSet "
                            f"of type {others[0]} with the same DNS name already exists in zone {zone['name']}]")
        present.add((name, kind))
    if elements > 1000 or characters > 32_000:
        return _invalid(f"[Number of records limit of 1000 or of 32000 characters exceeded: {elements}, {characters}]")
    return None


@replaces(r53, "_change_resource_record_sets")
def change_resource_record_sets(original: Callable, zone_id: str, body: bytes) -> Response:
    root, zone = r53._parse_body(body), r53._zones.get(zone_id)
    if root is not None and zone:
        if time.time() - _last_change.get(zone_id, 0) < knob("change_window"):
            return aws_error("route53", "PriorRequestNotComplete",
                             "The request was rejected because Route 53 was still processing a prior request.", 400)
        batch = r53._find(r53._find(root, "ChangeBatch"), "Changes")
        changes = [(r53._text(c, "Action"), r53._parse_record_set(r53._find(c, "ResourceRecordSet")))
                   for c in r53._findall(batch, "Change")]
        if error := _batch_error(zone, r53._records.get(zone_id, []), changes):
            return error
    response = original(zone_id, body)
    if response[0] == 200:
        _last_change[zone_id] = time.time()
        for listener in after_change:
            listener(zone["name"])
    return response


@replaces(r53, "_build_record_set_el")
def build_record_set(original: Callable, parent: Element, record: dict) -> None:
    original(parent, {**record, "Name": record["Name"].replace("*", "\\052")})


@replaces(r53, "_normalise_name")
def normalise_name(original: Callable, name: str) -> str:
    return original((name or "").replace("\\052", "*"))


@replaces(r53, "_new_change")
def new_change(original: Callable, comment: str = "") -> dict:
    change = original(comment)
    change["_at"] = time.time()
    return change


@replaces(r53, "_get_change")
def get_change(original: Callable, change_id: str) -> Response:
    """MiniStack's changes are INSYNC when read again; with `insync_delay`, once that time has passed."""
    change = r53._changes.get(change_id)
    if change and (delay := knob("insync_delay")):
        change["status"] = "PENDING" if time.time() - change["_at"] < delay else "INSYNC"
    return original(change_id)


def published_values(name: str, kind: str) -> list[list[str]]:
    """The values of a record in the public zones of every account, as a resolver sees them; `name` in lower case."""
    return [[v.rstrip(".").lower() for v in record.get("ResourceRecords", [])]
            for key, zone in r53._zones._data.items() if not zone["private"] and name.endswith(f".{zone['name']}")
            for record in r53._records._data[key] if record["Type"] == kind and record["Name"].lower() == name]


def dns_view(account: str = "", within: str = "") -> list[dict]:
    """All record sets of all zones, or of those that the name `within` lies in; an alias to a regional domain name says
    whose it is, or that it is nobody's."""
    owners = {d["regionalDomainName"].lower(): {"domainName": name, "account": owner, "region": region}
              for (owner, region, name), d in v1._domain_names.all_items()}

    def view(record: dict) -> dict:
        shown = {"name": record["Name"].lower(), "type": record["Type"], "values": record.get("ResourceRecords", [])}
        if record.get("TTL") is not None:
            shown["ttl"] = int(record["TTL"])
        if alias := record.get("AliasTarget"):
            target = alias["DNSName"].lower()
            shown["alias"] = {"target": target, "hostedZoneId": alias["HostedZoneId"],
                              "regionalDomain": owners.get(target.rstrip("."))}
        return shown

    return [{"id": zone_id, "name": zone["name"], "private": zone["private"], "account": owner,
             "records": [view(r) for r in r53._records._data.get((owner, zone_id), [])]}
            for (owner, zone_id), zone in r53._zones._data.items()
            if account in ("", owner) and (not within or f".{within}".endswith(f".{zone['name']}"))]


def reset() -> None:
    _last_change.clear()

