//! Manifests, and the API server's expected answers.

use serde_json::{Value, json};

/// Subject of the case, a merge patch on the minimal manifest, and a part of the refusal's message (empty:
/// accepted).
type Creation = (&'static str, Value, &'static str);
/// Subject of the case, the patch to create with, a further patch to replace with, and a part of the
/// refusal's message (empty: accepted).
type Change = (&'static str, Value, Value, &'static str);

const ROLE: &str = "arn:aws:iam::123456789012:role/mtls-operator";
const CERTIFICATE: &str =
    "arn:aws:acm:eu-west-1:123456789012:certificate/11111111-2222-3333-4444-555555555555";
const KMS_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555";
const FUNCTION: &str = "arn:aws:lambda:eu-west-1:123456789012:function:identity";
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const CSR: &str = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n";

#[rustfmt::skip]
pub fn minimal_domain() -> Value {
    json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": {"name": "partners"},
           "spec": {"domainName": "api.example.com"}})
}

#[rustfmt::skip]
pub fn minimal_certificate() -> Value {
    json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate", "metadata": {"name": "client1"},
           "spec": {"domainRef": {"name": "partners"}, "subject": {"commonName": "client1"}}})
}

#[rustfmt::skip]
pub fn minimal_grant() -> Value {
    json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientGrant", "metadata": {"name": "acme"},
           "spec": {"domainRef": {"name": "partners"}, "namespaces": {"names": ["acme"]}, "commonNames": ["acme-*"]}})
}

/// Manifest with every field.
#[rustfmt::skip]
pub fn full_grant() -> Value {
    json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientGrant", "metadata": {"name": "full"}, "spec": {
        "domainRef": {"name": "partners"},
        "namespaces": {"names": ["acme"], "matchLabels": {"example.com/partner": "yes"}},
        "commonNames": ["acme-*"],
        "dnsNames": ["*.acme.example.com"],
        "uris": ["spiffe://example.com/acme/*"],
        "emailAddresses": ["*@acme.example.com"],
        "organizations": ["Acme"],
        "organizationalUnits": ["Ops"],
        "countries": ["DE"],
        "localities": ["Berlin"],
        "provinces": ["Berlin"],
        "issuance": "Authority",
        "authority": "partners",
        "maxDuration": "2592000s",
        "maxCertificates": 10,
        "maxBytes": 65536,
        "notAfter": "2027-06-30T00:00:00Z"}})
}

pub fn grant() -> Vec<Creation> {
    let spec = |spec: Value| json!({"spec": spec});
    vec![
        ("minimal", json!({}), ""),
        (
            "no common name",
            spec(json!({"commonNames": []})),
            "at least 1 items",
        ),
        ("SelfSigned", spec(json!({"issuance": "SelfSigned"})), ""),
        (
            "SelfSigned under an authority",
            spec(json!({"issuance": "SelfSigned", "authority": "partners"})),
            "with issuance SelfSigned leave out authority: such certificates sign themselves",
        ),
        (
            "a short validity",
            spec(json!({"maxDuration": "59m"})),
            "at least 1h, as in 720h",
        ),
        (
            "no place",
            spec(json!({"maxCertificates": 0})),
            "greater than or equal to 1",
        ),
        (
            "no bytes",
            spec(json!({"maxBytes": 1023})),
            "greater than or equal to 1024",
        ),
        ("few bytes", spec(json!({"maxBytes": 1024})), ""),
        ("a whole truststore", spec(json!({"maxBytes": 1_000_000})), ""),
        (
            "more than a truststore",
            spec(json!({"maxBytes": 1_000_001})),
            "less than or equal to 1000000",
        ),
        ("no time", spec(json!({"notAfter": "tomorrow"})), "date-time"),
        (
            "a domain by a path",
            spec(json!({"domainRef": {"name": "partners/status"}})),
            "write the name of an object: lower-case letters",
        ),
        ("all namespaces", spec(json!({"namespaces": {"names": null}})), ""),
        (
            "a pattern of namespaces",
            spec(json!({"namespaces": {"names": ["*"]}})),
            "write the names of namespaces, as in acme, without *",
        ),
        (
            "a namespace in upper case",
            spec(json!({"namespaces": {"names": ["acme", "Beta"]}})),
            "write the names of namespaces, as in acme, without *",
        ),
    ]
}

pub fn grant_changes() -> Vec<Change> {
    let spec = |spec: Value| json!({"spec": spec});
    vec![
        (
            "another domain",
            json!({}),
            spec(json!({"domainRef": {"name": "other"}})),
            "domainRef is immutable: create another ClientGrant for the other domain",
        ),
        (
            "narrower",
            json!({}),
            spec(json!({"commonNames": ["acme-1"], "maxCertificates": 1})),
            "",
        ),
    ]
}

