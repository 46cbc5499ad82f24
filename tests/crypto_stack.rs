//! A single TLS and key stack in the shipped binary: rustls on aws-lc-rs.
use std::process::Command;

#[test]
fn nothing_that_ships_depends_on_another_tls_stack() {
    for banned in ["ring", "openssl", "openssl-sys", "native-tls", "rsa", "p256"] {
        let out = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "-p",
                "mtls-operator",
                "-e",
                "normal,build",
                "--target",
                "all",
                "-i",
                banned,
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.trim().is_empty(), "{banned} is in the tree:\n{text}");
        // An empty answer counts only when cargo says that the crate is absent, and not after another
        // failure.
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(
            err.contains("nothing to print") || err.contains("did not match any packages"),
            "{err}"
        );
    }
}
