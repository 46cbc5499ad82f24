//! Any text as a truststore object: it is refused, or every certificate in it is in the bundle, and comes back from what is written.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mtls_operator::pki::{certificate::parse_pem_bundle, truststore::Bundle};

fuzz_target!(|text: &str| {
    let Ok(bundle) = Bundle::parse(text) else { return };
    let blocks = text.lines().filter(|line| line.starts_with("-----BEGIN ")).count();
    let certificates = if blocks == 0 { vec![] } else { parse_pem_bundle(text).expect("as a bundle it could be read") };
    assert_eq!(certificates.len(), blocks, "a block was skipped");
    for certificate in &certificates {
        assert!(bundle.entries.iter().any(|entry| entry.certificate == *certificate), "a certificate is lost");
    }
    let again = Bundle::parse(&bundle.render()).expect("what we write can be read");
    assert_eq!(again.entries.len(), bundle.entries.len());
});
