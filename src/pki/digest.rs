//! SHA-256 as text.

use aws_lc_rs::digest::{SHA256, digest};

use super::name::hex;

/// Returns 32 hexadecimal digits, the length of ACM's idempotency token and of the TXT ownership record.
pub fn short_hash(text: &str) -> String {
    sha256(text.as_bytes())[..32].to_owned()
}

/// Returns the SHA-256 of `bytes`, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}
