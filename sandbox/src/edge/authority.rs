//! CA of the local world that all clients trust, like Amazon's CA: it issues the edge's server certificates.
//! New at each start; its key never leaves the process.

use std::collections::HashMap;
use std::sync::Mutex;

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslContext, SslMethod, SslOptions, SslSessionCacheMode};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};

const VALID_DAYS: u32 = 365;

pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
    /// Key of all server certificates: no test needs different ones.
    server_key: PKey<Private>,
    /// TLS contexts by the names in the certificate.
    contexts: Mutex<HashMap<Vec<String>, SslContext>>,
}

impl Authority {
    pub fn new() -> Result<Self, ErrorStack> {
        let key = new_key()?;
        let name = common_name("mtls-operator sandbox public CA")?;
        let mut builder = builder(&name, &name, &key)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self {
            certificate: builder.build(),
            key,
            server_key: new_key()?,
            contexts: Mutex::default(),
        })
    }

    pub fn certificate_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.certificate.to_pem()
    }

    /// Returns the TLS context of a server with a certificate for these names: TLS 1.2 and 1.3, as API
    /// Gateway's policy TLS_1_2.
    pub fn context(&self, names: &[String]) -> Result<SslContext, ErrorStack> {
        let mut contexts = self.contexts.lock().expect("nothing panics while it is locked");
        if let Some(context) = contexts.get(names) {
            return Ok(context.clone());
        }
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        builder.set_certificate(self.server_certificate(names)?.as_ref())?;
        builder.set_private_key(&self.server_key)?;
        // A resumed session would keep the result of an older truststore.
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_options(SslOptions::NO_TICKET);
        builder.set_num_tickets(0)?;
        // TLS does not reject a client certificate that is too weak: the edge answers it with 403.
        builder.set_security_level(0);
        let context = builder.build().into_context();
        contexts.insert(names.to_vec(), context.clone());
        Ok(context)
    }

    fn server_certificate(&self, names: &[String]) -> Result<X509, ErrorStack> {
        // 64 characters is the longest possible common name (RFC 5280, ub-common-name).
        let subject = names
            .iter()
            .find(|name| name.len() <= 64)
            .map_or("", String::as_str);
        let mut builder = builder(
            &*common_name(subject)?,
            self.certificate.subject_name(),
            &self.server_key,
        )?;
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            alternatives.dns(name);
        }
        let alternatives = alternatives.build(&builder.x509v3_context(Some(&self.certificate), None))?;
        builder.append_extension(alternatives)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(
        Nid::X9_62_PRIME256V1,
    )?)?)
}

fn common_name(value: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    if !value.is_empty() {
        name.append_entry_by_nid(Nid::COMMONNAME, value)?;
    }
    Ok(name.build())
}

fn builder(
    subject: &openssl::x509::X509NameRef,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::ONE, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*Asn1Integer::from_bn(&serial)?)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(VALID_DAYS)?)?;
    Ok(builder)
}
