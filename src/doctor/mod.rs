//! `mtls-operator doctor`: why callers are refused. [`gather`] reads the cluster and AWS and calls the domain
//! as a client would, [`facts`] is what it found, [`findings`] says what of it is wrong and what to do.
//! Writes nothing anywhere: the gate of its AWS calls lets no write pass.

mod facts;
mod findings;
mod gather;
#[cfg(test)]
mod tests;

use crate::probe::https::ProbeOptions;
use clap::{Args, ValueEnum};
use facts::Facts;
use findings::{Finding, findings};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Say why callers of a domain are refused ("why 403?"), and what to do about it (docs/troubleshooting.md).
///
/// Reads the cluster (as kubectl does) and AWS (as its CLI does), calls the domain over HTTPS, and changes
/// nothing. Exit code 0: nothing found; 1: something found; 2: not everything could be looked at, and nothing
/// was found in the rest.
#[derive(Args)]
pub struct Doctor {
    /// The domain name, or the MtlsDomain as NAMESPACE/NAME.
    domain: String,
    /// PEM file with the client certificate of a caller who is refused, and what the caller sends along with
    /// it.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// A ClientCertificate, NAMESPACE/NAME, whose Secret has both.
    #[arg(long, conflicts_with = "cert")]
    certificate: Option<String>,
    /// The path that is called.
    #[arg(long, default_value = "/")]
    path: String,
    /// How to write what is found.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// The operator's policy file: for the external ids of roles to assume.
    #[arg(long, env = "MTLS_OPERATOR_POLICY")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    outside: ProbeOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What is written.
#[derive(Serialize)]
struct Report<'a> {
    domain_name: &'a str,
    /// NAMESPACE/NAME of the MtlsDomain.
    object: &'a str,
    /// What the domain answered: a status, or why there was no answer.
    answer: String,
    findings: Vec<Finding>,
    /// What could not be looked at, and why.
    unseen: Vec<String>,
}

/// Looks, and writes what was found.
///
/// # Errors
/// Nothing at all could be looked at.
pub async fn run(args: Doctor) -> anyhow::Result<ExitCode> {
    let caller = match (args.cert, args.key, args.certificate) {
        (Some(cert), Some(key), _) => gather::Caller::Files { cert, key },
        (_, _, Some(name)) => gather::Caller::Object(name),
        _ => gather::Caller::Nobody,
    };
    let facts = gather::gather(
        &args.domain,
        caller,
        &args.path,
        args.policy.as_deref(),
        &args.outside,
    )
    .await?;
    let report = report(&facts);
    match args.output {
        Output::Text => print!("{}", text(&report)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(match (report.findings.is_empty(), report.unseen.is_empty()) {
        (false, _) => ExitCode::from(1),
        (true, false) => ExitCode::from(2),
        (true, true) => ExitCode::SUCCESS,
    })
}

fn report(facts: &Facts) -> Report<'_> {
    Report {
        domain_name: &facts.object.domain_name,
        object: &facts.object.name,
        answer: facts.answer.to_string(),
        findings: findings(facts),
        unseen: facts.unseen(),
    }
}

fn text(report: &Report<'_>) -> String {
    let mut text = format!(
        "{} (MtlsDomain {})\n{}\n",
        report.domain_name, report.object, report.answer
    );
    for finding in &report.findings {
        let Finding { what, cause, remedy } = finding;
        let _ = write!(text, "\n{what}\n  cause:  {cause}\n  remedy: {remedy}\n"); // a String takes everything
    }
    for unseen in &report.unseen {
        let _ = write!(text, "\nnot looked at: {unseen}\n");
    }
    if report.findings.is_empty() && report.unseen.is_empty() {
        text.push_str("\nNothing found.\n");
    }
    text
}
