//! Typed client of the AWS emulator's control API, `/_double/...`: tests read and set the emulator's state
//! past the AWS API. `sandbox/aws/README.md` describes each call.

mod view;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::view::{
    Alias, Domain, EdgeView, RecordSet, RegionalDomain, ServerCertificate, Shown, Truststore, Zone,
};

/// Failure of a control call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the AWS emulator does not answer {call}")]
    Unreachable {
        call: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the AWS emulator refuses {call} with {status}: {body}")]
    Refused {
        call: String,
        status: StatusCode,
        body: String,
    },
    #[error("the AWS emulator's answer to {call} is not understood")]
    Answer {
        call: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Client of the control API.
#[derive(Clone, Debug)]
pub struct Control {
    endpoint: String,
    http: reqwest::Client,
}

/// Filter of journal calls; an empty string matches any value.
#[derive(Clone, Debug, Default)]
pub struct Calls<'a> {
    pub account: &'a str,
    /// Service as in SigV4, but with `apigateway` (v1) and `apigatewayv2` apart.
    pub service: &'a str,
    pub operation: &'a str,
    /// Matches only calls after the call with this number; see [`Journal::last`].
    pub since: u64,
    /// Matches only calls that change something.
    pub writes: bool,
}

/// AWS calls in the order of their arrival.
#[derive(Clone, Debug, Deserialize)]
pub struct Journal {
    /// Number of the last call of all, independent of the filter.
    pub last: u64,
    pub calls: Vec<Call>,
}

/// AWS call in the journal.
#[derive(Clone, Debug, Deserialize)]
pub struct Call {
    pub n: u64,
    /// Time in seconds since 1970.
    pub time: f64,
    pub account: String,
    pub region: String,
    pub service: String,
    pub operation: String,
    /// Resource of the call: the identifiers in its path, joined by `/`.
    pub resource: String,
    /// Changes of a Route 53 batch, each as `UPSERT A name`.
    pub detail: Vec<String>,
    pub write: bool,
    /// HTTP status; `None` while the call is in flight, 0 when the client got no reply.
    pub status: Option<u16>,
    /// AWS error code, or empty.
    pub code: String,
    /// Fault rule that fired, `<id> before` or `<id> after`, or empty.
    pub fault: String,
    /// Expected owner of the S3 bucket in the request, or empty.
    pub bucket_owner: String,
    /// External id in an AssumeRole call, or empty.
    pub external_id: String,
    pub duration_ms: f64,
}

/// Counters of the journal.
#[derive(Clone, Debug, Deserialize)]
pub struct Stats {
    pub last: u64,
    pub calls: u64,
    pub writes: u64,
    pub throttled: u64,
    pub underway: u64,
    /// Counters by `<service>.<operation>`.
    pub by_operation: BTreeMap<String, OperationStats>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct OperationStats {
    pub calls: u64,
    pub ok: u64,
    pub errors: BTreeMap<String, u64>,
}

/// Set of values for all knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// No quotas, and delays of a second at most.
    Fast,
    /// AWS's documented quotas, and delays of the order that people report.
    Aws,
}

impl Profile {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Aws => "aws",
        }
    }
}

/// Time of a fault: before the call takes effect, which prevents the effect, or after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    #[default]
    Before,
    After,
}

/// Rule that makes calls fail. `service`, `operation`, `account` and `resource` are patterns with `*`.
#[derive(Clone, Debug, Serialize)]
pub struct Fault<'a> {
    pub service: &'a str,
    pub operation: &'a str,
    pub account: &'a str,
    pub resource: &'a str,
    /// Number of calls that the rule hits; -1 for all.
    pub times: i64,
    /// Number of matching calls that pass first.
    pub skip: u64,
    pub when: When,
    pub delay_ms: u64,
    /// Holds the call until [`Control::release`].
    pub hold: bool,
    /// Closes the connection without a reply.
    pub drop_reply: bool,
    /// HTTP status instead of AWS's answer: 0 with an empty code leaves AWS's answer; 0 with a code means the
    /// usual status of that code.
    pub status: u16,
    pub code: &'a str,
    pub message: &'a str,
}

impl Default for Fault<'_> {
    /// Returns a rule that hits the first call of any kind, without an effect.
    fn default() -> Self {
        let any = "*";
        Self {
            service: any,
            operation: any,
            account: any,
            resource: any,
            times: 1,
            skip: 0,
            when: When::Before,
            delay_ms: 0,
            hold: false,
            drop_reply: false,
            status: 0,
            code: "",
            message: "injected by the test",
        }
    }
}

