import json
import urllib.parse

import pytest
from conftest import Aws, authority, pem, refused

CERT = {
    "pem": "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
    "subject": "C=SE,O=Acme\\, Inc.,CN=client",
    "issuer": "CN=Root",
    "serial": "a1:b2",
    "not-before": "May 28 12:30:02 2019 GMT",
    "not-after": "May 28 12:30:02 2029 GMT",
}
EVENT_CERT = {
    "clientCertPem": CERT["pem"],
    "subjectDN": CERT["subject"],
    "issuerDN": "CN=Root",
    "serialNumber": "a1:b2",
    "validity": {"notBefore": CERT["not-before"], "notAfter": CERT["not-after"]},
}
ECHO = "import json\ndef handler(e, c): return {'statusCode': 200, 'body': json.dumps(e)}"
DISABLE = [{"op": "replace", "path": "/disableExecuteApiEndpoint", "value": "True"}]


@pytest.fixture
def front(emulator) -> dict:
    """Returns the headers with which the TLS front passes on a request of a client with a certificate."""
    secret = emulator.get("edge")["secret"]
    return {"x-double-secret": secret} | {f"x-double-client-cert-{k}": urllib.parse.quote(v) for k, v in CERT.items()}


def mapped(aws, api, stage="$default", key="k", **domain) -> str:
    name = aws.domain(pem=pem(authority("Root")), **domain)
    aws.v2.create_api_mapping(DomainName=name, ApiId=api, Stage=stage, ApiMappingKey=key)
    return name


def test_http_api_header_mappings(emulator, aws, backend, front):
    api, integration = aws.http_api(
        backend,
        {
            "overwrite:header.x-subject": "$context.identity.clientCert.subjectDN",
            "append:header.x-list": "$context.identity.clientCert.serialNumber",
            "overwrite:header.x-until": "$context.identity.clientCert.validity.notAfter",
            "remove:header.x-secret": "''",
            "overwrite:header.x-two": "${context.identity.clientCert.issuerDN};${context.domainName}",
        },
    )
    name = mapped(aws, api)
    status, body = emulator.request(name, "/k/x", front | {"x-subject": "spoofed", "x-list": "client", "x-secret": "s"})
    headers = json.loads(body)["headers"]
    assert status == 200 and headers["x-subject"] == CERT["subject"] and headers["x-list"] == "client,a1:b2"
    assert (
        headers["x-until"] == CERT["not-after"] and headers["x-two"] == f"CN=Root;{name}" and "x-secret" not in headers
    )
    assert not [h for h in headers if h.startswith("x-double")]
    # Without a certificate (default endpoint) the client's own header is removed too, unless the knob keeps it.
    host = f"{api}.execute-api.us-east-1.amazonaws.com"
    assert "x-subject" not in json.loads(emulator.request(host, "/x", {"x-subject": "spoofed"})[1])["headers"]
    aws.knobs(keep_unresolved_header=1)
    assert json.loads(emulator.request(host, "/x", {"x-subject": "spoofed"})[1])["headers"]["x-subject"] == "spoofed"


def test_refusals(emulator, aws, backend, front):
    api, _ = aws.http_api(backend)
    name = mapped(aws, api)
    plain = aws.domain(f"plain.{aws.zone_name}", aws.certificate(f"plain.{aws.zone_name}"))
    aws.v2.create_api_mapping(DomainName=plain, ApiId=api, Stage="$default")
    forbidden = (403, '{"message":"Forbidden"}')
    assert emulator.request(name, "/k/x") == forbidden  # not through the TLS front
    assert emulator.request(name, "/k/x", front | {"x-double-secret": "wrong"}) == forbidden
    assert emulator.request(name, "/k/x", {"x-double-secret": front["x-double-secret"]}) == forbidden  # no certificate
    assert emulator.request(name, "/nope", front) == forbidden  # no mapping
    assert emulator.request(name, "/k/x", front)[0] == 200
    assert emulator.request(plain, "/x")[0] == 200
    assert emulator.request(f"none.{aws.zone_name}", "/x")[0] != 200


