//! TLS contexts of the edge's server certificates, which the AWS emulator issues.

use std::collections::HashMap;
use std::sync::Mutex;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslContext, SslMethod, SslOptions, SslSessionCacheMode};
use openssl::x509::X509;

use crate::control::Shown;

/// TLS contexts by the certificate that they show.
#[derive(Default)]
pub struct ServerCertificates(Mutex<HashMap<Shown, SslContext>>);

impl ServerCertificates {
    /// Returns the TLS context of a server that shows exactly this certificate with its chain: TLS 1.2 and
    /// 1.3, as API Gateway's policy TLS_1_2.
    pub fn context(&self, shown: &Shown) -> Result<SslContext, ErrorStack> {
        let mut contexts = self.0.lock().expect("nothing panics while it is locked");
        if let Some(context) = contexts.get(shown) {
            return Ok(context.clone());
        }
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        let mut certificates = X509::stack_from_pem(shown.pem.as_bytes())?.into_iter();
        if let Some(leaf) = certificates.next() {
            builder.set_certificate(&leaf)?;
        }
        for certificate in certificates {
            builder.add_extra_chain_cert(certificate)?;
        }
        builder.set_private_key(&*PKey::private_key_from_pem(shown.key.as_bytes())?)?;
        // A resumed session would keep the result of an older truststore.
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_options(SslOptions::NO_TICKET);
        builder.set_num_tickets(0)?;
        // TLS does not reject a client certificate that is too weak: the edge answers it with 403.
        builder.set_security_level(0);
        let context = builder.build().into_context();
        contexts.insert(shown.clone(), context.clone());
        Ok(context)
    }
}