/// State of a fault rule.
#[derive(Clone, Debug, Deserialize)]
pub struct FaultState {
    pub id: u64,
    /// Number of matching calls, including calls that passed first.
    pub matched: u64,
    pub fired: u64,
    /// Number of calls that the rule holds now.
    pub held: u64,
}

/// State of a certificate that only AWS decides; an empty string or `None` leaves it unchanged.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CertificateState<'a> {
    pub arn: &'a str,
    pub status: &'a str,
    /// FailureReason of the certificate.
    pub reason: &'a str,
    /// Expiry, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<f64>,
    /// RenewalStatus; `reason` then belongs to the renewal.
    pub renewal: &'a str,
    /// Creation time, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<f64>,
}

/// Calls of the control API. Each fails with an [`Error`] when the emulator does not answer or refuses.
impl Control {
    /// Creates a client of the emulator at `endpoint`, `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        // reqwest needs a TLS provider even for plain http. Another provider may be installed already; any
        // works.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("nothing in this configuration can be wrong");
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            http,
        }
    }

    /// True when the emulator answers.
    pub async fn healthy(&self) -> bool {
        self.get::<serde_json::Value>("health").await.is_ok()
    }

    /// Returns the journal of AWS calls.
    pub async fn calls(&self, which: &Calls<'_>) -> Result<Journal, Error> {
        self.get(&format!("calls?{}", query(which))).await
    }

    /// Returns the counters of the matching calls.
    pub async fn stats(&self, which: &Calls<'_>) -> Result<Stats, Error> {
        self.get(&format!("stats?{}", query(which))).await
    }

    /// Returns all knobs in force for an account, or (empty) for accounts without settings of their own.
    pub async fn knobs(&self, account: &str) -> Result<BTreeMap<String, f64>, Error> {
        self.get(&format!("config?account={account}")).await
    }

    /// Sets knobs for one account, or (empty) for all. [`Error::Refused`] for an unknown knob.
    pub async fn set_knobs(&self, account: &str, knobs: &[(&str, f64)]) -> Result<(), Error> {
        let knobs: BTreeMap<_, _> = knobs.iter().copied().collect();
        self.post::<serde_json::Value>(&format!("config?account={account}"), &knobs)
            .await
            .map(drop)
    }

    /// Sets all knobs for one account, or (empty) for all.
    pub async fn set_profile(&self, account: &str, profile: Profile) -> Result<(), Error> {
        let body = serde_json::json!({"profile": profile.name()});
        self.post::<serde_json::Value>(&format!("config?account={account}"), &body)
            .await
            .map(drop)
    }

    /// Adds fault rules; for each call only the first rule that fires counts.
    pub async fn add_faults(&self, faults: &[Fault<'_>]) -> Result<Vec<FaultState>, Error> {
        self.post("faults", &faults).await
    }

    /// Returns all fault rules.
    pub async fn faults(&self) -> Result<Vec<FaultState>, Error> {
        self.get("faults").await
    }

    /// Removes a fault rule and releases the calls that it holds.
    pub async fn remove_fault(&self, id: u64) -> Result<(), Error> {
        self.call::<serde_json::Value>(Method::DELETE, &format!("faults?id={id}"), None)
            .await
            .map(drop)
    }

    /// Releases the calls that a fault rule holds; returns their number.
    pub async fn release(&self, id: u64) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Released {
            released: u64,
        }
        let answer: Released = self.post("release", &serde_json::json!({"id": id})).await?;
        Ok(answer.released)
    }

    /// Replaces the IAM actions that an account may not perform (`*` is a wildcard); an empty list allows
    /// everything again.
    pub async fn deny(&self, account: &str, actions: &[&str]) -> Result<(), Error> {
        let body = serde_json::json!({"account": account, "actions": actions});
        self.post::<serde_json::Value>("deny", &body).await.map(drop)
    }

    /// Restricts every caller that signs with this access key to the policy (JSON). [`Error::Refused`] for a
    /// policy that the emulator does not understand.
    pub async fn allow(&self, access_key: &str, policy: &serde_json::Value) -> Result<(), Error> {
        let body = serde_json::json!({"access_key": access_key, "policy": policy});
        self.post::<serde_json::Value>("allow", &body).await.map(drop)
    }

    /// Returns the custom domain names, with their current configuration at the endpoint; of one account, or
    /// (empty) of all.
    pub async fn edge(&self, account: &str) -> Result<EdgeView, Error> {
        self.get(&format!("edge?account={account}")).await
    }

    /// Returns the domain names of one host: those that serve it (wildcards too), or that have it as their
    /// regional target.
    pub async fn edge_of_host(&self, host: &str) -> Result<EdgeView, Error> {
        self.get(&format!("edge?host={}", percent_encode(host))).await
    }

    /// Returns the hosted zones, of one account, or (empty) of all.
    pub async fn zones(&self, account: &str) -> Result<Vec<Zone>, Error> {
        self.get(&format!("dns?account={account}")).await
    }

    /// Returns the hosted zones of all accounts that contain `name` (with its final dot).
    pub async fn zones_above(&self, name: &str) -> Result<Vec<Zone>, Error> {
        self.get(&format!("dns?name={}", percent_encode(name))).await
    }

    /// Advances the clock for the delays and quotas of an account.
    pub async fn advance(&self, account: &str, time: Duration) -> Result<(), Error> {
        let body = serde_json::json!({"account": account, "advance": time.as_secs_f64()});
        self.post::<serde_json::Value>("clock", &body).await.map(drop)
    }

    /// Multiplies the speed of the clock from now on, for the delays and quotas of an account.
    pub async fn speed_up(&self, account: &str, factor: f64) -> Result<(), Error> {
        let body = serde_json::json!({"account": account, "speed": factor});
        self.post::<serde_json::Value>("clock", &body).await.map(drop)
    }

    /// Makes a certificate fail, expire or renew; returns the number of certificates, 0 for an unknown ARN.
    pub async fn set_certificate(&self, state: &CertificateState<'_>) -> Result<u64, Error> {
        self.changed("acm", state).await
    }

    /// Sets a DomainNameStatus that only AWS decides; empty removes it. Returns the number of domain names.
    pub async fn set_domain_status(
        &self,
        account: &str,
        domain_name: &str,
        status: &str,
        message: &str,
    ) -> Result<u64, Error> {
        let body = serde_json::json!({
            "account": account, "domainName": domain_name, "status": status, "message": message});
        self.changed("domain", &body).await
    }

    /// Returns the whole state of an idle account, for [`Control::load`].
    pub async fn dump(&self, account: &str) -> Result<serde_json::Value, Error> {
        self.get(&format!("dump?account={account}")).await
    }

    /// Replaces the whole state of the dump's account by the dump, on this emulator or another.
    /// [`Error::Refused`] for a dump of an emulator with another state format.
    pub async fn load(&self, dump: &serde_json::Value) -> Result<(), Error> {
        self.post::<serde_json::Value>("load", dump).await.map(drop)
    }

    /// Resets all accounts to the initial state.
    pub async fn reset(&self) -> Result<(), Error> {
        self.post::<serde_json::Value>("reset", &serde_json::json!({}))
            .await
            .map(drop)
    }

    async fn changed(&self, path: &str, body: &impl Serialize) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Changed {
            changed: u64,
        }
        let answer: Changed = self.post(path, body).await?;
        Ok(answer.changed)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).expect("these bodies have string keys and finite numbers");
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, Error> {
        let call = format!("{method} /_double/{path}");
        let request = self
            .http
            .request(method, format!("{}/_double/{path}", self.endpoint));
        let unreachable = |source| Error::Unreachable {
            call: call.clone(),
            source,
        };
        let response = request
            .body(body.unwrap_or_default())
            .send()
            .await
            .map_err(unreachable)?;
        let (status, body) = (response.status(), response.bytes().await.map_err(unreachable)?);
        if !status.is_success() {
            let body = String::from_utf8_lossy(&body).into_owned();
            return Err(Error::Refused { call, status, body });
        }
        serde_json::from_slice(&body).map_err(|source| Error::Answer { call, source })
    }
}

fn query(which: &Calls<'_>) -> String {
    let Calls {
        account,
        service,
        operation,
        since,
        writes,
    } = which;
    format!(
        "account={account}&service={service}&operation={operation}&since={since}&writes={}",
        u8::from(*writes)
    )
}

/// Encodes everything but letters, digits and `-._~` as `%XX` (RFC 3986, 2.1).
pub(crate) fn percent_encode(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut encoded, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    encoded.push(char::from(byte))
                }
                _ => write!(encoded, "%{byte:02X}").expect("a String takes everything"),
            }
            encoded
        })
}