def test_forged_certificate_headers_never_count(emulator, aws, backend, front):
    """Checks that such headers do not count on a host without mutual TLS, where a client may send any header."""
    api, _ = aws.http_api(backend, {"overwrite:header.x-subject": "$context.identity.clientCert.subjectDN"})
    forged = {k: v for k, v in front.items() if k != "x-double-secret"}
    headers = json.loads(emulator.request(f"{api}.execute-api.localhost", "/x", forged)[1])["headers"]
    assert "x-subject" not in headers and not [h for h in headers if h.startswith("x-double")]


def test_http_api_default_endpoint(emulator, aws, backend):
    api, _ = aws.http_api(backend)
    host = f"{api}.execute-api.us-east-1.amazonaws.com"
    assert aws.v2.get_api(ApiId=api)["ApiEndpoint"] == f"https://{host}"
    assert emulator.request(host, "/x")[0] == 200
    aws.v2.update_api(ApiId=api, DisableExecuteApiEndpoint=True)  # its stage deploys automatically
    assert emulator.request(host, "/x") == (404, '{"message":"Not Found"}')
    aws.v2.update_api(ApiId=api, DisableExecuteApiEndpoint=False)
    assert emulator.request(host, "/x")[0] == 200


def test_http_api_default_endpoint_needs_a_deployment(emulator, aws, backend):
    api, integration = aws.http_api(backend, auto_deploy=False)
    host = f"{api}.execute-api.us-east-1.amazonaws.com"
    aws.v2.create_deployment(ApiId=api, StageName="$default")
    aws.v2.update_api(ApiId=api, DisableExecuteApiEndpoint=True)
    aws.v2.update_integration(ApiId=api, IntegrationId=integration, RequestParameters={"overwrite:header.x-new": "yes"})
    assert "x-new" not in json.loads(emulator.request(host, "/x")[1])["headers"]
    aws.v2.create_deployment(ApiId=api, StageName="$default")
    assert emulator.request(host, "/x")[0] == 404


def test_rest_api_default_endpoint_needs_a_deployment(emulator, aws, backend):
    for publish in (
        lambda api: aws.v1.create_deployment(restApiId=api, stageName="prod"),
        lambda api: aws.v1.update_stage(
            restApiId=api, stageName="prod", patchOperations=[{"op": "replace", "path": "/description", "value": "x"}]
        ),
    ):
        api, _ = aws.rest_api(backend + "/{proxy}")
        host = f"{api}.execute-api.us-east-1.amazonaws.com"
        shown = aws.v1.update_rest_api(restApiId=api, patchOperations=DISABLE)
        assert shown["disableExecuteApiEndpoint"] is True
        assert emulator.request(host, "/prod/x")[0] == 200
        publish(api)
        assert emulator.request(host, "/prod/x") == (403, '{"message":"Forbidden"}')


def test_a_touched_stage_publishes_the_flag_and_nothing_else(emulator, aws, backend):
    """Checks a change to the same value; with the knob off it publishes nothing."""
    touch = [{"op": "replace", "path": "/description", "value": ""}]
    api, resource = aws.rest_api(backend + "/{proxy}")
    host = f"{api}.execute-api.us-east-1.amazonaws.com"
    draft = [{"op": "add", "path": "/requestParameters/integration.request.header.X-New", "value": "'yes'"}]
    aws.v1.update_integration(restApiId=api, resourceId=resource, httpMethod="ANY", patchOperations=draft)
    aws.v1.update_rest_api(restApiId=api, patchOperations=DISABLE)
    aws.knobs(stage_update_publishes=0)
    aws.v1.update_stage(restApiId=api, stageName="prod", patchOperations=touch)
    assert emulator.request(host, "/prod/x")[0] == 200
    aws.knobs(stage_update_publishes=1)
    aws.v1.update_stage(restApiId=api, stageName="prod", patchOperations=touch)
    assert emulator.request(host, "/prod/x")[0] == 403
    enable = [{"op": "replace", "path": "/disableExecuteApiEndpoint", "value": "false"}]
    aws.v1.update_rest_api(restApiId=api, patchOperations=enable)
    aws.v1.update_stage(restApiId=api, stageName="prod", patchOperations=touch)
    assert "x-new" not in json.loads(emulator.request(host, "/prod/x")[1])["headers"]


