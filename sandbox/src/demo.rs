//! The main use case as a scenario: each step uses the tools of a user (kubectl, curl), and each claim is
//! checked at its effect.
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

use sandbox::world;

use crate::{Stage, build_operator, folder, operator_binary, set_up, start_operator};

/// Time limit of every step.
const DEADLINE: Duration = Duration::from_secs(120);

/// Claims that failed.
#[derive(Default)]
struct Checks {
    failed: Vec<String>,
    count: usize,
}

impl Checks {
    fn note(&mut self, claim: &str, held: Result<String, anyhow::Error>) {
        self.count += 1;
        match held {
            Ok(seen) => println!("  ok   {claim}: {seen}"),
            Err(error) => {
                println!("  FAIL {claim}: {error:#}");
                self.failed.push(claim.to_owned());
            }
        }
    }
}

pub async fn run(dir: Option<PathBuf>) -> anyhow::Result<()> {
    let started = Instant::now();
    announce()?;
    heading("Building the operator");
    let binary = build_operator()?;
    let (dir, temporary) = folder(dir)?;
    heading(
        "Setting up the local world, and what a user has already: a hosted zone, a versioned bucket, an HTTP \
         API with a function",
    );
    let stage = set_up(&dir).await?;
    let _operator = start_operator(&stage, binary).await?;
    println!(
        "  everything is up after {:.1} s; logs are in {}",
        started.elapsed().as_secs_f64(),
        dir.display()
    );

    let mut checks = Checks::default();
    let told = tell(&stage, &mut checks).await;
    if told.is_ok() && checks.failed.is_empty() {
        println!(
            "\nAll {} checks held, in {:.1} s.",
            checks.count,
            started.elapsed().as_secs_f64()
        );
        return Ok(());
    }
    if let Some(temporary) = temporary {
        let _ = temporary.keep(); // for readers of the logs
    }
    told.context(format!("the scenario broke off; logs are in {}", dir.display()))?;
    bail!(
        "these did not hold: {}; logs are in {}",
        checks.failed.join("; "),
        dir.display()
    )
}

/// Prints the preparations for the scenario, and how long they take.
fn announce() -> anyhow::Result<()> {
    heading("What this waits for first");
    let mut waits = world::to_wait_for()?;
    if !operator_binary()?.exists() {
        waits.insert(
            0,
            "the operator: compiled once, then only what changed: 6 to 8 minutes on two cores".to_owned(),
        );
    }
    if waits.is_empty() {
        println!("  nothing: all of it was built before. The scenario itself takes under a minute.");
    }
    for wait in waits {
        println!("  {wait}");
    }
    Ok(())
}

