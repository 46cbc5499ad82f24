//! Fuzzes the parser of truststore objects.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    mtls_operator::fuzz::truststore(text);
});
