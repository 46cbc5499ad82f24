//! The `mtls-operator` command: parses the arguments, connects the parts, and converts errors into an exit
//! code. The only module that reads the environment.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mtls_operator::{
    api,
    aws::partitions,
    cli::{doctor, iam},
    operator,
    telemetry::logging,
};

/// Manages API Gateway custom domains with mutual TLS, as MtlsDomain and ClientCertificate objects declare.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: operator::options::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the CustomResourceDefinitions as YAML: to standard output, or one file each into a folder.
    Crds {
        /// Folder for one file per CustomResourceDefinition. Default: standard output.
        folder: Option<PathBuf>,
    },
    IamPolicy(iam::IamPolicy),
    Doctor(doctor::Doctor),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (result, failure) = match cli.command {
        Some(Command::Crds { folder }) => (crds(folder), ExitCode::FAILURE),
        Some(Command::IamPolicy(args)) => (iam_policy(args), ExitCode::FAILURE),
        // 1 means that the doctor found a problem.
        Some(Command::Doctor(args)) => (doctor(args), ExitCode::from(2)),
        None => (start(cli.run), ExitCode::FAILURE),
    };
    result.unwrap_or_else(|error| {
        eprintln!("mtls-operator: {}", logging::chain(error.as_ref()));
        failure
    })
}

fn crds(folder: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    for (name, yaml) in api::crds() {
        match &folder {
            Some(folder) => {
                let path = folder.join(name);
                std::fs::write(&path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => print!("---\n{yaml}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn iam_policy(args: iam::IamPolicy) -> anyhow::Result<ExitCode> {
    let (policy, remarks) = iam::print(args)?;
    println!("{policy}");
    remarks
        .iter()
        .for_each(|remark| eprintln!("mtls-operator: {remark}"));
    Ok(ExitCode::SUCCESS)
}

fn doctor(args: doctor::Doctor) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(doctor::run(args))
}

fn start(run: operator::options::Options) -> anyhow::Result<ExitCode> {
    refuse_unknown_region(|name| std::env::var(name).ok())?;
    let level = logging::init(&run.log, run.log_format)?;
    operator::run(run, level, &runtime()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses a Region of the environment that no known partition has: the AWS SDK would ask host names for it
/// that do not exist.
fn refuse_unknown_region(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    // In the order of the SDK.
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        if let Some(region) = variable(name).filter(|region| !region.is_empty()) {
            return partitions::check(&region).context(name);
        }
    }
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // kube and the AWS SDK find aws-lc-rs by themselves; the client of the probe uses the process's default.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // One thread runs the controllers: it issues certificates as fast as an API server with a quarter of a
    // core accepts them, and more threads would wake each other up all the time.
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use clap::{ArgAction, CommandFactory};
    use mtls_operator::telemetry::logging::Format;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_region_that_does_not_exist_is_refused_at_start() {
        let with = |set: &[(&str, &str)]| {
            let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            refuse_unknown_region(variable).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(with(&[]), Ok(()));
        assert_eq!(
            with(&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "us-isof-south-1")]),
            Ok(())
        );
        assert_eq!(
            with(&[("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "moon-east-1")]),
            Ok(())
        );
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            let refused = with(&[(name, "moon-east-1")]).unwrap_err();
            assert!(
                refused.starts_with(&format!("{name}: no known partition")),
                "{refused}"
            );
        }
    }

    fn parsed(flags: &[&str]) -> Cli {
        Cli::try_parse_from([&["mtls-operator"], flags].concat()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The chart's extraArgs follow the chart's own arguments.
    #[test]
    fn the_last_of_a_flag_wins_and_lists_add_up() {
        let run = parsed(&[
            "--listen=[::]:8080",
            "--metrics-per-certificate=true",
            "--log-format=json",
            "--drift-interval=15m",
            "--dns-resolver=127.0.0.1:53",
            "--watch-namespace=a,b",
            "--aws-rate=*=unlimited",
            "--listen=127.0.0.1:9090",
            "--metrics-per-certificate=false",
            "--log-format=compact",
            "--drift-interval=30m",
            "--dns-resolver=127.0.0.2:53",
            "--watch-namespace=c",
            "--aws-rate=CreateDomainName=1/60:1",
        ])
        .run;
        assert_eq!(run.listen.to_string(), "127.0.0.1:9090");
        assert!(!run.metrics_per_certificate);
        assert_eq!(run.log_format, Format::Compact);
        assert_eq!(run.drift_interval, Duration::from_secs(1800));
        assert_eq!(
            run.outside.resolver.map(|r| r.to_string()).as_deref(),
            Some("127.0.0.2:53")
        );
        assert_eq!(run.watch_namespace, ["a", "b", "c"]);
        assert_eq!(run.aws_rate.len(), 2);
        let doctor = [
            "doctor",
            "a.example.com",
            "--path=/a",
            "--output=text",
            "--path=/b",
            "--output=json",
        ];
        assert!(Cli::try_parse_from([&["mtls-operator"][..], &doctor].concat()).is_ok());
    }

    /// Lists the arguments of a command, as rows of a table.
    fn rows(command: &clap::Command, list: &mut String) {
        use std::fmt::Write;
        list.push_str("\n| argument | variable | default | |\n|---|---|---|---|\n");
        for argument in command
            .get_arguments()
            .filter(|a| !["help", "version"].contains(&a.get_id().as_str()))
        {
            let value = argument
                .get_value_names()
                .and_then(|names| names.first())
                .map(ToString::to_string);
            let value = value.unwrap_or_else(|| argument.get_id().to_string().to_uppercase());
            let repeated = matches!(argument.get_action(), ArgAction::Append)
                .then_some(", ...")
                .unwrap_or_default();
            let name = argument.get_long().map_or(format!("{value}{repeated}"), |long| {
                format!("--{long} {value}{repeated}")
            });
            let code = |text: String| {
                if text.is_empty() {
                    text
                } else {
                    format!("`{text}`")
                }
            };
            let env = argument
                .get_env()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let default: Vec<_> = argument
                .get_default_values()
                .iter()
                .map(|v| v.to_string_lossy())
                .collect();
            let mut help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default()
                .replace('|', "\\|");
            let choices = argument.get_possible_values();
            if !choices.is_empty() && argument.get_action().takes_values() {
                let choices: Vec<_> = choices
                    .iter()
                    .map(|choice| format!("`{}`", choice.get_name()))
                    .collect();
                write!(help, " ({})", choices.join(", ")).unwrap();
            }
            let row = [code(name), code(env), code(default.join(",")), help];
            writeln!(list, "| {} |", row.join(" | ")).unwrap();
        }
        list.push('\n');
    }

    #[test]
    fn every_flag_is_listed() {
        const BEGIN: &str = "<!-- Generated: WRITE_DOCS=1 cargo test --bin mtls-operator -->\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/flags.md");
        let (cli, mut list) = (Cli::command(), String::from("\n## The operator\n"));
        rows(&cli, &mut list);
        for command in cli.get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            list.push_str(&format!(
                "## mtls-operator {}\n\n{}.\n",
                command.get_name(),
                about.trim_end_matches('.')
            ));
            rows(command, &mut list);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, now) = text
            .split_once(BEGIN)
            .expect("the mark at the beginning of the list");
        if std::env::var_os("WRITE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{list}")).unwrap();
        } else {
            assert!(
                now == list,
                "docs/flags.md is stale: WRITE_DOCS=1 cargo test --bin mtls-operator"
            );
        }
    }

    #[test]
    fn it_listens_at_every_address_unless_told_otherwise() {
        assert_eq!(parsed(&[]).run.listen.to_string(), "[::]:8080");
    }
}
