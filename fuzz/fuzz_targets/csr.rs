//! Fuzzes the parser of certificate signing requests: it refuses the bytes, or returns a request that a spec
//! could make.
#![no_main]
use jiff::SignedDuration;
use libfuzzer_sys::fuzz_target;
use mtls_operator::pki::{csr, leaf};

fuzz_target!(|text: &[u8]| {
    if let Ok(found) = csr::read(text, SignedDuration::from_hours(24)) {
        leaf::validate(&found.request).expect("read validates the request");
    }
});
