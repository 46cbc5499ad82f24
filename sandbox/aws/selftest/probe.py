#!/usr/bin/env python3
"""Drives every AWS call that the operator makes through a realistic life cycle against one emulator.

usage: probe.py ENDPOINT OUT.json [--acm-wait SECONDS]
Updates of a domain name wait until it is AVAILABLE.

Each row: area, call, result (OK | WRONG | ERROR), note.
  OK     the call worked and its result agrees with AWS in the checked field
  WRONG  the call answered, but not as AWS answers (state, field, error code, missing check)
  ERROR  the emulator does not know the call, or it answered 5xx / a reply that the SDK cannot parse
"""
import argparse
import io
import json
import random
import string
import sys
import time
import zipfile

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ap = argparse.ArgumentParser()
ap.add_argument("endpoint"); ap.add_argument("out")
ap.add_argument("--acm-wait", type=float, default=8)
ap.add_argument("--quiet", action="store_true"); ap.add_argument("--min-ok", type=int, default=0, help="exit 1 when fewer rows are OK")
A = ap.parse_args()
RUN = "".join(random.choice(string.ascii_lowercase) for _ in range(6))
KW = dict(endpoint_url=A.endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
cfg = Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=30)
c = lambda s, **k: boto3.client(s, config=cfg.merge(Config(**k)) if k else cfg, **KW)
acm, v2, v1, r53, lam, iam, sts = (c(s) for s in ("acm", "apigatewayv2", "apigateway", "route53", "lambda", "iam", "sts"))
s3 = c("s3", s3={"addressing_style": "path"})

ROWS = []
def row(area, call, res, note=""):
    note = str(note).replace("\n", " ")[:400]
    ROWS.append(dict(area=area, call=call, result=res, note=note))
    if not A.quiet: print(f"{res:6} {area:6} {call:58} {note[:170]}", flush=True)

def ecode(e): return e.response.get("Error", {}).get("Code"), e.response.get("ResponseMetadata", {}).get("HTTPStatusCode"), e.response.get("Error", {}).get("Message", "")

def ok(area, call, fn, verify=None):
    """Checks that a call succeeds; verify(resp) returns None/True for a good answer, or a string with the problem."""
    try:
        r = fn()
    except ClientError as e:
        k = ecode(e); row(area, call, "ERROR", f"{k[0]} {k[1]} {k[2]}"); return None
    except Exception as e:
        row(area, call, "ERROR", f"{type(e).__name__}: {e}"); return None
    try:
        w = verify(r) if verify else None
    except Exception as e:
        w = f"{type(e).__name__}: {e}"
    if isinstance(w, tuple): row(area, call, "OK" if w[0] else "WRONG", w[1])
    elif w in (None, True): row(area, call, "OK")
    else: row(area, call, "WRONG", w)
    return r

def bad(area, call, fn, codes):
    """Checks that a call fails with one of the AWS error codes."""
    codes = [codes] if isinstance(codes, str) else list(codes)
    try:
        fn()
    except ClientError as e:
        k = ecode(e)
        if k[0] in codes: row(area, call, "OK", f"{k[0]} {k[1]}")
        elif (k[1] or 0) >= 500: row(area, call, "ERROR", f"want {codes}, got {k[0]} {k[1]} {k[2]}")
        else: row(area, call, "WRONG", f"want {codes}, got {k[0]} {k[1]} {k[2]}")
        return
    except Exception as e:
        row(area, call, "ERROR", f"{type(e).__name__}: {e}"); return
    row(area, call, "WRONG", f"accepted; AWS answers {codes}")

def has(d, *ks): 
    m = [k for k in ks if d.get(k) in (None, "", [])]
    return None if not m else f"missing fields {m}; got {sorted(k for k in d if k!='ResponseMetadata')}"

# ------------------------------------------------------------------ STS / IAM / Lambda
ok("sts", "GetCallerIdentity", lambda: sts.get_caller_identity(), lambda r: has(r, "Account", "Arn", "UserId"))
trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]})
rn = f"probe-{RUN}"
role = ok("iam", "CreateRole", lambda: iam.create_role(RoleName=rn, AssumeRolePolicyDocument=trust, Tags=[{"Key": "a", "Value": "b"}]), lambda r: has(r["Role"], "Arn"))
role_arn = role["Role"]["Arn"] if role else "arn:aws:iam::123456789012:role/x"
bad("iam", "CreateRole twice", lambda: iam.create_role(RoleName=rn, AssumeRolePolicyDocument=trust), "EntityAlreadyExists")
ok("iam", "GetRole", lambda: iam.get_role(RoleName=rn))
bad("iam", "GetRole missing", lambda: iam.get_role(RoleName="nope"), "NoSuchEntity")
ok("iam", "PutRolePolicy", lambda: iam.put_role_policy(RoleName=rn, PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}]})))

def zipped(s):
    b = io.BytesIO()
    with zipfile.ZipFile(b, "w") as z: z.writestr("index.py", s)
    return b.getvalue()
fn = f"probe-{RUN}"
f = ok("lambda", "CreateFunction", lambda: lam.create_function(FunctionName=fn, Runtime="python3.12", Role=role_arn, Handler="index.handler", Code={"ZipFile": zipped("def handler(e,c): return {'isAuthorized': True}")}, Publish=True, Tags={"a": "b"}), lambda r: has(r, "FunctionArn", "CodeSha256", "State"))
fn_arn = f["FunctionArn"] if f else "arn:aws:lambda:us-east-1:123456789012:function:x"
bad("lambda", "CreateFunction twice", lambda: lam.create_function(FunctionName=fn, Runtime="python3.12", Role=role_arn, Handler="index.handler", Code={"ZipFile": zipped("x=1")}), "ResourceConflictException")
ok("lambda", "GetFunction state Active", lambda: lam.get_function(FunctionName=fn), lambda r: None if r["Configuration"].get("State") in ("Active", "Pending") else r["Configuration"].get("State"))
bad("lambda", "GetFunction missing", lambda: lam.get_function(FunctionName="nope"), "ResourceNotFoundException")
ok("lambda", "UpdateFunctionCode", lambda: lam.update_function_code(FunctionName=fn, ZipFile=zipped("def handler(e,c): return {'isAuthorized': False}"), Publish=True), lambda r: None if not f or r["CodeSha256"] != f["CodeSha256"] else "CodeSha256 unchanged")
ok("lambda", "AddPermission", lambda: lam.add_permission(FunctionName=fn, StatementId="apigw", Action="lambda:InvokeFunction", Principal="apigateway.amazonaws.com", SourceArn="arn:aws:execute-api:us-east-1:123456789012:abc/*"))
bad("lambda", "AddPermission same StatementId", lambda: lam.add_permission(FunctionName=fn, StatementId="apigw", Action="lambda:InvokeFunction", Principal="apigateway.amazonaws.com"), "ResourceConflictException")
ok("lambda", "GetPolicy", lambda: lam.get_policy(FunctionName=fn), lambda r: None if "apigw" in r["Policy"] else r["Policy"])
def inv():
    r = lam.invoke(FunctionName=fn, Payload=b"{}"); return r["StatusCode"], r["Payload"].read()[:160]
