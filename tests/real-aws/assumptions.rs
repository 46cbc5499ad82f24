//! Entries of sandbox/aws/ASSUMPTIONS.md, each by its name: tried here, or listed with the reason why not.
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
};

use aws_sdk_acm::types::{CertificateStatus, KeyAlgorithm, ValidationMethod};
use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType, IntegrationType, Op, PatchOperation};
use aws_sdk_apigatewayv2::types::{DomainNameConfiguration, MutualTlsAuthenticationInput};
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType};
use aws_sdk_s3::{
    primitives::ByteStream,
    types::{
        BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, ServerSideEncryption,
        VersioningConfiguration,
    },
};
use futures::FutureExt as _;

use crate::{
    account::Account,
    scenarios::{ByHand, execute_api, self_signed, self_signed_until, settled},
};

/// Entries that take more than a zone and some minutes to find out.
const NOT_TRIED: [(&str, &str); 27] = [
    (
        "list-as-late-as-describe",
        "as a rule both know a new certificate at once",
    ),
    (
        "unquoted-messages",
        "no single fact; the operator decides nothing by these messages",
    ),
    (
        "serves-once-available",
        "the front ends differ from one another in the first minutes",
    ),
    ("ownership-certificate", "takes a public certificate with its key"),
    ("locked-domain", "takes a public certificate with its key"),
    ("one-too-many", "takes 120 custom domain names"),
    (
        "v2-refuses-v1",
        "takes an edge-optimized domain name, which CloudFront needs 40 minutes for",
    ),
    (
        "back-from-enhanced-policy",
        "takes two changes of the security policy, of up to an hour each",
    ),
    (
        "unresolved-header",
        "takes a back end on the internet that shows the headers that it got",
    ),
    (
        "headers-by-integration",
        "takes a back end on the internet that shows the headers that it got",
    ),
    (
        "unmapped-headers",
        "takes a back end on the internet that shows the headers that it got",
    ),
    (
        "one-quota",
        "takes the whole account's quota away from everybody else",
    ),
    (
        "what-counts",
        "takes the whole account's quota away from everybody else",
    ),
    (
        "refused-is-free",
        "takes the whole account's quota away from everybody else",
    ),
    (
        "burst",
        "takes the whole account's quota away from everybody else",
    ),
    ("denials", "takes a role with fewer rights"),
    (
        "truststore-decrypted",
        "takes a role with fewer rights and a key of one's own",
    ),
    ("delays", "differ from day to day; the run's own times show them"),
    (
        "trust-by-openssl",
        "each is a truststore and a minute of its own: tests/e2e/issuance/interop.rs has the list",
    ),
    (
        "distinguished-names",
        "takes a back end that shows what it was told",
    ),
    ("no-http2", "of the local edge, not of AWS"),
    ("every-zone", "of the local DNS server, not of AWS"),
    ("alias-without-target", "of the local DNS server, not of AWS"),
    ("execute-api-resolves", "of the local DNS server, not of AWS"),
    ("dual-stack", "of the local DNS server, not of AWS"),
    (
        "record-protection-text",
        "the SDK has no call for record protections yet",
    ),
    ("guardrail-text", "the SDK has no call for change guardrails yet"),
];

/// Results by the name of the entry, each with its evidence.
#[derive(Default)]
pub struct Findings(BTreeMap<&'static str, (bool, String)>);

impl Findings {
    /// Runs the check of an entry, which returns whether it holds, and the evidence. A check that panics,
    /// because a call failed or a wait was too long, is a difference too, and does not stop the others.
    pub async fn item(&mut self, name: &'static str, check: impl Future<Output = (bool, String)>) {
        let ended = AssertUnwindSafe(check).catch_unwind().await;
        let finding =
            ended.unwrap_or_else(|panic| (false, format!("the check failed: {}", text_of(&*panic))));
        self.0.insert(name, finding);
    }

    /// Prints a line for each entry. Returns the figures of the last line.
    pub fn print(&self) -> String {
        let listed = listed();
        for name in &listed {
            match self.0.get(name.as_str()) {
                Some((true, _)) => println!("assumption {name} holds"),
                Some((false, seen)) => println!("assumption {name} DIFFERS: {seen}"),
                None => {
                    let reason = NOT_TRIED
                        .iter()
                        .find(|(not, _)| not == name)
                        .map_or("the run ended before", |(_, r)| r);
                    println!("assumption {name} not checked: {reason}");
                }
            }
        }
        let hold = self.0.values().filter(|(holds, _)| *holds).count();
        let (differ, unchecked) = (self.0.len() - hold, listed.len() - self.0.len());
        format!(
            "assumptions={} hold={hold} differ={differ} unchecked={unchecked}",
            listed.len()
        )
    }

    /// Fails where an assumption differs, and where the list and the checks differ.
    pub fn hold(&self) {
        let tried = self.0.keys().map(|name| (*name).to_owned());
        let known: BTreeSet<_> = tried.chain(NOT_TRIED.map(|(name, _)| name.to_owned())).collect();
        assert_eq!(
            known,
            listed(),
            "entries that are tried or have a reason why not, and entries of ASSUMPTIONS.md"
        );
        let differ: Vec<_> = self
            .0
            .iter()
            .filter(|(_, (holds, _))| !holds)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(differ, Vec::<&&str>::new(), "these are not so");
    }
}

/// Text of a panic.
pub fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no message".into())
}