def test_a_deployment_for_another_stage(emulator, aws, backend):
    """Checks that one deployment serves any number of stages, by UpdateStage."""
    api, _ = aws.rest_api(backend + "/{proxy}")
    host = f"{api}.execute-api.us-east-1.amazonaws.com"
    deployment = aws.v1.create_deployment(restApiId=api, stageName="prod")["id"]
    aws.v1.create_stage(restApiId=api, stageName="dev", deploymentId="")
    point = [{"op": "replace", "path": "/deploymentId", "value": deployment}]
    aws.v1.update_stage(restApiId=api, stageName="dev", patchOperations=point)
    assert emulator.request(host, "/dev/x")[0] == 200
    assert aws.v1.get_stage(restApiId=api, stageName="dev")["deploymentId"] == deployment


def test_rest_api_tags_and_dates(aws, backend):
    api, _ = aws.rest_api(backend + "/{proxy}")
    arn = f"arn:aws:apigateway:us-east-1::/restapis/{api}"
    aws.v1.tag_resource(resourceArn=arn, tags={"a": "b", "c": "d"})
    aws.v1.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert aws.v1.get_rest_api(restApiId=api)["tags"] == {"c": "d"}
    assert refused(aws.v2.tag_resource, ResourceArn=arn, Tags={"a": "b"})[1] == 400
    assert refused(aws.v2.get_api, ApiId=api)[1] == 404
    before = aws.v1.get_stage(restApiId=api, stageName="prod")["lastUpdatedDate"]
    aws.knobs(rest_date_lag=100)
    aws.v1.update_stage(restApiId=api, stageName="prod", patchOperations=[])
    assert (before - aws.v1.get_stage(restApiId=api, stageName="prod")["lastUpdatedDate"]).total_seconds() > 90


def test_disabled_endpoint_leaves_the_domain_name_alone(emulator, aws, backend, front):
    api, _ = aws.http_api(backend)
    name = mapped(aws, api)
    aws.v2.update_api(ApiId=api, DisableExecuteApiEndpoint=True)
    assert emulator.request(name, "/k/x", front)[0] == 200


def test_rest_api_header_mappings_and_deployment(emulator, aws, backend, front):
    api, resource = aws.rest_api(
        backend + "/{proxy}",
        {
            "integration.request.header.X-Subject": "context.identity.clientCert.subjectDN",
            "integration.request.header.X-Static": "'s'",
            "integration.request.header.X-From": "method.request.header.X-In",
            "integration.request.header.X-Until": "context.identity.clientCert.validity.notAfter",
            "integration.request.path.proxy": "method.request.path.proxy",
        },
    )
    name = mapped(aws, api, "prod")
    echo = json.loads(emulator.request(name, "/k/a/b", front | {"x-subject": "spoofed", "x-in": "i"})[1])
    assert echo["path"] == "/a/b" and echo["headers"]["x-subject"] == CERT["subject"]
    assert [echo["headers"][h] for h in ("x-static", "x-from", "x-until")] == ["s", "i", CERT["not-after"]]
    aws.v1.update_integration(
        restApiId=api,
        resourceId=resource,
        httpMethod="ANY",
        patchOperations=[
            {
                "op": "add",
                "path": "/requestParameters/integration.request.header.X-Serial",
                "value": "context.identity.clientCert.serialNumber",
            }
        ],
    )
    assert "x-serial" not in json.loads(emulator.request(name, "/k/a", front)[1])["headers"]
    aws.v1.create_deployment(restApiId=api, stageName="prod")
    assert json.loads(emulator.request(name, "/k/a", front)[1])["headers"]["x-serial"] == "a1:b2"


