//! Rate limits of calls to AWS: AWS's documented quotas, and the way to override them (`--aws-rate`).

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

/// Operation or service with a quota of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    CreateDomainName,
    UpdateDomainName,
    DeleteDomainName,
    CreateDeployment,
    GetResources,
    /// All calls of API Gateway together, including reads and the operations above.
    ApiGateway,
    /// All calls of Route 53 together; one quota for all Regions.
    Route53,
    /// All calls of ACM together. AWS counts each ACM operation by itself, 5 to 10 per second.
    Acm,
}

/// Parameters of a token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    Unlimited,
    Limited {
        /// Time between two tokens.
        interval: Duration,
        /// Maximum number of calls at once.
        burst: u32,
    },
}

/// The rate of each operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates(BTreeMap<Operation, Rate>);

/// Value of `--aws-rate`: `CreateDomainName=1/30:1` (calls per seconds, then calls at once),
/// `apigateway=10:40`, `*=unlimited`.
#[derive(Debug, Clone, PartialEq)]
pub struct RateOverride {
    /// None for every operation.
    pub operation: Option<Operation>,
    pub rate: Rate,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RateError {
    #[error("expected OPERATION=RATE:BURST or OPERATION=unlimited, for instance CreateDomainName=1/30:1")]
    Form,
    #[error("no operation {0:?}: there are {list} and *", list = Operation::names())]
    Operation(String),
    #[error("no rate {0:?}: calls per second (0.2), calls per seconds (1/30), or unlimited")]
    Rate(String),
    #[error("no burst {0:?}: calls at once, 1 or more")]
    Burst(String),
}

impl Operation {
    pub const ALL: [Operation; 8] = [
        Operation::CreateDomainName,
        Operation::UpdateDomainName,
        Operation::DeleteDomainName,
        Operation::CreateDeployment,
        Operation::GetResources,
        Operation::ApiGateway,
        Operation::Route53,
        Operation::Acm,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::CreateDomainName => "CreateDomainName",
            Operation::UpdateDomainName => "UpdateDomainName",
            Operation::DeleteDomainName => "DeleteDomainName",
            Operation::CreateDeployment => "CreateDeployment",
            Operation::GetResources => "GetResources",
            Operation::ApiGateway => "apigateway",
            Operation::Route53 => "route53",
            Operation::Acm => "acm",
        }
    }

    /// Returns the quota that a call has in addition to its service's common quota.
    pub(crate) fn of_call(name: &str) -> Option<Operation> {
        let is_call =
            |o: &Operation| !matches!(o, Operation::ApiGateway | Operation::Route53 | Operation::Acm);
        Operation::ALL
            .into_iter()
            .filter(is_call)
            .find(|o| o.name() == name)
    }

    /// True when a reconcile requests the call in advance ([`super::quota::Quota::request`]), instead of
    /// waiting for it.
    pub(crate) fn is_scarce(self) -> bool {
        match self {
            Operation::CreateDomainName
            | Operation::UpdateDomainName
            | Operation::DeleteDomainName
            | Operation::CreateDeployment => true,
            Operation::GetResources | Operation::ApiGateway | Operation::Route53 | Operation::Acm => false,
        }
    }

