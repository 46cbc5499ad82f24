//! Cost of a bench: requests, as the API server counts them, and CPU time and memory of a process, as Linux
//! counts them.
use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Context as _, Result};
use kube::Client;

/// Resources that the operator reads and writes. Its Lease is left out, which costs the same in every bench.
const RESOURCES: [&str; 5] = [
    "clientcertificates",
    "mtlsdomains",
    "secrets",
    "configmaps",
    "events",
];
/// Verbs of writes, as the API server's metrics name them.
const WRITES: [&str; 6] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];

/// Requests that the API server has answered, by verb and resource. The API server does not count by user, so
/// these are the requests of all clients. A bench therefore counts while no other client is active. It leaves
/// out its own creates of the two kinds that only users create (RBAC does not let the operator), and sends
/// its other requests at another time. Reads by the garbage collector count as the operator's.
#[derive(Clone, Default)]
pub struct Requests(BTreeMap<(String, String), u64>);

impl Requests {
    /// Returns the requests since the start of the API server.
    pub async fn so_far(client: &Client) -> Result<Requests> {
        let text = client
            .request_text(http::Request::get("/metrics").body(vec![])?)
            .await?;
        let mut all = BTreeMap::new();
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("apiserver_request_total{"))
        {
            let (labels, count) = line.rsplit_once("} ").context("a line of metrics has a value")?;
            let label = |name: &str| {
                let (_, value) = labels.split_once(&format!("{name}=\""))?;
                Some(value.split('"').next().unwrap_or_default().to_owned())
            };
            let (verb, resource) = label("verb")
                .zip(label("resource"))
                .context("a request has a verb")?;
            let of_a_user =
                verb == "POST" && ["clientcertificates", "mtlsdomains"].contains(&resource.as_str());
            if RESOURCES.contains(&resource.as_str()) && !of_a_user {
                let subresource = label("subresource")
                    .filter(|s| !s.is_empty())
                    .map(|s| format!("/{s}"));
                *all.entry((verb, resource + &subresource.unwrap_or_default()))
                    .or_default() += count.parse::<f64>()? as u64;
            }
        }
        Ok(Requests(all))
    }

    pub fn since(&self, earlier: &Requests) -> Requests {
        let more = self
            .0
            .iter()
            .map(|(key, count)| (key.clone(), count - earlier.0.get(key).unwrap_or(&0)));
        Requests(more.filter(|(_, count)| *count > 0).collect())
    }

    pub fn writes(&self) -> u64 {
        self.sum(|verb| WRITES.contains(&verb))
    }

    pub fn reads(&self) -> u64 {
        self.sum(|verb| !WRITES.contains(&verb))
    }

    fn sum(&self, which: impl Fn(&str) -> bool) -> u64 {
        self.0
            .iter()
            .filter(|((verb, _), _)| which(verb))
            .map(|(_, count)| count)
            .sum()
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self
            .0
            .iter()
            .map(|((verb, resource), count)| format!("{count} {verb} {resource}"))
            .collect();
        write!(
            f,
            "{} writes, {} reads: {}",
            self.writes(),
            self.reads(),
            all.join(", ")
        )
    }
}

/// CPU time and memory that a process has used.
#[derive(Clone, Copy)]
pub struct Usage {
    /// CPU time since the start of the process, user and system.
    pub cpu: Duration,
    /// Resident memory now, in MiB.
    pub rss: f64,
    /// Maximum resident memory so far, in MiB.
    pub peak: f64,
}

impl Usage {
    /// Returns the usage of the process with that id (proc(5): `stat`, fields 14 and 15 in ticks of 10 ms,
    /// and `status`).
    pub fn of(id: u32) -> Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let (_, after_the_name) = stat.rsplit_once(')').context("a process has a name")?;
        let ticks: u64 = after_the_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|t| t.parse::<u64>().ok())
            .sum();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            Ok::<_, anyhow::Error>(kib.with_context(|| format!("{name} in kB"))? / 1024.0)
        };
        Ok(Usage {
            cpu: Duration::from_millis(ticks * 10),
            rss: mib("VmRSS:")?,
            peak: mib("VmHWM:")?,
        })
    }
}