def test_request_parameters_one_by_one(aws, backend):
    """HTTP APIs: the empty value removes one; others stay, unless the knob removes them. REST APIs: by patches."""
    api, integration = aws.http_api(backend, {"overwrite:header.x-a": "a", "overwrite:header.x-b": "b"})

    def update(parameters):
        update = aws.v2.update_integration(ApiId=api, IntegrationId=integration, RequestParameters=parameters)
        shown = aws.v2.get_integration(ApiId=api, IntegrationId=integration)
        assert shown.get("RequestParameters") == update.get("RequestParameters")
        return shown.get("RequestParameters", {})

    assert update({"overwrite:header.x-a": ""}) == {"overwrite:header.x-b": "b"}
    assert update({"overwrite:header.x-c": "c"}) == {"overwrite:header.x-b": "b", "overwrite:header.x-c": "c"}
    aws.knobs(parameters_merge=0)
    assert update({"overwrite:header.x-d": "d", "overwrite:header.x-b": ""}) == {"overwrite:header.x-d": "d"}
    assert update({"overwrite:header.x-d": ""}) == {}

    rest, resource = aws.rest_api(backend + "/{proxy}", {"integration.request.header.X-A": "'a'"})

    def patch(operation, name, **value):
        operations = [{"op": operation, "path": f"/requestParameters/{name}"} | value]
        aws.v1.update_integration(restApiId=rest, resourceId=resource, httpMethod="ANY", patchOperations=operations)
        return aws.v1.get_integration(restApiId=rest, resourceId=resource, httpMethod="ANY")["requestParameters"]

    assert len(patch("add", "integration.request.header.X~1B~0", value="'b'")) == 2
    assert patch("remove", "integration.request.header.X-A") == {"integration.request.header.X/B~": "'b'"}
    assert patch("remove", "integration.request.header.X~1B~0") == {}


def test_methods_are_embedded_when_asked_for(aws, backend):
    api, resource = aws.rest_api(backend + "/{proxy}")

    def find(**more):
        return next(r for r in aws.v1.get_resources(restApiId=api, **more)["items"] if r["id"] == resource)

    assert find()["resourceMethods"] == {"ANY": {}}
    method = find(embed=["methods"])["resourceMethods"]["ANY"]
    assert method["authorizationType"] == "NONE" and method["methodIntegration"]["uri"] == backend + "/{proxy}"
    assert aws.v1.get_resource(restApiId=api, resourceId=resource)["resourceMethods"] == {"ANY": {}}


def test_v2_lists_come_in_pages(aws, backend):
    api, _ = aws.http_api(backend)
    for n in range(2):
        integration = aws.v2.create_integration(
            ApiId=api,
            IntegrationType="HTTP_PROXY",
            IntegrationMethod="ANY",
            IntegrationUri=backend,
            PayloadFormatVersion="1.0",
        )["IntegrationId"]
        aws.v2.create_route(ApiId=api, RouteKey=f"GET /{n}", Target=f"integrations/{integration}")
    aws.knobs(page_size=2)
    for call in (aws.v2.get_routes, aws.v2.get_integrations):
        first = call(ApiId=api)
        second = call(ApiId=api, NextToken=first["NextToken"])
        assert (len(first["Items"]), len(second["Items"]), second.get("NextToken")) == (2, 1, None)


def test_an_integration_that_is_no_proxy_passes_on_what_is_mapped(emulator, aws, backend):
    mapped = {"integration.request.header.X-In": "method.request.header.X-In"}
    api, _ = aws.rest_api(backend + "/x", mapped, kind="HTTP")
    host = f"{api}.execute-api.us-east-1.amazonaws.com"
    headers = {"x-in": "i", "x-other": "o", "accept": "a/b"}
    got = json.loads(emulator.request(host, "/prod/x", headers)[1])["headers"]
    assert (got["x-in"], got["accept"], "x-other" in got) == ("i", "a/b", False)


