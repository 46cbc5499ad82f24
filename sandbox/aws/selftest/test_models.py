"""Checks that every call of the other tests is held against botocore's models (AWSDOUBLE_VALIDATE in conftest)."""

import http.client
import json

import pytest
from conftest import refused


def sent(aws, service: str, target: str, document: dict) -> tuple[int, dict]:
    """Sends a JSON request that boto3 would refuse to send."""
    scope = f"Credential={aws.account}/20260101/{aws.region}/{service}/aws4_request"
    headers = {"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=x"}
    method, _, path = target.partition(" ")
    if not path:
        headers["X-Amz-Target"], method, path = target, "POST", "/"
    connection = http.client.HTTPConnection("127.0.0.1", aws.emulator.port, timeout=20)
    connection.request(method, path, json.dumps(document), headers)
    reply = connection.getresponse()
    found = json.loads(reply.read())
    connection.close()
    return reply.status, found


@pytest.mark.parametrize(
    "service, target, document, expected",
    [
        ("acm", "CertificateManager.RequestCertificate", {}, "request.DomainName: missing"),
        (
            "acm",
            "CertificateManager.RequestCertificate",
            {"DomainName": "a.example.com", "KeyAlgorithm": "RSA-2048"},
            "request.KeyAlgorithm: 'RSA-2048' is none of",
        ),
        (
            "acm",
            "CertificateManager.RequestCertificate",
            {"DomainName": "a.example.com", "IdempotencyToken": "a b"},
            "request.IdempotencyToken: 'a b' does not match",
        ),
        (
            "acm",
            "CertificateManager.RequestCertificate",
            {"DomainName": "a.example.com", "Token": "a"},
            "request.Token: not in the model",
        ),
        ("apigateway", "POST /v2/apis", {"name": "a"}, "request.ProtocolType: missing"),
        ("apigateway", "POST /v2/apis", {"name": 5, "protocolType": "HTTP"}, "request.Name: int instead of string"),
    ],
)
def test_a_request_that_no_sdk_sends_is_named(aws, service, target, document, expected):
    status, answer = sent(aws, service, target, document)
    assert status == 500 and expected in answer["message"], answer


def test_an_answer_that_does_not_fit_is_named(aws):
    arn = aws.acm.request_certificate(DomainName="a.example.com")["CertificateArn"]
    aws.emulator.post("acm", {"arn": arn, "status": "LOST"})
    code, status, message = refused(aws.describe, arn)
    assert (code, status) == ("DoesNotFitTheModel", 500)
    assert "acm.DescribeCertificate answer.Certificate.Status: 'LOST' is none of PENDING_VALIDATION" in message
