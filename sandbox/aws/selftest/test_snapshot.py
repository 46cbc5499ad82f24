"""Checks that an account dumped from one emulator and loaded into another answers every call alike."""

import json
import urllib.error

import pytest
from conftest import Aws, Emulator, authority, eventually, free_port, pem

#: Members of the call itself, not of the account.
_VOLATILE = ("ResponseMetadata",)


def _without_certificates(domains: list[dict]) -> list[dict]:
    """Removes what another process issues again."""
    for domain in domains:
        assert domain["certificate"].pop("pem") and domain["certificate"].pop("key")
    return domains


def _answers(aws: Aws, held: dict) -> dict[str, object]:
    """Returns the answers of all read calls of a reconcile."""
    api, rest, zone = held["api"], held["rest"], held["zone"]
    domain_arn = f"arn:aws:apigateway:{aws.region}::/domainnames/{held['name']}"
    everything = {
        "certificates": aws.acm.list_certificates(),
        "certificate": aws.describe(held["arn"]),
        "certificate tags": aws.acm.list_tags_for_certificate(CertificateArn=held["arn"]),
        "domains": aws.v2.get_domain_names(),
        "domain": aws.v2.get_domain_name(DomainName=held["name"]),
        "domain of v1": aws.v1.get_domain_name(domainName=held["name"]),
        "domain tags": aws.v2.get_tags(ResourceArn=domain_arn),
        "mappings": aws.v2.get_api_mappings(DomainName=held["name"]),
        "APIs": aws.v2.get_apis(),
        "stages": aws.v2.get_stages(ApiId=api),
        "routes": aws.v2.get_routes(ApiId=api),
        "integrations": aws.v2.get_integrations(ApiId=api),
        "authorizers": aws.v2.get_authorizers(ApiId=api),
        "REST APIs": aws.v1.get_rest_apis(),
        "REST stages": aws.v1.get_stages(restApiId=rest),
        "REST resources": aws.v1.get_resources(restApiId=rest, embed=["methods"]),
        "REST authorizers": aws.v1.get_authorizers(restApiId=rest),
        "zones": aws.r53.list_hosted_zones(),
        "records": aws.r53.list_resource_record_sets(HostedZoneId=zone),
        "buckets": [b["Name"] for b in aws.s3.list_buckets()["Buckets"]],
        "versioning": aws.s3.get_bucket_versioning(Bucket=aws.bucket),
        "encryption": aws.s3.get_bucket_encryption(Bucket=aws.bucket),
        "public access": aws.s3.get_public_access_block(Bucket=aws.bucket),
        "bucket tags": aws.s3.get_bucket_tagging(Bucket=aws.bucket),
        "versions": aws.s3.list_object_versions(Bucket=aws.bucket),
        "function": aws.lam.get_function_configuration(FunctionName=held["function"]),
        "function policy": aws.lam.get_policy(FunctionName=held["function"]),
        "edge": _without_certificates(aws.emulator.get(f"edge?account={aws.account}")["domains"]),
        "dns": aws.emulator.get(f"dns?account={aws.account}"),
    }
    for version in [None, held["version"]]:
        which = {"VersionId": version} if version else {}
        found = aws.s3.get_object(Bucket=aws.bucket, Key="t.pem", **which)
        everything[f"object {version or ''}"] = [found["Body"].read(), found["Metadata"], found["VersionId"]]
    for answer in everything.values():
        if isinstance(answer, dict):
            for key in _VOLATILE:
                answer.pop(key, None)
    return everything


def _requests(emulator: Emulator, held: dict, front: dict) -> list[tuple[int, str]]:
    hosts = [f"{held[api]}.execute-api.us-east-1.amazonaws.com" for api in ("api", "rest")]
    return [
        emulator.request(held["name"], "/k/x", front),
        emulator.request(held["name"], "/k/x"),
        emulator.request(held["name"], "/rest/hello", front),
        emulator.request(hosts[0], "/x"),
        emulator.request(hosts[1], "/prod/x"),
    ]


def _front(emulator: Emulator) -> dict[str, str]:
    edge = emulator.get("edge")
    names = {name: "x" for name in edge["certificateHeaders"]}
    return {edge["secretHeader"]: edge["secret"]} | names


