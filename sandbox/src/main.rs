//! `cargo sandbox`: the local world, up until Ctrl-C. `cargo demo`: the operator's main use case in it, from
//! an empty world to a verified result.
#![forbid(unsafe_code)]

mod demo;
mod show;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use sandbox::{
    aws::{Account, Options},
    operator::{Operator, OperatorOptions},
    prepare::{Preparation, Prepared, prepare},
    world::World,
};

/// Domain of the prepared hosted zone.
const ZONE: &str = "example.com";
/// API that examples/quickstart.yaml maps.
const API_ID: &str = "a1b2c3d4e5";
const ACCOUNT: &str = "123456789012";

/// Runs the local world: real Kubernetes, an AWS emulator, an edge that speaks mutual TLS, DNS.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    scenario: Option<Scenario>,
    /// Folder for kubeconfig, env and logs. Default: a temporary folder.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leaves the operator out, to run it by hand with DIR/env.
    #[arg(long)]
    no_operator: bool,
}

#[derive(Subcommand)]
enum Scenario {
    /// Runs the main use case and checks every step. Exits 0 only if all checks hold.
    Demo {
        /// Folder for logs. Default: a temporary folder, kept after a failure.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.scenario {
        Some(Scenario::Demo { dir }) => demo::run(dir).await,
        None => stay(cli.dir, !cli.no_operator).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// World with the resources that a user already has before the operator starts.
pub struct Stage {
    pub world: World,
    pub account: Account,
    pub prepared: Prepared,
    pub env: Vec<(String, String)>,
    pub root: PathBuf,
}

/// Sets everything up, including CRDs.
async fn set_up(dir: &Path) -> anyhow::Result<Stage> {
    let root = repository()?;
    let world = World::start(dir, &Options::default())
        .await
        .context("cannot start the local world")?;
    world
        .kubernetes
        .install_crds(&root.join("crds"))
        .await
        .context("cannot install the CRDs")?;
    let account = world.aws.account(ACCOUNT);
    let wanted = Preparation {
        zone: ZONE.to_owned(),
        bucket: format!("truststores-{ACCOUNT}"),
        api_id: Some(API_ID.to_owned()),
    };
    let prepared = prepare(&account, &wanted)
        .await
        .context("cannot prepare zone, bucket and API")?;
    let env = world.operator_env(&account, &prepared.bucket);
    Ok(Stage {
        world,
        account,
        prepared,
        env,
        root,
    })
}

async fn start_operator(stage: &Stage, binary: PathBuf) -> anyhow::Result<Operator> {
    let options = OperatorOptions {
        binary,
        dir: stage.world.dir.join("operator"),
        namespace: "mtls-operator".to_owned(),
        watch: vec![],
        env: stage.env.clone(),
        args: vec![],
    };
    Operator::start(&stage.world.kubernetes, options)
        .await
        .context("the operator does not start")
}

/// Returns the source folder of this build: manifests and CRDs are read from it.
fn repository() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .context("the sandbox has no parent folder")
}

/// Builds the operator, with cargo's own progress, and returns its path.
fn build_operator() -> anyhow::Result<PathBuf> {
    // Without --package: with it cargo selects features for that package alone and builds the AWS SDKs a
    // second time.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--bin", "mtls-operator"])
        .current_dir(repository()?)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the operator does not build");
    operator_binary()
}

/// Returns the path of cargo's operator build: beside this program.
fn operator_binary() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("mtls-operator"))
}

async fn stay(dir: Option<PathBuf>, with_operator: bool) -> anyhow::Result<()> {
    let binary = if with_operator {
        Some(build_operator()?)
    } else {
        None
    };
    let (dir, _temporary) = folder(dir)?;
    let stage = set_up(&dir).await?;
    let operator = match binary {
        Some(binary) => Some(start_operator(&stage, binary).await?),
        None => None,
    };
    write_env(&stage)?;
    show::how_to_use(&stage, operator.is_some());
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    if let Some(mut operator) = operator {
        operator.stop().await?;
    }
    Ok(())
}

/// Returns `dir`, or a temporary folder that is deleted with the second value.
fn folder(dir: Option<PathBuf>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    match dir {
        Some(dir) => Ok((dir, None)),
        None => {
            let temporary = tempfile::Builder::new().prefix("mtls-operator-").tempdir()?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

/// Writes DIR/env, last and atomically: once the file exists, the world is usable.
fn write_env(stage: &Stage) -> anyhow::Result<()> {
    let path = stage.world.dir.join("env");
    let draft = stage.world.dir.join("env.draft");
    std::fs::write(&draft, show::env(stage)).with_context(|| format!("cannot write {}", draft.display()))?;
    std::fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))
}
