//! Any bytes as a certificate signing request: it is refused, or asks for what a spec could ask for.
#![no_main]
use jiff::SignedDuration;
use libfuzzer_sys::fuzz_target;
use mtls_operator::pki::{csr, leaf};

fuzz_target!(|text: &[u8]| {
    if let Ok(found) = csr::read(text, SignedDuration::from_hours(24)) {
        leaf::validate(&found.request).expect("it was validated");
    }
});
