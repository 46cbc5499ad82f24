//! A session: one account, one Region, the clients of the services. Reads the environment as every AWS SDK
//! does (credentials, Region, `AWS_ENDPOINT_URL`), the proxies that it names ([`crate::proxy`]), and nothing
//! else.

use super::acm::Acm;
use super::errors::{ASSUME_ROLE, Error, Kind};
use super::gate::{CallContext, Gate};
use super::gateway::Gateway;
use super::lambda::Lambda;
use super::route53::Route53;
use super::s3::S3;
use crate::proxy::Proxies;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_http_client::tls::TlsContext;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Mutex, OnceCell};

/// How long a call may take. There is one attempt: who repeats a call reconciles again first.
pub const ATTEMPT: Duration = Duration::from_secs(5);
/// How long the search for credentials may take once a call got no answer.
const CREDENTIALS: Duration = Duration::from_secs(10);

const WHO: &str = "sts:GetCallerIdentity";

/// Where calls go, and as whom they are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// Unset: the environment's.
    pub region: Option<String>,
    /// Unset: with the credentials of the environment.
    pub role: Option<RoleToAssume>,
    /// For Route 53 alone. Unset: as for the rest. This role too is assumed with the credentials of the
    /// environment.
    pub route53_role: Option<RoleToAssume>,
}

/// A role to assume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleToAssume {
    pub arn: String,
    /// What the role's trust policy asks for, if anything.
    pub external_id: Option<String>,
}

/// The sessions of this process, one per [`Access`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    gate: Gate,
    /// With the credentials of the environment.
    own: Arc<Mutex<Own>>,
    /// With a role. Each is connected on its own: a role that STS does not answer for keeps nobody else
    /// waiting.
    assumed: Arc<std::sync::Mutex<HashMap<Access, Arc<OnceCell<Session>>>>>,
}

/// The sessions with the credentials of the environment, by Region, and the last failure to make one.
#[derive(Debug, Default)]
struct Own {
    sessions: HashMap<Option<String>, Session>,
    failed: Option<(Instant, Error)>,
}

impl Sessions {
    pub fn new(gate: &Gate) -> Sessions {
        Sessions {
            gate: gate.clone(),
            own: Arc::default(),
            assumed: Arc::default(),
        }
    }

    /// The session for this access. AWS is asked once who that is; a failure is not kept. Whether the role
    /// for Route 53 can be assumed shows only in calls of Route 53, so that a refusal keeps nothing else from
    /// working.
    pub async fn get(&self, access: &Access) -> Result<Session, Error> {
        let own = self.own(access.region.as_deref()).await?;
        if access.role.is_none() && access.route53_role.is_none() {
            return Ok(own);
        }
        let cell = {
            let mut assumed = self.assumed.lock().unwrap_or_else(PoisonError::into_inner);
            assumed.entry(access.clone()).or_default().clone()
        };
        let connect = async || {
            let session = match &access.role {
                Some(role) => own.assume_role(role).await?,
                None => own.clone(),
            };
            Ok(match &access.route53_role {
                Some(role) => Session {
                    route53: own.as_role(role).route53,
                    ..session
                },
                None => session,
            })
        };
        cell.get_or_try_init(connect).await.cloned()
    }

    /// Sessions that all derive from `session`, as if it were connected with the credentials of the
    /// environment.
    #[cfg(test)]
    pub(crate) fn of(session: Session) -> Sessions {
        let sessions = Sessions::new(&session.gate);
        let own = Own {
            sessions: [(None, session)].into(),
            failed: None,
        };
        Sessions {
            own: Arc::new(Mutex::new(own)),
            ..sessions
        }
    }

