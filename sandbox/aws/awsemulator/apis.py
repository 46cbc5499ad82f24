"""APIs: the content of deployments, and small corrections to MiniStack.

A change of ``disableExecuteApiEndpoint`` takes effect with the next deployment: of an HTTP API by
CreateDeployment, or at once when a stage deploys automatically; of a REST API by CreateDeployment or any
UpdateStage (knob `stage_update_publishes`). Routes, integrations and authorizers of a stage are those of its
last deployment too, unless it deploys automatically. [API Gateway Developer Guide, http-api- and
rest-api-disable-default-endpoint, http-api-stages, how-to-deploy-api; awsdocs pull request 159]. An API that is
mapped to a domain name cannot be deleted [cloud-nuke issue 370]. ``""`` as the value removes a request
parameter of an HTTP API's integration [botocore apigatewayv2]. GetResources shows only the names of the methods
unless they are embedded. [botocore apigateway] An authorizer without an identity source requires none.
[botocore, CreateAuthorizer of both] CreateAuthorizer of a REST API that is gone is a ConflictException.
[LocalStack's recorded answers]

The flag is of the whole API, whichever stage is deployed. [API Gateway Developer Guide,
rest-api-disable-default-endpoint] UpdateStage of a REST API publishes the flag but not the resources. [awsdocs
pull request 159] v1 tags REST APIs, v2 the others. [Terraform, aws_api_gateway_ and aws_apigatewayv2_] A stage
of an HTTP API that was never deployed serves nothing. [API Gateway Developer Guide, http-api-develop]
UpdateIntegration of v2 leaves request parameters alone that it does not name (knob `parameters_merge`).
[Terraform, apigatewayv2 integration.go, removes them by ``""``] An authorizer that a route or method asks cannot
be deleted (ConflictException), and one that is not there cannot be put on a route (BadRequestException).
[Terraform issue 6731 and pull request 37732]

Assumed: UpdateStage of a REST API publishes the flag also when it changes nothing.

Beyond AWS, the tag ``awsdouble:id`` chooses the id of a new API, for manifests that are written before it exists.
"""

import copy
import json
import re
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from ministack.core.responses import AccountRegionScopedDict, get_account_id, get_region
from ministack.services import apigateway as v2
from ministack.services import apigateway_v1 as v1

from .calls import current_query
from .config import knob
from .patching import replaces, then
from .wire import Response, bad_request, conflict

#: tag that chooses the id of a new API
ID_TAG = "awsdouble:id"
_API_ARN = re.compile(r"arn:aws:apigateway:[^:]+::/(?:rest)?apis/([^/]+)")

#: (account, Region, API) with a disabled default endpoint, as of the last deployment
_endpoint_closed: set[tuple[str, str, str]] = set()
#: deployment id -> name of the store -> deployed content
_deployed: dict[str, dict[str, Any]] = {}
#: deployment that the data plane serves in this request; None for the live configuration
serving_deployment: ContextVar[str | None] = ContextVar("serving_deployment", default=None)


class _DeployedStore(AccountRegionScopedDict):
    """Store of MiniStack that answers from the deployment while the data plane serves one."""

    __slots__ = ("_name",)

    def __init__(self, module: ModuleType, name: str) -> None:
        super().__init__()
        self._name = name
        setattr(module, name, self)

    def get(self, key: Any, default: Any = None) -> Any:
        snapshot = _deployed.get(serving_deployment.get() or "", {})
        return snapshot.get(self._name) if snapshot else super().get(key, default)

    @staticmethod
    def publish(deployment_id: str, api_id: str, stores: "list[_DeployedStore]") -> None:
        _deployed[deployment_id] = {s._name: copy.deepcopy(s.get(api_id, {})) for s in stores}
        _publish_flag(api_id)


_V2_STORES = [_DeployedStore(v2, name) for name in ("_routes", "_integrations", "_authorizers")]
_V1_STORES = [_DeployedStore(v1, name) for name in ("_resources", "_authorizers_v1")]


