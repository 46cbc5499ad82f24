//! Public DNS of a name: its targets, and whether they match the expected target.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_resolver::{
    TokioResolver,
    lookup::Lookup,
    net::{DnsError, NetError},
    proto::rr::{RData, RecordType},
};

use crate::probe;

/// Maximum number of CNAMEs to follow; resolvers themselves stop at some such number.
const LONGEST_CHAIN: usize = 8;

/// Targets of a name, next to the expected ones. Names are in lower case, without the final dot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicName {
    /// Names of the CNAME chain, in order.
    pub cnames: Vec<String>,
    /// Addresses that callers reach, by CNAMEs or directly.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses of the expected target.
    pub target: BTreeSet<IpAddr>,
    /// True for the first name of its zone, where no CNAME can be.
    pub apex: bool,
}

/// Failure of a DNS query. A name that does not exist is an answer, not a failure.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot resolve {name}: {}", why(.source))]
pub struct NoAnswer {
    name: String,
    source: NetError,
}

#[derive(Debug, thiserror::Error)]
#[error("the system's resolver configuration cannot be used; name a DNS server with --dns-resolver")]
pub struct NoResolver(#[from] NetError);

/// Public DNS client. Cheap to clone.
#[derive(Clone)]
pub struct PublicDns {
    resolver: TokioResolver,
}

impl PublicDns {
    /// Creates a client that asks `server`, or the system's resolver.
    pub fn new(server: Option<SocketAddr>) -> Result<PublicDns, NoResolver> {
        let mut resolver = probe::resolver(server)?;
        resolver.set_hosts(Arc::default()); // /etc/hosts is not public DNS
        Ok(PublicDns { resolver })
    }

    /// Resolves `name`, and `target` for comparison.
    pub async fn resolve(&self, name: &str, target: &str) -> Result<PublicName, NoAnswer> {
        let mut found = PublicName {
            cnames: self.cnames(name).await?,
            ..PublicName::default()
        };
        if found.cnames.iter().any(|cname| cname == target) {
            return Ok(found); // the name leads to its target
        }
        (found.addresses, found.target) = tokio::try_join!(self.addresses(name), self.addresses(target))?;
        if found.cnames.is_empty() {
            let soa = self.ask(name, RecordType::SOA).await?;
            let of_name = |lookup: Lookup| {
                lookup
                    .answers()
                    .iter()
                    .any(|r| r.data.record_type() == RecordType::SOA)
            };
            found.apex = soa.is_some_and(of_name);
        }
        Ok(found)
    }

    async fn cnames(&self, name: &str) -> Result<Vec<String>, NoAnswer> {
        let mut chain: Vec<String> = vec![];
        while chain.len() < LONGEST_CHAIN {
            let last = chain.last().map_or(name, String::as_str);
            let Some(answer) = self.ask(last, RecordType::CNAME).await? else {
                break;
            };
            let next = answer.answers().iter().find_map(|r| match &r.data {
                RData::CNAME(cname) => Some(cname.to_ascii().trim_end_matches('.').to_lowercase()),
                _ => None,
            });
            match next {
                Some(next) if !chain.contains(&next) => chain.push(next),
                _ => break,
            }
        }
        Ok(chain)
    }

    async fn addresses(&self, name: &str) -> Result<BTreeSet<IpAddr>, NoAnswer> {
        let (v4, v6) = tokio::try_join!(self.ask(name, RecordType::A), self.ask(name, RecordType::AAAA))?;
        let of = |lookup: Lookup| {
            lookup
                .answers()
                .iter()
                .filter_map(|r| r.data.ip_addr())
                .collect::<Vec<_>>()
        };
        Ok(v4.into_iter().chain(v6).flat_map(of).collect())
    }

    /// Returns the answer; `None` when there is no such name, or no record of this type.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Option<Lookup>, NoAnswer> {
        // The final dot excludes search domains.
        match self.resolver.lookup(format!("{name}."), kind).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_no_records_found() => Ok(None),
            Err(source) => Err(NoAnswer {
                name: name.to_owned(),
                source,
            }),
        }
    }
}

/// Returns the same words for the same reason: the errors themselves list attempts.
fn why(error: &NetError) -> &'static str {
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => code.to_str(),
        _ => "the DNS server does not answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_not_there_is_no_answer() {
        let free = tokio::net::UdpSocket::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let dns = PublicDns::new(Some(free)).unwrap();
        let said = dns
            .resolve("mtls.example.com", "d-1.execute-api.eu-west-1.amazonaws.com")
            .await
            .unwrap_err();
        assert_eq!(
            said.to_string(),
            "cannot resolve mtls.example.com: the DNS server does not answer"
        );
    }
}