/// Manifest with every field but the other members of a choice. Durations as Rust writes them.
#[rustfmt::skip]
pub fn full_domain() -> Value {
    json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": {"name": "full"}, "spec": {
        "domainName": "full.example.com",
        "aws": {"region": "eu-west-1", "accountId": "123456789012", "assumeRole": {"roleArn": ROLE}, "tags": {"cost-center": "4711"}},
        "serverCertificate": {"request": {"keyAlgorithm": "EC_secp384r1", "subjectAlternativeNames": ["www.example.com", "*.example.com"]}},
        "trust": {
            "issuingAuthority": "partners",
            "authorities": [
                {"name": "partners", "state": "Active", "generate": {"commonName": "Partners", "organizations": ["Acme"], "duration": "315360000s",
                    "privateKey": {"algorithm": "ECDSA", "size": 256}}},
                {"name": "legacy", "state": "Active", "secretRef": {"name": "legacy-ca"}},
                {"name": "acme", "state": "Active", "configMapRef": {"name": "acme-ca", "key": "ca.crt"}},
                {"name": "partner-cas", "state": "Active", "configMapSelector": {"matchLabels": {"example.com/ca": "yes"}, "key": "ca.crt"}},
                {"name": "pasted", "state": "Distrusted", "pem": PEM}],
            "overlap": "2592000s"},
        "truststore": {"bucket": "payments-truststores", "key": "payments/partners.pem", "bucketCreation": "IfMissing", "encryption": "SSEKMS",
            "kmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"},
        "mappings": [{"path": "", "api": {"id": "a1b2c3d4e5", "stage": "$default"}}, {"path": "orders/v2", "api": {"id": "a1b2c3d4e5", "stage": "prod"}}],
        "unlistedMappings": "Keep",
        "defaultEndpoint": "Keep",
        "restDeployment": "Allow",
        "dns": {"route53": {"hostedZoneId": "Z0123456789", "assumeRole": {"roleArn": ROLE}}},
        "ipAddressType": "DualStack",
        "identity": {
            "headers": [{"name": "x-client-cert-sub", "from": {"clientCert": "SubjectDN"}}, {"name": "x-client-cn", "from": {"authorizerKey": "commonName"}}],
            "authorizer": {"functionArn": FUNCTION}},
        "adoptionPolicy": "Unowned",
        "deletionPolicy": "Retain",
        "managementPolicy": "Observe",
        "suspend": true,
        "clients": {"maxDuration": "7776000s"}}})
}

/// Manifest with every field but `csr` and `renewBeforePercentage`, which exclude other fields.
#[rustfmt::skip]
pub fn full_certificate() -> Value {
    json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate", "metadata": {"name": "full"}, "spec": {
        "domainRef": {"name": "partners", "namespace": "payments"},
        "authority": "partners",
        "issuance": "Authority",
        "subject": {"commonName": "client1", "organizations": ["Acme"], "organizationalUnits": ["Ops"], "countries": ["DE"],
            "localities": ["Berlin"], "provinces": ["Berlin"]},
        "dnsNames": ["client1.example.com"],
        "uris": ["spiffe://example.com/client1"],
        "emailAddresses": ["ops@example.com"],
        "duration": "7776000s",
        "renewBefore": "2592000s",
        "privateKey": {"algorithm": "RSA", "size": 3072, "encoding": "PKCS1", "rotationPolicy": "Never"},
        "secretName": "client1-mtls",
        "secretTemplate": {"labels": {"team": "payments"}, "annotations": {"example.com/owner": "payments"}},
        "keystores": {"pkcs12": {"passwordSecretRef": {"name": "p", "key": "password"}}},
        "deletionPolicy": "Retain",
        "suspend": true}})
}

fn name_of(length: usize) -> Value {
    json!({"metadata": {"name": "a".repeat(length)}})
}

fn domain_name(name: &str) -> Value {
    json!({"spec": {"domainName": name}})
}

fn authorities(list: Value) -> Value {
    json!({"spec": {"trust": {"authorities": list}}})
}

fn mapping(path: &str, id: &str, stage: &str) -> Value {
    json!({"spec": {"mappings": [{"path": path, "api": {"id": id, "stage": stage}}]}})
}

fn header(name: &str) -> Value {
    json!({"spec": {"identity": {"headers": [{"name": name, "from": {"clientCert": "SubjectDN"}}]}}})
}

fn headers(count: u32) -> Value {
    let header = |n| json!({"name": format!("x-{n}"), "from": {"clientCert": "SubjectDN"}});
    json!({"spec": {"identity": {"headers": (0..count).map(header).collect::<Value>()}}})
}

fn authorizer(authorizer: Value) -> Value {
    json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {"authorizerKey": "commonName"}}], "authorizer": authorizer}}})
}

fn existing(api: &str, id: &str) -> Value {
    authorizer(json!({"existing": [{"apiId": api, "authorizerId": id}]}))
}

/// Manifest with these tags.
fn tags(all: impl IntoIterator<Item = (String, String)>) -> Value {
    let all: serde_json::Map<_, _> = all.into_iter().map(|(k, v)| (k, json!(v))).collect();
    json!({"spec": {"aws": {"tags": all}}})
}

/// Host name of this length.
fn name_of_length(length: usize) -> String {
    let labels = "a.".repeat(length / 2 - 6);
    format!("{}{labels}example.com", "b".repeat(length - labels.len() - 11))
}

