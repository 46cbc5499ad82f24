"""Requests and answers held against the botocore models, from which SDKs are generated too.

With ``AWSDOUBLE_VALIDATE=1`` a request that no SDK would send, and an answer that does not fit its model, is a 500
``DoesNotFitTheModel`` that says where: required members, types, enumerations, patterns, lengths and, in JSON, members
that the model does not have. `KNOWN` names the exceptions. The form of IAM's and STS's requests is not checked.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from botocore import parsers
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape

from .calls import Call
from .wire import Reply, Response, aws_error

CODE = "DoesNotFitTheModel"

#: Places that do not fit: "service.Operation answer.Place", with wildcards.
KNOWN = (
    # AWS itself: ACM writes hyphens [LocalStack's recorded answers], a private zone has no delegation set, and
    # only the model of v1 has all states of a domain name
    "apigatewayv2.* answer.*DomainNameStatus", "acm.* answer.*.KeyAlgorithm", "acm.* answer.*[[].KeyAlgorithm", "route53.CreateHostedZone answer.DelegationSet",
    # MiniStack, in fields that no caller here reads
    "route53.CreateHostedZone answer.Location", "apigateway.CreateDeployment answer.apiSummary*.authorizationScopes",
    "lambda.* answer.*RuntimeVersionArn", "lambda.* answer.*ReasonCode",
)

_PYTHON: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "long": int, "boolean": bool, "double": (int, float), "float": (int, float),
    "timestamp": datetime, "blob": (bytes, str)}


@cache
def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader(include_default_search_paths=True).load_service_model(service, "service-2"), service)


def _of_shape(shape: Shape, value: Any, at: str) -> Iterator[str]:
    """Yields where the value does not fit the shape."""
    match shape:
        case StructureShape():
            if not isinstance(value, dict):
                yield f"{at}: no structure"
                return
            for name in shape.required_members:
                if name not in value and shape.members[name].serialization.get("location") not in ("uri", "querystring"):
                    yield f"{at}.{name}: missing"
            for name, member in value.items():
                if name in shape.members:
                    yield from _of_shape(shape.members[name], member, f"{at}.{name}")
        case ListShape():
            if not isinstance(value, list):
                yield f"{at}: no list"
                return
            for member in value:
                yield from _of_shape(shape.member, member, f"{at}[]")
            yield from _of_size(shape, len(value), at)
        case MapShape():
            if not isinstance(value, dict):
                yield f"{at}: no map"
                return
            for key, member in value.items():
                yield from _of_shape(shape.key, key, f"{at} key")
                yield from _of_shape(shape.value, member, f"{at}{{}}")
        case _:
            expected = _PYTHON.get(shape.type_name, object)
            if not isinstance(value, expected) or isinstance(value, bool) and expected is int:
                yield f"{at}: {type(value).__name__} instead of {shape.type_name}"
            elif isinstance(shape, StringShape):
                if shape.enum and value not in shape.enum:
                    yield f"{at}: {value!r} is none of {', '.join(shape.enum)}"
                yield from _of_size(shape, len(value), at)
                pattern = shape.metadata.get("pattern")
                if pattern and not _matches(pattern, value):
                    yield f"{at}: {value!r} does not match {pattern}"
            elif shape.type_name in ("integer", "long"):
                yield from _of_size(shape, value, at)


def _of_size(shape: Shape, size: int, at: str) -> Iterator[str]:
    if size < (shape.metadata.get("min") or 0) or size > shape.metadata.get("max", size):
        yield f"{at}: {size} is not from {shape.metadata.get('min')} to {shape.metadata.get('max')}"


def _matches(pattern: str, value: str) -> bool:
    pattern = pattern.replace(r"\p{L}", "a-zA-Z").replace(r"\p{Z}", r"\s").replace(r"\p{N}", "0-9")
    try:
        return re.search(pattern if pattern[:1] == "^" else f"^(?:{pattern})$", value, re.S) is not None
    except re.error:
        return True  # of another dialect


def _unknown(shape: Shape, value: Any, at: str) -> Iterator[str]:
    """Yields the members of a JSON value that the shape does not have."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        names = {m.serialization.get("name", name): m for name, m in shape.members.items()}
        for name, member in value.items():
            if name not in names:
                yield f"{at}.{name}: not in the model"
            else:
                yield from _unknown(names[name], member, f"{at}.{name}")
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for member in value:
            yield from _unknown(shape.member, member, f"{at}[]")
    elif isinstance(shape, MapShape) and isinstance(value, dict):
        for member in value.values():
            yield from _unknown(shape.value, member, f"{at}{{}}")


def _violations(call: Call, shape: Shape | None, headers: dict[str, str], body: bytes) -> list[str]:
    if shape is None:
        return []
    protocol = _model(call.service).resolved_protocol
    parser = parsers.create_parser(protocol)
    parser._event_stream_parser = None
    payload = shape.serialization.get("payload")
    if payload and shape.members[payload].type_name == "blob":
        body = b""  # a stream
    try:
        tree = parser.parse({"body": body, "headers": headers, "status_code": 200}, shape)
    except parsers.ResponseParserError as error:
        return [str(error)]
    tree.pop("ResponseMetadata", None)
    if payload and shape.members[payload].type_name == "blob":
        tree.pop(payload, None)
    found = list(_of_shape(shape, tree, ""))
    if "json" in protocol and body:
        found += _unknown(shape, json.loads(body), "")
    return found


def _refusal(call: Call, what: str, found: list[str]) -> Response | None:
    name = f"{call.service}.{call.operation}"
    places = {v: f"{name} {what}{v.partition(':')[0]}" for v in found}
    found = [v for v in places if not any(fnmatchcase(places[v], known) for known in KNOWN)]
    if not found:
        return None
    return aws_error(call.service, CODE, f"{name} {what}" + "; ".join(found), 500)


def of_request(call: Call, headers: dict[str, str], body: bytes) -> Response | None:
    """Returns the refusal of a request that does not fit its model."""
    if call.service in ("iam", "sts") or " " in call.operation:
        return None
    shape = _model(call.service).operation_model(call.operation).input_shape
    return _refusal(call, "request", _violations(call, shape, headers, body))


def of_answer(call: Call, reply: Reply) -> Reply:
    """Returns the reply, or an error in place of a successful one that does not fit its model."""
    if reply.status >= 300 or " " in call.operation:
        return reply
    shape = _model(call.service).operation_model(call.operation).output_shape
    headers = {k.decode().lower(): v.decode() for k, v in reply.headers}
    refused = _refusal(call, "answer", _violations(call, shape, headers, reply.body))
    return Reply.of(refused) if refused else reply
