//! Text that the sandbox prints for people to paste, and writes for scripts to source.
use crate::Stage;

/// Returns shell lines that make a terminal use this world.
pub fn env(stage: &Stage) -> String {
    let world = &stage.world;
    let mut lines = vec![(
        "KUBECONFIG".to_owned(),
        world.kubernetes.kubeconfig.display().to_string(),
    )];
    lines.extend(stage.env.iter().cloned());
    lines.extend([
        // Version 1 of the AWS CLI reads no other variable.
        ("AWS_DEFAULT_REGION".to_owned(), stage.account.region.clone()),
        ("SANDBOX_EDGE".to_owned(), world.edge.address().to_string()),
        ("SANDBOX_CA".to_owned(), world.ca_file().display().to_string()),
        ("SANDBOX_DNS".to_owned(), world.dns.address().to_string()),
        ("SANDBOX_ZONE".to_owned(), stage.prepared.zone.clone()),
        ("SANDBOX_ZONE_ID".to_owned(), stage.prepared.zone_id.clone()),
        ("SANDBOX_API_ID".to_owned(), stage.prepared.api_id.clone()),
        ("SANDBOX_BUCKET".to_owned(), stage.prepared.bucket.clone()),
    ]);
    let mut text: String = lines
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
        .collect();
    text += &format!(
        "export PATH={}:\"$PATH\"\n",
        quoted(&world.kubernetes.bin_dir().display().to_string())
    );
    text
}

/// Quotes a value for a POSIX shell.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@=".contains(c);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// Prints the lines to paste into another terminal.
pub fn how_to_use(stage: &Stage, with_operator: bool) {
    let dir = stage.world.dir.display();
    let root = stage.root.display();
    println!("\nThe local world is up; Ctrl-C ends it. Logs and files: {dir}\n");
    println!("In another terminal:\n");
    println!("  . {dir}/env");
    if !with_operator {
        println!(
            "  (cd {root} && cargo run --bin mtls-operator)      # in a terminal of its own, after the same \
             line"
        );
    }
    println!("  kubectl apply -f {root}/examples/quickstart.yaml");
    println!(
        "  kubectl wait --for=condition=Ready mtlsdomain/partners clientcertificate/client1 --timeout=60s"
    );
    println!("  kubectl get mtls");
    println!(
        "  kubectl get secret client1-mtls -o jsonpath='{{.data.tls\\.crt}}' | base64 -d > {dir}/client1.crt"
    );
    println!(
        "  kubectl get secret client1-mtls -o jsonpath='{{.data.tls\\.key}}' | base64 -d > {dir}/client1.key"
    );
    println!(
        "  # with the certificate: the function answers; without: no answer; the execute-api host: Not Found"
    );
    let name = format!("mtls.{}", stage.prepared.zone);
    let certificate = format!("--cert {dir}/client1.crt --key {dir}/client1.key");
    println!(
        "  curl -sS --cacert $SANDBOX_CA --connect-to {name}:443:$SANDBOX_EDGE {certificate} https://{name}/"
    );
    println!("  curl -sS --cacert $SANDBOX_CA --connect-to {name}:443:$SANDBOX_EDGE https://{name}/");
    let host = &stage.prepared.execute_api_host;
    println!("  curl -sS --cacert $SANDBOX_CA --connect-to {host}:443:$SANDBOX_EDGE https://{host}/\n");
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_back_quoted_values() {
        for value in ["/tmp/a b", "it's", "*=unlimited", "$HOME", "plain-1.2:3"] {
            let script = format!("printf %s {}", quoted(value));
            let out = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), value);
        }
    }
}
