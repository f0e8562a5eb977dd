//! Metrics of the process itself, read from `/proc` whenever metrics are gathered.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec, Opts, Registry};

/// Ticks per second in `/proc/<pid>/stat`: fixed at 100 in what Linux shows to programs.
/// Source: `man 7 time`, "The software clock, HZ, and jiffies"; `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory, CPU time and open files of this process, and the version that runs. All numbers stay at 0 where there is no
/// `/proc`.
#[derive(Debug, Clone)]
pub struct ProcessMetrics {
    resident_memory: IntGauge,
    memory_limit: IntGauge,
    cpu_seconds: Counter,
    open_fds: IntGauge,
    max_fds: IntGauge,
    start: Gauge,
    build: IntGaugeVec,
}

impl ProcessMetrics {
    /// Registers the metrics under their usual names.
    ///
    /// # Errors
    ///
    /// When the registry already has them.
    pub fn register(registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(Self::new()?))
    }

    fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            resident_memory: IntGauge::new("process_resident_memory_bytes", "Resident memory.")?,
            memory_limit: IntGauge::new(
                "akis_memory_limit_bytes",
                "Memory that this process may use: its container's limit, or that of the machine.",
            )?,
            cpu_seconds: Counter::new("process_cpu_seconds_total", "CPU time, user and system.")?,
            open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            max_fds: IntGauge::new("process_max_fds", "File descriptors that may be open.")?,
            start: Gauge::new("process_start_time_seconds", "When the process started, seconds since the epoch.")?,
            build: IntGaugeVec::new(Opts::new("akis_build_info", "1, with the version that runs."), &["version"])?,
        };
        metrics.start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
        metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
    }

    /// Reads the present values.
    fn update(&self) {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        if let Some(bytes) = read("/proc/self/status").as_deref().and_then(|status| kilobytes(status, "VmRSS:")) {
            self.resident_memory.set(bytes);
        }
        if let Some(seconds) = read("/proc/self/stat").as_deref().and_then(cpu_seconds) {
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
        if let Some(files) = read("/proc/self/limits").as_deref().and_then(max_fds) {
            self.max_fds.set(files);
        }
        let machine = read("/proc/meminfo").as_deref().and_then(|info| kilobytes(info, "MemTotal:"));
        // Of the container, by control groups version 2 and 1. Without a limit there is the word "max", or a number that no
        // machine has.
        let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
            .into_iter()
            .find_map(|path| read(path)?.trim().parse::<i64>().ok());
        if let Some(limit) = machine.into_iter().chain(container).min() {
            self.memory_limit.set(limit);
        }
    }

    fn parts(&self) -> [&dyn Collector; 7] {
        [
            &self.resident_memory,
            &self.memory_limit,
            &self.cpu_seconds,
            &self.open_fds,
            &self.max_fds,
            &self.start,
            &self.build,
        ]
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.update();
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

/// `VmRSS:     1234 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
}

/// The soft limit in `Max open files            1024                 4096                 files`.
fn max_fds(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15, counted from the name in parentheses, which may itself hold spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_proc() {
        assert_eq!(kilobytes("Name:\ta\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(cpu_seconds("1 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"), Some(2.0));
        assert_eq!(max_fds("Limit  Soft  Hard\nMax open files            1024         4096    files\n"), Some(1024));
        assert_eq!((kilobytes("", "VmRSS:"), cpu_seconds(""), max_fds("")), (None, None, None));
    }

    #[test]
    fn what_is_gathered_is_of_now() {
        let registry = Registry::new();
        ProcessMetrics::register(&registry).unwrap();
        for family in registry.gather() {
            let values = family.get_metric();
            // A process that has just begun may have used no tick of CPU time yet.
            if family.name() != "process_cpu_seconds_total" {
                assert!(values.iter().all(|value| value.get_gauge().get_value() > 0.0), "{}", family.name());
            }
        }
        assert!(ProcessMetrics::register(&registry).is_err(), "twice");
    }
}
