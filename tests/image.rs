//! The image, as far as a test can check it without a build: the Dockerfile agrees with the toolchain and the
//! chart, and ends in nothing but the program and its licences. `.ci/empty-root` shows that the program runs
//! with nothing around it.
use std::path::Path;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("the file can be read")
}

/// Lines of the Dockerfile that begin with this instruction, without it.
fn instructions(instruction: &str) -> Vec<String> {
    let dockerfile = file("Dockerfile");
    let lines = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_image_is_built_by_the_projects_toolchain_and_is_nothing_but_the_program() {
    let toolchain = file("rust-toolchain.toml");
    let version = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .expect("a version")
        .trim_matches('"');
    let bases = instructions("FROM");
    assert!(
        bases[0].starts_with(&format!("rust:{version}-slim-")),
        "{bases:?}"
    );
    // A tag can be moved to another content, a digest cannot.
    let (_, digest) = bases[0].split_once("@sha256:").expect("a digest after the tag");
    let digest = digest.strip_suffix(" AS build").expect("the stage's name");
    assert!(
        digest.len() == 64
            && digest
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{digest}"
    );
    assert_eq!(bases[1..], ["scratch"]);
    let dockerfile = file("Dockerfile");
    let (_, image) = dockerfile.split_once("FROM scratch").expect("the last stage");
    assert!(
        !image.contains("RUN ") && image.matches("COPY ").count() == 3,
        "the program, the certificates and the licences"
    );
}

#[test]
fn user_and_port_of_the_image_are_the_charts() {
    let chart = file("charts/mtls-operator/values.yaml");
    let values: serde_json::Value = serde_saphyr::from_str(&chart).expect("YAML");
    let security = &values["podSecurityContext"];
    assert_eq!(
        instructions("USER"),
        [format!("{}:{}", security["runAsUser"], security["runAsGroup"])]
    );
    assert_eq!(instructions("EXPOSE"), [values["port"].to_string()]);
}
