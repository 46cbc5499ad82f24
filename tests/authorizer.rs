//! The Lambda authorizer of the examples passes its own test.
use std::{path::Path, process::Command};

use sandbox::tools;

#[test]
fn the_authorizer_of_the_examples_passes_its_own_test() {
    let node = tools::node().expect("Node.js is available");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/authorizer");
    let out = Command::new(node)
        .arg("--test")
        .current_dir(folder)
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("fail 0") && !said.contains("tests 0"),
        "{said}"
    );
}
