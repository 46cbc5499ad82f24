//! Local DNS server: authoritative for the public zones of the local Route 53 and for API Gateway's own host
//! names, which it points at the edge. It caches nothing: every query reads the current zones.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use std::{io, iter};

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use crate::control::{self, Control, RecordSet, Zone};

/// TTL of an alias to API Gateway, in seconds.
const ALIAS_TTL: u32 = 60;
/// Maximum number of CNAME and alias records to follow for one answer.
const LONGEST_CHAIN: usize = 8;

/// Running server. Dropping it stops it.
pub struct Dns {
    address: SocketAddr,
    _server: Server<Answerer>,
}

impl Dns {
    /// Starts the server on a free port of 127.0.0.1, UDP and TCP. `edge` is the target of API Gateway's host
    /// names.
    ///
    /// # Errors
    /// No such port is available.
    pub async fn start(control: Control, edge: Ipv4Addr) -> io::Result<Self> {
        let (udp, tcp) = bind_both().await?;
        let address = udp.local_addr()?;
        let mut server = Server::new(Answerer { control, edge });
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 4096);
        Ok(Self {
            address,
            _server: server,
        })
    }

    /// Returns the address that the server listens at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds UDP and TCP to the same port, because resolvers fall back to TCP on it. Another process may have the
/// TCP port; then the function tries another.
async fn bind_both() -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempts = 0;
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        attempts += 1;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(taken) if attempts < 20 && taken.kind() == io::ErrorKind::AddrInUse => {}
            Err(other) => return Err(other),
        }
    }
}

struct Answerer {
    control: Control,
    edge: Ipv4Addr,
}

/// Content of a response.
struct Answer {
    code: ResponseCode,
    records: Vec<Record>,
    /// SOA record of the zone that has no answer (RFC 2308).
    soa: Option<Record>,
}

