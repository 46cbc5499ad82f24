"""Starts one double for the whole run; each test gets an AWS account of its own (`aws`)."""

import contextlib
import datetime
import http.client
import http.server
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parent.parent
_accounts = itertools.count(111111111111)


class Double:
    """A running double and its control API."""

    def __init__(self, port: int, **knobs: float) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        env = os.environ | {f"AWSDOUBLE_{k.upper()}": str(v) for k, v in knobs.items()} | {"PYTHONPATH": str(ROOT)}
        self.log = tempfile.TemporaryFile("w+")
        started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "awsdouble", "--port", str(port)], env=env, stdout=self.log, stderr=subprocess.STDOUT
        )
        while True:
            try:
                self.get("health")
                break
            except OSError:
                assert self.process.poll() is None, self.log.read()
                assert time.monotonic() - started < 20, "the double does not start"
                time.sleep(0.02)
        self.start_seconds = time.monotonic() - started

    def _call(self, method: str, path: str, body: object = None):
        request = urllib.request.Request(
            f"{self.url}/_double/{path}", method=method, data=None if body is None else json.dumps(body).encode()
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def get(self, path: str):
        return self._call("GET", path)

    def post(self, path: str, body: object):
        return self._call("POST", path, body)

    def delete(self, path: str):
        return self._call("DELETE", path)

    def request(self, host: str, path: str = "/", headers: dict | None = None, method: str = "GET") -> tuple[int, str]:
        """A data-plane request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, headers={"Host": host} | (headers or {}))
        reply = connection.getresponse()
        body = reply.read().decode()
        connection.close()
        return reply.status, body

    @property
    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Aws:
    """An account on the double: boto3 clients, control calls for this account, and a few lifecycles."""

    def __init__(self, double: Double, region: str = "us-east-1", account: str = "") -> None:
        self.double, self.region, self.account = double, region, account or str(next(_accounts))
        self.zone_name = f"z{self.account}.example.com"
        self.bucket = f"b{self.account}"

    def client(self, service: str, attempts: int = 1, **config):
        return boto3.client(
            service,
            endpoint_url=self.double.url,
            region_name=self.region,
            aws_access_key_id=self.account,
            aws_secret_access_key="x",
            config=Config(
                retries={"total_max_attempts": attempts, "mode": "standard"},
                s3={"addressing_style": "path"},
                read_timeout=10,
                **config,
            ),
        )

    def __getattr__(self, name: str):
        services = {
            "v1": "apigateway",
            "v2": "apigatewayv2",
            "acm": "acm",
            "r53": "route53",
            "s3": "s3",
            "lam": "lambda",
            "iam": "iam",
        }
        if name not in services:
            raise AttributeError(name)
        setattr(self, name, self.client(services[name]))
        return getattr(self, name)

    def knobs(self, **knobs: float) -> None:
        self.double.post(f"config?account={self.account}", knobs)

    def calls(self, **where) -> list[dict]:
        query = "&".join(f"{k}={v}" for k, v in where.items())
        return self.double.get(f"calls?account={self.account}&{query}")["calls"]

    def stats(self, **where) -> dict:
        query = "&".join(f"{k}={v}" for k, v in where.items())
        return self.double.get(f"stats?account={self.account}&{query}")

    def faults(self, *rules: dict) -> list[dict]:
        return self.double.post("faults", [{"account": self.account} | r for r in rules])

    def zone(self) -> str:
        return self.r53.create_hosted_zone(Name=self.zone_name, CallerReference=str(time.time_ns()))["HostedZone"]["Id"]

    def upsert(self, zone: str, name: str, kind: str, *values: str, action: str = "UPSERT") -> dict:
        return self.r53.change_resource_record_sets(
            HostedZoneId=zone,
            ChangeBatch={
                "Changes": [
                    {
                        "Action": action,
                        "ResourceRecordSet": {
                            "Name": name,
                            "Type": kind,
                            "TTL": 60,
                            "ResourceRecords": [{"Value": v} for v in values],
                        },
                    }
                ]
            },
        )["ChangeInfo"]

    def certificate(self, *names: str) -> str:
        """An ISSUED certificate."""
        zone = self.zone()
        arn = self.acm.request_certificate(
            DomainName=names[0], SubjectAlternativeNames=list(names), ValidationMethod="DNS"
        )["CertificateArn"]
        for option in self.describe(arn)["DomainValidationOptions"]:
            record = option["ResourceRecord"]
            self.upsert(zone, record["Name"], "CNAME", record["Value"])
        eventually(lambda: self.describe(arn)["Status"] == "ISSUED")
        return arn

    def describe(self, arn: str) -> dict:
        return self.acm.describe_certificate(CertificateArn=arn)["Certificate"]

    def put(self, key: str, body: bytes) -> str:
        """Put an object in the account's versioned bucket; its version."""
        place = {} if self.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
        with contextlib.suppress(self.s3.exceptions.BucketAlreadyOwnedByYou):
            self.s3.create_bucket(Bucket=self.bucket, **place)
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        return self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)["VersionId"]

    def domain(self, name: str = "", arn: str = "", pem: bytes | None = None, **fields) -> str:
        """A domain name that is AVAILABLE; with mutual TLS when `pem` is given."""
        name = name or f"api.{self.zone_name}"
        self.arn = arn or self.certificate(name)
        if pem is not None:
            version = self.put("t.pem", pem)
            fields["MutualTlsAuthentication"] = {
                "TruststoreUri": f"s3://{self.bucket}/t.pem",
                "TruststoreVersion": version,
            }
        self.v2.create_domain_name(DomainName=name, DomainNameConfigurations=self.config(), **fields)
        return name

    def config(self, **fields) -> list[dict]:
        return [{"CertificateArn": self.arn, "EndpointType": "REGIONAL", "SecurityPolicy": "TLS_1_2"} | fields]

    def status(self, name: str) -> str:
        return self.v2.get_domain_name(DomainName=name)["DomainNameConfigurations"][0]["DomainNameStatus"]

    def function(self, source: str) -> str:
        """A Python function; its ARN. `source` defines handler(event, context)."""
        name = f"f{time.time_ns()}"
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as z:
            z.writestr("index.py", source)
        return self.lam.create_function(
            FunctionName=name,
            Runtime="python3.11",
            Role=f"arn:aws:iam::{self.account}:role/r",
            Handler="index.handler",
            Code={"ZipFile": archive.getvalue()},
        )["FunctionArn"]

    def invocation_uri(self, function_arn: str) -> str:
        return f"arn:aws:apigateway:{self.region}:lambda:path/2015-03-31/functions/{function_arn}/invocations"

    def http_api(
        self,
        uri: str,
        parameters: dict | None = None,
        auto_deploy: bool = True,
        kind: str = "HTTP_PROXY",
        payload: str = "1.0",
    ) -> tuple[str, str]:
        """An HTTP API with one $default route; (API, integration)."""
        api = self.v2.create_api(Name="a", ProtocolType="HTTP")["ApiId"]
        more = {"RequestParameters": parameters} if parameters else {}
        integration = self.v2.create_integration(
            ApiId=api,
            IntegrationType=kind,
            IntegrationMethod="ANY",
            IntegrationUri=uri,
            PayloadFormatVersion=payload,
            **more,
        )["IntegrationId"]
        self.v2.create_route(ApiId=api, RouteKey="$default", Target=f"integrations/{integration}")
        self.v2.create_stage(ApiId=api, StageName="$default", AutoDeploy=auto_deploy)
        return api, integration

    def rest_api(
        self, uri: str, parameters: dict | None = None, kind: str = "HTTP_PROXY", authorizer: dict | None = None
    ) -> tuple[str, str]:
        """A REST API with {proxy+} deployed to stage prod; (API, resource)."""
        api = self.v1.create_rest_api(name="r", endpointConfiguration={"types": ["REGIONAL"]})["id"]
        root = self.v1.get_resources(restApiId=api)["items"][0]["id"]
        resource = self.v1.create_resource(restApiId=api, parentId=root, pathPart="{proxy+}")["id"]
        method = {"authorizationType": "NONE"}
        if authorizer:
            created = self.v1.create_authorizer(
                restApiId=api, name="a", type="REQUEST", authorizerResultTtlInSeconds=0, **authorizer
            )
            method = {"authorizationType": "CUSTOM", "authorizerId": created["id"]}
        self.v1.put_method(restApiId=api, resourceId=resource, httpMethod="ANY", **method)
        self.v1.put_integration(
            restApiId=api,
            resourceId=resource,
            httpMethod="ANY",
            type=kind,
            integrationHttpMethod="ANY",
            uri=uri,
            requestParameters=parameters or {},
        )
        self.v1.create_deployment(restApiId=api, stageName="prod")
        return api, resource