fn listed() -> BTreeSet<String> {
    const LIST: &str = include_str!("../../sandbox/aws/ASSUMPTIONS.md");
    let names = LIST
        .lines()
        .filter_map(|line| Some(line.strip_prefix("- `")?.split_once("`: ")?.0.to_owned()));
    names.collect()
}

/// Returns true when AWS refused the call with this code, and AWS's answer.
fn refusal<T: std::fmt::Debug, E: std::fmt::Debug>(result: &Result<T, E>, code: &str) -> (bool, String) {
    let seen = format!("{result:?}");
    (result.is_err() && seen.contains(code), seen)
}

pub async fn without_a_domain(account: &Account, findings: &mut Findings) {
    findings.item("record-limits", record_limits(account)).await;
    findings
        .item("versioning-at-once", versioning_at_once(account))
        .await;
    findings.item("kms-alias", kms_alias(account)).await;
    findings
        .item("stage-update-publishes", stage_update_publishes(account))
        .await;
    let absent = execute_api(account, "zzzzzzzzzz");
    findings
        .item(
            "unknown-api",
            stays(account, "403", async || {
                account.status(&absent, &absent, "/", None, &[]).await
            }),
        )
        .await;
}

async fn record_limits(account: &Account) -> (bool, String) {
    let value = format!("\"{}\"", "x".repeat(200));
    let values = (0..200).map(|n| {
        ResourceRecord::builder()
            .value(format!("{value} \"{n}\""))
            .build()
            .expect("complete")
    });
    let record = ResourceRecordSet::builder()
        .name(account.host("long"))
        .r#type(RrType::Txt)
        .ttl(60);
    let record = record
        .set_resource_records(Some(values.collect()))
        .build()
        .expect("complete");
    let change = Change::builder()
        .action(ChangeAction::Create)
        .resource_record_set(record)
        .build()
        .expect("complete");
    let batch = ChangeBatch::builder().changes(change).build().expect("complete");
    let request = aws_sdk_route53::Client::new(&account.sdk).change_resource_record_sets();
    let (holds, seen) = refusal(
        &request
            .hosted_zone_id(&account.zone_id)
            .change_batch(batch)
            .send()
            .await,
        "InvalidChangeBatch",
    );
    (holds && seen.contains("32000 characters"), seen)
}

/// Creates the bucket of the later checks, too.
async fn versioning_at_once(account: &Account) -> (bool, String) {
    let s3 = aws_sdk_s3::Client::new(&account.sdk);
    let bucket = format!("{}-bucket", account.run);
    let mut request = s3.create_bucket().bucket(&bucket);
    if account.region != "us-east-1" {
        let place = BucketLocationConstraint::from(account.region.as_str());
        request = request.create_bucket_configuration(
            CreateBucketConfiguration::builder()
                .location_constraint(place)
                .build(),
        );
    }
    request.send().await.expect("CreateBucket");
    let enabled = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Enabled)
        .build();
    let request = s3
        .put_bucket_versioning()
        .bucket(&bucket)
        .versioning_configuration(enabled);
    request.send().await.expect("PutBucketVersioning");
    let status = s3
        .get_bucket_versioning()
        .bucket(&bucket)
        .send()
        .await
        .expect("GetBucketVersioning")
        .status;
    (
        status == Some(BucketVersioningStatus::Enabled),
        format!("{status:?}"),
    )
}