#[rustfmt::skip]
pub fn domain() -> Vec<Creation> {
    let one_source = "set exactly one of generate, secretRef";
    let host_name = "write a full host name in lower case";
    let path = "write the path without leading, trailing or double slashes";
    let object = "write the name of an object: lower-case letters";
    let first_name = "whose first name is longer than 64 characters: request one by hand";
    let tag = "write keys of 1 to 128 and values of at most 256 letters, digits, spaces";
    let with_kms_key = "with kmsKeyArn leave encryption out, or set it to SSEKMS";
    let reserved_tag = "leave out keys that begin with aws: or mtls-operator.io/";
    vec![
        ("nothing but a name", json!({}), ""),
        ("no domainName", json!({"spec": {"domainName": null}}), "spec.domainName: Required value"),
        ("metadata.name of 63", name_of(63), ""),
        ("metadata.name of 64", name_of(64), "metadata.name must have at most 63"),
        // domainName
        ("two labels", domain_name("example.com"), ""),
        ("digits and dashes", domain_name("a-1.2.example.com"), ""),
        ("an international top-level domain", domain_name("api.xn--e1aybc.xn--p1ai"), ""),
        ("a wildcard", domain_name("*.example.com"), "not a wildcard: API Gateway accepts a certificate \
                                                      subject"),
        ("upper case", domain_name("API.example.com"), host_name),
        ("one label", domain_name("localhost"), host_name),
        ("a trailing dot", domain_name("api.example.com."), host_name),
        ("a URL", domain_name("https://api.example.com"), host_name),
        ("a port", domain_name("api.example.com:443"), host_name),
        ("an address", domain_name("10.0.0.1"), host_name),
        ("an underscore", domain_name("my_api.example.com"), host_name),
        ("an empty label", domain_name("api..example.com"), host_name),
        ("a label that ends in a dash", domain_name("api-.example.com"), host_name),
        ("a label of 64", domain_name(&format!("{}.example.com", "a".repeat(64))), host_name),
        ("a name of 239", domain_name(&format!("{}.example.com", "a.".repeat(113) + "a")), "may not be more \
                                              than 238"),
        ("a name of 64", domain_name(&name_of_length(64)), ""),
        ("a name of 65", domain_name(&name_of_length(65)), first_name),
        ("a name of 65, requested", json!({"spec": {"domainName": name_of_length(65), "serverCertificate": {"request": {}}}}), first_name),
        ("a name of 65, requested by a takeover", json!({"spec": {"domainName": name_of_length(65), "adoptionPolicy": "Unowned", "serverCertificate": {"request": {}}}}), first_name),
        ("a name of 65, taken over", json!({"spec": {"domainName": name_of_length(65), "adoptionPolicy": "Unowned"}}), ""),
        ("a name of 238, existing", json!({"spec": {"domainName": name_of_length(238), "serverCertificate": {"existing": {"arn": CERTIFICATE}}}}), ""),
        // aws
        ("GovCloud", json!({"spec": {"aws": {"region": "us-gov-west-1"}}}), ""),
        ("a Region by its name", json!({"spec": {"aws": {"region": "Europe (Ireland)"}}}), "write a Region's \
                                              code, as in eu-west-1"),
        ("a zone for a Region", json!({"spec": {"aws": {"region": "eu-west-1a"}}}), "write a Region's code, \
                                          as in eu-west-1"),
        ("an account with dashes", json!({"spec": {"aws": {"accountId": "1234-5678-9012"}}}), "write the \
                                               twelve digits of the account"),
        ("an account as a number", json!({"spec": {"aws": {"accountId": 123_456_789_012_i64}}}), "must be of \
                                                 type string"),
        ("a role by its name", json!({"spec": {"aws": {"assumeRole": {"roleArn": "mtls-operator"}}}}), "write the whole ARN of an IAM role"),
        ("40 tags", tags((0..40).map(|n| (format!("k{n}"), "v".repeat(256)))), ""),
        ("41 tags", tags((0..41).map(|n| (format!("k{n}"), String::new()))), "must have at most 40 items"),
        ("a tag with every kind of character", tags([("Größe a/b:c_d.e+f=g@h-i 1".into(), "Ü a/b:c_d.e+f=g@h-i 1".into())]), ""),
        ("a tag's key of 128", tags([("k".repeat(128), String::new())]), ""),
        ("a tag's key of 129", tags([("k".repeat(129), String::new())]), tag),
        ("a tag without a key", tags([(String::new(), "v".into())]), tag),
        ("a tag's key with a star", tags([("team*".into(), "v".into())]), tag),
        ("a tag's value with a semicolon", tags([("k".into(), "a;b".into())]), tag),
        ("a tag's value of 257", tags([("k".into(), "v".repeat(257))]), "may not be more than 256"),
        ("a tag of AWS", tags([("aws:createdBy".into(), "v".into())]), reserved_tag),
        ("a tag of AWS in another case", tags([("AwS:createdBy".into(), "v".into())]), reserved_tag),
        ("a tag of the operator", tags([("mtls-operator.io/owner".into(), "v".into())]), reserved_tag),
        ("a tag of the operator in another case", tags([("MTLS-operator.IO/owner".into(), "v".into())]), reserved_tag),
        ("a tag that only contains a prefix", tags([("x-aws:a".into(), "v".into()), ("mtls-operator".into(), "v".into())]), ""),
        // serverCertificate
        ("the default, written out", json!({"spec": {"serverCertificate": {"request": {}}}}), ""),
        ("an existing certificate", json!({"spec": {"serverCertificate": {"existing": {"arn": CERTIFICATE, "ownershipVerificationArn": CERTIFICATE}}}}), ""),
        ("no certificate of either kind", json!({"spec": {"serverCertificate": {}}}), "set exactly one of \
                                           request and existing"),
        ("both kinds of certificate", json!({"spec": {"serverCertificate": {"request": {}, "existing": {"arn": CERTIFICATE}}}}), "set exactly one of request and existing"),
        ("an IAM certificate", json!({"spec": {"serverCertificate": {"existing": {"arn": "arn:aws:iam::123456789012:server-certificate/x"}}}}), "write the whole ARN of an ACM certificate"),
        ("ownership by a name", json!({"spec": {"serverCertificate": {"existing": {"arn": CERTIFICATE, "ownershipVerificationArn": "api.example.com"}}}}), "write the whole ARN of an ACM certificate"),
        ("an unknown key", json!({"spec": {"serverCertificate": {"request": {"keyAlgorithm": "RSA_4096"}}}}), "supported values"),
        ("a name with a scheme", json!({"spec": {"serverCertificate": {"request": {"subjectAlternativeNames": ["https://www.example.com"]}}}}), "write host names in lower case"),
        // trust
        ("each source", authorities(full_domain()["spec"]["trust"]["authorities"].clone()), ""),
        ("no source", authorities(json!([{"name": "a"}])), one_source),
        ("two sources", authorities(json!([{"name": "a", "generate": {}, "secretRef": {"name": "s"}}])), one_source),
        ("a name twice", authorities(json!([{"name": "a", "pem": PEM}, {"name": "a", "pem": PEM}])), "Duplicate value"),
        ("an authority's name in upper case", authorities(json!([{"name": "Partners", "generate": {}}])), "write lower-case letters, digits and dashes, beginning"),
        ("an authority's name with a dot", authorities(json!([{"name": "a.b", "generate": {}}])), "write \
                                                 lower-case letters, digits and dashes, beginning"),
        ("a private key for the truststore", authorities(json!([{"name": "a", "pem": format!("{PEM}-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n")}])), "and no private key"),
        ("PEM of OpenSSL's older label", authorities(json!([{"name": "a", "pem": PEM.replace("CERT", "X509 \
                                                   CERT")}])), ""),
        ("PEM of OpenSSL's trusted form", authorities(json!([{"name": "a", "pem": PEM.replace("CERT", "TRUSTED CERT")}])), ""),
        ("PEM with a byte order mark", authorities(json!([{"name": "a", "pem": format!("\u{feff}{PEM}")}])), ""),
        ("indented PEM in one line", authorities(json!([{"name": "a", "pem": format!("  {}", PEM.replace('\n', " "))}])), ""),
        ("a PKCS #7 bundle for PEM", authorities(json!([{"name": "a", "pem": "-----BEGIN \
                                       PKCS7-----\nMIIB\n-----END PKCS7-----\n"}])), "write PEM certificates"),
        ("a path for PEM", authorities(json!([{"name": "a", "pem": "/etc/ssl/ca.pem"}])), "write PEM \
                                             certificates"),
        ("a Secret by a path", authorities(json!([{"name": "a", "secretRef": {"name": "../../platform/secrets/ca"}}])), object),
        ("a Secret by an escaped path", authorities(json!([{"name": "a", "secretRef": {"name": "..%2fsecrets%2fca"}}])), object),
        ("a Secret by a query", authorities(json!([{"name": "a", "secretRef": {"name": "?labelSelector=x"}}])), object),
        ("a Secret with a dotted name", authorities(json!([{"name": "a", "secretRef": {"name": "a.b-c.example.com"}}])), ""),
        ("a ConfigMap by a path", authorities(json!([{"name": "a", "configMapRef": {"name": "../secrets/ca"}}])), object),
        ("a ConfigMap by a name and a query", authorities(json!([{"name": "a", "configMapRef": {"name": "ca?x=y"}}])), object),
        ("500 ConfigMaps", authorities((0..500).map(|n| json!({"name": format!("a{n}"), "configMapRef": {"name": "a".repeat(253)}})).collect()), ""),
        ("an empty selector", authorities(json!([{"name": "a", "configMapSelector": {"matchLabels": {}}}])), "at least 1 properties"),
        ("two that can issue", authorities(json!([{"name": "a", "generate": {}}, {"name": "b", "generate": {}}])), "more than one authority has generate"),
        ("two that can issue, one chosen", json!({"spec": {"trust": {"issuingAuthority": "b", "authorities": [{"name": "a", "generate": {}}, {"name": "b", "generate": {}}]}}}), ""),
        ("an issuer that is not listed", json!({"spec": {"trust": {"issuingAuthority": "b", "authorities": [{"name": "a", "generate": {}}]}}}), "issuingAuthority must name an entry"),
        ("an issuer without a list", json!({"spec": {"trust": {"issuingAuthority": "b"}}}), "issuingAuthority must name an entry"),
        ("an issuer without a key", json!({"spec": {"trust": {"issuingAuthority": "a", "authorities": [{"name": "a", "pem": PEM}]}}}), "issuingAuthority must name an entry"),
        ("a distrusted issuer", json!({"spec": {"trust": {"issuingAuthority": "a", "authorities": [{"name": "a", "state": "Distrusted", "generate": {}}]}}}), ""),
        ("a brief authority", authorities(json!([{"name": "a", "generate": {"duration": "1h"}}])), "at least \
                                                  24h, as in 87600h"),
        ("an authority for 100 years", authorities(json!([{"name": "a", "generate": {"duration": "876000h"}}])), ""),
        ("years", authorities(json!([{"name": "a", "generate": {"duration": "10y"}}])), "at least 24h, as in \
                                            87600h"),
        ("a number that does not fit", authorities(json!([{"name": "a", "generate": {"duration": "9999999999999999999h"}}])), "at least 24h, as in 87600h"),
        ("an authority's key of an odd size", authorities(json!([{"name": "a", "generate": {"privateKey": {"size": 2048}}}])), "write size 256 or 384 for ECDSA"),
        ("an authority with RSA", authorities(json!([{"name": "a", "generate": {"privateKey": {"algorithm": "RSA"}}}])), ""),
        ("500 authorities", authorities((0..500).map(|n| json!({"name": format!("a{n}"), "secretRef": {"name": "s"}})).collect()), ""),
        ("501 authorities", authorities((0..501).map(|n| json!({"name": format!("a{n}"), "secretRef": {"name": "s"}})).collect()), "must have at most 500 items"),
        ("no overlap", json!({"spec": {"trust": {"overlap": "0s"}}}), ""),
        ("a negative overlap", json!({"spec": {"trust": {"overlap": "-1h"}}}), "at least 0s, as in 720h"),
        ("an empty overlap", json!({"spec": {"trust": {"overlap": ""}}}), "at least 0s, as in 720h"),
        // truststore
        ("a bucket's URL", json!({"spec": {"truststore": {"bucket": "s3://payments"}}}), "write the bucket's \
                                             name only"),
        ("a bucket with a path", json!({"spec": {"truststore": {"bucket": "payments/truststores"}}}), "write \
                                                   the bucket's name only"),
        ("an object's URL", json!({"spec": {"truststore": {"key": "s3://payments/partners.pem"}}}), "write \
                                                  the key without s3://"),
        ("a key with a slash", json!({"spec": {"truststore": {"key": "/partners.pem"}}}), "write the key \
                                             without s3://"),
        ("a KMS key's id", json!({"spec": {"truststore": {"kmsKeyArn": "11111111-2222-3333-4444-555555555555"}}}), "write the whole ARN of a KMS key"),
        ("each encryption", json!({"spec": {"truststore": {"encryption": "BucketDefault"}}}), ""),
        ("encryption by S3", json!({"spec": {"truststore": {"encryption": "SSES3"}}}), ""),
        ("encryption by KMS without a key", json!({"spec": {"truststore": {"encryption": "SSEKMS"}}}), ""),
        ("encryption by S3 with a KMS key", json!({"spec": {"truststore": {"encryption": "SSES3", "kmsKeyArn": KMS_KEY}}}), with_kms_key),
        ("the bucket's encryption with a KMS key", json!({"spec": {"truststore": {"encryption": "BucketDefault", "kmsKeyArn": KMS_KEY}}}), with_kms_key),
        ("an unknown encryption", json!({"spec": {"truststore": {"encryption": "AES256"}}}), "supported values"),
        // mappings
        ("everything", mapping("", "a1b2c3d4e5", "$default"), ""),
        ("several levels", mapping("orders/v2/items", "a1b2c3d4e5", "prod"), ""),
        ("every character", mapping("aZ0$-_.+!*'(),/b", "a1b2c3d4e5", "prod"), ""),
        ("a path of 300", mapping(&"a".repeat(300), "a1b2c3d4e5", "prod"), ""),
        ("a path of 301", mapping(&"a".repeat(301), "a1b2c3d4e5", "prod"), "may not be more than 300"),
        ("a leading slash", mapping("/orders", "a1b2c3d4e5", "prod"), path),
        ("a slash", mapping("/", "a1b2c3d4e5", "prod"), path),
        ("a trailing slash", mapping("orders/", "a1b2c3d4e5", "prod"), path),
        ("a double slash", mapping("orders//v2", "a1b2c3d4e5", "prod"), path),
        ("a parameter", mapping("orders/{id}", "a1b2c3d4e5", "prod"), path),
        ("a host name for an API", mapping("", "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com", "prod"), "write the API's id only"),
        ("a stage with a slash", mapping("", "a1b2c3d4e5", "/prod"), "write the stage's name only"),
        ("a path twice", json!({"spec": {"mappings": [{"path": "", "api": {"id": "a", "stage": "b"}}, {"path": "", "api": {"id": "a", "stage": "c"}}]}}), "Duplicate value"),
        ("200 mappings", json!({"spec": {"mappings": (0..200).map(|n| json!({"path": n.to_string(), "api": {"id": "a", "stage": "b"}})).collect::<Value>()}}), ""),
        // dns
        ("dns elsewhere", json!({"spec": {"dns": {"external": {}}}}), ""),
        ("dns nowhere", json!({"spec": {"dns": {}}}), "set exactly one of route53 and external"),
        ("dns twice", json!({"spec": {"dns": {"route53": {}, "external": {}}}}), "set exactly one of route53 \
                                         and external"),
        ("a zone as Route 53 lists it", json!({"spec": {"dns": {"route53": {"hostedZoneId": "/hostedzone/Z123"}}}}), "write the zone's id only"),
        ("a zone's name", json!({"spec": {"dns": {"route53": {"hostedZoneId": "example.com"}}}}), "write the \
                                                 zone's id only"),
        ("a zone's role by its name", json!({"spec": {"dns": {"route53": {"assumeRole": {"roleArn": "dns"}}}}}), "write the whole ARN of an IAM role"),
        // identity
        ("a header", header("x-client-cert-sub"), ""),
        ("a header in upper case", header("X-Client-Cert-Sub"), "write a header name of lower-case letters"),
        ("one of AWS's headers", header("x-amzn-mtls-clientcert"), "this header has a meaning in API Gateway \
                                                                    or HTTP"),
        ("a header of S3", header("x-amz-meta-cn"), "this header has a meaning in API Gateway or HTTP"),
        ("a reserved header", header("authorization"), "this header has a meaning in API Gateway or HTTP"),
        ("the Host header", header("host"), "this header has a meaning in API Gateway or HTTP"),
        ("the Via header", header("via"), "this header has a meaning in API Gateway or HTTP"),
        ("the Forwarded header", header("forwarded"), "this header has a meaning in API Gateway or HTTP"),
        ("a header of the body", header("content-type"), "this header has a meaning in API Gateway or HTTP"),
        ("a header of a proxy", header("x-forwarded-for"), "this header has a meaning in API Gateway or HTTP"),
        ("a header close to a reserved one", header("x-forwarded-client-cert"), ""),
        ("another one", header("x-amzn"), ""),
        ("no headers", json!({"spec": {"identity": {"headers": []}}}), "should have at least 1 items"),
        ("identity without headers", json!({"spec": {"identity": {}}}), "Required value"),
        ("8 headers", headers(8), ""),
        ("9 headers", headers(9), "must have at most 8 items"),
        ("a header twice", json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {"clientCert": "SubjectDN"}}, {"name": "x-a", "from": {"clientCert": "IssuerDN"}}]}}}), "Duplicate value"),
        ("a header without a source", json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {}}]}}}), "set exactly one of clientCert and authorizerKey"),
        ("a header from two sources", json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {"clientCert": "SubjectDN", "authorizerKey": "cn"}}], "authorizer": {"functionArn": FUNCTION}}}}), "set exactly one of clientCert and authorizerKey"),
        ("a field that no certificate has", json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {"clientCert": "CommonName"}}]}}}), "supported values"),
        ("an authorizer", authorizer(json!({"functionArn": FUNCTION})), ""),
        ("an authorizer in Lambda's other partitions, by alias", authorizer(json!({"functionArn": "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:identity:live"})), ""),
        ("an authorizer for header from certificates", json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {"clientCert": "SubjectDN"}}], "authorizer": {"functionArn": FUNCTION}}}}), ""),
        ("a key without an authorizer", json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {"authorizerKey": "cn"}}]}}}), "set authorizer too"),
        ("a key with a dot", json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {"authorizerKey": "claims.sub"}}], "authorizer": {"functionArn": FUNCTION}}}}), "write a key of letters, digits and _"),
        ("a key that is an expression", json!({"spec": {"identity": {"headers": [{"name": "x-a", "from": {"authorizerKey": "cn}${context.stage"}}], "authorizer": {"functionArn": FUNCTION}}}}), "write a key of letters, digits and _"),
        ("an authorizer by a function's name", authorizer(json!({"functionArn": "identity"})), "write the \
                                                whole ARN of a Lambda function"),
        ("an authorizer by an invocation's URI", authorizer(json!({"functionArn": format!("arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/{FUNCTION}/invocations")})), "write the whole ARN of a Lambda function"),
        ("an existing authorizer", existing("a1b2c3d4e5", "x1y2z3"), ""),
        ("existing authorizers of no API", authorizer(json!({"existing": []})), "should have at least 1 items"),
        ("an existing authorizer by its API's host", existing("a1b2c3d4e5.execute-api", "x1y2z3"), "write \
                                                  the API's id only"),
        ("an existing authorizer by its name", existing("a1b2c3d4e5", "My authorizer"), "write the \
                                            authorizer's id, not its name"),
        ("two existing authorizers of one API", authorizer(json!({"existing": [{"apiId": "a", "authorizerId": "b"}, {"apiId": "a", "authorizerId": "c"}]})), "Duplicate value"),
        ("no authorizer", authorizer(json!({})), "set exactly one of functionArn and existing"),
        ("two authorizers", authorizer(json!({"functionArn": FUNCTION, "existing": [{"apiId": "a", "authorizerId": "b"}]})), "set exactly one of functionArn and existing"),
        // the rest
        ("an enum in lower case", json!({"spec": {"adoptionPolicy": "never"}}), "supported values"),
        ("a bound for clients that is too tight", json!({"spec": {"clients": {"maxDuration": "30m"}}}), "at \
                                                    least 1h, as in 2160h"),
    ]
}

