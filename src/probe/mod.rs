//! How others see a domain: over HTTPS ([`probe`]) and in public DNS ([`public_dns`]). Asks the world, writes
//! nothing, and decides nothing: what an answer means is the planner's to say.
use std::{net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};

pub mod https;
pub mod public_dns;

/// How long a DNS server may take; then it is asked once more, and may have found out meanwhile.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Asks `server`, or whom the system asks, and remembers nothing: what was not there a moment ago may be
/// there now.
fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
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
