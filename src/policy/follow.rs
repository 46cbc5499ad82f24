//! Follows the file of the operator's policy. Reads it periodically, because a mounted ConfigMap changes by a
//! link that moves, which a watch on the file does not see everywhere. Reports the policy in force in the log
//! and in metrics; `policy` defines its meaning.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::file;

use crate::{
    policy::Policy,
    telemetry::{logging, metrics::Metrics},
};

/// Interval between two reads of the file.
const INTERVAL: Duration = Duration::from_secs(2);

/// Policy in force; `None` when everything is allowed.
pub type InForce = watch::Receiver<Option<Arc<Policy>>>;

/// Reason why a file is not a valid policy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}", path = path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: file::Error,
    },
}

/// Allows everything, because there is no file, and logs a warning once.
pub fn none(metrics: &Metrics) -> InForce {
    tracing::warn!("no --policy: every watched namespace may do everything that the operator may do in AWS");
    metrics.policy(false, true);
    watch::channel(None).1
}

/// Returns the policy of the file, and a future that follows the file while it is driven: spawn it. A later
/// invalid file changes nothing.
///
/// # Errors
/// [`Error`]: the file is not a valid policy at the start.
pub fn follow(path: PathBuf, metrics: Metrics) -> Result<(InForce, impl Future<Output = ()>), Error> {
    let mut text = read(&path)?;
    let first = parse(&path, &text)?;
    tracing::info!(path = %path.display(), rules = first.rules.len(), "the policy is in force");
    metrics.policy(true, true);
    let (sender, in_force) = watch::channel(Some(Arc::new(first)));
    let follow = async move {
        let mut problem = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let file = path.clone();
            let Ok(content) = tokio::task::spawn_blocking(move || read(&file)).await else {
                return;
            };
            let changed = content.and_then(|now| {
                if now == text {
                    return Ok(None);
                }
                let parsed = parse(&path, &now)?;
                text = now;
                Ok(Some(parsed))
            });
            match changed {
                Ok(None) => problem = None,
                Ok(Some(policy)) => {
                    problem = None;
                    tracing::info!(path = %path.display(), rules = policy.rules.len(), "the policy has \
                                            changed");
                    sender.send_replace(Some(Arc::new(policy)));
                }
                Err(error) => {
                    let said = logging::chain(&error).to_string();
                    // Once, not every two seconds.
                    if problem.as_ref() != Some(&said) {
                        tracing::error!(
                            error = said,
                            "the policy file is invalid; the last valid policy stays in force"
                        );
                        problem = Some(said);
                    }
                }
            }
            metrics.policy(true, problem.is_none());
        }
    };
    Ok((in_force, follow))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn parse(path: &Path, text: &str) -> Result<Policy, Error> {
    file::parse(text).map_err(|source| Error::Parse {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::{path::Path, time::Duration};

    use crate::telemetry::{logging, metrics::Metrics};

    const ONE: &str = "rules: [{name: a, namespaces: {}}]";

    const TWO: &str = "rules: [{name: a, namespaces: {}}, {name: b, namespaces: {}}]";

    fn rules(in_force: &InForce) -> usize {
        in_force.borrow().as_ref().expect("there is a file").rules.len()
    }

    /// Changes the file as a mounted ConfigMap does: the file is a link into a folder that is itself a link,
    /// and the folder's link moves.
    #[tokio::test(start_paused = true)]
    async fn the_last_good_policy_stays_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let publish = |version: &str, text: Option<&str>| {
            let folder = dir.path().join(version);
            std::fs::create_dir(&folder).unwrap();
            if let Some(text) = text {
                std::fs::write(folder.join("policy.yaml"), text).unwrap();
            }
            let link = dir.path().join("..new");
            std::os::unix::fs::symlink(&folder, &link).unwrap();
            std::fs::rename(&link, dir.path().join("..data")).unwrap();
        };
        publish("1", Some(ONE));
        let path = dir.path().join("policy.yaml");
        std::os::unix::fs::symlink(dir.path().join("..data/policy.yaml"), &path).unwrap();
        let (metrics, registry) = Metrics::new();
        let (mut in_force, following) = follow(path, metrics).unwrap();
        let following = tokio::spawn(following);
        let shown = |line: &str| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text.lines().any(|shown| shown == line)
        };
        // The clock is paused: a minute of it is thirty reads of the file, and no real time.
        let deadline = Duration::from_secs(60);
        let wait_for = async |line: &str| {
            let waiting = async {
                while !shown(line) {
                    tokio::time::sleep(INTERVAL).await;
                }
            };
            tokio::time::timeout(deadline, waiting)
                .await
                .unwrap_or_else(|_| panic!("not shown: {line}"));
        };
        assert_eq!(rules(&in_force), 1);
        assert!(shown("mtls_operator_policy_in_force 1") && shown("mtls_operator_policy_file_invalid 0"));

        publish("2", Some(TWO));
        tokio::time::timeout(deadline, in_force.changed())
            .await
            .expect("in time")
            .unwrap();
        assert_eq!(rules(&in_force), 2);
        for (version, bad) in [("3", Some("rules: [{name: c}]")), ("4", Some("")), ("5", None)] {
            publish(version, bad);
            wait_for("mtls_operator_policy_file_invalid 1").await;
            assert_eq!(
                (rules(&in_force), in_force.has_changed().unwrap()),
                (2, false),
                "{bad:?}"
            );
            publish(&format!("{version}-good"), Some(TWO));
            wait_for("mtls_operator_policy_file_invalid 0").await;
            assert!(!in_force.has_changed().unwrap(), "an equal policy is no change");
        }
        publish("6", Some(ONE));
        tokio::time::timeout(deadline, in_force.changed())
            .await
            .expect("in time")
            .unwrap();
        assert_eq!(rules(&in_force), 1);
        following.abort();
    }

    #[test]
    fn following_fails_without_a_valid_policy_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        let said = |path: &Path| match follow(path.to_owned(), Metrics::new().0) {
            Err(error) => logging::chain(&error).to_string(),
            Ok(_) => panic!("it starts"),
        };
        assert!(said(&path).contains("policy.yaml"));
        std::fs::write(&path, "rules: [{name: a, namespaces: {}, region: [eu-west-1]}]").unwrap();
        assert!(said(&path).contains("region"), "{}", said(&path));
    }
}
