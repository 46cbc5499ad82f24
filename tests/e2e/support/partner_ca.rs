//! CAs of partners, each with a key of its own, and leaves under them.
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::edge_calls::Caller;

/// CA of a partner.
pub struct Ca {
    pub pem: String,
    pub key: String,
    pub issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new(common_name: &str) -> Ca {
        Ca::of(
            common_name,
            rcgen::date_time_ymd(2020, 1, 1),
            rcgen::date_time_ymd(2045, 1, 1),
        )
    }

    /// CA that is valid from and until so long after now.
    pub fn valid(common_name: &str, from: Duration, to: Duration) -> Ca {
        let now = SystemTime::now();
        Ca::of(common_name, (now + from).into(), (now + to).into())
    }

    /// CA with URIs, as long as the list makes it.
    pub fn with_uris(common_name: &str, uris: &[String]) -> Ca {
        let uri = |uri: &String| SanType::URI(uri.as_str().try_into().expect("ASCII"));
        let (from, to) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2045, 1, 1));
        Ca::named(common_name, uris.iter().map(uri).collect(), from, to)
    }

    pub fn of(common_name: &str, not_before: OffsetDateTime, not_after: OffsetDateTime) -> Ca {
        Ca::named(common_name, vec![], not_before, not_after)
    }

    pub fn named(
        common_name: &str,
        names: Vec<SanType>,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Ca {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.subject_alt_names = names;
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (not_before, not_after);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Ca {
            pem,
            key: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn leaf(&self, common_name: &str) -> Caller {
        self.leaf_until(common_name, rcgen::date_time_ymd(2044, 1, 1))
    }

    pub fn leaf_until(&self, common_name: &str, not_after: OffsetDateTime) -> Caller {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), not_after);
        let crt = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Caller {
            crt,
            key: key.serialize_pem(),
        }
    }
}
