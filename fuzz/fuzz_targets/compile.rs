//! Fuzzes the compiler of the next truststore.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    mtls_operator::fuzz::compile(text);
});