@pytest.mark.parametrize("payload", ["1.0", "2.0"])
def test_certificate_in_the_lambda_event(emulator, aws, front, payload):
    api, _ = aws.http_api(
        aws.function(ECHO),
        {"overwrite:header.x-subject": "$context.identity.clientCert.subjectDN"},
        kind="AWS_PROXY",
        payload=payload,
    )
    name = mapped(aws, api)
    event = json.loads(emulator.request(name, "/k/x?a=1&a=2", front)[1])
    context = event["requestContext"]
    assert (
        event["version"] == payload
        and context["domainName"] == name
        and event["headers"]["x-subject"] == CERT["subject"]
    )
    if payload == "2.0":
        assert context["authentication"]["clientCert"] == EVENT_CERT
    else:
        assert context["identity"]["clientCert"] == EVENT_CERT
        assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"]}
    assert not [h for h in event["headers"] if h.startswith("x-double")]


def test_certificate_in_the_rest_event(emulator, aws, front):
    api, _ = aws.rest_api(aws.invocation_uri(aws.function(ECHO)), kind="AWS_PROXY")
    event = json.loads(emulator.request(mapped(aws, api, "prod"), "/k/x", front)[1])
    assert event["requestContext"]["identity"]["clientCert"] == EVENT_CERT


@pytest.mark.parametrize("payload", ["1.0", "2.0"])
def test_http_api_authorizer(emulator, aws, backend, front, payload):
    where = (
        "['requestContext']['authentication']['clientCert']"
        if payload == "2.0"
        else "['requestContext']['identity']['clientCert']"
    )
    function = aws.function(f"""
def handler(e, c):
    cert = e{where}
    if '{payload}' == '2.0':
        return {{'isAuthorized': cert['issuerDN'] == 'CN=Root', 'context': {{'cn': cert['subjectDN'][-9:]}}}}
    statement = {{'Action': 'execute-api:Invoke', 'Effect': 'Allow', 'Resource': e['methodArn']}}
    return {{'principalId': 'p', 'context': {{'cn': cert['subjectDN'][-9:]}},
            'policyDocument': {{'Version': '2012-10-17', 'Statement': [statement]}}}}
""")
    api, _ = aws.http_api(backend, {"overwrite:header.x-cn": "$context.authorizer.cn"})
    more = {"EnableSimpleResponses": True} if payload == "2.0" else {}
    authorizer = aws.v2.create_authorizer(
        ApiId=api,
        AuthorizerType="REQUEST",
        Name="a",
        AuthorizerUri=aws.invocation_uri(function),
        AuthorizerPayloadFormatVersion=payload,
        AuthorizerResultTtlInSeconds=0,
        IdentitySource=["$context.identity.clientCert.serialNumber"],
        **more,
    )["AuthorizerId"]
    route = aws.v2.get_routes(ApiId=api)["Items"][0]["RouteId"]
    refused_id = refused(aws.v2.update_route, ApiId=api, RouteId=route, AuthorizationType="CUSTOM", AuthorizerId="none")
    assert refused_id[0] == "BadRequestException"
    aws.v2.update_route(ApiId=api, RouteId=route, AuthorizationType="CUSTOM", AuthorizerId=authorizer)
    name = mapped(aws, api)
    assert emulator.request(name, "/k/x", front)[0] == 500  # the function's policy does not allow API Gateway
    permit(aws, function, api, authorizer)
    status, body = emulator.request(name, "/k/x", front)
    assert status == 200 and json.loads(body)["headers"]["x-cn"] == "CN=client"
    # The default endpoint does not send the identity source.
    assert emulator.request(f"{api}.execute-api.localhost", "/x")[0] == 401
    assert refused(aws.v2.delete_authorizer, ApiId=api, AuthorizerId=authorizer)[0] == "ConflictException"
    aws.v2.update_route(ApiId=api, RouteId=route, AuthorizationType="NONE", AuthorizerId="")
    aws.v2.delete_authorizer(ApiId=api, AuthorizerId=authorizer)