    fn names() -> String {
        Operation::ALL.map(Operation::name).join(", ")
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Default for Rates {
    /// Returns AWS's quotas: API Gateway Developer Guide, "Quotas and important notes" (10 a second, 40 at
    /// once; GetResources 5 per 2 seconds); Route 53 Developer Guide, "Quotas" (5 a second); ACM User Guide,
    /// "Quotas" (RequestCertificate 5 a second, the operator's other calls 8 and more). For plentiful calls
    /// the rates are a little lower: calls that leave evenly spaced do not arrive evenly spaced.
    fn default() -> Rates {
        let every = |interval, burst| Rate::Limited { interval, burst };
        Rates(BTreeMap::from(Operation::ALL.map(|operation| {
            let rate = match operation {
                Operation::CreateDomainName | Operation::UpdateDomainName | Operation::DeleteDomainName => {
                    every(Duration::from_secs(30), 1)
                }
                Operation::CreateDeployment => every(Duration::from_secs(5), 1),
                Operation::GetResources => every(Duration::from_millis(440), 4),
                Operation::ApiGateway => every(Duration::from_millis(110), 30),
                Operation::Route53 | Operation::Acm => every(Duration::from_millis(250), 3),
            };
            (operation, rate)
        })))
    }
}

impl Rates {
    /// Returns AWS's quotas with these overrides; a later override wins over an earlier one.
    pub fn with(overrides: &[RateOverride]) -> Rates {
        let mut rates = Rates::default();
        for RateOverride { operation, rate } in overrides {
            for (_, value) in rates
                .0
                .iter_mut()
                .filter(|(o, _)| operation.is_none_or(|only| only == **o))
            {
                *value = *rate;
            }
        }
        rates
    }

    pub fn of(&self, operation: Operation) -> Rate {
        self.0.get(&operation).copied().unwrap_or(Rate::Unlimited)
    }
}

impl FromStr for RateOverride {
    type Err = RateError;

    fn from_str(text: &str) -> Result<RateOverride, RateError> {
        let (name, rate) = text.split_once('=').ok_or(RateError::Form)?;
        let operation = match name {
            "*" => None,
            name => Some(
                Operation::ALL
                    .into_iter()
                    .find(|o| o.name() == name)
                    .ok_or_else(|| RateError::Operation(name.to_owned()))?,
            ),
        };
        if rate == "unlimited" {
            return Ok(RateOverride {
                operation,
                rate: Rate::Unlimited,
            });
        }
        let (rate, burst) = rate.split_once(':').ok_or(RateError::Form)?;
        let (calls, seconds) = rate.split_once('/').unwrap_or((rate, "1"));
        let seconds_per_call = match (calls.parse::<f64>(), seconds.parse::<f64>()) {
            (Ok(calls), Ok(seconds)) => seconds / calls,
            _ => return Err(RateError::Rate(rate.to_owned())),
        };
        // From a million a second to one a day; a value beyond either is a mistake.
        if !(1e-6..=86_400.0).contains(&seconds_per_call) {
            return Err(RateError::Rate(rate.to_owned()));
        }
        let burst = burst
            .parse::<u32>()
            .ok()
            .filter(|burst| *burst > 0)
            .ok_or_else(|| RateError::Burst(burst.to_owned()))?;
        Ok(RateOverride {
            operation,
            rate: Rate::Limited {
                interval: Duration::from_secs_f64(seconds_per_call),
                burst,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    #[test]
    fn a_rate_is_read_or_its_mistake_is_named() {
        let limited = |millis, burst| Rate::Limited {
            interval: Duration::from_millis(millis),
            burst,
        };
        let one = |operation, rate| {
            Ok(RateOverride {
                operation: Some(operation),
                rate,
            })
        };
        for (text, expected) in [
            (
                "CreateDomainName=1/30:1",
                one(Operation::CreateDomainName, limited(30_000, 1)),
            ),
            ("apigateway=10:40", one(Operation::ApiGateway, limited(100, 40))),
            ("route53=0.5:2", one(Operation::Route53, limited(2_000, 2))),
            ("acm=unlimited", one(Operation::Acm, Rate::Unlimited)),
            (
                "*=unlimited",
                Ok(RateOverride {
                    operation: None,
                    rate: Rate::Unlimited,
                }),
            ),
            ("acm", Err(RateError::Form)),
            ("acm=5", Err(RateError::Form)),
            ("s3=5:5", Err(RateError::Operation("s3".into()))),
            ("acm=fast:5", Err(RateError::Rate("fast".into()))),
            ("acm=0:5", Err(RateError::Rate("0".into()))),
            ("acm=-1:5", Err(RateError::Rate("-1".into()))),
            ("acm=NaN:5", Err(RateError::Rate("NaN".into()))),
            ("acm=5/0:5", Err(RateError::Rate("5/0".into()))),
            ("acm=5:0", Err(RateError::Burst("0".into()))),
            ("acm=5:many", Err(RateError::Burst("many".into()))),
        ] {
            assert_eq!(text.parse::<RateOverride>(), expected, "{text}");
        }
        assert_eq!(
            RateError::Operation("s3".into()).to_string(),
            "no operation \"s3\": there are CreateDomainName, UpdateDomainName, DeleteDomainName, \
         CreateDeployment, GetResources, \
         apigateway, route53, acm and *"
        );
    }

    #[test]
    fn calls_with_a_quota_of_their_own_are_requested_in_advance_or_wait() {
        for (call, expected) in [
            ("CreateDomainName", Some(true)),
            ("CreateDeployment", Some(true)),
            ("GetResources", Some(false)),
            ("GetResource", None),
            ("apigateway", None),
            ("acm", None),
        ] {
            let own = Operation::of_call(call);
            assert_eq!(own.map(Operation::is_scarce), expected, "{call}");
        }
    }

    #[test]
    fn the_later_override_wins_and_the_rest_stays_as_aws_has_it() {
        let read =
            |texts: &[&str]| Rates::with(&texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>());
        let some = read(&["*=unlimited", "acm=1:1"]);
        assert_eq!(some.of(Operation::Route53), Rate::Unlimited);
        assert_eq!(
            some.of(Operation::Acm),
            Rate::Limited {
                interval: Duration::from_secs(1),
                burst: 1
            }
        );
        assert_eq!(
            read(&["acm=1:1", "*=unlimited"]).of(Operation::Acm),
            Rate::Unlimited
        );
        assert_eq!(
            read(&["acm=1:1"]).of(Operation::UpdateDomainName),
            Rate::Limited {
                interval: Duration::from_secs(30),
                burst: 1
            }
        );
    }
}