#[rustfmt::skip]
pub fn domain_changes() -> Vec<Change> {
    let region = "aws.region cannot be set, changed or removed later";
    let account = "aws.accountId cannot be set, changed or removed later";
    let issuing_b = json!({"spec": {"trust": {"issuingAuthority": "b", "authorities": [{"name": "a", "generate": {}}, {"name": "b", "generate": {}}]}}});
    vec![
        ("nothing", json!({}), json!({}), ""),
        ("the domain's name", json!({}), domain_name("other.example.com"), "domainName is immutable"),
        ("aws to no aws that says anything", json!({}), json!({"spec": {"aws": {"assumeRole": {"roleArn": ROLE}}}}), ""),
        ("region, unset to set", json!({}), json!({"spec": {"aws": {"region": "eu-west-1"}}}), region),
        ("region, unset to set beside accountId", json!({"spec": {"aws": {"accountId": "123456789012"}}}), json!({"spec": {"aws": {"region": "eu-west-1"}}}), region),
        ("region, set to set", json!({"spec": {"aws": {"region": "eu-west-1"}}}), json!({"spec": {"aws": {"region": "eu-west-2"}}}), region),
        ("region, set to unset", json!({"spec": {"aws": {"region": "eu-west-1"}}}), json!({"spec": {"aws": null}}), region),
        ("accountId, unset to set", json!({}), json!({"spec": {"aws": {"accountId": "123456789012"}}}), account),
        ("accountId, set to set", json!({"spec": {"aws": {"accountId": "123456789012"}}}), json!({"spec": {"aws": {"accountId": "210987654321"}}}), account),
        ("accountId, set to unset", json!({"spec": {"aws": {"accountId": "123456789012", "region": "eu-west-1"}}}), json!({"spec": {"aws": {"accountId": null}}}), account),
        ("a generated authority's values", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([{"name": "a", "generate": {"commonName": "b"}}])), "generate is immutable"),
        ("a generated authority's key", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([{"name": "a", "generate": {"privateKey": {"algorithm": "RSA"}}}])), "generate is immutable"),
        ("a generated authority's validity", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([{"name": "a", "generate": {"duration": "24h"}}])), "generate is immutable"),
        ("a generated authority's organizations", authorities(json!([{"name": "a", "generate": {"organizations": ["b"]}}])), authorities(json!([{"name": "a", "generate": {}}])), "generate is immutable"),
        ("a generated authority's empty list, left out", authorities(json!([{"name": "a", "generate": {"organizations": []}}])), authorities(json!([{"name": "a", "generate": {}}])), ""),
        ("a generated authority's empty list, written out", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([{"name": "a", "generate": {"organizations": []}}])), ""),
        ("a generated authority's default, written out", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([{"name": "a", "generate": {"duration": "87600h"}}])), ""),
        ("a generated authority's default, left out", authorities(json!([{"name": "a", "generate": {"duration": "87600h"}}])), authorities(json!([{"name": "a", "generate": {}}])), ""),
        ("a generated authority's key, written out", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([{"name": "a", "generate": {"privateKey": {"algorithm": "ECDSA", "size": 256}}}])), ""),
        ("a generated authority's key, left out", authorities(json!([{"name": "a", "generate": {"privateKey": {"algorithm": "ECDSA", "size": 256}}}])), authorities(json!([{"name": "a", "generate": {"privateKey": {}}}])), ""),
        ("a generated authority's RSA key, written out", authorities(json!([{"name": "a", "generate": {"privateKey": {"algorithm": "RSA"}}}])), authorities(json!([{"name": "a", "generate": {"privateKey": {"algorithm": "RSA", "size": 2048}}}])), ""),
        ("a generated authority's RSA key, left out", authorities(json!([{"name": "a", "generate": {"privateKey": {"algorithm": "RSA"}}}])), authorities(json!([{"name": "a", "generate": {"privateKey": {}}}])), "generate is immutable"),
        ("a generated authority's larger key, left out", authorities(json!([{"name": "a", "generate": {"privateKey": {"size": 384}}}])), authorities(json!([{"name": "a", "generate": {}}])), "generate is immutable"),
        ("a generated authority's validity, left out", authorities(json!([{"name": "a", "generate": {"duration": "24h"}}])), authorities(json!([{"name": "a", "generate": {}}])), "generate is immutable"),
        ("generated to referenced", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([{"name": "a", "secretRef": {"name": "s"}}])), "generate cannot be added to or taken from"),
        ("referenced to generated", authorities(json!([{"name": "a", "secretRef": {"name": "s"}}])), authorities(json!([{"name": "a", "generate": {}}])), "generate cannot be added to or taken from"),
        ("another authority", authorities(json!([{"name": "a", "generate": {}}])), issuing_b, ""),
        ("distrust", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([{"name": "a", "state": "Distrusted", "generate": {}}])), ""),
        ("an authority goes", authorities(json!([{"name": "a", "generate": {}}])), authorities(json!([])), ""),
        ("a mapping's API", mapping("", "a1", "prod"), mapping("", "a2", "$default"), ""),
        ("the certificate's kind", json!({}), json!({"spec": {"serverCertificate": {"existing": {"arn": CERTIFICATE}}}}), ""),
    ]
}

