//! Fuzzes the parser of truststore objects: it refuses the bytes, or every certificate in them is in the
//! bundle, and is still there after a round trip through the rendered text.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mtls_operator::pki::{pem, truststore::Bundle};

fuzz_target!(|text: &[u8]| {
    let Ok(bundle) = Bundle::parse(text) else { return };
    for (certificate, _) in pem::certificates(text).unwrap_or_default() {
        assert!(
            bundle
                .entries
                .iter()
                .any(|entry| entry.certificate == certificate),
            "a certificate is lost"
        );
    }
    let again = Bundle::parse(&bundle.render()).expect("a rendered bundle parses");
    assert_eq!(again.entries.len(), bundle.entries.len());
});