async fn kms_alias(account: &Account) -> (bool, String) {
    let s3 = aws_sdk_s3::Client::new(&account.sdk);
    let bucket = format!("{}-bucket", account.run);
    // AWS's own key, which costs nothing.
    let alias = format!("arn:aws:kms:{}:{}:alias/aws/s3", account.region, account.id);
    let request = s3
        .put_object()
        .bucket(&bucket)
        .key("encrypted")
        .body(ByteStream::from_static(b"x"));
    let request = request
        .server_side_encryption(ServerSideEncryption::AwsKms)
        .ssekms_key_id(alias);
    request.send().await.expect("PutObject");
    let object = s3
        .head_object()
        .bucket(&bucket)
        .key("encrypted")
        .send()
        .await
        .expect("HeadObject");
    let key = object.ssekms_key_id.unwrap_or_default();
    (key.starts_with("arn:") && key.contains(":key/"), key)
}

/// REST API that answers GET of `/` and, after a deployment, of later resources, by itself: it needs no
/// function and no server. Returns its id.
pub async fn mock_api(account: &Account, name: &str) -> String {
    let rest = aws_sdk_apigateway::Client::new(&account.sdk);
    let regional = EndpointConfiguration::builder()
        .types(EndpointType::Regional)
        .build();
    let request = rest
        .create_rest_api()
        .name(format!("{}-{name}", account.run))
        .endpoint_configuration(regional);
    let made = request.send().await.expect("CreateRestApi");
    let (id, root) = (made.id.expect("an id"), made.root_resource_id.expect("a root"));
    answer(&rest, &id, &root).await;
    deploy(&rest, &id, "prod").await;
    id
}

