"""S3: new buckets, keys behind aliases, and the expected bucket owner of a call.

AWS advises to wait up to 15 minutes after versioning was first enabled before objects are stored [S3 API
Reference, PutBucketVersioning]: until then (knob `versioning_delay`) an object gets no version here. A call that
expects another owner of the bucket is AccessDenied 403 [S3 User Guide, bucket owner condition]. A bucket policy may
demand an encryption header (knob `required_encryption`). ``aws:kms`` without a key is the AWS managed key, which every
principal of the account may use. [S3 User Guide, UsingKMSEncryption]

Assumed: GetBucketVersioning says Enabled at once; an object that is encrypted with a key named by its alias has the
ARN of the key.
"""

import uuid
from collections.abc import Callable

from ministack.core.responses import get_account_id, get_region
from ministack.services import s3

from . import clock, iam
from .config import knob
from .patching import replaces
from .wire import Response, aws_error

_KEY_ID = "x-amz-server-side-encryption-aws-kms-key-id"

#: (account, bucket) -> time when versioning was first enabled
_enabled: dict[tuple[str, str], float] = {}


@replaces(s3, "_put_bucket_versioning")
def put_bucket_versioning(original: Callable, name: str, body: bytes) -> Response:
    response = original(name, body)
    if s3._bucket_versioning.get(name) == "Enabled":
        _enabled.setdefault((get_account_id(), name), clock.now())
    return response


@replaces(s3, "_delete_bucket")
def delete_bucket(original: Callable, name: str) -> Response:
    response = original(name)
    if response[0] < 300:
        _enabled.pop((get_account_id(), name), None)
    return response


@replaces(s3, "_put_object")
def put_object(original: Callable, bucket: str, key: str, body: bytes, headers: dict) -> Response:
    required = {1: "AES256", 2: "aws:kms"}.get(int(knob("required_encryption")))
    if required and headers.get("x-amz-server-side-encryption") != required:
        message = (f"User: arn:aws:iam::{get_account_id()}:user/test is not authorized to perform: s3:PutObject on resource: "
                   f'"arn:aws:s3:::{bucket}/{key}" with an explicit deny in a resource-based policy')
        return aws_error("s3", "AccessDenied", message, 403)
    since = _enabled.get((get_account_id(), bucket))
    versioning = s3._bucket_versioning.get(bucket)
    if since is None or versioning is None or clock.now() - since >= knob("versioning_delay"):
        return original(bucket, key, body, headers)
    s3._bucket_versioning.pop(bucket)
    try:
        return original(bucket, key, body, headers)
    finally:
        s3._bucket_versioning[bucket] = versioning


@replaces(s3, "_resolve_sse_write_headers")
def resolve_sse_write_headers(original: Callable, headers: dict, bucket: str) -> tuple:
    managed = headers.get("x-amz-server-side-encryption") == "aws:kms" and not headers.get(_KEY_ID)
    if managed:
        headers = headers | {_KEY_ID: f"arn:aws:kms:{get_region()}:{get_account_id()}:alias/aws/s3"}
    stored, error = original(headers, bucket)
    if stored and ":alias/" in stored.get(_KEY_ID, ""):
        prefix, _, alias = stored[_KEY_ID].partition(":alias/")
        stored = stored | {_KEY_ID: f"{prefix}:key/{uuid.uuid5(uuid.NAMESPACE_URL, alias)}"}
    if stored and _KEY_ID in stored and not managed and (refused := iam.refusal_besides(iam.Need("kms:GenerateDataKey", stored[_KEY_ID]))):
        return None, refused
    return stored, error


@replaces(s3, "_dispatch")
def dispatch(original: Callable, method: str, bucket: str, key: str, headers: dict, *rest: object) -> Response:
    expected, owner = headers.get("x-amz-expected-bucket-owner"), s3._bucket_owner_account(bucket) if bucket else None
    if expected and owner and expected != owner:
        return aws_error("s3", "AccessDenied", "Access Denied", 403)
    return original(method, bucket, key, headers, *rest)


def reset() -> None:
    _enabled.clear()
