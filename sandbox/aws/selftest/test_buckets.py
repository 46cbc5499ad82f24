"""S3 as the operator uses it: new buckets, encryption, and the expected bucket owner."""

from conftest import refused


def make(aws) -> dict:
    """Returns a bucket without versioning, and the arguments that name it in a call."""
    bucket = {"Bucket": f"new-{aws.account}"}
    tags = [{"Key": "mtls-operator.io/owner", "Value": "cluster/ns/name"}]
    aws.s3.create_bucket(**bucket, CreateBucketConfiguration={"Tags": tags})
    assert aws.s3.get_bucket_tagging(**bucket)["TagSet"] == tags
    return bucket


def test_a_bucket_whose_versioning_is_new_gives_no_versions(aws):
    aws.knobs(versioning_delay=100)
    bucket = make(aws)
    aws.s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Enabled"})
    assert aws.s3.get_bucket_versioning(**bucket)["Status"] == "Enabled"
    assert "VersionId" not in aws.s3.put_object(**bucket, Key="t.pem", Body=b"one")
    aws.advance(101)
    version = aws.s3.put_object(**bucket, Key="t.pem", Body=b"two")["VersionId"]
    assert aws.s3.head_object(**bucket, Key="t.pem")["VersionId"] == version
    listed = aws.s3.list_object_versions(**bucket)["Versions"]
    assert [v["VersionId"] for v in listed] == [version, "null"]


def test_an_alias_is_resolved(aws):
    bucket, arn = make(aws), f"arn:aws:kms:us-east-1:{aws.account}:"
    for named, kept in [("key/1234", "key/1234"), ("alias/mine", "key/")]:
        aws.s3.put_object(**bucket, Key="t.pem", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=arn + named)
        assert aws.s3.head_object(**bucket, Key="t.pem")["SSEKMSKeyId"].startswith(arn + kept)


def test_the_owner_that_a_call_expects(aws):
    bucket = make(aws)
    aws.s3.head_bucket(**bucket, ExpectedBucketOwner=aws.account)
    assert refused(aws.s3.get_bucket_tagging, **bucket, ExpectedBucketOwner="999999999999")[:2] == ("AccessDenied", 403)


def test_an_encryption_header_that_a_bucket_policy_demands(aws):
    bucket = make(aws)
    for demand, right, wrong in ((1, "AES256", "aws:kms"), (2, "aws:kms", "AES256")):
        aws.knobs(required_encryption=demand)
        for headers in ({}, {"ServerSideEncryption": wrong}):
            code, status, message = refused(aws.s3.put_object, **bucket, Key="t.pem", Body=b"x", **headers)
            assert (code, status) == ("AccessDenied", 403) and "explicit deny in a resource-based policy" in message
        aws.s3.put_object(**bucket, Key="t.pem", Body=b"x", ServerSideEncryption=right)
