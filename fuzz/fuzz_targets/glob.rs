//! Fuzzes the patterns of grants.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    mtls_operator::fuzz::glob(text);
});
