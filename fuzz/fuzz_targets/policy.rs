//! Fuzzes the parser of the policy file.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    mtls_operator::fuzz::policy(text);
});
