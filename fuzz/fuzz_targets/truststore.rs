//! Any bytes as a truststore object: it is refused, or every certificate in it is in the bundle, and comes
//! back from what is written.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mtls_operator::pki::{pem, truststore::Bundle};

fuzz_target!(|text: &[u8]| {
    let Ok(bundle) = Bundle::parse(text) else { return };
    for (certificate, _) in pem::certificates(text).unwrap_or_default() {
        assert!(bundle.entries.iter().any(|entry| entry.certificate == certificate), "a certificate is lost");
    }
    let again = Bundle::parse(&bundle.render()).expect("what we write can be read");
    assert_eq!(again.entries.len(), bundle.entries.len());
});