impl Answer {
    fn of(code: ResponseCode, records: Vec<Record>) -> Self {
        Self {
            code,
            records,
            soa: None,
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Answerer {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut out: R,
    ) -> ResponseInfo {
        let answer = match request.request_info() {
            Ok(info) => {
                let name = Name::from(info.query.name());
                let answer = self.answer(name, info.query.query_type()).await;
                answer.unwrap_or_else(|_| Answer::of(ResponseCode::ServFail, Vec::new()))
            }
            Err(_) => Answer::of(ResponseCode::FormErr, Vec::new()),
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = answer.code != ResponseCode::Refused;
        metadata.response_code = answer.code;
        let builder = MessageResponseBuilder::from_message_request(request);
        let response = builder.build(metadata, &answer.records, [], &answer.soa, []);
        out.send_response(response).await.unwrap_or_else(|_| {
            // The client has gone. hickory needs the answer that the client would have got.
            ResponseInfo::from(Header {
                metadata,
                counts: HeaderCounts::default(),
            })
        })
    }
}

impl Answerer {
    /// Follows CNAME and alias records from `owner` to the records of type `kind`.
    async fn answer(&self, mut owner: Name, kind: RecordType) -> Result<Answer, control::Error> {
        let mut records = Vec::new();
        let mut name = owner.to_ascii().to_lowercase();
        for _ in 0..LONGEST_CHAIN {
            if is_api_gateway_host(&name) {
                return self.api_gateway_host(&name, &owner, kind, records).await;
            }
            let zones = self.control.zones_above(&name).await?;
            let Some((zone, sets)) = best_zone(&zones, &name) else {
                // A chain that leaves the local zones ends here; the resolver continues elsewhere.
                let code = if records.is_empty() {
                    ResponseCode::Refused
                } else {
                    ResponseCode::NoError
                };
                return Ok(Answer::of(code, records));
            };
            let Some(sets) = sets else {
                return Ok(Answer {
                    code: missing(&name, &owner),
                    records,
                    soa: soa(zone),
                });
            };
            let wanted = |set: &&&RecordSet| kind == RecordType::ANY || set.kind == kind.to_string();
            let found: Vec<_> = sets.iter().filter(wanted).collect();
            if let Some(alias) = found.iter().find_map(|set| set.alias.as_ref()) {
                name = with_final_dot(&alias.target);
                continue;
            }
            if !found.is_empty() {
                records.extend(found.into_iter().flat_map(|set| records_of(&owner, set)));
                return Ok(Answer::of(ResponseCode::NoError, records));
            }
            let cname = sets
                .iter()
                .find(|set| set.kind == "CNAME")
                .and_then(|set| records_of(&owner, set).next());
            let Some(cname) = cname else {
                return Ok(Answer {
                    code: ResponseCode::NoError,
                    records,
                    soa: soa(zone),
                });
            };
            if let RData::CNAME(CNAME(target)) = &cname.data {
                owner = target.clone();
                name = with_final_dot(&owner.to_ascii().to_lowercase());
            }
            records.push(cname);
        }
        Ok(Answer::of(ResponseCode::ServFail, Vec::new()))
    }

    /// Returns the regional target of a custom domain name, which disappears with the domain name, or the
    /// default endpoint of an API, for which AWS has a wildcard: it resolves for every API id.
    async fn api_gateway_host(
        &self,
        name: &str,
        owner: &Name,
        kind: RecordType,
        mut records: Vec<Record>,
    ) -> Result<Answer, control::Error> {
        let host = name.trim_end_matches('.');
        let view = self.control.edge_of_host(host).await?;
        let target_of = view
            .domains
            .iter()
            .find(|domain| domain.regional_domain_name == host);
        if target_of.is_none() && host.starts_with("d-") {
            return Ok(Answer::of(missing(name, owner), records));
        }
        let data = match kind {
            RecordType::A => Some(RData::A(A(self.edge))),
            // The edge listens on IPv4 only; this is its address for callers with IPv6.
            RecordType::AAAA if target_of.is_some_and(|domain| domain.ip_address_type == "dualstack") => {
                Some(RData::AAAA(AAAA(self.edge.to_ipv6_mapped())))
            }
            _ => None,
        };
        records.extend(data.map(|data| Record::from_rdata(owner.clone(), ALIAS_TTL, data)));
        Ok(Answer::of(ResponseCode::NoError, records))
    }
}

/// Returns the response code for a missing `name`: the requested name itself exists when an alias led from it
/// to `name`.
fn missing(name: &str, owner: &Name) -> ResponseCode {
    let aliased = !owner.to_ascii().eq_ignore_ascii_case(name);
    if aliased {
        ResponseCode::NoError
    } else {
        ResponseCode::NXDomain
    }
}

/// True for `<api>.execute-api.<region>.amazonaws.com.` and `d-<id>.execute-api.<region>.amazonaws.com.`
fn is_api_gateway_host(name: &str) -> bool {
    name.contains(".execute-api.") && name.ends_with(".amazonaws.com.")
}

/// Returns the public zone with the longest name, and its record sets at `name`: `None` when the zone has no
/// such name.
///
/// Accounts can have zones with the same name (on the Internet the registrar's delegation decides between
/// them): the function takes the first zone that has the name.
fn best_zone<'a>(zones: &'a [Zone], name: &str) -> Option<(&'a Zone, Option<Vec<&'a RecordSet>>)> {
    let longest = zones
        .iter()
        .filter(|zone| !zone.private)
        .map(|zone| zone.name.len())
        .max()?;
    let best = || {
        zones
            .iter()
            .filter(move |zone| !zone.private && zone.name.len() == longest)
    };
    let knowing = best().find_map(|zone| Some((zone, Some(record_sets(zone, name)?))));
    knowing.or_else(|| Some((best().next()?, None)))
}

/// Returns the record sets at `name`, also by a wildcard (RFC 4592); none at a name that has only names below
/// it.
fn record_sets<'a>(zone: &'a Zone, name: &str) -> Option<Vec<&'a RecordSet>> {
    let at = |name: &str| {
        zone.records
            .iter()
            .filter(|set| set.name == name)
            .collect::<Vec<_>>()
    };
    let exists = |name: &str| {
        let below = format!(".{name}");
        zone.records
            .iter()
            .any(|set| set.name == name || set.name.ends_with(&below))
    };
    if exists(name) {
        return Some(at(name));
    }
    let parent = |name: &str| name.split_once('.').map(|(_, parent)| parent.to_owned());
    let closest = iter::successors(parent(name), |name| parent(name)).find(|name| exists(name))?;
    Some(at(&format!("*.{closest}"))).filter(|sets| !sets.is_empty())
}

fn soa(zone: &Zone) -> Option<Record> {
    let owner = Name::from_ascii(&zone.name).ok()?;
    let set = zone
        .records
        .iter()
        .find(|set| set.kind == "SOA" && set.name == zone.name)?;
    records_of(&owner, set).next()
}

/// Returns the records of a set, under the requested name (a wildcard's own name is not in answers).
fn records_of<'a>(owner: &'a Name, set: &'a RecordSet) -> impl Iterator<Item = Record> + 'a {
    let kind = RecordType::from_str(&set.kind);
    set.values.iter().filter_map(move |value| {
        let data = RData::try_from_str(*kind.as_ref().ok()?, value).ok()?;
        Some(Record::from_rdata(
            owner.clone(),
            set.ttl.unwrap_or(ALIAS_TTL),
            data,
        ))
    })
}

fn with_final_dot(name: &str) -> String {
    if name.ends_with('.') {
        name.to_owned()
    } else {
        format!("{name}.")
    }
}
