//! Fuzzes the PEM scanner: it refuses the bytes, or every BEGIN in them is a block at the reported place. The
//! parsers of certificates and keys read or refuse the bytes.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mtls_operator::pki::{keys, pem};

const BEGIN: &[u8] = b"-----BEGIN ";

fuzz_target!(|text: &[u8]| {
    let _ = (
        keys::parse(text).is_ok(),
        pem::certificates_beside_keys(text),
        pem::is_plain(text),
    );
    let Ok(blocks) = pem::scan(text).collect::<Result<Vec<_>, _>>() else {
        assert!(
            pem::certificates(text).is_err(),
            "a text that cannot be read has certificates"
        );
        return;
    };
    let begins = text
        .windows(BEGIN.len())
        .filter(|window| *window == BEGIN)
        .count();
    assert!(blocks.len() >= begins, "a block was skipped");
    for block in &blocks {
        assert!(
            text[block.range.clone()].starts_with(b"-----BEGIN")
                && text[block.range.clone()].ends_with(b"-----")
        );
    }
    if let Ok(certificates) = pem::certificates(text) {
        assert_eq!(certificates.len(), blocks.len(), "a certificate was skipped");
    }
});
