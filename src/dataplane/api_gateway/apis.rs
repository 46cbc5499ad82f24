//! APIs that the operator can manage. Pure.

use crate::aws::gateway::apis::{self, Protocol};

/// Returns why no custom domain with mutual TLS can serve the API. Source: API Gateway Developer Guide, "How
/// to turn on mutual TLS authentication".
pub(crate) fn unsupported(api: &apis::Api) -> Option<&'static str> {
    match api.protocol {
        Protocol::WebSocket => {
            Some("is a WebSocket API: mutual TLS is for HTTP and REST APIs; map one of those")
        }
        Protocol::Rest if api.private => Some(
            "is private, and mutual TLS is not for private APIs: map a regional one, or change its endpoint \
             type",
        ),
        Protocol::Http | Protocol::Rest => None,
    }
}
