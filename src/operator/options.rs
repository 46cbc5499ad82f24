//! Arguments of the operator: flags, their variables and defaults. Their doc comments are the manual.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args};

use crate::{
    aws::{rates::RateOverride, tags::Tag},
    probe::https::ProbeOptions,
    telemetry::logging::Format,
};

/// Runs the operator when no command is given. AWS credentials and Region come from the usual sources of an
/// AWS SDK.
// `[::]` in the help of a flag is an address.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Args)]
pub struct Options {
    /// Namespace to watch. Can be given several times (in the environment: separated by commas). Default: all
    /// namespaces.
    #[arg(long, env = "MTLS_OPERATOR_WATCH_NAMESPACE", value_delimiter = ',')]
    pub watch_namespace: Vec<String>,
    /// Name of this cluster in every ownership tag. Never change it while objects exist. Default: the UID of
    /// the namespace kube-system.
    #[arg(long, env = "MTLS_OPERATOR_CLUSTER_ID")]
    pub cluster_id: Option<String>,
    /// Namespace of the Lease. Default: the operator's own namespace.
    #[arg(long, env = "MTLS_OPERATOR_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Versioned bucket for the truststores of domains that name none. The operator replaces {account} and
    /// {region}. Default: none; a domain without a bucket is rejected.
    #[arg(long, env = "MTLS_OPERATOR_TRUSTSTORE_BUCKET")]
    pub truststore_bucket: Option<String>,
    /// Tags on everything that the operator creates in AWS, each KEY=VALUE, for example
    /// cost-center=4711,team=payments. At most 40; of two tags with one key the one in spec.aws.tags wins.
    /// Can be given several times. Default: none.
    #[arg(long, env = "MTLS_OPERATOR_AWS_TAGS", value_delimiter = ',')]
    pub aws_tags: Vec<Tag>,
    /// Full resync interval of truststores, integrations and the inputs of certificates, for example 15m.
    /// Mappings and records refresh every third of it, account-wide lists of domains, APIs and certificates
    /// every fifteenth.
    #[arg(long, env = "MTLS_OPERATOR_DRIFT_INTERVAL", default_value = "15m", value_parser = interval)]
    pub drift_interval: Duration,
    /// Interval between two scans of all custom domains of an account and Region for mTLS bypasses, for
    /// example 15m.
    #[arg(long, env = "MTLS_OPERATOR_BYPASS_SCAN_INTERVAL", default_value = "15m", value_parser = interval)]
    pub bypass_scan_interval: Duration,
    /// Time that a new truststore version takes to reach every server of AWS, for example 90s. The operator
    /// hands out a self-signed certificate, or moves certificates to another authority, only after this time.
    #[arg(long, env = "MTLS_OPERATOR_TRUSTSTORE_PROPAGATION", default_value = "90s", value_parser = interval)]
    pub truststore_propagation: Duration,
    /// YAML file with the policy that limits what namespaces may do with the operator's permissions in AWS
    /// (docs/policy.md). Default: no limits.
    #[arg(long, env = "MTLS_OPERATOR_POLICY")]
    pub policy: Option<PathBuf>,
    /// Rate of an AWS operation, OPERATION=RATE:BURST, for example CreateDomainName=1/60:1 or *=unlimited.
    /// Can be given several times. Default: AWS's documented quotas.
    #[arg(long, env = "MTLS_OPERATOR_AWS_RATE", value_delimiter = ',')]
    pub aws_rate: Vec<RateOverride>,
    #[command(flatten)]
    pub outside: ProbeOptions,
    /// Address and port of /livez, /readyz, /metrics and /loglevel (docs/metrics.md). [::] is every address
    /// of the machine, IPv6 and IPv4; on a machine without IPv6 it means 0.0.0.0.
    #[arg(long, env = "MTLS_OPERATOR_LISTEN", default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// Serves three metric series for each ClientCertificate; set it to false with very many of them.
    #[arg(long, env = "MTLS_OPERATOR_METRICS_PER_CERTIFICATE", default_value_t = true, action = ArgAction::Set)]
    pub metrics_per_certificate: bool,
    /// Serves /metrics only to users who may get that path, by the token of the request. Needs the right to
    /// create TokenReviews and SubjectAccessReviews.
    #[arg(long, env = "MTLS_OPERATOR_METRICS_AUTH", default_value_t = false, action = ArgAction::Set)]
    pub metrics_auth: bool,
    /// Log level, or tracing directives.
    #[arg(long, env = "MTLS_OPERATOR_LOG", default_value = "info")]
    pub log: String,
    /// Format of log lines.
    #[arg(long, env = "MTLS_OPERATOR_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: Format,
    /// Name of this replica in Events and in the Lease. Default: the host's name.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
}

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a duration such as 30s or 5m".to_owned())?;
    let duration = Duration::try_from(parsed).map_err(|_| "a duration is not negative".to_owned())?;
    if duration < Duration::from_secs(1) {
        Err("at least 1s".into())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("5m"), Ok(Duration::from_secs(300)));
        assert!(interval("0s").is_err() && interval("-5m").is_err() && interval("soon").is_err());
    }
}
