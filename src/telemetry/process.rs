//! Metrics of this process, under the common names of Prometheus clients; read from /proc at each scrape.
//! Values that cannot be read are left out.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Time units per second in /proc/PID/stat: Linux's USER_HZ, 100 on every architecture of the build.
const TICKS_PER_SECOND: f64 = 100.0;

/// Collector of the metrics of the current process.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        let booted = field(&read("/proc/stat"), "btime", 1).map(|seconds| seconds as f64);
        // One descriptor belongs to the listing itself.
        let open = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|all| all.count().saturating_sub(1) as u64);

        if let Some(cpu) = times(&stat).map(|(cpu, _)| cpu) {
            let help = "CPU time of this process, in user and system mode";
            let metric = ConstCounter::new(cpu);
            metric.encode(encoder.encode_descriptor(
                "process_cpu",
                help,
                Some(&Unit::Seconds),
                metric.metric_type(),
            )?)?;
        }
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| {
            let Some(metric) = value.map(ConstGauge::new) else {
                return Ok(());
            };
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        let bytes = |name| field(&status, name, 1).map(|kibibytes| (kibibytes * 1024) as f64);
        gauge(
            "process_resident_memory",
            "Resident memory of this process",
            Some(&Unit::Bytes),
            bytes("VmRSS:"),
        )?;
        gauge(
            "process_virtual_memory",
            "Virtual memory of this process",
            Some(&Unit::Bytes),
            bytes("VmSize:"),
        )?;
        gauge(
            "process_open_fds",
            "Number of open file descriptors",
            None,
            open.map(|n| n as f64),
        )?;
        let most = field(&read("/proc/self/limits"), "Max open files", 3).map(|n| n as f64);
        gauge(
            "process_max_fds",
            "Maximum number of open file descriptors",
            None,
            most,
        )?;
        let started = booted
            .zip(times(&stat))
            .map(|(booted, (_, started))| booted + started);
        gauge(
            "process_start_time",
            "Start time of this process, in Unix time",
            Some(&Unit::Seconds),
            started,
        )
    }
}

/// Returns the seconds of CPU time, and the seconds from the machine's start to the process's, from
/// /proc/PID/stat.
fn times(stat: &str) -> Option<(f64, f64)> {
    // The name, in parentheses, may contain blanks and parentheses. The third field follows it.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |number: usize| {
        fields
            .get(number - 3)?
            .parse::<u64>()
            .ok()
            .map(|ticks| ticks as f64)
    };
    Some((
        (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
        ticks(22)? / TICKS_PER_SECOND,
    ))
}

/// Returns the word at `place` of the first line that begins with `name`.
fn field(text: &str, name: &str, place: usize) -> Option<u64> {
    text.lines()
        .find(|line| line.starts_with(name))?
        .split_whitespace()
        .nth(place)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use prometheus_client::{encoding::text::encode, registry::Registry};

    #[test]
    fn proc_files_are_parsed() {
        let stat = "42 (a) b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 12345 999 888 \
                18446744073709551615 1 1";
        assert_eq!(times(stat), Some((3.0, 123.45)));
        assert_eq!(times("42 (a) S 1"), None);
        assert_eq!(times(""), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max open files            1024                 1048576              files     \n";
        assert_eq!(field(limits, "Max open files", 3), Some(1024));
        assert_eq!(
            field(
                "Max open files            unlimited            unlimited            files",
                "Max open files",
                3
            ),
            None
        );
        assert_eq!(
            field("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n", "VmRSS:", 1),
            Some(2048)
        );
        assert_eq!(
            field("cpu 1 2\nbtime 1700000000\n", "btime", 1),
            Some(1_700_000_000)
        );
    }

    #[test]
    fn this_process_has_all_metrics() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let value = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
                .parse::<f64>()
                .unwrap()
        };
        let (resident, virtual_) = (
            value("process_resident_memory_bytes"),
            value("process_virtual_memory_bytes"),
        );
        assert!(1e6 < resident && resident < virtual_, "{text}");
        assert!(value("process_cpu_seconds_total") < 1e6);
        assert!(
            (3.0..=value("process_max_fds")).contains(&value("process_open_fds")),
            "{text}"
        );
        let age = jiff::Timestamp::now().as_second() as f64 - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