def endpoint_closed(api_id: str) -> bool:
    """True when the default endpoint refuses requests (in the current account and Region)."""
    return (get_account_id(), get_region(), api_id) in _endpoint_closed


def deployment_of(api_id: str, stage: str) -> str | None:
    """Returns the deployment that this stage serves, None when it serves the live configuration."""
    if api_id in v1._rest_apis:
        return v1._stages_v1.get(api_id, {}).get(stage, {}).get("deploymentId")
    found = v2._stages.get(api_id, {}).get(stage, {})
    return None if found.get("autoDeploy") else found.get("deploymentId")


def is_undeployed(api_id: str, stage: str) -> bool:
    """True for a stage of an HTTP API that was never deployed."""
    found = v2._stages.get(api_id, {}).get(stage, {})
    return not (found.get("autoDeploy") or found.get("deploymentId"))


@then(v1, "_create_stage", "_update_stage")
def _publish_by_stage(api_id: str, *_: Any) -> None:
    if knob("stage_update_publishes"):
        _publish_flag(api_id)


def _publish_flag(api_id: str) -> None:
    api = v2._apis.get(api_id) or v1._rest_apis.get(api_id)
    change = _endpoint_closed.add if api.get("disableExecuteApiEndpoint") else _endpoint_closed.discard
    change((get_account_id(), get_region(), api_id))


@then(v2, "_update_api", "_create_stage", "_update_stage")
def _publish_automatically(api_id: str, *rest: Any) -> None:
    if rest[-1].get("deploymentId") or any(s.get("autoDeploy") for s in v2._stages.get(api_id, {}).values()):
        _publish_flag(api_id)


@replaces(v2, "_create_deployment")
def create_deployment(original: Callable, api_id: str, data: dict) -> Response:
    response = original(api_id, data)
    if response[0] == 201:
        deployment_id = json.loads(response[2])["deploymentId"]
        _DeployedStore.publish(deployment_id, api_id, _V2_STORES)
        if stage := v2._stages.get(api_id, {}).get(data.get("stageName", "")):
            stage["deploymentId"] = deployment_id
    return response


@replaces(v1, "_create_deployment")
def v1_create_deployment(original: Callable, api_id: str, data: dict) -> Response:
    response = original(api_id, data)
    if response[0] == 201:
        _DeployedStore.publish(json.loads(response[2])["id"], api_id, _V1_STORES)
    return response


@replaces(v1, "_update_rest_api")
def v1_update_rest_api(original: Callable, api_id: str, data: dict) -> Response:
    """Converts the flag, a string in the patch, to a boolean in the answer."""
    for operation in data.get("patchOperations", []):
        if operation.get("path") == "/disableExecuteApiEndpoint":
            operation["value"] = str(operation.get("value")).lower() == "true"
    return original(api_id, data)


@replaces(v1, "_resolve_custom_rest_api_id")
@replaces(v2, "_resolve_custom_api_id")
def choose_id(original: Callable, tags: dict, *existing: Any) -> Any:
    """Renames the tag for MiniStack, which has such a tag under another name."""
    chosen = (tags or {}).get(ID_TAG)
    return original({"ms-custom-id": chosen} if chosen else {}, *existing)


def _id_taken(data: dict) -> Response | None:
    """Refuses an id in use: ids are unique in all accounts, because a request to the default endpoint names no account."""
    chosen = (data.get("tags") or {}).get(ID_TAG)
    if chosen and any(chosen == api for _, _, api in (*v2._apis._data, *v1._rest_apis._data)):
        return conflict(f"The API id {chosen} is taken.")
    return None


@replaces(v1, "_create_rest_api")
def v1_create_rest_api(original: Callable, data: dict) -> Response:
    return _id_taken(data) or original(data)


