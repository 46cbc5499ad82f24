//! `mtls-operator doctor`: explains why callers are refused. [`gather`] reads the cluster and AWS and calls
//! the domain as a client would, [`facts`] holds the facts, [`mod@findings`] finds the problems and their
//! remedies. Writes nothing anywhere: the gate of its AWS calls lets no write pass.

pub mod facts;
pub mod finding;
pub mod findings;
pub mod gather;
pub mod gather_aws;
pub mod trust_findings;

use std::{fmt::Write, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::doctor::{facts::Facts, finding::Finding, findings::findings};

use crate::probe::https::ProbeOptions;

/// Explains why callers of a domain are refused ("why 403?"), and how to fix it (docs/troubleshooting.md).
///
/// Reads the cluster (as kubectl does) and AWS (as its CLI does), calls the domain over HTTPS, and changes
/// nothing. Exit code 0: nothing found; 1: something found; 2: some checks were not possible, and the others
/// found nothing.
#[derive(Args)]
pub struct Doctor {
    /// Domain name, or the MtlsDomain as NAMESPACE/NAME.
    domain: String,
    /// PEM file with the client certificate of a refused caller, and the certificates that the caller sends
    /// with it. Default: no client certificate is checked.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with the private key of --cert.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// ClientCertificate, as NAMESPACE/NAME, whose Secret has certificate and key. Default: none.
    #[arg(long, conflicts_with = "cert")]
    certificate: Option<String>,
    /// Path of the call.
    #[arg(long, default_value = "/")]
    path: String,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Policy file of the operator, for the external ids of roles to assume. Default: no external ids.
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

/// Output of the command.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    domain_name: &'a str,
    /// MtlsDomain, as NAMESPACE/NAME.
    object: &'a str,
    /// Answer of the domain: a status, or why there was no answer.
    answer: String,
    findings: Vec<Finding>,
    /// Facts that could not be read, with the reasons.
    unseen: Vec<String>,
}

/// Gathers the facts, and writes the findings.
///
/// # Errors
/// No fact at all could be read.
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

pub(crate) fn report(facts: &Facts) -> Report<'_> {
    Report {
        domain_name: &facts.object.domain_name,
        object: &facts.object.name,
        answer: facts.answer.to_string(),
        findings: findings(facts),
        unseen: facts.unseen(),
    }
}

pub(crate) fn text(report: &Report<'_>) -> String {
    let mut text = format!(
        "{} (MtlsDomain {})\n{}\n",
        report.domain_name, report.object, report.answer
    );
    for finding in &report.findings {
        let Finding { what, cause, remedy } = finding;
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{what}\n  cause:  {cause}\n  remedy: {remedy}\n");
    }
    for unseen in &report.unseen {
        let _ = write!(text, "\nnot checked: {unseen}\n");
    }
    if report.findings.is_empty() && report.unseen.is_empty() {
        text.push_str("\nNothing found.\n");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
