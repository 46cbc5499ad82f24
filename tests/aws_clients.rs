//! The AWS clients over the wire, against the AWS emulator. Each test has an account of its own.
//!
//! `Session` takes its endpoint and credentials from the environment, as in a cluster. The first test starts
//! the AWS emulator, and then runs this binary again with that environment and with the tests that are
//! ignored here.

use aws_sdk_s3::config::{BehaviorVersion, Credentials};
use futures::StreamExt;
use mtls_operator::aws::acm::{
    Certificate, CertificateKind, CertificateRequest, CertificateStatus, KeyAlgorithm, Renewal,
    RenewalStatus, ValidationStatus,
};
use mtls_operator::aws::arn::Arn;
use mtls_operator::aws::call_guard::Gate;
use mtls_operator::aws::errors::{Error, Kind};
use mtls_operator::aws::gateway::{
    apis::Protocol,
    authorizers::Authorization,
    domains::{DomainRequest, DomainStatus, IpAddressType},
};
use mtls_operator::aws::quota::{Bucket, Class, Grant, Quota, Ticket};
use mtls_operator::aws::rates::{Operation, Rates};
use mtls_operator::aws::route53::{Action, Alias, Change, RecordSet};
use mtls_operator::aws::s3::{Encryption, Settings};
use mtls_operator::aws::session::{Access, RoleToAssume, Session, Sessions};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test]
async fn aws_clients_pass_against_the_emulator() {
    let dir = tempfile::tempdir().unwrap();
    let aws = sandbox::aws::Aws::start(dir.path(), &sandbox::aws::Options::default())
        .await
        .unwrap();
    let account = aws.new_account();
    let this = std::env::current_exe().unwrap();
    let status = tokio::task::spawn_blocking(move || {
        std::process::Command::new(this)
            .arg("--ignored")
            .envs(account.env())
            .env_remove("AWS_PROFILE")
            .status()
    });
    assert!(status.await.unwrap().unwrap().success(), "see above");
}

const REGION: &str = "eu-west-1";

fn gate(rates: &[&str]) -> Gate {
    let rates: Vec<_> = rates.iter().map(|r| r.parse().unwrap()).collect();
    Gate::new(Quota::new(Rates::with(&rates)), || true)
}

/// Session of an account that no other test uses. The AWS emulator lets every caller assume any role.
async fn session_in(account: &str, gate: &Gate) -> Session {
    let base = Session::connect(Some(REGION), gate).await.unwrap();
    let session = base.assume_role(&role(account, "mtls-operator")).await.unwrap();
    assert_eq!(
        (session.account.as_str(), session.region.as_str()),
        (account, REGION)
    );
    emulator(
        &format!("config?account={account}"),
        json!({"issue_delay": 0, "update_settle": 0}),
    )
    .await;
    session
}

async fn session(account: &str) -> Session {
    session_in(account, &gate(&["*=unlimited"])).await
}