#[rustfmt::skip]
pub fn certificate() -> Vec<Creation> {
    let one_of = "set exactly one of subject (the operator makes the key) and csr";
    let with_csr = |more: Value| super::merged(&json!({"spec": {"subject": null, "csr": CSR}}), &json!({"spec": more}));
    let csr_alone = "with csr leave out privateKey and keystores";
    let self_signed = "with issuance SelfSigned leave out csr and authority";
    let too_long = "may have 8192 characters together";
    let template = |labels: usize, annotation: usize| {
        let label = |n| (format!("{n:02}"), json!("a".repeat(62)));
        let labels: serde_json::Map<String, Value> = (0..labels).map(label).collect();
        json!({"spec": {"secretTemplate": {"labels": labels, "annotations": {"a": "b".repeat(annotation)}}}})
    };
    let fat = "labels and annotations may have 16384 bytes together";
    let ours = "leave out keys that begin with mtls-operator.io/";
    let uri = |length: usize| format!("a:{}", "b".repeat(length - 2));
    let object = "write the name of an object: lower-case letters";
    vec![
        ("nothing but a subject", json!({}), ""),
        ("metadata.name of 64", name_of(64), "metadata.name must have at most 63"),
        ("no domainRef", json!({"spec": {"domainRef": null}}), "spec.domainRef: Required value"),
        // subject or csr
        ("neither subject nor csr", json!({"spec": {"subject": null}}), one_of),
        ("both subject and csr", json!({"spec": {"csr": CSR}}), one_of),
        ("a csr", with_csr(json!({})), ""),
        ("a csr and empty lists", with_csr(json!({"dnsNames": [], "uris": [], "emailAddresses": []})), ""),
        ("a csr and a key", with_csr(json!({"privateKey": {}})), csr_alone),
        ("a csr and a keystore", with_csr(json!({"keystores": {}})), csr_alone),
        ("a csr and names", with_csr(json!({"dnsNames": ["a.example.com"]})), csr_alone),
        ("a csr and URIs", with_csr(json!({"uris": ["a:b"]})), csr_alone),
        ("a csr and addresses", with_csr(json!({"emailAddresses": ["a@b"]})), csr_alone),
        ("a csr in the older form", json!({"spec": {"subject": null, "csr": "-----BEGIN NEW CERTIFICATE \
                                      REQUEST-----\nMIIB"}}), ""),
        ("a certificate for a csr", json!({"spec": {"subject": null, "csr": PEM}}), "write a PEM certificate \
                                          signing request"),
        // issuance
        ("self-signed", json!({"spec": {"issuance": "SelfSigned"}}), ""),
        ("self-signed with a csr", with_csr(json!({"issuance": "SelfSigned"})), self_signed),
        ("self-signed by an authority", json!({"spec": {"issuance": "SelfSigned", "authority": "partners"}}), self_signed),
        // names
        ("no common name", json!({"spec": {"subject": {"commonName": null}}}), "spec.subject.commonName: \
                                        Required value"),
        ("a common name of 65", json!({"spec": {"subject": {"commonName": "a".repeat(65)}}}), "may not be \
                                               more than 64"),
        ("a country in lower case", json!({"spec": {"subject": {"countries": ["de"]}}}), "write two-letter \
                                             country codes"),
        ("a country's name", json!({"spec": {"subject": {"countries": ["Germany"]}}}), "write two-letter \
                                            country codes"),
        ("DNS names", json!({"spec": {"dnsNames": ["client1", "client1.example.com", "*.example.com"]}}), ""),
        ("a DNS name with a blank", json!({"spec": {"dnsNames": ["client1.example.com", "client 2"]}}), "write host names in lower case"),
        ("names of 8192 bytes", json!({"spec": {"dnsNames": ["a.example.com"], "emailAddresses": ["a@example.com"],
            "uris": [uri(2048), uri(2048), uri(2048), uri(2022)]}}), ""),
        ("names of 8193 bytes", json!({"spec": {"dnsNames": ["a.example.com"], "emailAddresses": ["a@example.com"],
            "uris": [uri(2048), uri(2048), uri(2048), uri(2023)]}}), too_long),
        ("long DNS names", json!({"spec": {"dnsNames": (0..33).map(|n| format!("n{n:02}.{}", "a.".repeat(124) + "a")).collect::<Value>()}}), too_long),
        ("long mail addresses", json!({"spec": {"emailAddresses": (0..50).map(|n| format!("n{n:02}@{}", "a".repeat(200))).collect::<Value>()}}), too_long),
        ("a URI without a scheme", json!({"spec": {"uris": ["example.com/client1"]}}), "write URIs with \
                                            their scheme"),
        ("a mail address with a name", json!({"spec": {"emailAddresses": ["Ops <ops@example.com>"]}}), "write bare mail addresses"),
        // times
        ("a short validity", json!({"spec": {"duration": "1h", "renewBefore": "5m"}}), ""),
        ("a validity as Go writes it", json!({"spec": {"duration": "2160h0m0s"}}), ""),
        ("too short a validity", json!({"spec": {"duration": "59m"}}), "at least 1h, as in 2160h"),
        ("a validity in days", json!({"spec": {"duration": "90d"}}), "at least 1h, as in 2160h"),
        ("renewed too late", json!({"spec": {"renewBefore": "1m"}}), "at least 5m, as in 720h"),
        ("renewed before it is issued", json!({"spec": {"duration": "24h", "renewBefore": "24h"}}), "renewBefore must be shorter than duration"),
        ("renewed before it is issued, by default", json!({"spec": {"renewBefore": "2160h"}}), "renewBefore \
                                                must be shorter than duration"),
        ("two times to renew", json!({"spec": {"renewBefore": "1h", "renewBeforePercentage": 30}}), "set at \
                                                  most one of renewBefore and renewBeforePercentage"),
        ("a percentage", json!({"spec": {"renewBeforePercentage": 99}}), ""),
        ("all of its validity", json!({"spec": {"renewBeforePercentage": 100}}), "less than or equal to 99"),
        // key and Secret
        ("RSA", json!({"spec": {"privateKey": {"algorithm": "RSA", "size": 4096}}}), ""),
        ("a size alone", json!({"spec": {"privateKey": {"size": 384}}}), ""),
        ("an RSA key of a curve's size", json!({"spec": {"privateKey": {"algorithm": "RSA", "size": 256}}}), "write size 256 or 384 for ECDSA"),
        ("Ed25519", json!({"spec": {"privateKey": {"algorithm": "Ed25519"}}}), "supported values"),
        ("a Secret's name in upper case", json!({"spec": {"secretName": "Client1"}}), object),
        ("a Secret's name with two dots", json!({"spec": {"secretName": "a..b"}}), object),
        ("a Secret's name with dots", json!({"spec": {"secretName": "client1.mtls"}}), ""),
        ("a password's Secret by a path", json!({"spec": {"keystores": {"pkcs12": {"passwordSecretRef": {"name": "../p", "key": "k"}}}}}), object),
        ("a domain by a path", json!({"spec": {"domainRef": {"name": "../partners"}}}), object),
        ("a domain's namespace by a path", json!({"spec": {"domainRef": {"namespace": "a/b"}}}), object),
        ("a label of the operator's", json!({"spec": {"secretTemplate": {"labels": {"a": "b", "mtls-operator.io/trusted-by": "partners"}}}}), ours),
        ("an annotation of the operator's", json!({"spec": {"secretTemplate": {"annotations": {"mtls-operator.io/revision": "9"}}}}), ours),
        ("a key close to the operator's", json!({"spec": {"secretTemplate": {"labels": {"mtls-operator.io": "a", "my.mtls-operator.io/a": "b"}}}}), ""),
        ("metadata of 16384 bytes", template(50, 13_183), ""),
        ("metadata of 16385 bytes", template(50, 13_184), fat),
        ("an annotation of 16385 bytes", template(0, 16_384), fat),
        ("metadata of 16385 bytes in fewer characters", json!({"spec": {"secretTemplate": {"annotations": {"a": "\u{fc}".repeat(8192)}}}}), fat),
        ("a label that is no label", json!({"spec": {"secretTemplate": {"labels": {"a": "b".repeat(64)}}}}), "may not be more than 63"),
        ("a keystore without a password", json!({"spec": {"keystores": {"pkcs12": {}}}}), "passwordSecretRef: Required value"),
    ]
}

