//! Check of the operator's AWS credentials at startup, and the remedy when it has none. Calls STS before
//! there is a domain to serve, until the answer is conclusive.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, Client, api::PostParams};
use tokio::sync::OnceCell;

use crate::{
    api::conditions::Reason,
    aws::{
        errors::{Error, Kind},
        session::{Access, Sessions},
    },
    observation::seen::{self, Unseen},
    telemetry::logging,
};

/// Initial wait after a failure; each further wait is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Maximum wait between two attempts.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// ServiceAccount of this process, as the API server reports it. Requested once, and only when a message
/// needs it.
pub struct ServiceAccount {
    client: Client,
    known: OnceCell<Option<String>>,
}

impl ServiceAccount {
    pub fn new(client: Client) -> Self {
        ServiceAccount {
            client,
            known: OnceCell::new(),
        }
    }

    async fn name(&self) -> Option<&str> {
        let ask = async || {
            let reviews = Api::<SelfSubjectReview>::all(self.client.clone());
            let review = reviews
                .create(&PostParams::default(), &SelfSubjectReview::default())
                .await?;
            let user = review
                .status
                .and_then(|status| status.user_info)
                .and_then(|user| user.username);
            Ok::<_, kube::Error>(user.as_deref().and_then(account_of).map(str::to_owned))
        };
        // Without an answer the message omits the name, and the next message requests it again.
        self.known
            .get_or_try_init(ask)
            .await
            .ok()
            .and_then(|name| name.as_deref())
    }

    /// Returns the remedy for a failure that is caused by missing or rejected credentials.
    pub async fn remedy(&self, error: &Error) -> Option<Unseen> {
        if error.kind == Kind::Credentials && error.code.is_some() {
            return Some(seen::unseen(error));
        }
        let cause = error.without_credentials()?;
        Some(Unseen {
            reason: Reason::CredentialsMissing,
            message: remedy(self.name().await, &cause),
        })
    }
}

/// Returns `namespace:name` of a ServiceAccount's user name; `None` for other users.
fn account_of(user: &str) -> Option<&str> {
    user.strip_prefix("system:serviceaccount:")
        .filter(|rest| rest.contains(':'))
}

fn remedy(account: Option<&str>, cause: &str) -> String {
    let whose = match account.and_then(|account| account.split_once(':')) {
        Some((namespace, name)) => format!("the ServiceAccount {namespace}/{name}"),
        None => "the operator's ServiceAccount".into(),
    };
    format!(
        "the operator has no usable AWS credentials: give {whose} an IAM role, by the annotation \
         eks.amazonaws.com/role-arn or by a Pod Identity \
         association, whose trust policy allows it to assume the role, and restart \
         the operator's Pods ({cause})"
    )
}

/// Calls STS for the operator's identity until the answer is conclusive. Logs each answer that differs from
/// the previous one.
pub async fn check(sessions: Sessions, account: &ServiceAccount) {
    let (mut wait, mut logged) = (FIRST_RETRY, None);
    loop {
        let error = match sessions.get(&Access::default()).await {
            Ok(session) => {
                tracing::info!(
                    account = session.account,
                    region = session.region,
                    "AWS accepts the operator's credentials"
                );
                return;
            }
            Err(error) => error,
        };
        let remedy = account.remedy(&error).await.map(|remedy| remedy.message);
        match (error.kind, remedy) {
            (_, Some(remedy)) if logged.as_ref() != Some(&remedy) => {
                tracing::error!("{remedy}");
                logged = Some(remedy);
            }
            (_, Some(_)) => {}
            // Each MtlsDomain may name a Region of its own.
            (Kind::Invalid, None) => return,
            // The credentials are valid, but an IAM policy denies this call.
            (Kind::Denied, None) => {
                tracing::info!(
                    error = %logging::chain(&error),
                    "AWS does not disclose the identity of the operator's credentials"
                );
                return;
            }
            (_, None) => {
                let told = error.to_string();
                if logged.as_ref() != Some(&told) {
                    tracing::warn!(error = %logging::chain(&error), "AWS does not answer");
                    logged = Some(told);
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_the_service_account_both_kinds_of_role_and_the_cause() {
        let account = account_of("system:serviceaccount:mtls-operator:op");
        let told = remedy(account, "no providers in chain provided credentials");
        for part in [
            "ServiceAccount mtls-operator/op",
            "eks.amazonaws.com/role-arn",
            "Pod Identity association",
            "(no providers in chain provided credentials)",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(account_of("kubernetes-admin"), None);
        assert!(remedy(None, "x").contains("the operator's ServiceAccount"));
    }
}