@replaces(v2, "_create_api")
def create_api(original: Callable, data: dict) -> Response:
    if taken := _id_taken(data):
        return taken
    response = original(data)
    if response[0] != 201:
        return response
    api = v2._apis[json.loads(response[2])["apiId"]]
    api["apiEndpoint"] = f"https://{api['apiId']}.execute-api.{get_region()}.amazonaws.com"
    return v2._apigw_response(api, 201)


@replaces(v2, "_update_integration")
def update_integration(original: Callable, api_id: str, integration_id: str, data: dict) -> Response:
    before = (v2._integrations.get(api_id, {}).get(integration_id) or {}).get("requestParameters") or {}
    if isinstance(sent := data.get("requestParameters"), dict):
        whole = (before if knob("parameters_merge") else {}) | sent
        data = data | {"requestParameters": {k: v for k, v in whole.items() if v != ""}}
    return original(api_id, integration_id, data)


@replaces(v2, "_create_authorizer")
def create_authorizer(original: Callable, api_id: str, data: dict) -> Response:
    return original(api_id, {"identitySource": []} | data if data.get("authorizerType") == "REQUEST" else data)


@replaces(v2, "_get_authorizers")
@replaces(v2, "_get_authorizer")
def show_authorizers(original: Callable, *arguments: Any) -> Response:
    response = original(*arguments)
    if response[0] != 200 or not knob("ttl_absent"):
        return response
    shown = json.loads(response[2])
    for authorizer in shown.get("items", [shown]):
        if authorizer.get("authorizerResultTtlInSeconds") == 0:
            del authorizer["authorizerResultTtlInSeconds"]
    return v2._apigw_response(shown)


@replaces(v1, "_create_authorizer")
def v1_create_authorizer(original: Callable, api_id: str, data: dict) -> Response:
    if api_id not in v1._rest_apis:
        return conflict("Unable to complete operation due to concurrent modification. Please try again later.")
    return original(api_id, {"identitySource": ""} | data if data.get("type") == "REQUEST" else data)


@replaces(v1, "_update_stage")
def v1_update_stage(original: Callable, api_id: str, stage: str, data: dict) -> Response:
    """Converts flags, strings in the patch, to booleans in the answer."""
    for operation in data.get("patchOperations", []):
        if operation.get("path") in ("/tracingEnabled", "/cacheClusterEnabled"):
            operation["value"] = str(operation.get("value")).lower() == "true"
    return original(api_id, stage, data)


@replaces(v1, "_update_authorizer")
def v1_update_authorizer(original: Callable, api_id: str, authorizer_id: str, data: dict) -> Response:
    """Converts the seconds, a string in the patch, to a number in the answer."""
    for operation in data.get("patchOperations", []):
        if operation.get("path") == "/authorizerResultTtlInSeconds":
            operation["value"] = int(operation["value"])
    return original(api_id, authorizer_id, data)


@replaces(v2, "_delete_authorizer")
@replaces(v1, "_delete_authorizer")
def delete_authorizer(original: Callable, api_id: str, authorizer_id: str) -> Response:
    methods = [m for r in v1._resources.get(api_id, {}).values() for m in r["resourceMethods"].values()]
    asking = [*v2._routes.get(api_id, {}).values(), *methods]
    if any(route.get("authorizerId") == authorizer_id for route in asking):
        return conflict(f"Authorizer {authorizer_id} is referenced by a route or method")
    return original(api_id, authorizer_id)


@replaces(v2, "_update_route")
def update_route(original: Callable, api_id: str, route_id: str, data: dict) -> Response:
    wanted = data.get("authorizerId")
    if wanted and wanted not in v2._authorizers.get(api_id, {}):
        return bad_request(f"Invalid authorizer id {wanted}")
    return original(api_id, route_id, data)


