//! A session: one account, one Region, the clients of the services. Reads the environment as every AWS SDK does (credentials,
//! Region, `AWS_ENDPOINT_URL`) and nothing else.

use super::acm::Acm;
use super::errors::{Error, Kind};
use super::gate::{Gate, Way};
use super::gateway::Gateway;
use super::route53::Route53;
use super::s3::S3;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a call may take. There is one attempt: who repeats a call looks again first.
pub const ATTEMPT: Duration = Duration::from_secs(5);

/// The sessions of this process with its own credentials, one per Region. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    gate: Gate,
    known: Arc<Mutex<HashMap<Option<String>, Session>>>,
}

impl Sessions {
    pub fn new(gate: &Gate) -> Sessions {
        Sessions { gate: gate.clone(), known: Arc::default() }
    }

    /// The session of this Region, or of the environment's. AWS is asked once who we are; a failure is not kept.
    pub async fn get(&self, region: Option<&str>) -> Result<Session, Error> {
        let mut known = self.known.lock().await;
        let key = region.map(str::to_owned);
        if let Some(session) = known.get(&key) {
            return Ok(session.clone());
        }
        let session = match (region, known.values().next()) {
            (Some(region), Some(other)) => other.in_region(region),
            _ => Session::connect(region, &self.gate).await?,
        };
        known.insert(key, session.clone());
        Ok(session)
    }
}

/// The services of one account and Region. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session {
    /// 12 digits, as AWS itself says whose credentials these are.
    pub account: String,
    pub region: String,
    pub acm: Acm,
    pub gateway: Gateway,
    pub route53: Route53,
    pub s3: S3,
    config: SdkConfig,
    gate: Gate,
}

impl Session {
    /// A session with the credentials of the environment, in `region` or the environment's own. Asks STS which account it is,
    /// so credentials that do not work fail here.
    pub async fn connect(region: Option<&str>, gate: &Gate) -> Result<Session, Error> {
        // With the SDK's own HTTPS client switched off (it brings a second TLS stack) nothing else supplies one.
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build());
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        Session::of(loader.load().await, gate).await
    }

    /// The same account in another Region; asks nobody.
    pub fn in_region(&self, region: &str) -> Session {
        let config = self.config.to_builder().region(Region::new(region.to_owned())).build();
        Session::with(config, self.account.clone(), region.to_owned(), &self.gate)
    }

    /// A session with the rights of another role, possibly of another account, in the same Region.
    pub async fn assume_role(&self, role_arn: &str, external_id: Option<&str>) -> Result<Session, Error> {
        let mut role = AssumeRoleProvider::builder(role_arn).session_name("mtls-operator").configure(&self.config);
        if let Some(id) = external_id {
            role = role.external_id(id);
        }
        let config = self
            .config
            .to_builder()
            .credentials_provider(aws_sdk_sts::config::SharedCredentialsProvider::new(role.build().await))
            .build();
        Session::of(config, &self.gate).await
    }

    /// The host of an API's default endpoint. Source: API Gateway Developer Guide; China has a suffix of its own.
    pub fn execute_api_host(&self, api_id: &str) -> String {
        let suffix = if self.region.starts_with("cn-") { ".cn" } else { "" };
        format!("{api_id}.execute-api.{}.amazonaws.com{suffix}", self.region)
    }

    async fn of(config: SdkConfig, gate: &Gate) -> Result<Session, Error> {
        const WHO: &str = "sts:GetCallerIdentity";
        let Some(region) = config.region().map(ToString::to_string) else {
            return Err(Error::ours(Kind::Invalid, WHO, "no Region is set: set AWS_REGION"));
        };
        let way = Way { gate: gate.clone(), account: String::new(), region: region.clone() };
        let answer = way.call(WHO, aws_sdk_sts::Client::new(&config).get_caller_identity().send()).await?;
        let Some(account) = answer.account else {
            return Err(Error::ours(Kind::Transient, WHO, "the answer names no account"));
        };
        Ok(Session::with(config, account, region, gate))
    }

    fn with(config: SdkConfig, account: String, region: String, gate: &Gate) -> Session {
        let way = Way { gate: gate.clone(), account: account.clone(), region: region.clone() };
        Session {
            acm: Acm::new(&config, &way),
            gateway: Gateway::new(&config, &way),
            route53: Route53::new(&config, &way),
            s3: S3::new(&config, &way),
            account,
            region,
            gate: gate.clone(),
            config,
        }
    }
}
