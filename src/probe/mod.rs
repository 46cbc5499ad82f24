//! External view of a domain: over HTTPS ([`https`]) and in public DNS ([`public_dns`]). Makes requests,
//! writes nothing, and decides nothing: the planner interprets the answers.

pub mod https;
pub mod public_dns;

use std::{net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};

/// Time limit of one DNS query; the resolver then repeats it once, and the server may have the answer by
/// then.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Returns a resolver of `server`, or the system's, without a cache: a name that did not exist a moment ago
/// may exist now.
pub(crate) fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let mut at = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut at.connections {
                connection.port = server.port();
            }
            let config = ResolverConfig::from_name_servers(vec![at]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    (options.timeout, options.attempts) = (ATTEMPT, 1);
    builder.build()
}
