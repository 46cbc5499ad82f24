import datetime
import time

from conftest import authority, eventually, key_pem, pem, refused


def test_issued_only_with_its_record(aws):
    zone = aws.zone()
    arn = aws.acm.request_certificate(DomainName=f"a.{aws.zone_name}", ValidationMethod="DNS")["CertificateArn"]
    time.sleep(0.15)
    record = aws.describe(arn)["DomainValidationOptions"][0]["ResourceRecord"]
    assert aws.describe(arn)["Status"] == "PENDING_VALIDATION"
    aws.upsert(zone, record["Name"], "CNAME", "wrong.acm-validations.aws.")
    time.sleep(0.15)
    assert aws.describe(arn)["Status"] == "PENDING_VALIDATION"
    aws.upsert(zone, record["Name"], "CNAME", record["Value"])
    time.sleep(0.15)  # no polling needed in between
    cert = aws.describe(arn)
    assert cert["Status"] == "ISSUED"
    assert (cert["NotAfter"] - cert["NotBefore"]).days == 198
    assert cert["KeyAlgorithm"] == "RSA-2048"


def test_record_in_another_accounts_public_zone_counts_a_private_one_does_not(double, aws):
    from conftest import Aws

    other = Aws(double)
    private = aws.r53.create_hosted_zone(
        Name=aws.zone_name,
        CallerReference="p",
        VPC={"VPCRegion": "us-east-1", "VPCId": "vpc-1"},
        HostedZoneConfig={"PrivateZone": True},
    )["HostedZone"]["Id"]
    arn = aws.acm.request_certificate(DomainName=f"a.{aws.zone_name}", ValidationMethod="DNS")["CertificateArn"]
    record = aws.describe(arn)["DomainValidationOptions"][0]["ResourceRecord"]
    aws.upsert(private, record["Name"], "CNAME", record["Value"])
    time.sleep(0.15)
    assert aws.describe(arn)["Status"] == "PENDING_VALIDATION"
    other.zone_name = aws.zone_name
    other.upsert(other.zone(), record["Name"], "CNAME", record["Value"])
    aws.describe(arn)
    eventually(lambda: aws.describe(arn)["Status"] == "ISSUED")


def test_eventual_consistency(aws):
    aws.knobs(certificate_delay=0.4, record_delay=0.8)
    arn = aws.acm.request_certificate(DomainName="a.example.com")["CertificateArn"]
    assert refused(aws.describe, arn)[0] == "ResourceNotFoundException"
    assert aws.acm.list_certificates()["CertificateSummaryList"] == []
    time.sleep(0.45)
    assert "ResourceRecord" not in aws.describe(arn)["DomainValidationOptions"][0]
    assert len(aws.acm.list_certificates()["CertificateSummaryList"]) == 1
    time.sleep(0.45)
    assert "ResourceRecord" in aws.describe(arn)["DomainValidationOptions"][0]


def test_in_use_and_linger(aws):
    aws.knobs(in_use_linger=0.4)
    name = aws.domain()
    assert aws.describe(aws.arn)["InUseBy"] and aws.describe(aws.arn)["RenewalEligibility"] == "ELIGIBLE"
    assert refused(aws.acm.delete_certificate, CertificateArn=aws.arn)[0] == "ResourceInUseException"
    aws.v2.delete_domain_name(DomainName=name)
    assert refused(aws.acm.delete_certificate, CertificateArn=aws.arn)[0] == "ResourceInUseException"
    time.sleep(0.45)
    aws.acm.delete_certificate(CertificateArn=aws.arn)


def test_forced_failure_expiry_and_renewal(double, aws):
    arn = aws.acm.request_certificate(DomainName="a.example.com")["CertificateArn"]
    double.post("acm", {"arn": arn, "status": "FAILED", "reason": "CAA_ERROR"})
    cert = aws.describe(arn)
    assert (cert["Status"], cert["FailureReason"]) == ("FAILED", "CAA_ERROR") and "NotAfter" not in cert
    good = aws.certificate(f"b.{aws.zone_name}")
    soon = time.time() + 86400
    assert double.post("acm", {"arn": good, "not_after": soon, "renewal": "PENDING_VALIDATION"}) == {"changed": 1}
    cert = aws.describe(good)
    assert (
        abs(cert["NotAfter"].timestamp() - soon) < 1 and cert["RenewalSummary"]["RenewalStatus"] == "PENDING_VALIDATION"
    )


def test_imported_certificate_has_its_own_names_and_dates(aws):
    cert = authority("imp.example.com", ca=False, days=30, names=("imp.example.com", "*.imp.example.com"))
    arn = aws.acm.import_certificate(Certificate=pem(cert), PrivateKey=key_pem(cert))["CertificateArn"]
    shown = aws.describe(arn)
    assert shown["Type"] == "IMPORTED" and shown["SubjectAlternativeNames"] == ["imp.example.com", "*.imp.example.com"]
    assert shown["NotAfter"] - datetime.datetime.now(datetime.timezone.utc) < datetime.timedelta(days=30)
