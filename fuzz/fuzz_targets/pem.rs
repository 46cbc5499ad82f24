//! Fuzzes the PEM scanner and the parsers of certificates and keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    mtls_operator::fuzz::pem(text);
});