/// Makes the API answer GET of this resource with 200.
async fn answer(rest: &aws_sdk_apigateway::Client, api: &str, resource: &str) {
    let request = rest
        .put_method()
        .rest_api_id(api)
        .resource_id(resource)
        .http_method("GET")
        .authorization_type("NONE");
    request.send().await.expect("PutMethod");
    let request = rest
        .put_integration()
        .rest_api_id(api)
        .resource_id(resource)
        .http_method("GET");
    let request = request
        .r#type(IntegrationType::Mock)
        .request_templates("application/json", r#"{"statusCode": 200}"#);
    request.send().await.expect("PutIntegration");
    let request = rest
        .put_method_response()
        .rest_api_id(api)
        .resource_id(resource)
        .http_method("GET");
    request
        .status_code("200")
        .send()
        .await
        .expect("PutMethodResponse");
    let request = rest
        .put_integration_response()
        .rest_api_id(api)
        .resource_id(resource)
        .http_method("GET");
    request
        .status_code("200")
        .send()
        .await
        .expect("PutIntegrationResponse");
}

async fn deploy(rest: &aws_sdk_apigateway::Client, api: &str, stage: &str) {
    rest.create_deployment()
        .rest_api_id(api)
        .stage_name(stage)
        .send()
        .await
        .expect("CreateDeployment");
}

async fn stage_update_publishes(account: &Account) -> (bool, String) {
    let rest = aws_sdk_apigateway::Client::new(&account.sdk);
    let api = mock_api(account, "flag").await;
    let host = execute_api(account, &api);
    let status = async |path: &str| account.status(&host, &host, path, None, &[]).await;
    account
        .eventually("the API answers", async || {
            let status = status("/prod/").await;
            if status == "200" { Ok(()) } else { Err(status) }
        })
        .await;
    let root = rest
        .get_resources()
        .rest_api_id(&api)
        .send()
        .await
        .expect("GetResources")
        .items;
    let root = root
        .into_iter()
        .flatten()
        .next()
        .and_then(|r| r.id)
        .expect("a root");
    let late = rest
        .create_resource()
        .rest_api_id(&api)
        .parent_id(root)
        .path_part("late")
        .send()
        .await;
    answer(&rest, &api, &late.expect("CreateResource").id.expect("an id")).await;

    set_flag(&rest, &api, true).await;
    touch_stage(&rest, &api).await;
    let closed = soon(account, async || status("/prod/").await == "403").await;
    set_flag(&rest, &api, false).await;
    touch_stage(&rest, &api).await;
    let open = soon(account, async || status("/prod/").await == "200").await;
    let late = status("/prod/late").await;
    (
        closed && open && late != "200",
        format!("closed {closed}, open {open}, {late}"),
    )
}

/// Changes nothing, as the operator does.
async fn touch_stage(rest: &aws_sdk_apigateway::Client, api: &str) {
    let patch = PatchOperation::builder()
        .op(Op::Replace)
        .path("/tracingEnabled")
        .value("false");
    rest.update_stage()
        .rest_api_id(api)
        .stage_name("prod")
        .patch_operations(patch.build())
        .send()
        .await
        .expect("UpdateStage");
}

async fn set_flag(rest: &aws_sdk_apigateway::Client, api: &str, closed: bool) {
    let patch = PatchOperation::builder()
        .op(Op::Replace)
        .path("/disableExecuteApiEndpoint")
        .value(closed.to_string());
    rest.update_rest_api()
        .rest_api_id(api)
        .patch_operations(patch.build())
        .send()
        .await
        .expect("UpdateRestApi");
}

/// True when the check holds within a tenth of the maximum time.
async fn soon(account: &Account, check: impl AsyncFn() -> bool) -> bool {
    let started = std::time::Instant::now();
    while started.elapsed() < account.timeout / 10 {
        if check().await {
            return true;
        }
        tokio::time::sleep(account.timeout / 600).await;
    }
    false
}

/// True when the status comes to be this one, and stays so for a minute; with the last status.
async fn stays(account: &Account, expected: &str, status: impl AsyncFn() -> String) -> (bool, String) {
    soon(account, async || status().await == expected).await;
    let since = std::time::Instant::now();
    loop {
        let seen = status().await;
        if seen != expected || since.elapsed() > account.timeout / 90 {
            return (seen == expected, seen);
        }
        tokio::time::sleep(account.timeout / 900).await;
    }
}

pub async fn of_certificates_in_use(account: &Account, arn: &str, findings: &mut Findings) {
    findings.item("in-use-by-arn", in_use_by_arn(account, arn)).await;
}

/// AWS names several load balancers, as a rule three.
async fn in_use_by_arn(account: &Account, arn: &str) -> (bool, String) {
    let acm = aws_sdk_acm::Client::new(&account.sdk);
    let users = account
        .eventually("the certificate is in use", async || {
            let answer = acm
                .describe_certificate()
                .certificate_arn(arn)
                .send()
                .await
                .map_err(|e| format!("{e:?}"))?;
            let users = answer.certificate.and_then(|c| c.in_use_by).unwrap_or_default();
            if users.is_empty() {
                Err("nothing uses the certificate".into())
            } else {
                Ok(users)
            }
        })
        .await;
    let is_balancer = |arn: &String| {
        let parts: Vec<_> = arn.splitn(6, ':').collect();
        parts[..4] == ["arn", "aws", "elasticloadbalancing", &account.region]
            && parts[5].starts_with("loadbalancer/app/prod-")
    };
    (users.iter().all(is_balancer), format!("{users:?}"))
}

/// Checks on a custom domain that has no mutual TLS yet. Afterwards it has mutual TLS that no caller passes.
pub async fn with_a_domain(account: &Account, domain: &ByHand, findings: &mut Findings) {
    let ByHand { host, front } = domain;
    let status =
        async |caller: Option<&crate::account::Identity>| account.status(host, front, "/", caller, &[]).await;
    findings
        .item(
            "unknown-name",
            stays(account, "000", async || {
                let absent = account.host("absent");
                account.status(&absent, front, "/", None, &["--insecure"]).await
            }),
        )
        .await;
    let other = format!("host: {}", account.host("other"));
    findings
        .item(
            "another-host",
            stays(account, "403", async || {
                account
                    .status(host, front, "/", None, &["--header", &other])
                    .await
            }),
        )
        .await;

    findings
        .item("ec-server-certificate", async {
            let answer = ec_certificate(account, host).await;
            (answer.is_ok(), format!("{answer:?}"))
        })
        .await;
    let refused =
        async |key: &str, pem: String| refusal(&trust(account, host, key, &pem).await, "BadRequestException");
    findings
        .item("truststore-size", async {
            let many = (0..1001).map(|n| self_signed(&format!("many {n}")).certificate);
            refused("many", many.collect()).await
        })
        .await;
    findings
        .item("truststore-subject-twice", async {
            let twice = self_signed("twice").certificate + &self_signed("twice").certificate;
            refused("twice", twice).await
        })
        .await;
    findings
        .item("truststore-warnings", async {
            let expired = self_signed_until("expired", rcgen::date_time_ymd(2021, 1, 1));
            let warnings = trust(account, host, "expired", &expired.certificate).await;
            let text = "Certificate with subject CN=expired has expired.";
            (
                warnings.as_ref().is_ok_and(|warnings| warnings == &[text]),
                format!("{warnings:?}"),
            )
        })
        .await;
    findings
        .item("self-signed-as-it-is", async {
            let caller = version_1("as it is");
            let set = trust(account, host, "self-signed", &caller.certificate).await;
            set.expect("UpdateDomainName");
            let answered = soon(account, async || status(Some(&caller)).await == "200").await;
            (answered, format!("answered {answered}"))
        })
        .await;
    findings
        .item("leaf-anchor-issues-nothing", async {
            let (anchor, child) = crate::scenarios::anchor_and_child();
            let set = trust(account, host, "leaf-anchor", &anchor.certificate).await;
            set.expect("UpdateDomainName");
            let trusted = soon(account, async || status(Some(&anchor)).await == "200").await;
            let (refused, seen) = stays(account, "403", async || status(Some(&child)).await).await;
            let seen = format!("the anchor answered {trusted}, what it signed {seen}");
            (trusted && refused, seen)
        })
        .await;
    findings
        .item("truststore-empty", async {
            let warnings = trust(account, host, "empty", "nothing\n").await;
            let holds = warnings.as_ref().is_ok_and(|warnings| !warnings.is_empty());
            (holds, format!("{warnings:?}"))
        })
        .await;
    findings
        .item("policy-with-mutual-tls", async {
            let policy = PatchOperation::builder()
                .op(Op::Replace)
                .path("/securityPolicy")
                .value("TLS_1_0")
                .build();
            let rest = aws_sdk_apigateway::Client::new(&account.sdk);
            let change = rest.update_domain_name().domain_name(host);
            refusal(
                &change.patch_operations(policy).send().await,
                "BadRequestException",
            )
        })
        .await;
    off(account, host).await;
}

/// Puts a certificate with an elliptic curve on the domain, and the former certificate back. ACM issues the
/// certificate by the validation record of the former one, which has the same name.
async fn ec_certificate(account: &Account, host: &str) -> Result<(), String> {
    let acm = aws_sdk_acm::Client::new(&account.sdk);
    let request = acm
        .request_certificate()
        .domain_name(host)
        .validation_method(ValidationMethod::Dns)
        .key_algorithm(KeyAlgorithm::EcPrime256v1)
        .send();
    let arn = request
        .await
        .map_err(|error| format!("{error:?}"))?
        .certificate_arn;
    let arn = arn.ok_or("no ARN")?;
    account
        .eventually("the certificate with an elliptic curve is issued", async || {
            let answer = acm.describe_certificate().certificate_arn(&arn).send().await;
            let status = answer
                .map_err(|error| format!("{error:?}"))?
                .certificate
                .and_then(|c| c.status);
            match status {
                Some(CertificateStatus::Issued) => Ok(()),
                status => Err(format!("{status:?}")),
            }
        })
        .await;
    let former = update(account, host, "", Some(arn)).await?;
    update(account, host, "", former).await.map(drop)
}

/// Check on a domain with mutual TLS, whose mapping leads to the API: a handshake under another name needs no
/// client certificate, and may not reach the domain by its `Host` header.
pub async fn with_mutual_tls(account: &Account, api: &str, host: &str, front: &str, findings: &mut Findings) {
    let (other, header) = (execute_api(account, api), format!("host: {host}"));
    findings
        .item("host-of-mutual-tls", async {
            let status = account
                .status(&other, front, "/", None, &["--header", &header])
                .await;
            let (_, stayed) = stays(account, &status, async || {
                account
                    .status(&other, front, "/", None, &["--header", &header])
                    .await
            })
            .await;
            (
                status != "200" && stayed != "200",
                format!("{status}, then {stayed}"),
            )
        })
        .await;
}

/// Sets the domain's truststore to an object with this text. Returns AWS's warnings.
async fn trust(account: &Account, host: &str, key: &str, pem: &str) -> Result<Vec<String>, String> {
    let bucket = format!("{}-bucket", account.run);
    let body = ByteStream::from(pem.as_bytes().to_vec());
    let s3 = aws_sdk_s3::Client::new(&account.sdk);
    s3.put_object()
        .bucket(&bucket)
        .key(key)
        .body(body)
        .send()
        .await
        .expect("PutObject");
    update(account, host, &format!("s3://{bucket}/{key}"), None).await?;
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk);
    let domain = gateway
        .get_domain_name()
        .domain_name(host)
        .send()
        .await
        .expect("GetDomainName");
    Ok(domain
        .mutual_tls_authentication
        .and_then(|m| m.truststore_warnings)
        .unwrap_or_default())
}