def permit(aws, function: str, api: str, authorizer: str) -> None:
    source = f"arn:aws:execute-api:us-east-1:{aws.account}:{api}/authorizers/{authorizer}"
    aws.lam.add_permission(
        FunctionName=function,
        StatementId=authorizer,
        Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
        SourceArn=source,
    )


def test_rest_api_authorizer(emulator, aws, backend, front):
    function = aws.function("""
def handler(e, c):
    cert = e['requestContext']['identity']['clientCert']
    effect = 'Allow' if cert['serialNumber'] == 'a1:b2' else 'Deny'
    statement = {'Action': 'execute-api:Invoke', 'Effect': effect, 'Resource': e['methodArn']}
    return {'principalId': 'p', 'context': {'cn': cert['subjectDN'][-9:]},
            'policyDocument': {'Version': '2012-10-17', 'Statement': [statement]}}
""")
    api, resource = aws.rest_api(
        backend + "/{proxy}",
        {"integration.request.header.X-Cn": "context.authorizer.cn"},
        authorizer={
            "authorizerUri": aws.invocation_uri(function),
            "identitySource": "context.identity.clientCert.subjectDN, method.request.header.Host",
        },
    )
    name = mapped(aws, api, "prod")
    authorizer = aws.v1.get_authorizers(restApiId=api)["items"][0]["id"]
    assert emulator.request(name, "/k/x", front)[0] == 500
    permit(aws, function, api, authorizer)
    status, body = emulator.request(name, "/k/x", front)
    assert status == 200 and json.loads(body)["headers"]["x-cn"] == "CN=client"
    assert emulator.request(name, "/k/x", front | {"x-double-client-cert-serial": "00"})[0] == 403
    assert refused(aws.v1.delete_authorizer, restApiId=api, authorizerId=authorizer)[0] == "ConflictException"
    none = [{"op": "replace", "path": "/authorizationType", "value": "NONE"}]
    aws.v1.update_method(restApiId=api, resourceId=resource, httpMethod="ANY", patchOperations=none)
    aws.v1.delete_authorizer(restApiId=api, authorizerId=authorizer)


def test_longest_mapping_wins_and_wildcard_domain(emulator, aws, backend, front):
    one, _ = aws.http_api(backend + "/one")
    two, _ = aws.http_api(backend + "/two")
    name = mapped(aws, one, key="orders")
    aws.v2.create_api_mapping(DomainName=name, ApiId=two, Stage="$default", ApiMappingKey="orders/v2")
    assert json.loads(emulator.request(name, "/orders/x", front)[1])["path"] == "/one/x"
    assert json.loads(emulator.request(name, "/orders/v2/x", front)[1])["path"] == "/two/x"
    wildcard = aws.domain(f"*.w.{aws.zone_name}", aws.certificate(f"*.w.{aws.zone_name}"))
    aws.v2.create_api_mapping(DomainName=wildcard, ApiId=one, Stage="$default")
    assert emulator.request(f"any.w.{aws.zone_name}", "/x")[0] == 200


def test_other_region(emulator, backend, front):
    aws = Aws(emulator, "eu-west-1")
    api, _ = aws.http_api(backend)
    assert emulator.request(mapped(aws, api), "/k/x", front)[0] == 200
    assert emulator.request(f"{api}.execute-api.eu-west-1.amazonaws.com", "/x")[0] == 200