/// Calls the control API of the AWS emulator.
async fn emulator(call: &str, body: Value) -> Value {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let endpoint = std::env::var("AWS_ENDPOINT_URL").expect("AWS_ENDPOINT_URL: the AWS emulator");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = match body {
        Value::Null => client.get(format!("{endpoint}/_double/{call}")),
        body => client
            .post(format!("{endpoint}/_double/{call}"))
            .body(body.to_string()),
    };
    let answer = request.send().await.unwrap().error_for_status().unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// Resources that an account has before the operator runs. The SDK creates them, because the operator creates
/// none of them.
struct Given {
    acm: aws_sdk_acm::Client,
    gateway: aws_sdk_apigatewayv2::Client,
    rest: aws_sdk_apigateway::Client,
    route53: aws_sdk_route53::Client,
    s3: aws_sdk_s3::Client,
}

impl Given {
    async fn new(account: &str) -> Given {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(REGION)
            .credentials_provider(Credentials::new(account, "x", None, None, "test"))
            .http_client(http)
            .load()
            .await;
        Given {
            acm: aws_sdk_acm::Client::new(&config),
            gateway: aws_sdk_apigatewayv2::Client::new(&config),
            rest: aws_sdk_apigateway::Client::new(&config),
            route53: aws_sdk_route53::Client::new(&config),
            s3: aws_sdk_s3::Client::new(&config),
        }
    }

    async fn bucket(&self, name: &str, versioned: bool) {
        use aws_sdk_s3::types::*;
        let place = CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::EuWest1)
            .build();
        self.s3
            .create_bucket()
            .bucket(name)
            .create_bucket_configuration(place)
            .send()
            .await
            .unwrap();
        if versioned {
            let on = VersioningConfiguration::builder()
                .status(BucketVersioningStatus::Enabled)
                .build();
            self.s3
                .put_bucket_versioning()
                .bucket(name)
                .versioning_configuration(on)
                .send()
                .await
                .unwrap();
        }
    }

    async fn zone(&self, name: &str) -> String {
        let made = self
            .route53
            .create_hosted_zone()
            .name(name)
            .caller_reference(name)
            .send()
            .await
            .unwrap();
        made.hosted_zone
            .unwrap()
            .id
            .trim_start_matches("/hostedzone/")
            .to_owned()
    }

    async fn api(&self, name: &str) -> String {
        let http = aws_sdk_apigatewayv2::types::ProtocolType::Http;
        let made = self
            .gateway
            .create_api()
            .name(name)
            .protocol_type(http)
            .send()
            .await
            .unwrap();
        made.api_id.unwrap()
    }

    async fn stage(&self, api: &str, name: &str, auto_deploy: bool) {
        self.gateway
            .create_stage()
            .api_id(api)
            .stage_name(name)
            .auto_deploy(auto_deploy)
            .send()
            .await
            .unwrap();
    }
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

fn request(name: &str, key_algorithm: KeyAlgorithm, token: &str) -> CertificateRequest {
    CertificateRequest {
        domain_name: name.into(),
        names: vec![],
        key_algorithm,
        idempotency_token: token.into(),
        tags: tags(&[("mtls-operator.io/owner", "c/n/m")]),
    }
}

fn alias(name: &str, kind: &str, target: &str) -> RecordSet {
    RecordSet {
        name: name.into(),
        kind: kind.into(),
        ttl: None,
        values: vec![],
        alias: Some(Alias {
            target: target.into(),
            hosted_zone_id: "ZLY8HYME6SFDD".into(),
            evaluate_target_health: false,
        }),
        routed: false,
    }
}

fn plain(name: &str, kind: &str, value: &str) -> RecordSet {
    RecordSet {
        name: name.into(),
        kind: kind.into(),
        ttl: Some(300),
        values: vec![value.into()],
        alias: None,
        routed: false,
    }
}

fn change(action: Action, record: &RecordSet) -> Change {
    Change {
        action,
        record: record.clone(),
    }
}

/// Creates a certificate that is ISSUED for the name, validated through a zone that is created for it.
async fn issued(session: &Session, given: &Given, name: &str) -> String {
    let zone = given.zone(name).await;
    let arn = session
        .acm
        .request(&request(name, KeyAlgorithm::EcPrime256v1, "issued"))
        .await
        .unwrap();
    let found = session.acm.certificate(&arn).await.unwrap().unwrap();
    let (record, value) = found.validation[0].record.clone().unwrap();
    let cname = plain(&record, "CNAME", &value);
    session
        .route53
        .change(&zone, &[change(Action::Upsert, &cname)])
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while session.acm.certificate(&arn).await.unwrap().unwrap().status != CertificateStatus::Issued {
        assert!(tokio::time::Instant::now() < deadline, "never issued");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    arn
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn certificates_of_every_key_are_found_and_requested_once() {
    let account = "910000000001";
    let (session, given) = (session(account).await, Given::new(account).await);
    let name = "acm.example.com";
    for (algorithm, token) in [
        (KeyAlgorithm::EcPrime256v1, "ec"),
        (KeyAlgorithm::Rsa2048, "rsa"),
        (KeyAlgorithm::EcSecp384r1, "ec384"),
    ] {
        let request = request(name, algorithm.clone(), token);
        let arn = session.acm.request(&request).await.unwrap();
        assert_eq!(
            session.acm.request(&request).await.unwrap(),
            arn,
            "the token keeps it one"
        );
        let found = certificates(&session, name).await.unwrap();
        let found = found
            .iter()
            .find(|c| c.arn == arn)
            .unwrap_or_else(|| panic!("{algorithm:?} in {found:?}"));
        assert_eq!(found.key_algorithm, algorithm);
        assert_eq!(found.status, CertificateStatus::PendingValidation);
        assert_eq!(found.kind, CertificateKind::Requested);
        assert_eq!(
            (found.domain_name.as_str(), found.names.as_slice()),
            (name, [name.to_owned()].as_slice())
        );
        assert_eq!(found.tags, request.tags);
        assert!(!found.in_use && found.not_after.is_none() && found.created_at.is_some());
        let validation = &found.validation[0];
        assert_eq!(
            (validation.domain.as_str(), validation.status),
            (name, ValidationStatus::Pending)
        );
        let (record, value) = validation.record.as_ref().unwrap();
        assert!(
            record.ends_with(".acm.example.com") && value.contains("acm-validations.aws"),
            "{record} {value}"
        );
    }
    session
        .acm
        .request(&request("other.example.com", KeyAlgorithm::Rsa2048, "o"))
        .await
        .unwrap();
    assert_eq!(
        certificates(&session, name).await.unwrap().len(),
        3,
        "of other names none"
    );

    // A certificate that another user imported.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["imported.example.com".into()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let cert = params.self_signed(&key).unwrap();
    given
        .acm
        .import_certificate()
        .certificate(aws_sdk_acm::primitives::Blob::new(cert.pem()))
        .private_key(aws_sdk_acm::primitives::Blob::new(key.serialize_pem()))
        .send()
        .await
        .unwrap();
    let imported = certificates(&session, "imported.example.com").await.unwrap();
    assert_eq!(imported[0].kind, CertificateKind::Imported);
    assert!(imported[0].not_after.is_some());

    // ACM may not know a just requested certificate for a while: the client finds nothing, and nothing fails.
    emulator(
        &format!("config?account={account}"),
        json!({"certificate_delay": 60}),
    )
    .await;
    let young = session
        .acm
        .request(&request("young.example.com", KeyAlgorithm::Rsa2048, "y"))
        .await
        .unwrap();
    assert_eq!(session.acm.certificate(&young).await.unwrap(), None);
    assert_eq!(certificates(&session, "young.example.com").await.unwrap(), []);
    // ACM knows the certificate, but not its validation record yet.
    emulator(
        &format!("config?account={account}"),
        json!({"certificate_delay": 0, "record_delay": 60}),
    )
    .await;
    let found = certificates(&session, "young.example.com").await.unwrap();
    assert_eq!(found[0].validation[0].record, None);

    emulator(
        "acm",
        json!({"arn": young, "status": "FAILED", "reason": "CAA_ERROR"}),
    )
    .await;
    let failed = session.acm.certificate(&young).await.unwrap().unwrap();
    assert_eq!(
        (failed.status, failed.failure.as_deref()),
        (CertificateStatus::Failed, Some("CAA_ERROR"))
    );
    assert_eq!(failed.renewal, None);
    emulator(
        "acm",
        json!({"arn": young, "renewal": "FAILED", "reason": "DOMAIN_NOT_ALLOWED", "created_at": 1e9}),
    )
    .await;
    let renewed = session.acm.certificate(&young).await.unwrap().unwrap();
    let reason = Some("DOMAIN_NOT_ALLOWED".to_owned());
    assert_eq!(
        renewed.renewal,
        Some(Renewal {
            status: RenewalStatus::Failed,
            reason
        })
    );
    assert_eq!(renewed.created_at.map(|at| at.as_second()), Some(1_000_000_000));
    session.acm.delete(&young).await.unwrap();
    assert_eq!(session.acm.delete(&young).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn lists_go_on_over_their_pages() {
    let account = "910000000002";
    let (session, given) = (session(account).await, Given::new(account).await);
    let many = |n| futures::stream::iter(0..n);
    many(1001)
        .for_each_concurrent(16, async |i| {
            let name = format!("n{i}.example.com");
            session
                .acm
                .request(&request(&name, KeyAlgorithm::Rsa2048, &format!("t{i}")))
                .await
                .unwrap();
        })
        .await;
    for name in ["n0.example.com", "n500.example.com", "n1000.example.com"] {
        assert_eq!(certificates(&session, name).await.unwrap().len(), 1, "{name}");
    }

    many(101)
        .for_each_concurrent(16, async |i| drop(given.zone(&format!("z{i}.example.com")).await))
        .await;
    let zones = session.route53.zones().await.unwrap();
    assert_eq!(zones.len(), 101);

    let bucket = "pages-truststores";
    given.bucket(bucket, true).await;
    let nothing = Settings::default();
    many(1001)
        .for_each_concurrent(16, async |_| {
            drop(session.s3.put(bucket, "t.pem", vec![], &nothing).await.unwrap())
        })
        .await;
    session.s3.put(bucket, "t.pem2", vec![], &nothing).await.unwrap();
    let versions = session.s3.versions(bucket, "t.pem").await.unwrap();
    let ids: BTreeSet<_> = versions.iter().map(|v| v.id.as_str()).collect();
    assert_eq!((versions.len(), ids.len()), (1001, 1001));
    let latest = session.s3.head(bucket, "t.pem").await.unwrap().unwrap();
    assert_eq!((&versions[0].id, versions[0].latest), (&latest.version, true));
    assert!(versions[1..].iter().all(|v| !v.latest));
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn an_object_has_versions_and_only_its_own() {
    let account = "910000000003";
    let (session, given) = (session(account).await, Given::new(account).await);
    let s3 = &session.s3;
    given.bucket("clients-truststores", true).await;
    given.bucket("clients-plain", false).await;
    assert_eq!(s3.bucket("clients-nowhere").await.unwrap(), None);
    let found = s3.bucket("clients-truststores").await.unwrap().unwrap();
    assert_eq!((found.region.as_str(), found.versioned), (REGION, true));
    assert!(!s3.bucket("clients-plain").await.unwrap().unwrap().versioned);

    let with = |metadata: &BTreeMap<String, String>| Settings {
        metadata: metadata.clone(),
        ..Settings::default()
    };
    let (bucket, key) = ("clients-truststores", "payments/partners.pem");
    assert_eq!(s3.head(bucket, key).await.unwrap(), None);
    let owner = tags(&[("owner", "c/n/m")]);
    let one = s3.put(bucket, key, b"one".to_vec(), &with(&owner)).await.unwrap();
    let two = s3
        .put(bucket, key, b"second".to_vec(), &with(&owner))
        .await
        .unwrap();
    s3.put(bucket, "payments/partners.pem.bak", b"x".to_vec(), &with(&owner))
        .await
        .unwrap();
    assert_ne!(one, two);
    let latest = s3.head(bucket, key).await.unwrap().unwrap();
    assert_eq!(
        (latest.version.as_str(), &latest.metadata, latest.size),
        (two.as_str(), &owner, 6)
    );
    let old = s3.get(bucket, key, &one).await.unwrap().unwrap();
    assert_eq!((old.bytes.as_slice(), &old.metadata), (b"one".as_slice(), &owner));

    given
        .s3
        .delete_object()
        .bucket(bucket)
        .key(key)
        .send()
        .await
        .unwrap();
    assert_eq!(s3.head(bucket, key).await.unwrap(), None, "deleted");
    assert!(
        s3.get(bucket, key, &two).await.unwrap().is_some(),
        "but not the version"
    );
    let versions = s3.versions(bucket, key).await.unwrap();
    assert_eq!(versions.len(), 3, "{versions:?}");
    assert!(versions[0].delete_marker && versions[0].latest);
    assert_eq!(
        s3.get(bucket, key, &versions[0].id).await.unwrap(),
        None,
        "a delete marker has no bytes"
    );
    for version in versions {
        s3.delete_version(bucket, key, &version.id).await.unwrap();
        s3.delete_version(bucket, key, &version.id).await.unwrap();
    }
    assert_eq!(s3.versions(bucket, key).await.unwrap(), []);
    assert_eq!(s3.get(bucket, key, &one).await.unwrap(), None);

    // Tags and encryption go with the object.
    for (encryption, algorithm) in [
        (None, None),
        (Some(Encryption::SseS3), Some("AES256")),
        (Some(Encryption::SseKms), Some("aws:kms")),
    ] {
        let wanted = Settings {
            tags: tags(&[("cost center", "a=b&c"), ("ü", "")]),
            encryption,
            ..Settings::default()
        };
        s3.put(bucket, "tagged", b"x".to_vec(), &wanted).await.unwrap();
        let found = given
            .s3
            .head_object()
            .bucket(bucket)
            .key("tagged")
            .send()
            .await
            .unwrap();
        let shown = found.server_side_encryption.map(|e| e.as_str().to_owned());
        if algorithm.is_some() {
            assert_eq!(shown.as_deref(), algorithm);
        }
        let found = given
            .s3
            .get_object_tagging()
            .bucket(bucket)
            .key("tagged")
            .send()
            .await
            .unwrap();
        let found = found
            .tag_set
            .into_iter()
            .map(|tag| (tag.key, tag.value))
            .collect();
        assert_eq!(wanted.tags, found);
    }
    // The tags of a bucket: those of others stay.
    s3.tag_bucket(bucket, &tags(&[("a", "1"), ("b", "2")]))
        .await
        .unwrap();
    s3.tag_bucket(bucket, &tags(&[("b", "3"), ("c", "4")]))
        .await
        .unwrap();
    assert_eq!(
        s3.bucket_tags(bucket).await.unwrap(),
        tags(&[("a", "1"), ("b", "3"), ("c", "4")])
    );

    // An object without a version cannot be pinned. A bucket with new versioning returns no versions for a
    // while.
    let refused = s3
        .put("clients-plain", key, b"x".to_vec(), &with(&owner))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::Transient, "{refused}");
    // A bucket of another account.
    let stranger = Given::new("910000000093").await;
    stranger.bucket("clients-strangers", true).await;
    let not_owned = s3.bucket("clients-strangers").await;
    assert!(
        matches!(&not_owned, Err(e) if e.kind == Kind::Denied) || matches!(not_owned, Ok(None)),
        "{not_owned:?}"
    );
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn an_object_of_any_account_and_region_is_read_where_its_bucket_lets_us() {
    let account = "910000000094";
    let (session, here) = (session(account).await, Given::new(account).await);
    let (bucket, key) = ("clients-anywhere", "t.pem");
    assert_eq!(session.s3.get_anywhere(bucket, key, "").await.unwrap(), None);
    let theirs = Given::new("910000000095").await;
    theirs.bucket(bucket, true).await;
    let put = async |text: &'static str| {
        let body = aws_sdk_s3::primitives::ByteStream::from_static(text.as_bytes());
        let put = theirs.s3.put_object().bucket(bucket).key(key).body(body);
        put.send().await.unwrap().version_id.unwrap()
    };
    let old = put("old").await;
    put("new").await;
    let refused = session.s3.get_anywhere(bucket, key, &old).await.unwrap_err();
    assert_eq!((refused.kind, refused.operation), (Kind::Denied, "s3:GetObject"));
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{account}:root")},
        "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": format!("arn:aws:s3:::{bucket}/*"),
    }]});
    let allow = theirs
        .s3
        .put_bucket_policy()
        .bucket(bucket)
        .policy(policy.to_string());
    allow.send().await.unwrap();
    for (version, expected) in [(old.as_str(), "old"), ("", "new")] {
        let content = session.s3.get_anywhere(bucket, key, version).await.unwrap();
        assert_eq!(content.unwrap().bytes, expected.as_bytes());
    }
    assert_eq!(
        session.s3.get(bucket, key, &old).await.unwrap_err().kind,
        Kind::Denied
    );

    // The session is in eu-west-1, where S3 does not answer for this bucket.
    let there = aws_sdk_s3::Client::from_conf(
        here.s3
            .config()
            .to_builder()
            .region(aws_config::Region::new("us-east-1"))
            .build(),
    );
    there
        .create_bucket()
        .bucket("clients-elsewhere")
        .send()
        .await
        .unwrap();
    let body = aws_sdk_s3::primitives::ByteStream::from_static(b"far");
    let put = there.put_object().bucket("clients-elsewhere").key(key).body(body);
    put.send().await.unwrap();
    assert!(session.s3.get("clients-elsewhere", key, "").await.is_err());
    let content = session
        .s3
        .get_anywhere("clients-elsewhere", key, "")
        .await
        .unwrap();
    assert_eq!(content.unwrap().bytes, b"far");
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn records_are_made_once_changed_and_removed_exactly() {
    let account = "910000000004";
    let (session, given) = (session(account).await, Given::new(account).await);
    let r53 = &session.route53;
    let zone = given.zone("records.example.com").await;
    let found = r53.zones().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].id.as_str(), found[0].name.as_str(), found[0].private),
        (&*zone, "records.example.com", false)
    );
    assert_eq!(r53.zone(&zone).await.unwrap().as_ref(), Some(&found[0]));
    assert_eq!(r53.zone("Z0000000000NONE").await.unwrap(), None);

    let name = "api.records.example.com";
    let a = alias(name, "A", "d-abc.execute-api.eu-west-1.amazonaws.com");
    let txt = plain("_mtls-operator.api.records.example.com", "TXT", "\"heritage\"");
    let id = r53
        .change(&zone, &[change(Action::Create, &a), change(Action::Create, &txt)])
        .await
        .unwrap();
    assert!(!id.contains('/'), "{id}");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !r53.change_in_sync(&id).await.unwrap() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        r53.records(&zone, "API.records.example.com.").await.unwrap(),
        std::slice::from_ref(&a)
    );
    assert_eq!(
        r53.records(&zone, &txt.name).await.unwrap(),
        std::slice::from_ref(&txt)
    );
    assert_eq!(
        r53.records(&zone, "nothing.records.example.com").await.unwrap(),
        []
    );
    assert_eq!(
        r53.records("Z0000000000NONE", name).await.unwrap_err().kind,
        Kind::NotFound
    );
    let star = plain("*.records.example.com", "CNAME", "elsewhere.example.net");
    r53.change(&zone, &[change(Action::Upsert, &star)]).await.unwrap();
    assert_eq!(r53.records(&zone, "*.records.example.com").await.unwrap(), [star]);

    let again = r53
        .change(&zone, &[change(Action::Create, &a)])
        .await
        .unwrap_err();
    assert_eq!(
        (again.kind, again.code.as_deref()),
        (Kind::Conflict, Some("InvalidChangeBatch")),
        "{again}"
    );
    assert!(again.message.contains("already exists"), "{again}");
    let other = alias(name, "A", "d-other.execute-api.eu-west-1.amazonaws.com");
    let wrong = r53
        .change(&zone, &[change(Action::Delete, &other)])
        .await
        .unwrap_err();
    assert_eq!(wrong.kind, Kind::Conflict, "{wrong}");
    r53.change(&zone, &[change(Action::Upsert, &other)])
        .await
        .unwrap();
    let there = r53.records(&zone, name).await.unwrap();
    assert_eq!(there, [other]);
    r53.change(&zone, &[change(Action::Delete, &there[0])])
        .await
        .unwrap();
    assert_eq!(r53.records(&zone, name).await.unwrap(), []);
    let gone = r53
        .change(&zone, &[change(Action::Delete, &there[0])])
        .await
        .unwrap_err();
    assert_eq!(gone.kind, Kind::NotFound, "{gone}");
    let outside = plain("api.example.net", "TXT", "\"x\"");
    let outside = r53
        .change(&zone, &[change(Action::Create, &outside)])
        .await
        .unwrap_err();
    assert_eq!(outside.kind, Kind::Invalid, "{outside}");

    // One of several records of a routing policy is recognised as such, and left alone.
    use aws_sdk_route53::types as sdk;
    let weighted = sdk::ResourceRecordSet::builder()
        .name("weighted.records.example.com")
        .r#type(sdk::RrType::A)
        .ttl(60)
        .set_identifier("blue")
        .weight(1)
        .resource_records(sdk::ResourceRecord::builder().value("192.0.2.1").build().unwrap())
        .build()
        .unwrap();
    let made = sdk::Change::builder()
        .action(sdk::ChangeAction::Create)
        .resource_record_set(weighted)
        .build()
        .unwrap();
    let batch = sdk::ChangeBatch::builder().changes(made).build().unwrap();
    given
        .route53
        .change_resource_record_sets()
        .hosted_zone_id(&zone)
        .change_batch(batch)
        .send()
        .await
        .unwrap();
    let routed = r53.records(&zone, "weighted.records.example.com").await.unwrap();
    assert!(routed[0].routed);
    let refused = r53
        .change(&zone, &[change(Action::Delete, &routed[0])])
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid);
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn a_domain_lives_through_its_changes_in_place() {
    let account = "910000000005";
    let (session, given) = (session(account).await, Given::new(account).await);
    let (gateway, name) = (&session.gateway, "gateway.example.com");
    let arn = issued(&session, &given, name).await;
    given.bucket("gateway-truststores", true).await;
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "partners");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&authority).unwrap().pem().into_bytes();
    let put = async || {
        session
            .s3
            .put("gateway-truststores", "t.pem", pem.clone(), &Settings::default())
            .await
            .unwrap()
    };
    let (one, two) = (put().await, put().await);

    assert_eq!(gateway.domain(name).await.unwrap(), None);
    assert_eq!(gateway.mappings(name).await.unwrap_err().kind, Kind::NotFound);
    let mut wanted = DomainRequest {
        name: name.into(),
        certificate_arn: arn.clone(),
        ownership_certificate_arn: None,
        truststore_uri: "s3://gateway-truststores/t.pem".into(),
        truststore_version: one.clone(),
        ip_address_type: IpAddressType::Ipv4,
    };
    let owner = tags(&[("mtls-operator.io/owner", "c/n/m")]);
    let absent = gateway.update_domain(&wanted).await.unwrap_err();
    assert_eq!(absent.kind, Kind::NotFound, "{absent}");
    gateway.create_domain(&wanted, &owner).await.unwrap();
    let found = gateway.domain(name).await.unwrap().unwrap();
    assert_eq!(
        (found.name.as_str(), &found.certificate_arn, &found.tags),
        (name, &arn, &owner)
    );
    assert_eq!(
        (found.status, found.ip_address_type),
        (DomainStatus::Available, IpAddressType::Ipv4)
    );
    let truststore = found.truststore.unwrap();
    assert_eq!(
        (truststore.uri.as_str(), truststore.version),
        ("s3://gateway-truststores/t.pem", Some(one))
    );
    assert_eq!(
        (found.endpoint_type.as_str(), found.security_policy.as_str()),
        ("REGIONAL", "TLS_1_2")
    );
    assert_eq!(found.routing_mode, "API_MAPPING_ONLY");
    assert!(
        found.target.ends_with(".execute-api.eu-west-1.amazonaws.com"),
        "{}",
        found.target
    );
    assert!(!found.hosted_zone_id.is_empty());
    assert_eq!(
        found.arn,
        "arn:aws:apigateway:eu-west-1::/domainnames/gateway.example.com"
    );
    assert!(session.acm.certificate(&arn).await.unwrap().unwrap().in_use);
    let in_use = session.acm.delete(&arn).await.unwrap_err();
    assert_eq!(in_use.kind, Kind::Conflict, "{in_use}");

    // The same name again: API Gateway answers 400. 409 stands for a concurrent change, and is retried.
    for (by_status, kind) in [(1, Kind::Conflict), (0, Kind::Taken)] {
        emulator(
            &format!("config?account={account}"),
            json!({"duplicate_is_conflict": by_status}),
        )
        .await;
        let twice = gateway.create_domain(&wanted, &owner).await.unwrap_err();
        assert_eq!(twice.kind, kind, "{twice}");
    }

    emulator(&format!("config?account={account}"), json!({"update_settle": 60})).await;
    wanted.truststore_version = two.clone();
    wanted.ip_address_type = IpAddressType::Dualstack;
    gateway.update_domain(&wanted).await.unwrap();
    let changed = gateway.domain(name).await.unwrap().unwrap();
    assert_eq!(
        (changed.status, changed.ip_address_type),
        (DomainStatus::Updating, IpAddressType::Dualstack)
    );
    assert_eq!(changed.truststore.unwrap().version, Some(two));
    assert_eq!(
        (changed.target, changed.tags),
        (found.target, owner.clone()),
        "still the same domain"
    );
    let busy = gateway.update_domain(&wanted).await.unwrap_err();
    assert_eq!(busy.kind, Kind::Conflict, "{busy}");
    let status = json!({
        "account": account, "domainName": name, "status": "PENDING_CERTIFICATE_REIMPORT",
        "message": "bring another",
    });
    emulator("domain", status).await;
    let pending = gateway.domain(name).await.unwrap().unwrap();
    assert_eq!(pending.status, DomainStatus::PendingCertificateReimport);
    assert_eq!(pending.status_message.as_deref(), Some("bring another"));
    emulator(
        "domain",
        json!({"account": account, "domainName": name, "status": "AVAILABLE"}),
    )
    .await;
    wanted.truststore_version = "no-such-version".into();
    let refused = gateway.update_domain(&wanted).await.unwrap_err();
    assert!(
        matches!(refused.kind, Kind::Invalid | Kind::Denied),
        "{refused:?}"
    );

    gateway
        .tag(&found.arn, &tags(&[("mtls-operator.io/adopted", "true")]))
        .await
        .unwrap();
    assert_eq!(gateway.domain(name).await.unwrap().unwrap().tags.len(), 2);
    gateway
        .untag(&found.arn, &["mtls-operator.io/adopted".into()])
        .await
        .unwrap();
    assert_eq!(gateway.domain(name).await.unwrap().unwrap().tags, owner);

    gateway.delete_domain(name).await.unwrap();
    assert_eq!(gateway.domain(name).await.unwrap(), None);
    assert_eq!(
        gateway.delete_domain(name).await.unwrap_err().kind,
        Kind::NotFound
    );
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn mappings_change_in_place_and_endpoints_close() {
    let account = "910000000006";
    let (session, given) = (session(account).await, Given::new(account).await);
    let (gateway, name) = (&session.gateway, "mappings.example.com");
    let arn = issued(&session, &given, name).await;
    let made = aws_sdk_apigatewayv2::types::DomainNameConfiguration::builder()
        .certificate_arn(&arn)
        .build();
    given
        .gateway
        .create_domain_name()
        .domain_name(name)
        .domain_name_configurations(made)
        .send()
        .await
        .unwrap();
    assert_eq!(gateway.domain(name).await.unwrap().unwrap().truststore, None);

    let (api, other) = (given.api("hello").await, given.api("other").await);
    given.stage(&api, "$default", true).await;
    given.stage(&other, "live", false).await;
    let id = gateway.create_mapping(name, "", &api, "$default").await.unwrap();
    let twice = gateway
        .create_mapping(name, "", &api, "$default")
        .await
        .unwrap_err();
    assert_eq!(twice.kind, Kind::Conflict, "{twice}");
    let no_stage = gateway
        .create_mapping(name, "x", &api, "nowhere")
        .await
        .unwrap_err();
    assert_eq!(no_stage.kind, Kind::Transient, "{no_stage}");
    gateway
        .create_mapping(name, "orders/v2", &other, "live")
        .await
        .unwrap();
    emulator(&format!("config?account={account}"), json!({"page_size": 1})).await;
    let mut found = gateway.mappings(name).await.unwrap();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: Vec<_> = found
        .iter()
        .map(|m| (m.path.as_str(), m.api_id.as_str(), m.stage.as_str()))
        .collect();
    assert_eq!(
        paths,
        [
            ("", api.as_str(), "$default"),
            ("orders/v2", other.as_str(), "live")
        ]
    );
    assert_eq!(found[0].id, id);
    let mut changed = found[0].clone();
    (changed.api_id, changed.stage) = (other.clone(), "live".into());
    gateway.update_mapping(name, &changed).await.unwrap();
    assert!(
        gateway.mappings(name).await.unwrap().contains(&changed),
        "the same id"
    );
    for mapping in found {
        gateway.delete_mapping(name, &mapping.id).await.unwrap();
        assert_eq!(
            gateway.delete_mapping(name, &mapping.id).await.unwrap_err().kind,
            Kind::NotFound
        );
    }
    assert_eq!(gateway.mappings(name).await.unwrap(), []);

    assert_eq!(gateway.api("nothere").await.unwrap(), None);
    let seen = gateway.api(&other).await.unwrap().unwrap();
    assert_eq!(
        (seen.protocol, seen.endpoint_closed, &seen.tags),
        (Protocol::Http, false, &tags(&[]))
    );
    let pending = tags(&[("mtls-operator.io/pending-deployment", "c/n/m")]);
    gateway.tag(&seen.arn, &pending).await.unwrap();
    gateway
        .set_endpoint_closed(Protocol::Http, &other, true)
        .await
        .unwrap();
    let seen = gateway.api(&other).await.unwrap().unwrap();
    assert_eq!((seen.endpoint_closed, &seen.tags), (true, &pending));
    given.stage(&other, "test", false).await;
    gateway
        .deploy(Protocol::Http, &other, &["live".into(), "test".into()])
        .await
        .unwrap();
    gateway
        .untag(&seen.arn, &["mtls-operator.io/pending-deployment".into()])
        .await
        .unwrap();
    assert_eq!(gateway.api(&other).await.unwrap().unwrap().tags, tags(&[]));
    let default = gateway.stages(Protocol::Http, &api).await.unwrap();
    assert_eq!(
        (default[0].name.as_str(), default[0].auto_deploy, default.len()),
        ("$default", true, 1)
    );
    let both = gateway.stages(Protocol::Http, &other).await.unwrap();
    assert!(
        both.len() == 2 && both.iter().all(|s| !s.auto_deploy && s.updated_at.is_some()),
        "{both:?}"
    );
    let deployed = async |stage: &str| {
        let seen = given
            .gateway
            .get_stage()
            .api_id(&other)
            .stage_name(stage)
            .send()
            .await
            .unwrap();
        seen.deployment_id.unwrap()
    };
    assert_eq!(deployed("live").await, deployed("test").await, "one deployment");
    assert_eq!(
        gateway.stages(Protocol::Http, "nothere").await.unwrap_err().kind,
        Kind::NotFound
    );
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn integrations_and_authorizers_of_http_apis_change_and_keep_what_is_not_named() {
    use aws_sdk_apigatewayv2::types::IntegrationType;
    let account = "910000000015";
    let (session, given) = (session(account).await, Given::new(account).await);
    let (gateway, api) = (&session.gateway, given.api("orders").await);
    for key in ["GET /a", "POST /b"] {
        let kind = if key == "GET /a" {
            IntegrationType::HttpProxy
        } else {
            IntegrationType::AwsProxy
        };
        let request = given
            .gateway
            .create_integration()
            .api_id(&api)
            .integration_type(kind)
            .integration_method("ANY");
        let request = request
            .integration_uri("http://back.end")
            .payload_format_version("1.0");
        let id = request
            .request_parameters("overwrite:header.x-theirs", "kept")
            .send()
            .await
            .unwrap()
            .integration_id;
        let target = format!("integrations/{}", id.unwrap());
        given
            .gateway
            .create_route()
            .api_id(&api)
            .route_key(key)
            .target(target)
            .send()
            .await
            .unwrap();
    }
    // The same where a change replaces all parameters.
    emulator(
        &format!("config?account={account}"),
        json!({"page_size": 1, "parameters_merge": 0}),
    )
    .await;
    let seen = gateway.integrations(&api).await.unwrap();
    assert!(
        seen.len() == 2 && seen.iter().all(|i| i.takes_headers),
        "{seen:?}"
    );
    let (theirs, at) = (seen[0].parameters.clone(), &seen[0].at);
    let ours = tags(&[("overwrite:header.x-sub", "$context.identity.clientCert.subjectDN")]);
    gateway
        .change_parameters(&api, at, &ours, &BTreeSet::new(), &theirs)
        .await
        .unwrap();
    let both = ours
        .iter()
        .chain(&theirs)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    assert_eq!(gateway.integrations(&api).await.unwrap()[0].parameters, both);
    let gone = ours.keys().cloned().collect();
    gateway
        .change_parameters(&api, at, &BTreeMap::new(), &gone, &theirs)
        .await
        .unwrap();
    assert_eq!(gateway.integrations(&api).await.unwrap(), seen);

    let function = Arn::from(format!("arn:aws:lambda:eu-west-1:{account}:function:who"));
    gateway
        .create_authorizer(Protocol::Http, &api, "ours", &function)
        .await
        .unwrap();
    gateway
        .create_authorizer(
            Protocol::Http,
            &api,
            "more",
            &Arn::from(format!("{function}:live")),
        )
        .await
        .unwrap();
    let made = gateway.authorizers(Protocol::Http, &api).await.unwrap();
    let ours = made.iter().find(|a| a.name == "ours").unwrap();
    assert_eq!(
        (made.len(), ours.function.as_ref(), ours.as_made),
        (2, Some(&function), true)
    );
    let request = given
        .gateway
        .update_authorizer()
        .api_id(&api)
        .authorizer_id(&ours.id);
    request
        .authorizer_result_ttl_in_seconds(60)
        .identity_source("$request.header.a")
        .send()
        .await
        .unwrap();
    let changed = async || gateway.authorizers(Protocol::Http, &api).await.unwrap() != made;
    assert!(changed().await, "the authorizer has a cache now");
    gateway
        .restore_authorizer(Protocol::Http, &api, &ours.id, &function)
        .await
        .unwrap();
    assert!(!changed().await, "as it was made");
    let knobs = format!("config?account={account}");
    emulator(&knobs, json!({"ttl_absent": 1})).await;
    assert!(!changed().await, "a time of 0 may be left out");
    let open = gateway.routes(&api).await.unwrap();
    assert!(
        open.len() == 2 && open.iter().all(|r| r.authorization == Authorization::None),
        "{open:?}"
    );
    gateway
        .authorize(&api, &open[0].at, Some(&ours.id))
        .await
        .unwrap();
    let asks = Authorization::Authorizer(ours.id.clone());
    assert_eq!(gateway.routes(&api).await.unwrap()[0].authorization, asks);
    assert_eq!(
        gateway
            .delete_authorizer(Protocol::Http, &api, &ours.id)
            .await
            .unwrap_err()
            .kind,
        Kind::Conflict
    );
    gateway.authorize(&api, &open[0].at, None).await.unwrap();
    assert_eq!(gateway.routes(&api).await.unwrap(), open);
    gateway
        .delete_authorizer(Protocol::Http, &api, &ours.id)
        .await
        .unwrap();
    assert_eq!(gateway.authorizers(Protocol::Http, &api).await.unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn methods_of_rest_apis_ask_authorizers_through_v1() {
    let account = "910000000016";
    let (session, given) = (session(account).await, Given::new(account).await);
    let gateway = &session.gateway;
    let made = given.rest.create_rest_api().name("rest").send().await.unwrap();
    let (api, root) = (made.id.unwrap(), made.root_resource_id.unwrap());
    for method in ["GET", "OPTIONS"] {
        let request = given
            .rest
            .put_method()
            .rest_api_id(&api)
            .resource_id(&root)
            .http_method(method);
        request.authorization_type("NONE").send().await.unwrap();
        let request = given
            .rest
            .put_integration()
            .rest_api_id(&api)
            .resource_id(&root)
            .http_method(method);
        let request = request
            .r#type(aws_sdk_apigateway::types::IntegrationType::HttpProxy)
            .uri("http://back.end");
        let request = request
            .integration_http_method("ANY")
            .request_parameters("integration.request.header.x-theirs", "'kept'");
        request.send().await.unwrap();
    }
    let seen = gateway.methods(&api).await.unwrap().integrations;
    let ours = tags(&[(
        "integration.request.header.x-sub",
        "context.identity.clientCert.subjectDN",
    )]);
    let none = BTreeMap::new();
    gateway
        .change_parameters(&api, &seen[0].at, &ours, &BTreeSet::new(), &none)
        .await
        .unwrap();
    assert_eq!(
        gateway.methods(&api).await.unwrap().integrations[0]
            .parameters
            .len(),
        2
    );
    let gone = ours.keys().cloned().collect();
    gateway
        .change_parameters(&api, &seen[0].at, &none, &gone, &none)
        .await
        .unwrap();
    assert_eq!(gateway.methods(&api).await.unwrap().integrations, seen);

    let function = Arn::from(format!("arn:aws:lambda:eu-west-1:{account}:function:who"));
    gateway
        .create_authorizer(Protocol::Rest, &api, "ours", &function)
        .await
        .unwrap();
    let made = gateway.authorizers(Protocol::Rest, &api).await.unwrap();
    assert_eq!(
        (made[0].name.as_str(), made[0].function.as_ref(), made[0].as_made),
        ("ours", Some(&function), true)
    );
    let open = gateway.methods(&api).await.unwrap().routes;
    assert!(
        open.len() == 2 && open.iter().all(|r| r.authorization == Authorization::None),
        "{open:?}"
    );
    gateway
        .authorize(&api, &open[0].at, Some(&made[0].id))
        .await
        .unwrap();
    let asks = Authorization::Authorizer(made[0].id.clone());
    assert_eq!(gateway.methods(&api).await.unwrap().routes[0].authorization, asks);
    gateway.authorize(&api, &open[0].at, None).await.unwrap();
    assert_eq!(gateway.methods(&api).await.unwrap().routes, open);
    gateway
        .restore_authorizer(
            Protocol::Rest,
            &api,
            &made[0].id,
            &Arn::from(format!("{function}:live")),
        )
        .await
        .unwrap();
    let changed = gateway.authorizers(Protocol::Rest, &api).await.unwrap();
    assert_eq!(
        (changed[0].function.clone(), changed[0].as_made),
        (Some(Arn::from(format!("{function}:live"))), true)
    );
    gateway
        .delete_authorizer(Protocol::Rest, &api, &made[0].id)
        .await
        .unwrap();
    assert_eq!(gateway.authorizers(Protocol::Rest, &api).await.unwrap(), []);
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn rest_apis_are_seen_and_changed_through_v1() {
    let account = "910000000011";
    let (session, given) = (session(account).await, Given::new(account).await);
    let gateway = &session.gateway;
    use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType};
    let made = async |kind: EndpointType| {
        let endpoint = EndpointConfiguration::builder().types(kind).build();
        let request = given
            .rest
            .create_rest_api()
            .name("rest")
            .endpoint_configuration(endpoint);
        request.send().await.unwrap().id.unwrap()
    };
    let (id, private) = (
        made(EndpointType::Regional).await,
        made(EndpointType::Private).await,
    );
    for stage in ["prod", "dev"] {
        let request = given
            .rest
            .create_stage()
            .rest_api_id(&id)
            .stage_name(stage)
            .deployment_id("none");
        request.send().await.unwrap();
    }

    let seen = gateway.api(&id).await.unwrap().unwrap();
    assert_eq!(
        (seen.id.as_str(), seen.protocol, seen.private),
        (id.as_str(), Protocol::Rest, false)
    );
    assert_eq!((seen.endpoint_closed, &seen.tags), (false, &tags(&[])));
    assert_eq!(seen.arn, format!("arn:aws:apigateway:eu-west-1::/restapis/{id}"));
    assert!(gateway.api(&private).await.unwrap().unwrap().private);
    let calls = async |operation: &str| {
        let stats = emulator(&format!("stats?account={account}"), Value::Null).await;
        stats["by_operation"][operation]["calls"]
            .as_u64()
            .unwrap_or_default()
    };
    let before = calls("apigatewayv2.GetApi").await;
    assert_eq!(gateway.api(&id).await.unwrap().as_ref(), Some(&seen));
    assert_eq!(
        calls("apigatewayv2.GetApi").await,
        before,
        "the client does not ask v2 again for a REST API"
    );

    // Tags.
    let pending = tags(&[("mtls-operator.io/pending-deployment", "c/n/m")]);
    gateway.tag(&seen.arn, &pending).await.unwrap();
    gateway
        .set_endpoint_closed(Protocol::Rest, &id, true)
        .await
        .unwrap();
    let seen = gateway.api(&id).await.unwrap().unwrap();
    assert_eq!((seen.endpoint_closed, &seen.tags), (true, &pending));
    gateway
        .untag(&seen.arn, &["mtls-operator.io/pending-deployment".into()])
        .await
        .unwrap();
    gateway
        .set_endpoint_closed(Protocol::Rest, &id, false)
        .await
        .unwrap();
    let seen = gateway.api(&id).await.unwrap().unwrap();
    assert_eq!((seen.endpoint_closed, &seen.tags), (false, &tags(&[])));

    // Stages.
    emulator(
        &format!("config?account={account}"),
        json!({"rest_date_lag": 1000}),
    )
    .await;
    gateway.touch_stage(&id, "dev", true).await.unwrap();
    let mut stages = gateway.stages(Protocol::Rest, &id).await.unwrap();
    stages.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(
        stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["dev", "prod"]
    );
    assert!(
        stages
            .iter()
            .all(|s| s.tracing == (s.name == "dev") && !s.auto_deploy),
        "{stages:?}"
    );
    assert!(
        stages[0].updated_at.unwrap() < stages[1].updated_at.unwrap(),
        "{stages:?}"
    );
    let before = calls("apigateway.CreateDeployment").await;
    gateway
        .deploy(Protocol::Rest, &id, &["dev".into(), "prod".into()])
        .await
        .unwrap();
    assert_eq!(calls("apigateway.CreateDeployment").await, before + 1);
    let answer = given.rest.get_stages().rest_api_id(&id).send().await.unwrap();
    let deployed: BTreeSet<_> = answer.item().iter().map(|s| s.deployment_id().unwrap()).collect();
    assert!(deployed.len() == 1 && !deployed.contains("none"), "{deployed:?}");

    // Absent resources.
    for absent in [
        gateway.stages(Protocol::Rest, "nothere").await.map(drop),
        gateway.set_endpoint_closed(Protocol::Rest, "nothere", true).await,
        gateway.touch_stage(&id, "nowhere", false).await,
        gateway.deploy(Protocol::Rest, "nothere", &["prod".into()]).await,
        gateway.tag(&gateway.rest_api_arn("nothere"), &pending).await,
        gateway
            .untag(&gateway.rest_api_arn("nothere"), &["x".into()])
            .await,
    ] {
        let absent = absent.unwrap_err();
        assert_eq!(absent.kind, Kind::NotFound, "{absent}");
    }
    given
        .rest
        .delete_rest_api()
        .rest_api_id(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(gateway.api(&id).await.unwrap(), None);

    // Error codes of v1 for too many calls and missing permissions.
    for (operation, code) in [
        ("GetRestApi", "TooManyRequestsException"),
        ("GetRestApi", "LimitExceededException"),
        ("GetStages", "TooManyRequestsException"),
    ] {
        let rule = json!([
            {
                "account": account, "service": "apigateway", "operation": operation, "status": 429,
                "code": code,
            },
        ]);
        emulator("faults", rule).await;
        let error = match operation {
            "GetRestApi" => gateway.api(&private).await.map(drop),
            _ => gateway.stages(Protocol::Rest, &private).await.map(drop),
        };
        assert_eq!(error.unwrap_err().kind, Kind::Throttled, "{operation} {code}");
    }
    for (right, call) in [
        ("apigateway:PATCH", 0),
        ("apigateway:POST", 1),
        ("apigateway:PUT", 2),
        ("apigateway:DELETE", 3),
    ] {
        emulator("deny", json!({"account": account, "actions": [right]})).await;
        let arn = gateway.rest_api_arn(&private);
        let denied = match call {
            0 => gateway.set_endpoint_closed(Protocol::Rest, &private, true).await,
            1 => gateway.deploy(Protocol::Rest, &private, &["prod".into()]).await,
            2 => gateway.tag(&arn, &pending).await,
            _ => gateway.untag(&arn, &["x".into()]).await,
        };
        let denied = denied.unwrap_err();
        assert_eq!(
            (denied.kind, denied.iam_action()),
            (Kind::Denied, right),
            "{denied}"
        );
    }
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn every_domain_is_listed_with_what_is_behind_it() {
    let account = "910000000012";
    let (session, given) = (session(account).await, Given::new(account).await);
    let gateway = &session.gateway;
    assert_eq!(gateway.domains().await.unwrap(), []);
    use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType, SecurityPolicy};
    let rest = given
        .rest
        .create_rest_api()
        .name("rest")
        .send()
        .await
        .unwrap()
        .id
        .unwrap();
    given
        .rest
        .create_stage()
        .rest_api_id(&rest)
        .stage_name("prod")
        .deployment_id("none")
        .send()
        .await
        .unwrap();
    let of_v1 = async |name: &str, kind: EndpointType, policy: SecurityPolicy| {
        let endpoint = EndpointConfiguration::builder().types(kind).build();
        let request = given
            .rest
            .create_domain_name()
            .domain_name(name)
            .security_policy(policy);
        request.endpoint_configuration(endpoint).send().await.unwrap();
    };
    of_v1(
        "edge.others.example.com",
        EndpointType::Edge,
        SecurityPolicy::Tls12,
    )
    .await;
    of_v1(
        "old.others.example.com",
        EndpointType::Regional,
        SecurityPolicy::Tls10,
    )
    .await;
    of_v1(
        "inside.others.example.com",
        EndpointType::Private,
        SecurityPolicy::Tls12,
    )
    .await;
    for domain in ["edge.others.example.com", "old.others.example.com"] {
        for path in ["a", "b"] {
            let request = given
                .rest
                .create_base_path_mapping()
                .domain_name(domain)
                .base_path(path);
            request.rest_api_id(&rest).stage("prod").send().await.unwrap();
        }
    }
    let name = "plain.others.example.com";
    let arn = issued(&session, &given, name).await;
    let config = aws_sdk_apigatewayv2::types::DomainNameConfiguration::builder()
        .certificate_arn(&arn)
        .build();
    given
        .gateway
        .create_domain_name()
        .domain_name(name)
        .domain_name_configurations(config)
        .send()
        .await
        .unwrap();
    let api = given.api("hello").await;
    given.stage(&api, "$default", true).await;
    gateway.create_mapping(name, "", &api, "$default").await.unwrap();
    gateway
        .create_mapping(name, "orders/v2/items", &rest, "prod")
        .await
        .unwrap();

    let mut all = gateway.domains().await.unwrap();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = all.iter().map(|d| (d.name.as_str(), d.mutual_tls)).collect();
    assert_eq!(
        names,
        [
            ("edge.others.example.com", false),
            ("old.others.example.com", false),
            (name, false)
        ]
    );
    let behind = |apis: &[&String]| apis.iter().map(|id| (*id).clone()).collect::<BTreeSet<_>>();
    assert_eq!(gateway.apis_behind(&all[0]).await.unwrap(), behind(&[&rest]));
    assert_eq!(gateway.apis_behind(&all[1]).await.unwrap(), behind(&[&rest]));
    assert_eq!(
        gateway.apis_behind(&all[2]).await.unwrap(),
        behind(&[&api, &rest])
    );
    for gone in [name, "edge.others.example.com"] {
        given
            .rest
            .delete_domain_name()
            .domain_name(gone)
            .send()
            .await
            .unwrap();
    }
    for gone in [&all[0], &all[2]] {
        assert_eq!(gateway.apis_behind(gone).await.unwrap(), BTreeSet::new());
    }
    for (operation, asks_for_list) in [("GetDomainNames", true), ("GetBasePathMappings", false)] {
        emulator(
            "faults",
            json!([
                {
                    "account": account, "operation": operation, "status": 429,
                    "code": "TooManyRequestsException",
                },
            ]),
        )
        .await;
        let error = match asks_for_list {
            true => gateway.domains().await.map(drop),
            false => gateway.apis_behind(&all[1]).await.map(drop),
        };
        assert_eq!(error.unwrap_err().kind, Kind::Throttled, "{operation}");
    }
    // More than a page.
    emulator(
        &format!("config?account={account}"),
        json!({"domain_limit": 1000}),
    )
    .await;
    futures::stream::iter(0..501)
        .for_each_concurrent(16, async |i| {
            of_v1(
                &format!("n{i}.others.example.com"),
                EndpointType::Edge,
                SecurityPolicy::Tls12,
            )
            .await;
        })
        .await;
    assert_eq!(gateway.domains().await.unwrap().len(), 502);
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn failures_are_told_apart_counted_and_read_the_same_each_time() {
    let account = "910000000007";
    let gate = gate(&["*=unlimited"]);
    let session = session_in(account, &gate).await;
    let fault = async |mut rule: Value| {
        rule["account"] = account.into();
        emulator("faults", json!([rule])).await
    };
    let name = "faults.example.com";
    let ask = || session.gateway.domain(name);

    for (rule, kind) in [
        (
            json!({"operation": "GetDomainName", "code": "TooManyRequestsException"}),
            Kind::Throttled,
        ),
        (
            json!({"operation": "GetDomainName", "code": "InternalServerException"}),
            Kind::Transient,
        ),
        (
            json!({"operation": "GetDomainName", "status": 503, "code": "ServiceUnavailable"}),
            Kind::Transient,
        ),
        (
            json!({"operation": "GetDomainName", "code": "AccessDeniedException"}),
            Kind::Denied,
        ),
        (
            json!({"operation": "GetDomainName", "status": 400, "code": "SomethingNew"}),
            Kind::Invalid,
        ),
        (
            json!({"operation": "GetDomainName", "drop_reply": true}),
            Kind::Transient,
        ),
        (
            json!({"operation": "GetDomainName", "delay_ms": 20000}),
            Kind::Transient,
        ),
    ] {
        let mut said = Vec::new();
        for _ in 0..2 {
            fault(rule.clone()).await;
            let error = ask().await.unwrap_err();
            assert_eq!(
                (error.kind, error.operation),
                (kind, "apigateway:GetDomainName"),
                "{rule} {error:?}"
            );
            said.push(error.to_string());
        }
        assert_eq!(said[0], said[1], "the same words");
        println!("{}", said[0]);
    }
    assert_eq!(
        ask().await.unwrap(),
        None,
        "the call works again after the faults"
    );

    // A lost reply: the request has taken effect.
    fault(json!({"operation": "RequestCertificate", "when": "after", "drop_reply": true})).await;
    let wanted = request(name, KeyAlgorithm::EcPrime256v1, "lost");
    let lost = session.acm.request(&wanted).await.unwrap_err();
    assert_eq!(
        (lost.kind, lost.code.as_deref()),
        (Kind::Transient, None),
        "{lost:?}"
    );
    assert_eq!(certificates(&session, name).await.unwrap().len(), 1);

    for (action, expected) in [
        ("acm:ListCertificates", "acm:ListCertificates"),
        ("acm:ListTagsForCertificate", "acm:ListTagsForCertificate"),
    ] {
        emulator("deny", json!({"account": account, "actions": [action]})).await;
        let denied = certificates(&session, name).await.unwrap_err();
        assert_eq!(
            (denied.kind, denied.iam_action()),
            (Kind::Denied, expected),
            "{denied}"
        );
    }
    emulator("deny", json!({"account": account, "actions": ["apigateway:GET"]})).await;
    let denied = ask().await.unwrap_err();
    assert_eq!(
        (denied.kind, denied.iam_action()),
        (Kind::Denied, "apigateway:GET"),
        "{denied}"
    );
    emulator(
        "deny",
        json!({"account": account, "actions": ["s3:*", "route53:*"]}),
    )
    .await;
    let denied = session.s3.bucket("whatever").await.unwrap_err();
    assert_eq!(
        (denied.kind, denied.iam_action()),
        (Kind::Denied, "s3:ListBucket"),
        "{denied:?}"
    );
    let denied = session.route53.zones().await.unwrap_err();
    assert_eq!(
        (denied.kind, denied.iam_action()),
        (Kind::Denied, "route53:ListHostedZones"),
        "{denied}"
    );
    emulator("deny", json!({"account": account, "actions": []})).await;

    // The counter agrees with the journal.
    let count = |service, operation, outcome| counted(&gate, service, operation, outcome);
    assert_eq!(count("apigateway", "GetDomainName", "throttled"), 2);
    // Once at the end, and at v1 each time that v2 refused for an unknown reason.
    assert_eq!(count("apigateway", "GetDomainName", "not_found"), 1 + 2);
    assert_eq!(count("acm", "RequestCertificate", "transient"), 1);
    let stats = emulator(&format!("stats?account={account}"), Value::Null).await;
    let by_both = ["apigatewayv2.GetDomainName", "apigateway.GetDomainName"];
    let journal: u64 = by_both
        .iter()
        .map(|o| stats["by_operation"][o]["calls"].as_u64().unwrap())
        .sum();
    let kinds = ["ok", "not_found", "throttled", "transient", "denied", "invalid"];
    let ours: u64 = kinds
        .iter()
        .map(|kind| count("apigateway", "GetDomainName", kind))
        .sum();
    assert_eq!(journal, ours, "{stats}");
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn a_process_that_does_not_lead_reads_but_does_not_write() {
    let account = "910000000008";
    let leads = Arc::new(AtomicBool::new(true));
    let asked = leads.clone();
    let all = "*=unlimited".parse().unwrap();
    let gate = Gate::new(Quota::new(Rates::with(&[all])), move || {
        asked.load(Ordering::SeqCst)
    });
    let session = session_in(account, &gate).await;
    leads.store(false, Ordering::SeqCst);
    let wanted = request("leads.example.com", KeyAlgorithm::Rsa2048, "l");
    let unsent = session.acm.request(&wanted).await.unwrap_err();
    assert_eq!(unsent.kind, Kind::Transient, "{unsent}");
    assert_eq!(certificates(&session, "leads.example.com").await.unwrap(), []);
    let stats = emulator(&format!("stats?account={account}&writes=1"), Value::Null).await;
    assert_eq!(
        stats["by_operation"].get("acm.RequestCertificate"),
        None,
        "{stats}"
    );
}

/// Returns all certificates for a domain name, as the operator finds them.
async fn certificates(session: &Session, domain_name: &str) -> Result<Vec<Certificate>, Error> {
    let mut found = Vec::new();
    for listed in session
        .acm
        .listed()
        .await?
        .iter()
        .filter(|listed| listed.domain_name.eq_ignore_ascii_case(domain_name))
    {
        found.extend(session.acm.certificate(&listed.arn).await?);
    }
    Ok(found)
}

/// AWS throttles no call when both sides use AWS's own quotas.
#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn the_plentiful_quotas_are_kept() {
    let account = "910000000009";
    let session = session_in(account, &gate(&[])).await;
    let knobs =
        json!({"apigateway_rate": 10, "apigateway_burst": 40, "route53_rate": 5, "acm_rate_scale": 1});
    emulator(&format!("config?account={account}"), knobs).await;
    let calls = (0..30).map(async |_| {
        let (domain, zones) = tokio::join!(session.gateway.domain("q.example.com"), session.route53.zones());
        (domain.map(drop), zones.map(drop))
    });
    for (domain, zones) in futures::future::join_all(calls).await {
        domain.unwrap();
        zones.unwrap();
    }
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn a_refused_call_empties_its_bucket() {
    let account = "910000000010";
    let gate = gate(&["*=unlimited", "DeleteDomainName=2:5"]);
    let session = session_in(account, &gate).await;
    let bucket = Bucket::new(account, REGION, Operation::DeleteDomainName);
    let ask = || {
        let ticket = Ticket {
            class: Class::Drift,
            since: jiff::Timestamp::UNIX_EPOCH,
            object: "n/m".into(),
        };
        gate.quota.request(&bucket, ticket, String::new())
    };
    assert!(matches!(ask(), Grant::Go { .. }), "one of two");
    let rule =
        json!([{"account": account, "operation": "DeleteDomainName", "code": "TooManyRequestsException"}]);
    emulator("faults", rule).await;
    assert_eq!(
        session
            .gateway
            .delete_domain("x.example.com")
            .await
            .unwrap_err()
            .kind,
        Kind::Throttled
    );
    assert!(matches!(ask(), Grant::Wait { .. }));
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn one_account_in_several_regions() {
    let sessions = Sessions::new(&gate(&["*=unlimited"]));
    let here = sessions.get(&Access::default()).await.unwrap();
    let there = sessions
        .get(&Access {
            region: Some("us-east-1".into()),
            ..Access::default()
        })
        .await
        .unwrap();
    assert_eq!(
        (&there.account, there.region.as_str()),
        (&here.account, "us-east-1")
    );
    let arn = there
        .acm
        .request(&request("regions.example.com", KeyAlgorithm::Rsa2048, "r"))
        .await
        .unwrap();
    assert!(arn.contains(":us-east-1:"), "{arn}");
    assert_eq!(
        there.execute_api_host("a1b2"),
        "a1b2.execute-api.us-east-1.amazonaws.com"
    );
}

fn role(account: &str, name: &str) -> RoleToAssume {
    let external_id = Some("an external id".to_owned());
    RoleToAssume {
        arn: format!("arn:aws:iam::{account}:role/{name}").into(),
        external_id,
    }
}

/// Number of times that this role has been assumed.
async fn assumed(role: &str) -> usize {
    let calls = emulator("calls?operation=AssumeRole", Value::Null).await;
    calls["calls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["resource"] == role)
        .count()
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn a_role_leads_into_its_account_and_the_role_for_route_53_to_route_53_only() {
    let (one, two) = ("920000000001", "920000000002");
    let sessions = Sessions::new(&gate(&["*=unlimited"]));
    Given::new(one).await.zone("roles-one.example.com").await;
    Given::new(two).await.zone("roles-two.example.com").await;
    let whole = Access {
        region: Some(REGION.into()),
        role: Some(role(one, "roles-whole")),
        ..Access::default()
    };
    let split = Access {
        route53_role: Some(role(two, "roles-dns")),
        ..whole.clone()
    };
    for (access, zone) in [
        (&whole, "roles-one.example.com"),
        (&split, "roles-two.example.com"),
    ] {
        let session = sessions.get(access).await.unwrap();
        assert_eq!((session.account.as_str(), session.region.as_str()), (one, REGION));
        let zones = session.route53.zones().await.unwrap();
        assert_eq!(zones.iter().map(|z| z.name.as_str()).collect::<Vec<_>>(), [zone]);
        let arn = session
            .acm
            .request(&request(zone, KeyAlgorithm::Rsa2048, "roles"))
            .await
            .unwrap();
        assert!(arn.contains(&format!(":{one}:")), "{arn}");
    }
    for _ in 0..3 {
        sessions.get(&split).await.unwrap().route53.zones().await.unwrap();
    }
    assert_eq!(
        assumed(role(two, "roles-dns").arn.as_str()).await,
        1,
        "credentials are kept while they are valid"
    );
    assert_eq!(
        assumed(role(one, "roles-whole").arn.as_str()).await,
        2,
        "once for each access"
    );

    // Each account has its own quota: when one account's is used up, calls to the other continue.
    let gate = gate(&["*=unlimited", "route53=1/5:1"]);
    let sessions = Sessions::new(&gate);
    let rule = json!([{"account": two, "operation": "ListHostedZones", "code": "Throttling"}]);
    emulator("faults", rule).await;
    let throttled = sessions
        .get(&split)
        .await
        .unwrap()
        .route53
        .zones()
        .await
        .unwrap_err();
    assert_eq!(
        (throttled.kind, throttled.operation),
        (Kind::Throttled, "route53:ListHostedZones")
    );
    let ask = |account| {
        // A ticket that waits for a token only.
        let ticket = Ticket {
            class: Class::Distrust,
            since: jiff::Timestamp::UNIX_EPOCH,
            object: "n/m".into(),
        };
        gate.quota.request(
            &Bucket::new(account, REGION, Operation::Route53),
            ticket,
            String::new(),
        )
    };
    assert!(matches!(ask(two), Grant::Wait { .. }));
    assert!(matches!(ask(one), Grant::Go { .. }));
}

/// Number of calls in the metrics with this outcome, whatever the AWS error code was.
fn counted(gate: &Gate, service: &str, operation: &str, outcome: &str) -> u64 {
    let (mut registry, mut text) = (Registry::default(), String::new());
    gate.calls.register(&mut registry);
    encode(&mut text, &registry).expect("text can be written to");
    let labels = format!("{{service=\"{service}\",operation=\"{operation}\",outcome=\"{outcome}\",");
    let of_it = text
        .lines()
        .filter_map(|line| line.strip_prefix("aws_api_calls_total")?.strip_prefix(&labels));
    of_it
        .map(|rest| {
            rest.rsplit(' ')
                .next()
                .expect("a value")
                .parse::<u64>()
                .expect("a number")
        })
        .sum()
}

#[tokio::test]
#[ignore = "runs in the process that aws_clients_pass_against_the_emulator starts"]
async fn a_role_that_cannot_be_assumed_is_reported_with_its_cause() {
    let account = "920000000003";
    let gate = gate(&["*=unlimited"]);
    let sessions = Sessions::new(&gate);
    Given::new(account).await.zone("refused.example.com").await;
    let count = |service, operation, outcome| counted(&gate, service, operation, outcome);
    let (whole, dns) = (role(account, "refused-whole"), role(account, "refused-dns"));
    let region = Some(REGION.to_owned());
    let as_whole = Access {
        region: region.clone(),
        role: Some(whole.clone()),
        ..Access::default()
    };
    let for_dns = Access {
        region,
        route53_role: Some(dns.clone()),
        ..Access::default()
    };
    for (mut rule, kind) in [
        (json!({"code": "AccessDenied"}), Kind::Denied),
        (json!({"code": "Throttling", "status": 400}), Kind::Throttled),
        (json!({"code": "InternalFailure"}), Kind::Transient),
        (json!({"drop_reply": true}), Kind::Transient),
    ] {
        for (access, role) in [(&as_whole, &whole), (&for_dns, &dns)] {
            (rule["operation"], rule["resource"]) = ("AssumeRole".into(), role.arn.as_str().into());
            emulator("faults", json!([rule])).await;
            let refused = match sessions.get(access).await {
                Err(refused) => refused,
                // A failing role for Route 53 does not stop the rest of the domain.
                Ok(session) => {
                    session.gateway.domain("refused.example.com").await.unwrap();
                    session.route53.zones().await.unwrap_err()
                }
            };
            assert_eq!(
                (refused.kind, refused.operation),
                (kind, "sts:AssumeRole"),
                "{refused:?}"
            );
            assert!(refused.message.contains(role.arn.as_str()), "{refused}");
            assert_eq!(refused.iam_action(), "sts:AssumeRole");
        }
    }
    assert_eq!(count("sts", "AssumeRole", "denied"), 2);
    let unmade: u64 = ["throttled", "denied", "transient"]
        .iter()
        .map(|o| count("route53", "ListHostedZones", o))
        .sum();
    assert_eq!(unmade, 0, "calls that were not made are not counted");
    // The role can be assumed again after the faults.
    assert_eq!(sessions.get(&as_whole).await.unwrap().account, account);
    let zones = sessions
        .get(&for_dns)
        .await
        .unwrap()
        .route53
        .zones()
        .await
        .unwrap();
    assert_eq!(zones.len(), 1);
}