ok("lambda", "Invoke (really runs the code)", inv, lambda r: (b"isAuthorized" in r[1], r))

# ------------------------------------------------------------------ S3
B = f"probe-{RUN}"
PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
ok("s3", "CreateBucket us-east-1", lambda: s3.create_bucket(Bucket=B))
ok("s3", "CreateBucket eu-west-1 LocationConstraint", lambda: boto3.client("s3", config=cfg, **{**KW, "region_name": "eu-west-1"}).create_bucket(Bucket=B + "-eu", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}))
bad("s3", "CreateBucket eu-west-1 again", lambda: boto3.client("s3", config=cfg, **{**KW, "region_name": "eu-west-1"}).create_bucket(Bucket=B + "-eu", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}), "BucketAlreadyOwnedByYou")
ok("s3", "HeadBucket", lambda: s3.head_bucket(Bucket=B))
bad("s3", "HeadBucket missing", lambda: s3.head_bucket(Bucket=B + "-no"), "404")
ok("s3", "PutBucketVersioning", lambda: s3.put_bucket_versioning(Bucket=B, VersioningConfiguration={"Status": "Enabled"}))
ok("s3", "GetBucketVersioning", lambda: s3.get_bucket_versioning(Bucket=B), lambda r: r.get("Status") == "Enabled" or str(r.get("Status")))
ok("s3", "PutPublicAccessBlock", lambda: s3.put_public_access_block(Bucket=B, PublicAccessBlockConfiguration=dict(BlockPublicAcls=True, IgnorePublicAcls=True, BlockPublicPolicy=True, RestrictPublicBuckets=True)))
ok("s3", "GetPublicAccessBlock", lambda: s3.get_public_access_block(Bucket=B), lambda r: all(r["PublicAccessBlockConfiguration"].values()) or str(r))
ok("s3", "PutBucketEncryption AES256", lambda: s3.put_bucket_encryption(Bucket=B, ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": True}]}))
ok("s3", "GetBucketEncryption", lambda: s3.get_bucket_encryption(Bucket=B), lambda r: r["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256" or str(r))
ok("s3", "PutBucketTagging / GetBucketTagging", lambda: (s3.put_bucket_tagging(Bucket=B, Tagging={"TagSet": [{"Key": "o", "Value": "1"}]}), s3.get_bucket_tagging(Bucket=B))[1], lambda r: r["TagSet"][0]["Value"] == "1" or str(r))
bad("s3", "GetBucketTagging none -> NoSuchTagSet", lambda: s3.get_bucket_tagging(Bucket=B + "-eu"), "NoSuchTagSet")
p1 = ok("s3", "PutObject returns VersionId", lambda: s3.put_object(Bucket=B, Key="t/a.pem", Body=PEM, ContentType="application/x-pem-file", Tagging="o=1"), lambda r: has(r, "VersionId", "ETag"))
v1id = (p1 or {}).get("VersionId")
ok("s3", "PutObject returns SSE of the bucket default", lambda: s3.put_object(Bucket=B, Key="t/sse.pem", Body=PEM), lambda r: has(r, "ServerSideEncryption"))
ok("s3", "PutObject ChecksumAlgorithm=SHA256 echoes checksum", lambda: s3.put_object(Bucket=B, Key="t/sum.pem", Body=PEM, ChecksumAlgorithm="SHA256"), lambda r: has(r, "ChecksumSHA256"))
ok("s3", "PutObject default checksum echoed (CRC32/CRC64NVME)", lambda: s3.put_object(Bucket=B, Key="t/sum2.pem", Body=PEM), lambda r: None if r.get("ChecksumCRC32") or r.get("ChecksumCRC64NVME") else "no checksum in response")
bad("s3", "PutObject wrong ChecksumSHA256 refused", lambda: s3.put_object(Bucket=B, Key="t/sum3.pem", Body=PEM, ChecksumSHA256="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), ["BadDigest", "InvalidRequest", "XAmzContentChecksumMismatch"])
p2 = ok("s3", "PutObject 2nd version differs", lambda: s3.put_object(Bucket=B, Key="t/a.pem", Body=PEM * 2), lambda r: r.get("VersionId") not in (None, v1id) or "same VersionId")
ok("s3", "GetObject by old VersionId", lambda: s3.get_object(Bucket=B, Key="t/a.pem", VersionId=v1id)["Body"].read(), lambda r: r == PEM or repr(r))
ok("s3", "GetObject latest", lambda: s3.get_object(Bucket=B, Key="t/a.pem")["Body"].read(), lambda r: r == PEM * 2 or repr(r))
ok("s3", "HeadObject version", lambda: s3.head_object(Bucket=B, Key="t/a.pem", VersionId=v1id), lambda r: r.get("VersionId") == v1id or str(r.get("VersionId")))
bad("s3", "GetObject missing key", lambda: s3.get_object(Bucket=B, Key="nope"), "NoSuchKey")
bad("s3", "GetObject missing version", lambda: s3.get_object(Bucket=B, Key="t/a.pem", VersionId="3HL4kqtJvjVBH40Nrjfkd000000000aa"), ["NoSuchVersion", "InvalidArgument"])
bad("s3", "PutObject If-None-Match:* existing -> 412", lambda: s3.put_object(Bucket=B, Key="t/a.pem", Body=b"x", IfNoneMatch="*"), "PreconditionFailed")
ok("s3", "PutObject If-None-Match:* new key", lambda: s3.put_object(Bucket=B, Key="t/new.pem", Body=b"x", IfNoneMatch="*"))
et = (p2 or {}).get("ETag")
ok("s3", "PutObject If-Match right ETag", lambda: s3.put_object(Bucket=B, Key="t/a.pem", Body=PEM * 3, IfMatch=et))
bad("s3", "PutObject If-Match stale ETag -> 412", lambda: s3.put_object(Bucket=B, Key="t/a.pem", Body=PEM, IfMatch=et), "PreconditionFailed")
bad("s3", "PutObject If-Match missing key -> 404 NoSuchKey", lambda: s3.put_object(Bucket=B, Key="t/absent", Body=PEM, IfMatch=et), "NoSuchKey")
ok("s3", "PutObjectTagging on a version / GetObjectTagging", lambda: (s3.put_object_tagging(Bucket=B, Key="t/a.pem", VersionId=v1id, Tagging={"TagSet": [{"Key": "state", "Value": "retired"}]}), s3.get_object_tagging(Bucket=B, Key="t/a.pem", VersionId=v1id), s3.get_object_tagging(Bucket=B, Key="t/a.pem"))[1:], lambda r: (r[0]["TagSet"] == [{"Key": "state", "Value": "retired"}] and r[1]["TagSet"] == []) or str([x["TagSet"] for x in r]))
ok("s3", "ListObjectVersions", lambda: s3.list_object_versions(Bucket=B, Prefix="t/a.pem"), lambda r: len(r.get("Versions", [])) == 3 or f'{len(r.get("Versions", []))} versions')
ok("s3", "DeleteObject VersionId (removes that version)", lambda: (s3.delete_object(Bucket=B, Key="t/a.pem", VersionId=v1id), s3.list_object_versions(Bucket=B, Prefix="t/a.pem"))[1], lambda r: v1id not in [x["VersionId"] for x in r.get("Versions", [])] or "still there")
bad("s3", "GetObject deleted version", lambda: s3.get_object(Bucket=B, Key="t/a.pem", VersionId=v1id), "NoSuchVersion")
ok("s3", "DeleteObject w/o VersionId -> delete marker", lambda: s3.delete_object(Bucket=B, Key="t/a.pem"), lambda r: r.get("DeleteMarker") is True or str(r))
bad("s3", "GetObject after marker -> NoSuchKey", lambda: s3.get_object(Bucket=B, Key="t/a.pem"), "NoSuchKey")
ok("s3", "PutBucketPolicy / PutBucketOwnershipControls / Lifecycle", lambda: (s3.put_bucket_policy(Bucket=B, Policy=json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{B}/*"], "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]})), s3.put_bucket_ownership_controls(Bucket=B, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}), s3.put_bucket_lifecycle_configuration(Bucket=B, LifecycleConfiguration={"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 90}}]})), None)
try: s3.delete_bucket_policy(Bucket=B)
except Exception: pass
bad("s3", "DeleteBucket not empty", lambda: s3.delete_bucket(Bucket=B), "BucketNotEmpty")
ts = None
try: ts = s3.put_object(Bucket=B, Key="t/trust.pem", Body=PEM).get("VersionId"); ts2 = s3.put_object(Bucket=B, Key="t/trust.pem", Body=PEM * 2).get("VersionId")
except Exception: ts = ts2 = None

# ------------------------------------------------------------------ Route 53 (zone first: ACM records go in it)
Z = f"{RUN}.example.com"
z = ok("r53", "CreateHostedZone", lambda: r53.create_hosted_zone(Name=Z, CallerReference=RUN, HostedZoneConfig={"Comment": "c", "PrivateZone": False}), lambda r: has(r["HostedZone"], "Id"))
zid = z["HostedZone"]["Id"].split("/")[-1] if z else "Z0"
try:
    r53.create_hosted_zone(Name=f"a.{RUN}.test", CallerReference=RUN + "2"); r53.create_hosted_zone(Name=f"b.{RUN}.test", CallerReference=RUN + "3")
except Exception: pass
ok("r53", "ListHostedZonesByName exact", lambda: r53.list_hosted_zones_by_name(DNSName=Z, MaxItems="1"), lambda r: r["HostedZones"][0]["Name"] == Z + "." or str(r["HostedZones"]))
ok("r53", "ListHostedZonesByName MaxItems + NextDNSName", lambda: r53.list_hosted_zones_by_name(MaxItems="1"), lambda r: (r.get("IsTruncated") and r.get("NextDNSName") and len(r["HostedZones"]) == 1) or f"IsTruncated={r.get('IsTruncated')} NextDNSName={r.get('NextDNSName')} n={len(r['HostedZones'])}")
ok("r53", "ListHostedZonesByName of unknown name starts at next zone", lambda: r53.list_hosted_zones_by_name(DNSName=f"0aa.{Z}"), lambda r: None if r["HostedZones"] else "filters by exact name: empty list (AWS starts listing at that place in order)")
def chg(action, rr, zone=None): return r53.change_resource_record_sets(HostedZoneId=zone or zid, ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": rr}]})
def alias(name, t, target="d-abc.execute-api.us-east-1.amazonaws.com."): return {"Name": name, "Type": t, "AliasTarget": {"HostedZoneId": "Z1UJRXOUMOOFQ8", "DNSName": target, "EvaluateTargetHealth": False}}
def rec(name, t, val, ttl=300): return {"Name": name, "Type": t, "TTL": ttl, "ResourceRecords": [{"Value": v} for v in ([val] if isinstance(val, str) else val)]}
def lst(**k): return r53.list_resource_record_sets(HostedZoneId=zid, **k)["ResourceRecordSets"]
up = ok("r53", "UPSERT alias A", lambda: chg("UPSERT", alias(f"api.{Z}", "A")), lambda r: (r["ChangeInfo"]["Status"] in ("PENDING", "INSYNC"), f"ChangeInfo {r['ChangeInfo']['Status']} {r['ChangeInfo']['Id']}"))
ok("r53", "UPSERT alias AAAA", lambda: chg("UPSERT", alias(f"api.{Z}", "AAAA")))
ok("r53", "UPSERT CNAME", lambda: chg("UPSERT", rec(f"_x.www.{Z}", "CNAME", "_y.acm-validations.aws.")))
ok("r53", "UPSERT TXT", lambda: chg("UPSERT", rec(f"_owner.api.{Z}", "TXT", '"heritage=op,owner=x"')))
ok("r53", "GetChange reaches INSYNC", lambda: r53.get_change(Id=up["ChangeInfo"]["Id"]), lambda r: (r["ChangeInfo"]["Status"] in ("PENDING", "INSYNC"), r["ChangeInfo"]["Status"]))
ok("r53", "first ChangeInfo.Status is PENDING", lambda: up, lambda r: r["ChangeInfo"]["Status"] == "PENDING" or f"{r['ChangeInfo']['Status']} at once")
bad("r53", "GetChange unknown id", lambda: r53.get_change(Id="C00000000000000NOPE"), "NoSuchChange")
ok("r53", "ListResourceRecordSets alias fields", lambda: lst(StartRecordName=f"api.{Z}", StartRecordType="A"), lambda r: (r[0].get("AliasTarget", {}).get("HostedZoneId") == "Z1UJRXOUMOOFQ8" and "TTL" not in r[0] and "ResourceRecords" not in r[0]) or str(r[0]))
ok("r53", "UPSERT alias again, new target, replaces", lambda: (chg("UPSERT", alias(f"api.{Z}", "A", "d-new.execute-api.us-east-1.amazonaws.com.")), lst())[1], lambda r: [x["AliasTarget"]["DNSName"] for x in r if x["Type"] == "A"] == ["d-new.execute-api.us-east-1.amazonaws.com."] or str([x for x in r if x["Type"] == "A"]))
bad("r53", "DELETE alias with old target refused", lambda: chg("DELETE", alias(f"api.{Z}", "A", "d-abc.execute-api.us-east-1.amazonaws.com.")), "InvalidChangeBatch")
try: chg("UPSERT", alias(f"api.{Z}", "A", "d-new.execute-api.us-east-1.amazonaws.com."))
except Exception: pass
bad("r53", "DELETE alias with target never seen refused", lambda: chg("DELETE", alias(f"api.{Z}", "A", "never.example.com.")), "InvalidChangeBatch")
try: chg("UPSERT", alias(f"api.{Z}", "A", "d-new.execute-api.us-east-1.amazonaws.com."))
except Exception: pass
bad("r53", "DELETE CNAME with other TTL refused", lambda: chg("DELETE", rec(f"_x.www.{Z}", "CNAME", "_y.acm-validations.aws.", 60)), "InvalidChangeBatch")
bad("r53", "DELETE missing record refused", lambda: chg("DELETE", rec(f"nope.{Z}", "CNAME", "a.b.")), "InvalidChangeBatch")
bad("r53", "CREATE existing refused", lambda: chg("CREATE", rec(f"_x.www.{Z}", "CNAME", "other.")), "InvalidChangeBatch")
bad("r53", "CNAME beside A refused", lambda: chg("UPSERT", rec(f"api.{Z}", "CNAME", "other.")), "InvalidChangeBatch")
try: chg("DELETE", rec(f"api.{Z}", "CNAME", "other."))
except Exception: pass
bad("r53", "record outside zone refused", lambda: chg("UPSERT", rec("x.other.org", "CNAME", "a.b.")), "InvalidChangeBatch")
bad("r53", "unknown zone", lambda: chg("UPSERT", rec(f"q.{Z}", "CNAME", "a.b."), "Z00000000000000000XX"), "NoSuchHostedZone")
def atomic():
    try:
        r53.change_resource_record_sets(HostedZoneId=zid, ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": rec(f"at.{Z}", "TXT", '"1"')}, {"Action": "DELETE", "ResourceRecordSet": rec(f"nope2.{Z}", "CNAME", "a.b.")}]})
        return "accepted"
    except ClientError: return [x["Name"] for x in lst()]
ok("r53", "batch is atomic", atomic, lambda r: (r != "accepted" and f"at.{Z}." not in r) or str(r))
ok("r53", "wildcard name listed as \\052", lambda: (chg("UPSERT", rec(f"*.w.{Z}", "CNAME", "a.b.")), lst())[1], lambda r: any(x["Name"].startswith("\\052.w") for x in r) or str([x["Name"] for x in r if ".w." in x["Name"]]))
ok("r53", "DELETE alias exact", lambda: (chg("DELETE", alias(f"api.{Z}", "A", "d-new.execute-api.us-east-1.amazonaws.com.")), lst())[1], lambda r: (not [x for x in r if x["Type"] == "A"] and bool([x for x in r if x["Type"] == "AAAA"])) or str(r))
ok("r53", "DELETE CNAME/TXT exact", lambda: (chg("DELETE", rec(f"_x.www.{Z}", "CNAME", "_y.acm-validations.aws.")), chg("DELETE", rec(f"_owner.api.{Z}", "TXT", '"heritage=op,owner=x"')), lst())[2], lambda r: not [x for x in r if x["Type"] == "TXT"] or str(r))
ok("r53", "ListTagsForResource / ChangeTagsForResource", lambda: (r53.change_tags_for_resource(ResourceType="hostedzone", ResourceId=zid, AddTags=[{"Key": "a", "Value": "b"}]), r53.list_tags_for_resource(ResourceType="hostedzone", ResourceId=zid))[1], lambda r: r["ResourceTagSet"]["Tags"] == [{"Key": "a", "Value": "b"}] or str(r))

# ------------------------------------------------------------------ ACM
D = f"api.{Z}"
rq = lambda tok=None, d=D, tags=[{"Key": "o", "Value": "1"}]: acm.request_certificate(DomainName=d, ValidationMethod="DNS", SubjectAlternativeNames=[d, f"*.{d}", f"alt.{Z}"], IdempotencyToken=tok or RUN, Tags=tags, KeyAlgorithm="EC_prime256v1")
cr = ok("acm", "RequestCertificate DNS + SAN + tags", lambda: rq(), lambda r: has(r, "CertificateArn"))
arn = cr["CertificateArn"] if cr else "arn:aws:acm:us-east-1:123456789012:certificate/x"
t0 = time.time()
ok("acm", "RequestCertificate same IdempotencyToken -> same ARN", lambda: rq(), lambda r: r["CertificateArn"] == arn or "new ARN")
d0 = ok("acm", "DescribeCertificate: PENDING_VALIDATION first", lambda: acm.describe_certificate(CertificateArn=arn)["Certificate"], lambda r: (r["Status"] == "PENDING_VALIDATION", f"Status={r['Status']}"))
d0 = d0 or {}
ok("acm", "ValidationStatus PENDING_VALIDATION while pending", lambda: d0, lambda r: {o.get("ValidationStatus") for o in r["DomainValidationOptions"]} == {"PENDING_VALIDATION"} or str({o.get("ValidationStatus") for o in r["DomainValidationOptions"]}))
ok("acm", "ResourceRecord returned (when)", lambda: d0, lambda r: (all("ResourceRecord" in o for o in r["DomainValidationOptions"]), f"at once; {r['DomainValidationOptions'][0].get('ResourceRecord')}"))
ok("acm", "records differ per name, wildcard shares apex's", lambda: {o["DomainName"]: (o["ResourceRecord"]["Name"], o["ResourceRecord"]["Value"]) for o in d0["DomainValidationOptions"]}, lambda r: (r[D] == r[f"*.{D}"] and r[D][0] != r[f"alt.{Z}"][0] and r[D][1] != r[f"alt.{Z}"][1]) or f"values not per-name: {set(v[1] for v in r.values())}")
ok("acm", "pending cert has no NotAfter/IssuedAt", lambda: d0, lambda r: not [k for k in ("NotAfter", "IssuedAt", "Serial") if k in r] or f"has {[k for k in ('NotAfter','IssuedAt','Serial') if k in r]}")
ok("acm", "KeyAlgorithm honoured (EC_prime256v1)", lambda: d0, lambda r: str(r.get("KeyAlgorithm")).replace("-", "_") == "EC_prime256v1" or str(r.get("KeyAlgorithm")))
def waited(put):
    st = []
    if put:
        for o in d0.get("DomainValidationOptions", []):
            if "ResourceRecord" in o:
                rr = o["ResourceRecord"]; chg("UPSERT", rec(rr["Name"], rr["Type"], rr["Value"]))
    t = time.time()
    while time.time() - t < A.acm_wait:
        s = acm.describe_certificate(CertificateArn=arn)["Certificate"]["Status"]
        if not st or st[-1][0] != s: st.append((s, round(time.time() - t0, 1)))
        if s == "ISSUED": break
        time.sleep(.25)
    return st
ok("acm", "stays PENDING without the CNAME", lambda: waited(False), lambda r: r[-1][0] == "PENDING_VALIDATION" or f"{r}")
ok("acm", "goes ISSUED once the CNAME is in Route 53", lambda: waited(True), lambda r: (r[-1][0] == "ISSUED", f"{r}"))
d1 = ok("acm", "ISSUED cert: NotBefore/NotAfter, SUCCESS", lambda: acm.describe_certificate(CertificateArn=arn)["Certificate"], lambda r: (r["Status"] == "ISSUED" and "NotAfter" in r and {o["ValidationStatus"] for o in r["DomainValidationOptions"]} == {"SUCCESS"}) or str(r["Status"]))
ok("acm", "ListCertificates default (RSA only) / keyTypes filter", lambda: (acm.list_certificates(), acm.list_certificates(Includes={"keyTypes": ["EC_prime256v1"]})), lambda r: (arn not in [x["CertificateArn"] for x in r[0]["CertificateSummaryList"]] and arn in [x["CertificateArn"] for x in r[1]["CertificateSummaryList"]]) or f"default lists it: {arn in [x['CertificateArn'] for x in r[0]['CertificateSummaryList']]}, EC filter lists it: {arn in [x['CertificateArn'] for x in r[1]['CertificateSummaryList']]}")
ok("acm", "ListCertificates pagination MaxItems/NextToken", lambda: (rq(RUN + "b", f"b.{Z}"), rq(RUN + "c", f"c.{Z}"), acm.list_certificates(MaxItems=1, Includes={"keyTypes": ["EC_prime256v1", "RSA_2048"]}))[2], lambda r: (len(r["CertificateSummaryList"]) == 1 and "NextToken" in r) or f"{len(r['CertificateSummaryList'])} items, NextToken={'NextToken' in r}")
ok("acm", "ListCertificates CertificateStatuses filter", lambda: acm.list_certificates(CertificateStatuses=["FAILED"]), lambda r: not r["CertificateSummaryList"] or "filter ignored")
ok("acm", "Add/List/RemoveTags", lambda: (acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "p", "Value": "2"}]), acm.remove_tags_from_certificate(CertificateArn=arn, Tags=[{"Key": "o"}]), acm.list_tags_for_certificate(CertificateArn=arn))[2], lambda r: r["Tags"] == [{"Key": "p", "Value": "2"}] or str(r["Tags"]))
bad("acm", "DescribeCertificate missing", lambda: acm.describe_certificate(CertificateArn="arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"), "ResourceNotFoundException")

# ------------------------------------------------------------------ API Gateway v2: APIs
api = ok("v2", "CreateApi HTTP disableExecuteApiEndpoint+tags", lambda: v2.create_api(Name="probe", ProtocolType="HTTP", DisableExecuteApiEndpoint=True, Tags={"o": "1"}), lambda r: (r.get("DisableExecuteApiEndpoint") is True and r.get("Tags") == {"o": "1"}) or str(r))
aid = api["ApiId"] if api else "x"
ok("v2", "GetApi", lambda: v2.get_api(ApiId=aid), lambda r: r["ApiId"] == aid)
bad("v2", "GetApi missing", lambda: v2.get_api(ApiId="nope123456"), "NotFoundException")
ok("v2", "UpdateApi DisableExecuteApiEndpoint false/true", lambda: (v2.update_api(ApiId=aid, DisableExecuteApiEndpoint=False), v2.get_api(ApiId=aid), v2.update_api(ApiId=aid, DisableExecuteApiEndpoint=True), v2.get_api(ApiId=aid)), lambda r: (r[1]["DisableExecuteApiEndpoint"] is False and r[3]["DisableExecuteApiEndpoint"] is True) or str([x["DisableExecuteApiEndpoint"] for x in r]))
RP = {"overwrite:header.x-client-subject": "$context.identity.clientCert.subjectDN", "append:header.x-client-pem": "$context.identity.clientCert.clientCertPem"}
it = ok("v2", "CreateIntegration RequestParameters", lambda: v2.create_integration(ApiId=aid, IntegrationType="HTTP_PROXY", IntegrationMethod="ANY", IntegrationUri="https://backend.example.com", PayloadFormatVersion="1.0", RequestParameters=RP), lambda r: r.get("RequestParameters") == RP or str(r.get("RequestParameters")))
iid = it["IntegrationId"] if it else "x"
ok("v2", "UpdateIntegration RequestParameters", lambda: (v2.update_integration(ApiId=aid, IntegrationId=iid, RequestParameters={"overwrite:header.x-a": "$context.requestId"}), v2.get_integration(ApiId=aid, IntegrationId=iid))[1], lambda r: r["RequestParameters"].get("overwrite:header.x-a") == "$context.requestId" or str(r["RequestParameters"]))
ok("v2", "UpdateIntegration '' removes a parameter", lambda: (v2.update_integration(ApiId=aid, IntegrationId=iid, RequestParameters={"overwrite:header.x-a": ""}), v2.get_integration(ApiId=aid, IntegrationId=iid))[1], lambda r: "overwrite:header.x-a" not in (r.get("RequestParameters") or {}) or str(r.get("RequestParameters")))
ok("v2", "GetIntegrations", lambda: v2.get_integrations(ApiId=aid), lambda r: len(r["Items"]) == 1)
au = ok("v2", "CreateAuthorizer REQUEST", lambda: v2.create_authorizer(ApiId=aid, AuthorizerType="REQUEST", Name="mtls", AuthorizerUri=f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{fn_arn}/invocations", AuthorizerPayloadFormatVersion="2.0", EnableSimpleResponses=True, IdentitySource=["$context.identity.sourceIp"], AuthorizerResultTtlInSeconds=0), lambda r: has(r, "AuthorizerId"))
auid = au["AuthorizerId"] if au else "x"
ok("v2", "UpdateAuthorizer / GetAuthorizers", lambda: (v2.update_authorizer(ApiId=aid, AuthorizerId=auid, Name="mtls2"), v2.get_authorizers(ApiId=aid))[1], lambda r: r["Items"][0]["Name"] == "mtls2" or str(r["Items"]))
rt = ok("v2", "CreateRoute CUSTOM authorizer", lambda: v2.create_route(ApiId=aid, RouteKey="$default", Target=f"integrations/{iid}", AuthorizationType="CUSTOM", AuthorizerId=auid), lambda r: has(r, "RouteId", "AuthorizerId"))
ok("v2", "UpdateRoute / GetRoutes", lambda: (v2.update_route(ApiId=aid, RouteId=rt["RouteId"], AuthorizationType="NONE"), v2.get_routes(ApiId=aid))[1], lambda r: len(r["Items"]) == 1)
ok("v2", "CreateStage $default AutoDeploy", lambda: v2.create_stage(ApiId=aid, StageName="$default", AutoDeploy=True, Tags={"o": "1"}), lambda r: r.get("AutoDeploy") is True)
ok("v2", "GetStage $default / GetStages", lambda: (v2.get_stage(ApiId=aid, StageName="$default"), v2.get_stages(ApiId=aid)), lambda r: len(r[1]["Items"]) == 1)
ok("v2", "UpdateStage", lambda: v2.update_stage(ApiId=aid, StageName="$default", Description="d", DefaultRouteSettings={"ThrottlingRateLimit": 5.0, "ThrottlingBurstLimit": 5}), lambda r: r.get("Description") == "d")
bad("v2", "GetStage missing", lambda: v2.get_stage(ApiId=aid, StageName="nope"), "NotFoundException")
ok("v2", "CreateDeployment / GetDeployments", lambda: (v2.create_deployment(ApiId=aid), v2.get_deployments(ApiId=aid))[0], lambda r: has(r, "DeploymentId"))
AARN = f"arn:aws:apigateway:us-east-1::/apis/{aid}"
ok("v2", "GetTags/TagResource/UntagResource on API", lambda: (v2.tag_resource(ResourceArn=AARN, Tags={"p": "2"}), v2.untag_resource(ResourceArn=AARN, TagKeys=["o"]), v2.get_tags(ResourceArn=AARN))[2], lambda r: r["Tags"] == {"p": "2"} or str(r["Tags"]))
ok("v2", "GetApi shows tags after TagResource", lambda: v2.get_api(ApiId=aid), lambda r: r.get("Tags") == {"p": "2"} or str(r.get("Tags")))
ok("v2", "GetApis MaxResults pagination", lambda: (v2.create_api(Name="p2", ProtocolType="HTTP"), v2.get_apis(MaxResults="1"))[1], lambda r: (len(r["Items"]) == 1 and bool(r.get("NextToken"))) or f"{len(r['Items'])} items, NextToken={r.get('NextToken')}")

# ------------------------------------------------------------------ API Gateway v1
ra = ok("v1", "CreateRestApi REGIONAL disableExecuteApiEndpoint+tags", lambda: v1.create_rest_api(name="probe", endpointConfiguration={"types": ["REGIONAL"]}, disableExecuteApiEndpoint=True, tags={"o": "1"}), lambda r: (r.get("disableExecuteApiEndpoint") is True and r.get("tags") == {"o": "1"}) or f"disable={r.get('disableExecuteApiEndpoint')} tags={r.get('tags')}")
rid = ra["id"] if ra else "x"
ok("v1", "UpdateRestApi /disableExecuteApiEndpoint", lambda: (v1.update_rest_api(restApiId=rid, patchOperations=[{"op": "replace", "path": "/disableExecuteApiEndpoint", "value": "false"}]), v1.get_rest_api(restApiId=rid), v1.update_rest_api(restApiId=rid, patchOperations=[{"op": "replace", "path": "/disableExecuteApiEndpoint", "value": "true"}]), v1.get_rest_api(restApiId=rid)), lambda r: (r[1].get("disableExecuteApiEndpoint") is False and r[3].get("disableExecuteApiEndpoint") is True) or f"{[x.get('disableExecuteApiEndpoint') for x in r]}")
bad("v1", "GetRestApi missing", lambda: v1.get_rest_api(restApiId="nope123456"), "NotFoundException")
ra_au = ok("v1", "CreateAuthorizer REQUEST", lambda: v1.create_authorizer(restApiId=rid, name="mtls", type="REQUEST", authorizerUri=f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{fn_arn}/invocations", identitySource="method.request.header.Host", authorizerResultTtlInSeconds=0), lambda r: has(r, "id"))
root = None
try: root = [x for x in v1.get_resources(restApiId=rid)["items"] if x["path"] == "/"][0]["id"]
except Exception: pass
pr = ok("v1", "CreateResource {proxy+}", lambda: v1.create_resource(restApiId=rid, parentId=root, pathPart="{proxy+}"), lambda r: has(r, "id"))
prid = pr["id"] if pr else root
ok("v1", "PutMethod CUSTOM authorizer", lambda: v1.put_method(restApiId=rid, resourceId=prid, httpMethod="ANY", authorizationType="CUSTOM", authorizerId=ra_au["id"], requestParameters={"method.request.path.proxy": True}))
RP1 = {"integration.request.header.X-Client-Subject": "context.identity.clientCert.subjectDN", "integration.request.path.proxy": "method.request.path.proxy"}
ok("v1", "PutIntegration requestParameters", lambda: v1.put_integration(restApiId=rid, resourceId=prid, httpMethod="ANY", type="HTTP_PROXY", integrationHttpMethod="ANY", uri="https://backend.example.com/{proxy}", requestParameters=RP1), lambda r: r.get("requestParameters") == RP1 or str(r.get("requestParameters")))
ok("v1", "UpdateIntegration patch requestParameters", lambda: (v1.update_integration(restApiId=rid, resourceId=prid, httpMethod="ANY", patchOperations=[{"op": "add", "path": "/requestParameters/integration.request.header.X-A", "value": "context.requestId"}]), v1.get_integration(restApiId=rid, resourceId=prid, httpMethod="ANY"))[1], lambda r: r["requestParameters"].get("integration.request.header.X-A") == "context.requestId" or str(r["requestParameters"]))
dp = ok("v1", "CreateDeployment stageName", lambda: v1.create_deployment(restApiId=rid, stageName="prod"), lambda r: has(r, "id"))
ok("v1", "GetStage / UpdateStage deploymentId", lambda: (v1.update_stage(restApiId=rid, stageName="prod", patchOperations=[{"op": "replace", "path": "/deploymentId", "value": v1.create_deployment(restApiId=rid)["id"]}]), v1.get_stage(restApiId=rid, stageName="prod"))[1], lambda r: r["deploymentId"] != dp["id"] or "deploymentId unchanged")
bad("v1", "GetStage missing", lambda: v1.get_stage(restApiId=rid, stageName="nope"), "NotFoundException")

# ------------------------------------------------------------------ API Gateway v2: domain names
CFG = [{"CertificateArn": arn, "EndpointType": "REGIONAL", "SecurityPolicy": "TLS_1_2"}]
bad("dom", "CreateDomainName with a certificate that does not exist", lambda: v2.create_domain_name(DomainName=f"q1.{Z}", DomainNameConfigurations=[{**CFG[0], "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"}]), ["BadRequestException", "NotFoundException"])
try: pend = acm.request_certificate(DomainName=f"q2.{Z}", ValidationMethod="DNS", IdempotencyToken=RUN + "q2")["CertificateArn"]
except Exception: pend = arn
bad("dom", "CreateDomainName with a PENDING certificate", lambda: v2.create_domain_name(DomainName=f"q2.{Z}", DomainNameConfigurations=[{**CFG[0], "CertificateArn": pend}]), "BadRequestException")
bad("dom", "CreateDomainName truststore object does not exist", lambda: v2.create_domain_name(DomainName=f"q3.{Z}", DomainNameConfigurations=CFG, MutualTlsAuthentication={"TruststoreUri": f"s3://{B}/nope.pem"}), "BadRequestException")
bad("dom", "CreateDomainName TruststoreUri not s3://", lambda: v2.create_domain_name(DomainName=f"q4.{Z}", DomainNameConfigurations=CFG, MutualTlsAuthentication={"TruststoreUri": "https://x/y.pem"}), "BadRequestException")
MT = {"TruststoreUri": f"s3://{B}/t/trust.pem", **({"TruststoreVersion": ts} if ts else {})}
dn = ok("dom", "CreateDomainName mTLS + tags", lambda: v2.create_domain_name(DomainName=D, DomainNameConfigurations=CFG, MutualTlsAuthentication=MT, Tags={"o": "1"}), lambda r: has(r, "DomainName", "DomainNameConfigurations"))
dn = dn or {}
c0 = (dn.get("DomainNameConfigurations") or [{}])[0]
ok("dom", "Create: ApiGatewayDomainName + HostedZoneId", lambda: c0, lambda r: has(r, "ApiGatewayDomainName", "HostedZoneId"))
ok("dom", "Create: DomainNameStatus", lambda: c0, lambda r: (r.get("DomainNameStatus") in ("AVAILABLE", "UPDATING"), f"{r.get('DomainNameStatus')}"))
ok("dom", "Create: CertificateArn, EndpointType, SecurityPolicy", lambda: c0, lambda r: has(r, "CertificateArn", "EndpointType", "SecurityPolicy"))
ok("dom", "Create: MutualTlsAuthentication echoed", lambda: dn, lambda r: r.get("MutualTlsAuthentication", {}).get("TruststoreUri") == MT["TruststoreUri"] and r["MutualTlsAuthentication"].get("TruststoreVersion") == ts or str(r.get("MutualTlsAuthentication")))
bad("dom", "CreateDomainName twice -> BadRequestException", lambda: v2.create_domain_name(DomainName=D, DomainNameConfigurations=CFG), "BadRequestException")
bad("dom", "CreateDomainName without DomainNameConfigurations", lambda: v2.create_domain_name(DomainName=f"q5.{Z}"), "BadRequestException")
ok("dom", "GetDomainName", lambda: v2.get_domain_name(DomainName=D), lambda r: r["DomainName"] == D)
bad("dom", "GetDomainName missing", lambda: v2.get_domain_name(DomainName=f"no.{Z}"), "NotFoundException")
ok("dom", "GetDomainNames", lambda: v2.get_domain_names(), lambda r: D in [x["DomainName"] for x in r["Items"]])
bad("dom", "UpdateDomainName without DomainNameConfigurations", lambda: v2.update_domain_name(DomainName=D, MutualTlsAuthentication=MT), "BadRequestException")  # "Expected one domain name configuration"
def settled():
    """Waits until D is AVAILABLE: a second update while it is UPDATING is a ConflictException."""
    while v2.get_domain_name(DomainName=D)["DomainNameConfigurations"][0]["DomainNameStatus"] != "AVAILABLE": time.sleep(.01)
u = ok("dom", "UpdateDomainName new TruststoreVersion", lambda: (v2.update_domain_name(DomainName=D, DomainNameConfigurations=CFG, MutualTlsAuthentication={"TruststoreUri": MT["TruststoreUri"], "TruststoreVersion": ts2}), v2.get_domain_name(DomainName=D)), lambda r: r[1]["MutualTlsAuthentication"]["TruststoreVersion"] == ts2 or str(r[1]["MutualTlsAuthentication"]))
ok("dom", "UpdateDomainName answers UPDATING first", lambda: u[0], lambda r: r["DomainNameConfigurations"][0]["DomainNameStatus"] == "UPDATING" or r["DomainNameConfigurations"][0].get("DomainNameStatus"))
ok("dom", "UpdateDomainName keeps ApiGatewayDomainName/cert", lambda: u[1], lambda r: (r["DomainNameConfigurations"][0].get("ApiGatewayDomainName") == c0.get("ApiGatewayDomainName") and r["DomainNameConfigurations"][0].get("CertificateArn") == arn) or str(r["DomainNameConfigurations"]))
ok("dom", "UpdateDomainName new CertificateArn keeps mTLS", lambda: (settled(), v2.update_domain_name(DomainName=D, DomainNameConfigurations=CFG), v2.get_domain_name(DomainName=D))[2], lambda r: r.get("MutualTlsAuthentication", {}).get("TruststoreVersion") == ts2 or str(r.get("MutualTlsAuthentication")))
ok("dom", "UpdateDomainName TruststoreUri='' removes mTLS", lambda: (settled(), v2.update_domain_name(DomainName=D, DomainNameConfigurations=CFG, MutualTlsAuthentication={"TruststoreUri": ""}), v2.get_domain_name(DomainName=D))[2], lambda r: not (r.get("MutualTlsAuthentication") or {}).get("TruststoreUri") or str(r.get("MutualTlsAuthentication")))
bad("dom", "UpdateDomainName missing", lambda: v2.update_domain_name(DomainName=f"no.{Z}", DomainNameConfigurations=CFG), "NotFoundException")
ok("dom", "ACM InUseBy shows the domain's load balancer", lambda: acm.describe_certificate(CertificateArn=arn)["Certificate"], lambda r: bool(r.get("InUseBy")) or "InUseBy empty")
DARN = f"arn:aws:apigateway:us-east-1::/domainnames/{D}"
ok("dom", "GetTags/TagResource/UntagResource on domain name", lambda: (v2.tag_resource(ResourceArn=DARN, Tags={"p": "2"}), v2.untag_resource(ResourceArn=DARN, TagKeys=["o"]), v2.get_tags(ResourceArn=DARN))[2], lambda r: r["Tags"] == {"p": "2"} or str(r["Tags"]))
ok("dom", "GetDomainName shows tags after TagResource", lambda: v2.get_domain_name(DomainName=D), lambda r: r.get("Tags") == {"p": "2"} or str(r.get("Tags")))
m1 = ok("map", "CreateApiMapping (HTTP API)", lambda: v2.create_api_mapping(DomainName=D, ApiId=aid, Stage="$default", ApiMappingKey="v1"), lambda r: has(r, "ApiMappingId", "ApiId", "Stage"))
mid = m1["ApiMappingId"] if m1 else "x"
m2 = ok("map", "CreateApiMapping (REST API id)", lambda: v2.create_api_mapping(DomainName=D, ApiId=rid, Stage="prod", ApiMappingKey="rest"), lambda r: r["ApiId"] == rid)
ok("map", "CreateApiMapping without key (root)", lambda: v2.create_api_mapping(DomainName=D, ApiId=aid, Stage="$default"), lambda r: has(r, "ApiMappingId"))
ok("map", "CreateApiMapping multi-level key orders/v2", lambda: v2.create_api_mapping(DomainName=D, ApiId=aid, Stage="$default", ApiMappingKey="orders/v2"), lambda r: r["ApiMappingKey"] == "orders/v2")
bad("map", "CreateApiMapping same key", lambda: v2.create_api_mapping(DomainName=D, ApiId=aid, Stage="$default", ApiMappingKey="v1"), "ConflictException")
bad("map", "CreateApiMapping unknown API", lambda: v2.create_api_mapping(DomainName=D, ApiId="nope123456", Stage="x", ApiMappingKey="k1"), ["NotFoundException", "BadRequestException"])
bad("map", "CreateApiMapping unknown stage", lambda: v2.create_api_mapping(DomainName=D, ApiId=aid, Stage="nope", ApiMappingKey="k2"), ["BadRequestException", "NotFoundException"])
bad("map", "CreateApiMapping unknown domain", lambda: v2.create_api_mapping(DomainName=f"no.{Z}", ApiId=aid, Stage="$default", ApiMappingKey="k3"), "NotFoundException")
ok("map", "GetApiMapping", lambda: v2.get_api_mapping(DomainName=D, ApiMappingId=mid), lambda r: r["ApiMappingKey"] == "v1")
bad("map", "GetApiMapping missing", lambda: v2.get_api_mapping(DomainName=D, ApiMappingId="zzzzzz"), "NotFoundException")
ok("map", "GetApiMappings", lambda: v2.get_api_mappings(DomainName=D), lambda r: len(r["Items"]) == 4 or f"{len(r['Items'])} items")
bad("map", "GetApiMappings unknown domain", lambda: v2.get_api_mappings(DomainName=f"no.{Z}"), "NotFoundException")
ok("map", "UpdateApiMapping key/stage", lambda: (v2.update_api_mapping(DomainName=D, ApiId=aid, ApiMappingId=mid, ApiMappingKey="v9", Stage="$default"), v2.get_api_mapping(DomainName=D, ApiMappingId=mid))[1], lambda r: r["ApiMappingKey"] == "v9" or str(r))
ok("map", "v1 GetBasePathMappings / GetDomainName sees the v2 domain", lambda: v1.get_domain_name(domainName=D), lambda r: r["domainName"] == D)
ok("map", "DeleteApiMapping", lambda: v2.delete_api_mapping(DomainName=D, ApiMappingId=mid))
bad("map", "DeleteApiMapping again", lambda: v2.delete_api_mapping(DomainName=D, ApiMappingId=mid), "NotFoundException")
bad("acm", "DeleteCertificate in use -> ResourceInUseException", lambda: acm.delete_certificate(CertificateArn=arn), "ResourceInUseException")
def throwaway():
    a = v2.create_api(Name="t", ProtocolType="HTTP")["ApiId"]; v2.create_stage(ApiId=a, StageName="$default", AutoDeploy=True)
    v2.create_api_mapping(DomainName=D, ApiId=a, Stage="$default", ApiMappingKey="throwaway"); return a
def throwaway1():
    a = v1.create_rest_api(name="t")["id"]; r = v1.get_resources(restApiId=a)["items"][0]["id"]
    v1.put_method(restApiId=a, resourceId=r, httpMethod="GET", authorizationType="NONE"); v1.put_integration(restApiId=a, resourceId=r, httpMethod="GET", type="MOCK"); v1.create_deployment(restApiId=a, stageName="prod")
    v2.create_api_mapping(DomainName=D, ApiId=a, Stage="prod", ApiMappingKey="throwaway1"); return a
bad("map", "DeleteApi while mapped -> BadRequestException", lambda: v2.delete_api(ApiId=throwaway()), "BadRequestException")
bad("map", "DeleteRestApi while mapped -> BadRequestException", lambda: v1.delete_rest_api(restApiId=throwaway1()), "BadRequestException")
ok("dom", "DeleteDomainName (mappings still there)", lambda: v2.delete_domain_name(DomainName=D))
bad("dom", "GetDomainName after delete", lambda: v2.get_domain_name(DomainName=D), "NotFoundException")
bad("dom", "DeleteDomainName again", lambda: v2.delete_domain_name(DomainName=D), "NotFoundException")
# v1 custom domain
ok("v1", "CreateDomainName v1 mTLS + v2 sees it", lambda: (v1.create_domain_name(domainName=f"v1.{D}", regionalCertificateArn=arn, endpointConfiguration={"types": ["REGIONAL"]}, securityPolicy="TLS_1_2", mutualTlsAuthentication={"truststoreUri": MT["TruststoreUri"]}), v2.get_domain_name(DomainName=f"v1.{D}"))[0], lambda r: has(r, "regionalDomainName", "regionalHostedZoneId", "mutualTlsAuthentication"))
ok("v2", "DeleteStage/Route/Integration/Authorizer/Api", lambda: (v2.delete_stage(ApiId=aid, StageName="$default"), v2.delete_route(ApiId=aid, RouteId=rt["RouteId"]), v2.delete_integration(ApiId=aid, IntegrationId=iid), v2.delete_authorizer(ApiId=aid, AuthorizerId=auid), v2.delete_api(ApiId=aid)))
bad("v2", "DeleteApi again", lambda: v2.delete_api(ApiId=aid), "NotFoundException")
ok("v1", "DeleteRestApi", lambda: v1.delete_rest_api(restApiId=rid))
try: arn2 = acm.request_certificate(DomainName=f"q9.{Z}", ValidationMethod="DNS")["CertificateArn"]
except Exception: arn2 = arn
ok("acm", "DeleteCertificate", lambda: acm.delete_certificate(CertificateArn=arn2))
bad("acm", "DeleteCertificate again", lambda: acm.delete_certificate(CertificateArn=arn2), "ResourceNotFoundException")

n = {k: sum(r["result"] == k for r in ROWS) for k in ("OK", "WRONG", "ERROR")}
json.dump(dict(endpoint=A.endpoint, boto3=boto3.__version__, rows=ROWS, totals=n), open(A.out, "w"), indent=1)
print(n, len(ROWS))
sys.exit(n["OK"] < A.min_ok)