@replaces(v1, "_update_method")
def v1_update_method(original: Callable, api_id: str, resource_id: str, method: str, data: dict) -> Response:
    patches = {p["path"]: p.get("value") for p in data.get("patchOperations", [])}
    wanted = patches.get("/authorizerId")
    if wanted and wanted not in v1._authorizers_v1.get(api_id, {}):
        return bad_request("Invalid Authorizer ID")
    response = original(api_id, resource_id, method, data)
    if response[0] == 200 and patches.get("/authorizationType") == "NONE":
        v1._resources[api_id][resource_id]["resourceMethods"][method].pop("authorizerId", None)
    return response


@replaces(v1, "_apply_patch")
def apply_patch(original: Callable, target: dict, operations: list[dict]) -> dict:
    """Decodes ``~1`` as a slash and ``~0`` as a tilde in one step of the path, unlike MiniStack. [RFC 6901]"""
    for operation in operations:
        *parents, last = (v1._decode_json_pointer_token(step) for step in operation["path"].lstrip("/").split("/"))
        holder = target
        for step in parents:
            if not isinstance(holder.get(step), dict):
                holder[step] = {}
            holder = holder[step]
        if operation["op"] == "remove":
            holder.pop(last, None)
        else:
            holder[last] = operation.get("value")
    return target


@replaces(v1, "_get_resources")
@replaces(v1, "_get_resource")
def v1_get_resources(original: Callable, *arguments: Any) -> Response:
    response = original(*arguments)
    if response[0] != 200 or "methods" in current_query.get({}).get("embed", []):
        return response
    shown = json.loads(response[2])
    for resource in shown.get("item", [shown]):
        resource["resourceMethods"] = {method: {} for method in resource.get("resourceMethods") or {}}
    return v1._v1_response(shown)


@then(v2, "_tag_resource", "_untag_resource")
def _show_tags(arn: str, _: Any) -> None:
    """Makes GetApi show the tags that TagResource set."""
    if (match := _API_ARN.fullmatch(arn)) and match[1] in v2._apis:
        v2._apis[match[1]]["tags"] = dict(v2._api_tags.get(arn, {}))


@then(v1, "_tag_v1_resource", "_untag_v1_resource")
def _show_v1_tags(arn: str, _: Any) -> None:
    """Makes GetRestApi show the tags that TagResource set."""
    if (match := _API_ARN.fullmatch(arn)) and match[1] in v1._rest_apis:
        v1._rest_apis[match[1]]["tags"] = dict(v1._v1_tags.get(arn, {}))


@replaces(v2, "_tag_resource")
@replaces(v2, "_untag_resource")
def v2_tags(original: Callable, arn: str, *rest: Any) -> Response:
    if ":/restapis/" in arn:
        return bad_request("Invalid resource ARN specified")
    return original(arn, *rest)


@replaces(v1, "_now_unix")
def now_unix(original: Callable) -> int:
    """Returns the time for the dates of REST APIs and their stages."""
    return original() - int(knob("rest_date_lag"))


@replaces(v2, "_page")
def page(original: Callable, items: list, query: dict) -> Response:
    """Returns a page of a v2 list; without MaxResults, of `page_size`."""
    size = int(knob("page_size"))
    return original(items, {"maxResults": [str(size)]} | query if size else query)


@replaces(v2, "_get_apis")
def get_apis(_: Callable) -> Response:
    return v2._page(list(v2._apis.values()), current_query.get({}))


@replaces(v2, "_get_routes")
@replaces(v2, "_get_integrations")
@replaces(v2, "_get_authorizers")
def in_pages(original: Callable, api_id: str) -> Response:
    response = original(api_id)
    return v2._page(json.loads(response[2])["items"], current_query.get({})) if response[0] == 200 else response


@replaces(v1, "_delete_rest_api")
@replaces(v2, "_delete_api")
def delete_api(original: Callable, api_id: str) -> Response:
    if any(m["restApiId"] == api_id for mappings in v1._base_path_mappings.values() for m in mappings.values()):
        return bad_request(f"Deleting API {api_id} failed. Please remove all API mappings for the API from your "
                           "custom domain names.")
    return original(api_id)


def reset() -> None:
    _endpoint_closed.clear()
    _deployed.clear()