def test_chosen_api_id(emulator, aws, backend):
    """Checks the tag awsdouble:id: it chooses the id of a new API, unique in all accounts."""
    chosen = f"c{aws.account[-9:]}"
    tags = {"awsdouble:id": chosen, "a": "b"}
    api = aws.v2.create_api(Name="a", ProtocolType="HTTP", Tags=tags)
    assert api["ApiId"] == chosen and aws.v2.get_api(ApiId=chosen)["Tags"] == tags
    assert api["ApiEndpoint"] == f"https://{chosen}.execute-api.us-east-1.amazonaws.com"
    other = Aws(emulator)
    assert refused(other.v2.create_api, Name="a", ProtocolType="HTTP", Tags=tags)[:2] == ("ConflictException", 409)
    assert refused(other.v1.create_rest_api, name="r", tags=tags)[:2] == ("ConflictException", 409)
    assert aws.v1.create_rest_api(name="r", tags={"awsdouble:id": f"r{chosen}"})["id"] == f"r{chosen}"


def test_an_authorizer_for_a_rest_api_that_is_gone(aws):
    answer = refused(aws.v1.create_authorizer, restApiId="gone", name="a", type="REQUEST")
    assert answer[:2] == ("ConflictException", 409) and "concurrent modification" in answer[2]


def test_a_stage_that_was_never_deployed(emulator, aws, backend, front):
    api, _ = aws.http_api(backend, auto_deploy=False)
    name, host = mapped(aws, api), f"{api}.execute-api.us-east-1.amazonaws.com"
    for get in ((name, "/k/x", front), (host, "/x")):
        assert emulator.request(*get) == (404, '{"message":"Not Found"}')
    aws.v2.create_deployment(ApiId=api, StageName="$default")
    for get in ((name, "/k/x", front), (host, "/x")):
        assert emulator.request(*get)[0] == 200


def test_an_authorizer_shows_its_time_or_not(aws):
    api, _ = aws.http_api("http://127.0.0.1:9")
    uri = aws.invocation_uri("arn:aws:lambda:us-east-1:1:function:f")
    for seconds in (0, 5):
        aws.v2.create_authorizer(
            ApiId=api,
            Name=f"a{seconds}",
            AuthorizerResultTtlInSeconds=seconds,
            AuthorizerPayloadFormatVersion="2.0",
            AuthorizerUri=uri,
            AuthorizerType="REQUEST",
            IdentitySource=[],
        )

    def shown():
        return [a.get("AuthorizerResultTtlInSeconds") for a in aws.v2.get_authorizers(ApiId=api)["Items"]]

    assert shown() == [0, 5]
    aws.knobs(ttl_absent=1)
    assert shown() == [None, 5]


def test_a_stage_of_a_rest_api_is_written_with_the_value_it_has(aws, backend):
    api, _ = aws.rest_api(backend + "/{proxy}")
    for value in ("true", "false"):
        patch = [{"op": "replace", "path": "/tracingEnabled", "value": value}]
        assert aws.v1.update_stage(restApiId=api, stageName="prod", patchOperations=patch)["tracingEnabled"] is (
            value == "true"
        )


@pytest.mark.parametrize("kind", ["2.0", "1.0", "REST"])
def test_the_mapping_key_stays_in_the_paths_of_events(emulator, aws, front, kind):
    if kind == "REST":
        api, stage = aws.rest_api(aws.invocation_uri(aws.function(ECHO)), kind="AWS_PROXY")[0], "prod"
    else:
        api, stage = aws.http_api(aws.function(ECHO), kind="AWS_PROXY", payload=kind)[0], "$default"
    name = mapped(aws, api, stage, key="orders/v2")
    event = json.loads(emulator.request(name, "/orders/v2/x/y", front)[1])
    context = event["requestContext"]
    if kind == "2.0":
        assert (event["rawPath"], context["http"]["path"], event["routeKey"]) == ("/orders/v2/x/y",) * 2 + ("$default",)
    else:
        assert (event["path"], context["path"]) == ("/orders/v2/x/y",) * 2
        if kind == "REST":
            assert (event["resource"], event["pathParameters"]) == ("/{proxy+}", {"proxy": "x/y"})
    default = f"{api}.execute-api.us-east-1.amazonaws.com"
    event = json.loads(emulator.request(default, "/prod/x" if kind == "REST" else "/x")[1])
    assert event["rawPath" if kind == "2.0" else "path"] == "/x"
