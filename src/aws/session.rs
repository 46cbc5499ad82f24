//! A session: one account, one Region, the clients of the services. A session reads the environment as every
//! AWS SDK does (credentials, Region, `AWS_ENDPOINT_URL`), the proxies in the environment (`crate::proxy`),
//! and nothing else.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_smithy_http_client::tls::TlsContext;
use tokio::sync::{Mutex, OnceCell};

use super::{
    acm::Acm,
    arn::Arn,
    call_guard::{CallContext, Gate},
    errors::{ASSUME_ROLE, Error, Kind},
    gateway::Gateway,
    lambda::Lambda,
    partitions,
    route53::Route53,
    s3::S3,
};

use crate::{aws::ATTEMPT, proxy::Proxies};

/// Time limit of the search for credentials after a call got no answer.
const CREDENTIALS: Duration = Duration::from_secs(10);

const WHO: &str = "sts:GetCallerIdentity";

/// Region of the calls, and the roles that make them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// Unset for the environment's Region.
    pub region: Option<String>,
    /// Unset for the credentials of the environment.
    pub role: Option<RoleToAssume>,
    /// Role for Route 53 alone. Unset for the same access as the rest. The operator assumes this role too
    /// with the credentials of the environment.
    pub route53_role: Option<RoleToAssume>,
}

/// A role to assume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleToAssume {
    pub arn: Arn,
    /// External id that the role's trust policy requires, if any.
    pub external_id: Option<String>,
}

/// The sessions of this process, one per [`Access`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    gate: Gate,
    /// Sessions with the credentials of the environment.
    own: Arc<Mutex<Own>>,
    /// Sessions with a role. Each connects on its own: a role that STS does not answer for delays no other
    /// session.
    assumed: Arc<std::sync::Mutex<HashMap<Access, Arc<OnceCell<Session>>>>>,
}

/// The sessions with the credentials of the environment, by Region, and the last failure to create one.
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

    /// Returns the session for this access. The first call asks STS for the account; a failure is not cached.
    /// A role for Route 53 that cannot be assumed fails only in calls of Route 53, so a refusal blocks
    /// nothing else.
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

    /// Returns sessions that all derive from `session`, as if it were connected with the credentials of the
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
            // Another caller got this failure while this caller waited: sequential attempts by all of them
            // would take too long.
            (_, None, Some((at, error)))
                if *at > asked && matches!(error.kind, Kind::Transient | Kind::Credentials) =>
            {
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

/// Services of one account and Region. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session {
    /// Account id of 12 digits, as STS returns it for these credentials.
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
    /// Connects a session with the credentials of the environment, in `region` or the environment's own. Asks
    /// STS for the account, so credentials that do not work fail here.
    pub async fn connect(region: Option<&str>, gate: &Gate) -> Result<Session, Error> {
        let proxies =
            Proxies::from_env().map_err(|error| Error::ours(Kind::Invalid, WHO, error.to_string()))?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            // Without the SDK's own HTTPS client (it brings a second TLS stack) nothing else supplies one.
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

    /// Returns the same account in another Region; makes no call.
    pub fn in_region(&self, region: &str) -> Session {
        let config = self
            .config
            .to_builder()
            .region(Region::new(region.to_owned()))
            .build();
        Session::with(config, self.account.clone(), region.to_owned(), &self.gate)
    }

    /// Returns a session with the permissions of another role, possibly of another account, in the same
    /// Region. Asks STS for the identity, so a role that may not be assumed fails here.
    pub async fn assume_role(&self, role: &RoleToAssume) -> Result<Session, Error> {
        Session::of(self.with_role(role), &self.gate).await
    }

    /// Returns the same session without a call to STS: a role that may not be assumed fails at the first
    /// call. The account is that of the ARN.
    fn as_role(&self, role: &RoleToAssume) -> Session {
        let account = role.arn.account().to_owned();
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

    /// Returns the host of an API's default endpoint. Source: API Gateway Developer Guide.
    pub fn execute_api_host(&self, api_id: &str) -> String {
        format!(
            "{api_id}.execute-api.{}.{}",
            self.region,
            partitions::dns_suffix(&self.region)
        )
    }

    /// Returns a Lambda client in the Region of a function's ARN.
    pub fn lambda(&self, function: &Arn) -> Lambda {
        match function.region() {
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
        partitions::check(&region).map_err(|unknown| Error::ours(Kind::Invalid, WHO, unknown.to_string()))?;
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

    pub(crate) fn with(config: SdkConfig, account: String, region: String, gate: &Gate) -> Session {
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

/// Converts the failure of a call that got no answer: detecting missing credentials may take longer than the
/// time limit of the call.
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

/// Supplies the credentials of a role and assumes the role again before they expire. The SDK's own provider
/// does the same, but bypasses the gate, and distinguishes a refusal from a failure only in its text.
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
            .role_arn(self.role.arn.as_str())
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
        // The operator's error reappears where a call's error is classified.
        future::ProvideCredentials::new(async {
            self.assume().await.map_err(CredentialsError::provider_error)
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