def eventually(condition, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def refused(call, *args, **kwargs) -> tuple[str, int, str]:
    """(code, HTTP status, message) of a call that AWS refuses."""
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    error = caught.value.response
    return error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"], error["Error"].get("Message", "")


def authority(
    common_name: str = "Root",
    issuer: tuple | None = None,
    days: int = 365,
    ca: bool = True,
    hash_algorithm=None,
    names: tuple[str, ...] = (),
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate and its key; self-signed, or issued by `issuer` = (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=900))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hash_algorithm or hashes.SHA256()), key


def pem(*certificates) -> bytes:
    return b"".join(c[0].public_bytes(serialization.Encoding.PEM) for c in certificates)


def key_pem(certificate) -> bytes:
    return certificate[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def double():
    running = Double(free_port(), issue_delay=0.05, update_settle=0.05)
    print(f"\nstarted in {running.start_seconds:.2f} s, RSS {running.rss_mib:.0f} MiB")
    yield running
    print(f"\nRSS at the end {running.rss_mib:.0f} MiB")
    running.process.terminate()
    running.process.wait(10)
    running.log.seek(0)
    print(running.log.read()[-3000:])


@pytest.fixture
def aws(double):
    return Aws(double)


@pytest.fixture(scope="session")
def backend():
    """An HTTP backend that answers with the path and headers it got; its URL."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