#[rustfmt::skip]
pub fn certificate_changes() -> Vec<Change> {
    let with_csr = json!({"spec": {"subject": null, "csr": CSR}});
    let chosen = "whether subject or csr is chosen at creation";
    let secret = "secretName cannot be set, changed or removed later";
    vec![
        ("nothing", json!({}), json!({}), ""),
        ("the domain", json!({}), json!({"spec": {"domainRef": {"name": "other"}}}), "domainRef is immutable"),
        ("the domain's namespace, unset to set", json!({}), json!({"spec": {"domainRef": {"namespace": "default"}}}), "domainRef is immutable"),
        ("who signs", json!({}), json!({"spec": {"issuance": "SelfSigned"}}), "issuance is immutable"),
        ("who signs, the default written out", json!({}), json!({"spec": {"issuance": "Authority"}}), ""),
        ("subject to csr", json!({}), with_csr.clone(), chosen),
        ("csr to subject", with_csr.clone(), json!({"spec": {"csr": null, "subject": {"commonName": "client1"}}}), chosen),
        ("another csr", with_csr, json!({"spec": {"csr": format!("{CSR}\n")}}), ""),
        ("secretName, unset to set", json!({}), json!({"spec": {"secretName": "other"}}), secret),
        ("secretName, set to set", json!({"spec": {"secretName": "one"}}), json!({"spec": {"secretName": "other"}}), secret),
        ("secretName, set to unset", json!({"spec": {"secretName": "one"}}), json!({"spec": {"secretName": null}}), secret),
        ("subject, names, times, key, authority", json!({}), json!({"spec": {"subject": {"commonName": "client2"}, "dnsNames": ["a.example.com"], "duration": "24h",
            "privateKey": {"algorithm": "RSA"}, "authority": "partners"}}), ""),
    ]
}
