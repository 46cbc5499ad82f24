//! Fuzzes the parser of certificate signing requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    mtls_operator::fuzz::csr(text);
});