async fn off(account: &Account, host: &str) {
    update(account, host, "", None).await.expect("UpdateDomainName");
}

/// Waits while AWS has too many of these calls, and until the change is done. Returns the former certificate.
async fn update(
    account: &Account,
    host: &str,
    truststore: &str,
    certificate: Option<String>,
) -> Result<Option<String>, String> {
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk);
    let changed = account
        .eventually("UpdateDomainName", async || {
            match update_once(account, &gateway, host, truststore, certificate.clone()).await {
                Err(error) if error.contains("TooManyRequests") || error.contains("ConflictException") => {
                    Err(error)
                }
                result => Ok(result),
            }
        })
        .await;
    settled(account, host).await;
    changed
}

async fn update_once(
    account: &Account,
    gateway: &aws_sdk_apigatewayv2::Client,
    host: &str,
    truststore: &str,
    certificate: Option<String>,
) -> Result<Option<String>, String> {
    let domain = gateway
        .get_domain_name()
        .domain_name(host)
        .send()
        .await
        .expect("GetDomainName");
    let now = domain.domain_name_configurations.expect("one").remove(0);
    let config = DomainNameConfiguration::builder()
        .set_certificate_arn(certificate.or(now.certificate_arn.clone()))
        .set_endpoint_type(now.endpoint_type)
        .set_security_policy(now.security_policy)
        .build();
    let trust = MutualTlsAuthenticationInput::builder()
        .truststore_uri(truststore)
        .build();
    let request = gateway
        .update_domain_name()
        .domain_name(host)
        .domain_name_configurations(config);
    let request = request.mutual_tls_authentication(trust);
    request
        .send()
        .await
        .map(|_| now.certificate_arn)
        .map_err(|error| format!("{} {error:?}", account.id))
}