async fn tell(stage: &Stage, checks: &mut Checks) -> anyhow::Result<()> {
    let name = format!("mtls.{}", stage.prepared.zone);
    heading("Applying examples/quickstart.yaml: an MtlsDomain and a ClientCertificate, Ready within seconds");
    let applied = Instant::now();
    kubectl(
        stage,
        &[
            "apply",
            "-f",
            &stage.root.join("examples/quickstart.yaml").display().to_string(),
        ],
    )?;
    conditions_turn_true(stage, applied).await?;
    println!(
        "  apply to Ready of both: {:.2} s",
        applied.elapsed().as_secs_f64()
    );

    heading("Proving it with TLS connections");
    prove(stage, &name, checks).await?;

    heading("One change: a second mapping");
    let patch = format!(
        r#"{{"spec":{{"mappings":[{{"path":"","api":{{"id":"{id}","stage":"$default"}}}},{{"path":"orders","api":{{"id":"{id}","stage":"$default"}}}}]}}}}"#,
        id = stage.prepared.api_id
    );
    let changed = Instant::now();
    kubectl(
        stage,
        &["patch", "mtlsdomain", "partners", "--type", "merge", "-p", &patch],
    )?;
    let arrived =
        until(async || Ok(mapped(stage, &name).await? == BTreeSet::from([String::new(), "orders".into()])))
            .await;
    checks.note(
        "the second mapping is in API Gateway",
        arrived.map(|()| after(changed)),
    );

    heading("One drift: the alias record is deleted, and the operator corrects it within 5 s");
    let drifted = Instant::now();
    delete_alias(stage, &name).await?;
    let back = until(async || {
        Ok(records(stage, &name)
            .await?
            .iter()
            .any(|r| r.r#type == aws_sdk_route53::types::RrType::A))
    })
    .await;
    checks.note("the alias record is restored", back.map(|()| after(drifted)));

    heading("Deleting both objects: kubectl waits for AWS to be clean, some seconds");
    let deleted = Instant::now();
    kubectl(
        stage,
        &[
            "delete",
            "-f",
            &stage.root.join("examples/quickstart.yaml").display().to_string(),
            "--timeout=110s",
        ],
    )?;
    let left = until(async || Ok(left_in_aws(stage, &name).await?.is_empty())).await;
    let left = match left {
        Ok(()) => Ok(after(deleted)),
        Err(_) => Err(anyhow::anyhow!(
            "left: {}",
            left_in_aws(stage, &name).await?.join(", ")
        )),
    };
    checks.note(
        "nothing of the operator is left in AWS but the validation record",
        left,
    );
    Ok(())
}

/// Prints each condition as it becomes True, until both objects are Ready.
async fn conditions_turn_true(stage: &Stage, applied: Instant) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    let mut last = String::new();
    while applied.elapsed() < DEADLINE {
        for (kind, object) in [("MtlsDomain", "partners"), ("ClientCertificate", "client1")] {
            let Some(found) = api(stage, kind).get_opt(object).await? else {
                continue;
            };
            let conditions = found.data["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            for c in &conditions {
                let type_ = c["type"].as_str().unwrap_or_default().to_owned();
                if c["status"] == "True" && type_ != "Reconciling" && seen.insert((kind, type_.clone())) {
                    println!(
                        "  {:6.2} s  {kind:17} {type_:20} {}",
                        applied.elapsed().as_secs_f64(),
                        c["message"].as_str().unwrap_or_default()
                    );
                }
                if type_ == "Ready" && c["status"] != "True" {
                    last = format!("{kind} {object} is not Ready: {} {}", c["reason"], c["message"]);
                }
            }
        }
        if ["MtlsDomain", "ClientCertificate"]
            .iter()
            .all(|kind| seen.contains(&(*kind, "Ready".to_owned())))
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{last}")
}

async fn prove(stage: &Stage, name: &str, checks: &mut Checks) -> anyhow::Result<()> {
    let dir = &stage.world.dir;
    let secret: Api<k8s_openapi::api::core::v1::Secret> =
        Api::default_namespaced(stage.world.kubernetes.admin());
    let data = secret
        .get("client1-mtls")
        .await
        .context("the certificate's Secret")?
        .data
        .unwrap_or_default();
    for (key, file) in [("tls.crt", "client1.crt"), ("tls.key", "client1.key")] {
        let bytes = &data
            .get(key)
            .with_context(|| format!("the Secret has no {key}"))?
            .0;
        std::fs::write(dir.join(file), bytes)?;
    }
    write_stranger(dir)?;
    let with = |file: &str| {
        vec![
            "--cert".to_owned(),
            path(dir, &format!("{file}.crt")),
            "--key".to_owned(),
            path(dir, &format!("{file}.key")),
        ]
    };

    let answer = curl(stage, name, &with("client1"))?;
    checks.note(
        "with the certificate from the Secret: 200 and the function's body",
        expect(&answer, "200", "Hello"),
    );
    let answer = curl(stage, name, &[])?;
    let refused = if answer.status == "000" {
        Ok(format!("handshake refused (curl exit code {})", answer.code))
    } else {
        Err(anyhow::anyhow!("answered {}", answer.status))
    };
    checks.note("without a certificate: no answer", refused);
    let answer = curl(stage, name, &with("stranger"))?;
    checks.note(
        "with a certificate of another CA: 403",
        expect(&answer, "403", "Forbidden"),
    );
    let answer = curl(stage, &stage.prepared.execute_api_host, &[])?;
    checks.note(
        "the execute-api host: 404 Not Found",
        expect(&answer, "404", "Not Found"),
    );
    for host in [name, &stage.prepared.execute_api_host] {
        checks.note(&format!("the local DNS knows {host}"), resolve(stage, host).await);
    }
    Ok(())
}

struct Answer {
    status: String,
    body: String,
    code: i32,
}

fn expect(answer: &Answer, status: &str, body: &str) -> anyhow::Result<String> {
    ensure!(
        answer.status == status && answer.body.contains(body),
        "answered {} {:?} (curl exit code {})",
        answer.status,
        answer.body,
        answer.code
    );
    Ok(format!("{status} {}", answer.body.trim()))
}

/// Runs curl; the printed line is the line that runs.
fn curl(stage: &Stage, host: &str, certificate: &[String]) -> anyhow::Result<Answer> {
    let mut args = vec![
        "--silent".to_owned(),
        "--show-error".to_owned(),
        "--max-time".to_owned(),
        "10".to_owned(),
    ];
    args.extend(["--cacert".to_owned(), stage.world.ca_file().display().to_string()]);
    args.extend([
        "--connect-to".to_owned(),
        format!("{host}:443:{}", stage.world.edge.address()),
    ]);
    args.extend(certificate.iter().cloned());
    args.push(format!("https://{host}/"));
    println!("  $ curl {}", args.join(" "));
    let out = Command::new("curl")
        .args(["--write-out", "\n%{http_code}"])
        .args(&args)
        .output()
        .context("cannot run curl")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "000"));
    Ok(Answer {
        status: status.to_owned(),
        body: body.to_owned(),
        code: out.status.code().unwrap_or(-1),
    })
}

/// Writes a client certificate that no truststore of the demo trusts.
fn write_stranger(dir: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![])?;
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "stranger");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    std::fs::write(dir.join("stranger.crt"), params.self_signed(&key)?.pem())?;
    std::fs::write(dir.join("stranger.key"), key.serialize_pem())?;
    Ok(())
}