    async fn own(&self, region: Option<&str>) -> Result<Session, Error> {
        let asked = Instant::now();
        let mut own = self.own.lock().await;
        let key = region.map(str::to_owned);
        if let Some(session) = own.sessions.get(&key) {
            return Ok(session.clone());
        }
        let session = match (region, own.sessions.values().next(), &own.failed) {
            (Some(region), Some(other), _) => other.in_region(region),
            // Somebody else was told while this one waited: asking one after the other would take all of them
            // too long.
            (_, None, Some((at, error))) if *at > asked && error.kind == Kind::Transient => {
                return Err(error.clone());
            }
            _ => match Session::connect(region, &self.gate).await {
                Ok(session) => session,
                Err(error) => {
                    own.failed = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
            },
        };
        own.sessions.insert(key, session.clone());
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
    lambda: Lambda,
    pub route53: Route53,
    pub s3: S3,
    config: SdkConfig,
    gate: Gate,
}

impl Session {
    /// A session with the credentials of the environment, in `region` or the environment's own. Asks STS
    /// which account it is, so credentials that do not work fail here.
    pub async fn connect(region: Option<&str>, gate: &Gate) -> Result<Session, Error> {
        let proxies =
            Proxies::from_env().map_err(|error| Error::ours(Kind::Invalid, WHO, error.to_string()))?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            // With the SDK's own HTTPS client switched off (it brings a second TLS stack) nothing else
            // supplies one.
            .http_client(proxies.http_client(TlsContext::default()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(ATTEMPT)
                    .build(),
            );
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        Session::of(loader.load().await, gate).await
    }

    /// The same account in another Region; asks nobody.
    pub fn in_region(&self, region: &str) -> Session {
        let config = self
            .config
            .to_builder()
            .region(Region::new(region.to_owned()))
            .build();
        Session::with(config, self.account.clone(), region.to_owned(), &self.gate)
    }

    /// A session with the rights of another role, possibly of another account, in the same Region. Asks STS
    /// who that is, so a role that may not be assumed fails here.
    pub async fn assume_role(&self, role: &RoleToAssume) -> Result<Session, Error> {
        Session::of(self.with_role(role), &self.gate).await
    }

    /// The same, but asks nobody: a role that may not be assumed fails at the first call. The account is the
    /// one in the ARN.
    fn as_role(&self, role: &RoleToAssume) -> Session {
        let account = account_of(&role.arn).to_owned();
        Session::with(self.with_role(role), account, self.region.clone(), &self.gate)
    }

    fn with_role(&self, role: &RoleToAssume) -> SdkConfig {
        let role = Role {
            sts: aws_sdk_sts::Client::new(&self.config),
            context: CallContext {
                gate: self.gate.clone(),
                account: self.account.clone(),
                region: self.region.clone(),
            },
            role: role.clone(),
        };
        self.config
            .to_builder()
            .credentials_provider(SharedCredentialsProvider::new(role))
            .build()
    }

    /// The host of an API's default endpoint. Source: API Gateway Developer Guide; China has a suffix of its
    /// own.
    pub fn execute_api_host(&self, api_id: &str) -> String {
        let suffix = if self.region.starts_with("cn-") { ".cn" } else { "" };
        format!("{api_id}.execute-api.{}.amazonaws.com{suffix}", self.region)
    }

    /// Lambda in the Region that a function's ARN names.
    pub fn lambda(&self, function: &str) -> Lambda {
        match region_of(function) {
            region if region == self.region => self.lambda.clone(),
            region => self.in_region(region).lambda,
        }
    }

    async fn of(config: SdkConfig, gate: &Gate) -> Result<Session, Error> {
        let Some(region) = config.region().map(ToString::to_string) else {
            return Err(Error::ours(
                Kind::Invalid,
                WHO,
                "no Region is set: set AWS_REGION",
            ));
        };
        let context = CallContext {
            gate: gate.clone(),
            account: String::new(),
            region: region.clone(),
        };
        let answer = match context
            .call(
                WHO,
                aws_sdk_sts::Client::new(&config).get_caller_identity().send(),
            )
            .await
        {
            Ok(answer) => answer,
            Err(error) => return Err(without_credentials(&config, error).await),
        };
        let Some(account) = answer.account else {
            return Err(Error::ours(Kind::Transient, WHO, "the answer names no account"));
        };
        Ok(Session::with(config, account, region, gate))
    }

    pub(super) fn with(config: SdkConfig, account: String, region: String, gate: &Gate) -> Session {
        let context = CallContext {
            gate: gate.clone(),
            account: account.clone(),
            region: region.clone(),
        };
        Session {
            acm: Acm::new(&config, &context),
            gateway: Gateway::new(&config, &context),
            lambda: Lambda::new(&config, &context),
            route53: Route53::new(&config, &context),
            s3: S3::new(&config, &context),
            account,
            region,
            gate: gate.clone(),
            config,
        }
    }
}

/// The failure of a call that got no answer: to find out that there are no credentials may take longer than
/// the call may.
async fn without_credentials(config: &SdkConfig, error: Error) -> Error {
    let provider = config
        .credentials_provider()
        .filter(|_| error.code.is_none() && error.kind == Kind::Transient);
    let Some(provider) = provider else { return error };
    match tokio::time::timeout(CREDENTIALS, provider.provide_credentials()).await {
        Ok(Err(cause)) => Error {
            message: "no usable credentials".into(),
            source: Some(Arc::new(cause)),
            ..error
        },
        _ => error,
    }
}

/// The partition of an ARN: `aws`, `aws-cn`, `aws-us-gov`.
pub fn partition_of(arn: &str) -> &str {
    arn.split(':').nth(1).unwrap_or_default()
}

/// The Region that an ARN says its resource is in.
pub fn region_of(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap_or_default()
}

/// The account that an ARN says its resource is in.
pub fn account_of(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

/// Supplies the credentials of a role, which is assumed again before they expire. The SDK's own provider does
/// the same, but past the gate, and tells a refusal from a failure in its text only.
#[derive(Debug)]
struct Role {
    sts: aws_sdk_sts::Client,
    context: CallContext,
    role: RoleToAssume,
}

impl Role {
    async fn assume(&self) -> Result<Credentials, Error> {
        let send = self
            .sts
            .assume_role()
            .role_arn(&self.role.arn)
            .role_session_name("mtls-operator")
            .set_external_id(self.role.external_id.clone())
            .send();
        let ours = |kind, what: &str| Error::ours(kind, ASSUME_ROLE, format!("as {}: {what}", self.role.arn));
        let answer = match self.context.call(ASSUME_ROLE, send).await {
            Ok(answer) => answer,
            Err(error) => {
                return Err(Error {
                    message: format!("as {}: {}", self.role.arn, error.message),
                    ..error
                });
            }
        };
        let Some(given) = answer.credentials else {
            return Err(ours(Kind::Transient, "the answer has no credentials"));
        };
        let Ok(expiry) = SystemTime::try_from(given.expiration) else {
            return Err(ours(Kind::Transient, "the answer's expiry is not a time"));
        };
        Ok(Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            Some(given.session_token),
            Some(expiry),
            ASSUME_ROLE,
        ))
    }
}

impl ProvideCredentials for Role {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        // Our error comes out again where a call's is classified.
        future::ProvideCredentials::new(async {
            self.assume().await.map_err(CredentialsError::provider_error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn calls_go_where_the_region_and_the_arn_say() {
        let session = fake::answering(vec![]);
        for (region, host) in [
            ("eu-west-1", "a1.execute-api.eu-west-1.amazonaws.com"),
            ("cn-north-1", "a1.execute-api.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "a1.execute-api.us-gov-west-1.amazonaws.com"),
        ] {
            assert_eq!(session.in_region(region).execute_api_host("a1"), host);
        }
        let arn = "arn:aws-cn:lambda:us-east-1:999999999999:function:f";
        assert_eq!(
            (partition_of(arn), region_of(arn), account_of(arn)),
            ("aws-cn", "us-east-1", "999999999999")
        );
        assert_eq!((partition_of("x"), region_of("x"), account_of("x")), ("", "", ""));
    }

    #[tokio::test]
    async fn a_role_for_route_53_is_taken_on_for_route_53_alone() {
        let sessions = Sessions::of(fake::answering(vec![]));
        let role = RoleToAssume {
            arn: "arn:aws:iam::999999999999:role/r".into(),
            external_id: None,
        };
        let plain = sessions.get(&Access::default()).await.unwrap();
        assert_eq!(
            (plain.account.as_str(), plain.region.as_str()),
            (fake::ACCOUNT, fake::REGION)
        );
        let there = sessions
            .get(&Access {
                region: Some("us-east-1".into()),
                ..Access::default()
            })
            .await
            .unwrap();
        assert_eq!(there.region, "us-east-1");
        let zone = sessions
            .get(&Access {
                route53_role: Some(role.clone()),
                ..Access::default()
            })
            .await
            .unwrap();
        assert_eq!(zone.account, fake::ACCOUNT, "whatever STS says of the role");
        let refused = zone.route53.zones().await.unwrap_err();
        assert_eq!(refused.operation, ASSUME_ROLE);
        assert!(zone.acm.listed().await.is_err_and(|e| e.operation != ASSUME_ROLE));
        assert!(
            sessions
                .get(&Access {
                    role: Some(role),
                    ..Access::default()
                })
                .await
                .is_err(),
            "a refusal is not kept"
        );
    }
}