@pytest.fixture
def held(aws) -> dict:
    """Creates one resource of each kind, with values that differ from the defaults."""
    ca = authority("Partners")
    name = aws.domain(pem=pem(authority("Former")))
    version = aws.put("t.pem", pem(ca))
    trust = {"TruststoreUri": f"s3://{aws.bucket}/t.pem", "TruststoreVersion": version}
    update = {"DomainName": name, "DomainNameConfigurations": aws.config(), "MutualTlsAuthentication": trust}
    aws.v2.update_domain_name(**update)
    aws.s3.put_object(Bucket=aws.bucket, Key="t.pem", Body=b"\xff\xfe not text", Metadata={"owner": "me"})
    sse = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    aws.s3.put_bucket_encryption(Bucket=aws.bucket, ServerSideEncryptionConfiguration=sse)
    aws.s3.put_public_access_block(Bucket=aws.bucket, PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    aws.s3.put_bucket_tagging(Bucket=aws.bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    aws.acm.add_tags_to_certificate(CertificateArn=aws.arn, Tags=[{"Key": "owner", "Value": "me"}])
    aws.v2.tag_resource(ResourceArn=f"arn:aws:apigateway:us-east-1::/domainnames/{name}", Tags={"owner": "me"})

    function = aws.function("def handler(event, context): return {'statusCode': 200, 'body': 'hello'}")
    uri = aws.invocation_uri(function)
    api, _ = aws.http_api(function, kind="AWS_PROXY", payload="2.0")
    aws.v2.update_api(ApiId=api, DisableExecuteApiEndpoint=True)
    asked = {"AuthorizerUri": uri, "AuthorizerPayloadFormatVersion": "2.0", "IdentitySource": []}
    aws.v2.create_authorizer(ApiId=api, AuthorizerType="REQUEST", Name="a", **asked)
    rest, _ = aws.rest_api(uri, kind="AWS_PROXY")
    aws.v1.create_authorizer(restApiId=rest, name="a", type="REQUEST", authorizerUri=uri)
    aws.v1.update_rest_api(  # not deployed, so the endpoint is still open
        restApiId=rest, patchOperations=[{"op": "replace", "path": "/disableExecuteApiEndpoint", "value": "true"}]
    )
    aws.v1.tag_resource(resourceArn=f"arn:aws:apigateway:us-east-1::/restapis/{rest}", tags={"owner": "me"})
    aws.v2.create_api_mapping(DomainName=name, ApiId=api, Stage="$default", ApiMappingKey="k")
    aws.v2.create_api_mapping(DomainName=name, ApiId=rest, Stage="prod", ApiMappingKey="rest")
    aws.lam.add_permission(
        FunctionName=function, StatementId="s", Action="lambda:InvokeFunction", Principal="apigateway.amazonaws.com"
    )
    eventually(lambda: aws.lam.get_function_configuration(FunctionName=function)["State"] == "Active")
    zone = aws.r53.list_hosted_zones()["HostedZones"][0]["Id"]
    aws.upsert(zone, f"x.{aws.zone_name}", "TXT", '"1"')
    names = {"name": name, "arn": aws.arn, "api": api, "rest": rest, "zone": zone}
    return names | {"version": version, "function": function.rpartition(":")[2]}


def test_every_call_answers_the_same_in_another_process(emulator, aws, held):
    before, served = _answers(aws, held), _requests(emulator, held, _front(emulator))
    assert [status for status, _ in served] == [200, 403, 200, 404, 200]
    dumped = emulator.get(f"dump?account={aws.account}")
    other = Emulator(free_port(), issue_delay=0, update_settle=0)
    try:
        there = Aws(other, account=aws.account)
        assert other.post("load", json.loads(json.dumps(dumped)))["entries"] > 20
        assert _answers(there, held) == before
        assert _requests(other, held, _front(other)) == served
        assert other.get(f"dump?account={aws.account}") == dumped, "nothing is lost on the way"

        # The loaded account goes on: certificates in use, settings and taken names still count.
        with pytest.raises(there.acm.exceptions.ResourceInUseException):
            there.acm.delete_certificate(CertificateArn=held["arn"])
        with pytest.raises(there.v2.exceptions.BadRequestException):
            there.arn = held["arn"]
            there.v2.create_domain_name(DomainName=held["name"], DomainNameConfigurations=there.config())
        there.v1.create_deployment(restApiId=held["rest"], stageName="prod")
        assert _requests(other, held, _front(other))[-1][0] == 403, "closed by a deployment"
    finally:
        other.process.terminate()
        other.process.wait(10)


def test_a_load_replaces_one_account_and_no_other(emulator, aws, held):
    other = Aws(emulator)
    other.zone()
    dumped, others = (emulator.get(f"dump?account={a.account}") for a in (aws, other))
    zone = aws.r53.list_hosted_zones()["HostedZones"][0]["Id"]
    aws.upsert(zone, f"later.{aws.zone_name}", "TXT", '"1"')
    aws.v2.delete_domain_name(DomainName=held["name"])
    aws.s3.create_bucket(Bucket=f"later-{aws.account}")
    emulator.post("load", dumped)
    assert emulator.get(f"dump?account={aws.account}") == dumped
    assert emulator.get(f"dump?account={other.account}") == others
    nothing = emulator.get("dump?account=000000000001") | {"account": aws.account}
    emulator.post("load", nothing)
    assert aws.v2.get_domain_names()["Items"] == [] and aws.s3.list_buckets()["Buckets"] == []
    assert emulator.get(f"edge?account={aws.account}")["domains"] == []


def test_a_dump_with_unknown_names_changes_nothing(emulator, aws):
    aws.zone()
    before = emulator.get(f"dump?account={aws.account}")
    for wrong in ({"stores": before["stores"] | {"s3._no_such": []}}, {"stores": {"s3._buckets": 1}}):
        with pytest.raises(urllib.error.HTTPError):
            emulator.post("load", before | wrong)
        assert emulator.get(f"dump?account={aws.account}") == before