async fn resolve(stage: &Stage, host: &str) -> anyhow::Result<String> {
    let address = stage.world.dns.address();
    let mut connection = ConnectionConfig::udp();
    connection.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let resolver: TokioResolver =
        Resolver::builder_with_config(config, TokioRuntimeProvider::default()).build()?;
    let found = resolver.lookup_ip(format!("{host}.")).await?;
    let edge = stage.world.edge.address().ip();
    ensure!(found.iter().any(|ip| ip == edge), "it is not at the edge");
    Ok(edge.to_string())
}

// ---- state in AWS

async fn mapped(stage: &Stage, name: &str) -> anyhow::Result<BTreeSet<String>> {
    let answer = aws_sdk_apigatewayv2::Client::new(&stage.account.sdk())
        .get_api_mappings()
        .domain_name(name)
        .send()
        .await?;
    Ok(answer
        .items()
        .iter()
        .map(|m| {
            m.api_mapping_key()
                .unwrap_or_default()
                .trim_start_matches("(none)")
                .to_owned()
        })
        .collect())
}

async fn records(
    stage: &Stage,
    name: &str,
) -> anyhow::Result<Vec<aws_sdk_route53::types::ResourceRecordSet>> {
    let zone = &stage.prepared.zone_id;
    let answer = aws_sdk_route53::Client::new(&stage.account.sdk())
        .list_resource_record_sets()
        .hosted_zone_id(zone)
        .send()
        .await?;
    let ours = [format!("{name}."), format!("_mtls-operator.{name}.")];
    Ok(answer
        .resource_record_sets
        .into_iter()
        .filter(|r| ours.contains(&r.name))
        .collect())
}

async fn delete_alias(stage: &Stage, name: &str) -> anyhow::Result<()> {
    use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, RrType};
    let alias = records(stage, name)
        .await?
        .into_iter()
        .find(|r| r.r#type == RrType::A)
        .context("there is no alias record")?;
    let change = Change::builder()
        .action(ChangeAction::Delete)
        .resource_record_set(alias)
        .build()?;
    let batch = ChangeBatch::builder().changes(change).build()?;
    let client = aws_sdk_route53::Client::new(&stage.account.sdk());
    client
        .change_resource_record_sets()
        .hosted_zone_id(&stage.prepared.zone_id)
        .change_batch(batch)
        .send()
        .await?;
    Ok(())
}

async fn left_in_aws(stage: &Stage, name: &str) -> anyhow::Result<Vec<String>> {
    let sdk = stage.account.sdk();
    let mut left = Vec::new();
    let domains = aws_sdk_apigatewayv2::Client::new(&sdk)
        .get_domain_names()
        .send()
        .await?;
    left.extend(
        domains
            .items()
            .iter()
            .filter_map(|d| d.domain_name())
            .map(|d| format!("domain {d}")),
    );
    use aws_sdk_acm::types::{Filters, KeyAlgorithm};
    let kinds = [
        KeyAlgorithm::EcPrime256v1,
        KeyAlgorithm::EcSecp384r1,
        KeyAlgorithm::Rsa2048,
    ];
    let includes = Filters::builder().set_key_types(Some(kinds.to_vec())).build();
    let certificates = aws_sdk_acm::Client::new(&sdk)
        .list_certificates()
        .includes(includes)
        .send()
        .await?;
    left.extend(
        certificates
            .certificate_summary_list()
            .iter()
            .filter_map(|c| c.certificate_arn())
            .map(|c| format!("certificate {c}")),
    );
    let versions = aws_sdk_s3::Client::new(&sdk)
        .list_object_versions()
        .bucket(&stage.prepared.bucket)
        .send()
        .await?;
    left.extend(
        versions
            .versions()
            .iter()
            .filter_map(|v| v.key())
            .map(|k| format!("object {k}")),
    );
    left.extend(
        records(stage, name)
            .await?
            .iter()
            .map(|r| format!("record {} {}", r.r#type, r.name)),
    );
    Ok(left)
}

// ---- helpers of the scenario

fn heading(text: &str) {
    println!("\n== {text}");
}

fn after(since: Instant) -> String {
    format!("after {:.2} s", since.elapsed().as_secs_f64())
}

fn path(dir: &Path, file: &str) -> String {
    dir.join(file).display().to_string()
}

async fn until(mut held: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let started = Instant::now();
    while !held().await? {
        ensure!(
            started.elapsed() < DEADLINE,
            "not within {} s",
            DEADLINE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn kubectl(stage: &Stage, args: &[&str]) -> anyhow::Result<()> {
    println!("  $ kubectl {}", args.join(" "));
    let program = stage.world.kubernetes.bin_dir().join("kubectl");
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .arg("--kubeconfig")
        .arg(&stage.world.kubernetes.kubeconfig)
        .args(args)
        .output()
        .context("cannot run kubectl")?;
    for line in String::from_utf8_lossy(&stdout).lines() {
        println!("    {line}");
    }
    ensure!(
        status.success(),
        "kubectl {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&stderr).trim()
    );
    Ok(())
}

fn api(stage: &Stage, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mtls-operator.io", "v1alpha1", kind));
    Api::default_namespaced_with(stage.world.kubernetes.admin(), &resource)
}