/// Certificate of X.509 version 1, as `openssl x509 -signkey` makes it from a request.
fn version_1(common_name: &str) -> crate::account::Identity {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let subject = format!("/CN={common_name}");
    let openssl = |arguments: &[&str]| {
        let done = std::process::Command::new("openssl")
            .args(arguments)
            .current_dir(dir.path())
            .output();
        let done = done.expect("openssl is there");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    openssl(&[
        "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "csr", "-subj", &subject,
    ]);
    openssl(&[
        "x509", "-signkey", "key", "-in", "csr", "-req", "-days", "2", "-out", "crt",
    ]);
    let file =
        |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("openssl has written the file");
    crate::account::Identity {
        certificate: file("crt"),
        key: file("key"),
    }
}

/// Deletes the domain in the middle of a change.
pub async fn at_the_end(account: &Account, domain: &ByHand, findings: &mut Findings) {
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk);
    findings
        .item("delete-while-updating", async {
            account
                .eventually("UpdateDomainName", async || {
                    update_once(account, &gateway, &domain.host, "", None).await
                })
                .await;
            let delete = gateway.delete_domain_name().domain_name(&domain.host);
            let deleted = delete.send().await;
            (deleted.is_ok(), format!("{deleted:?}"))
        })
        .await;
}

#[tokio::test]
async fn a_failed_check_differs_and_the_others_go_on() {
    let mut findings = Findings::default();
    let broken = async { panic!("CreateBucket: {}", "AccessDenied") };
    findings.item("kms-alias", broken).await;
    findings.item("unknown-api", async { (true, "403".into()) }).await;
    assert_eq!(
        findings.0["kms-alias"],
        (false, "the check failed: CreateBucket: AccessDenied".into())
    );
    let last = findings.print();
    assert!(last.contains("hold=1 differ=1"), "{last}");
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| findings.hold()));
    assert!(ended.is_err());
}
