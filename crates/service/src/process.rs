//! Metrics of the process itself, read from `/proc` when they are asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge, IntGauge, Registry};

/// Ticks per second in `/proc/<pid>/stat`: fixed at 100 in what Linux shows to programs.
/// Source: `man 7 time`, "The software clock, HZ, and jiffies"; `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory, CPU time and open files of this process. All stay at 0 where there is no `/proc`.
#[derive(Debug, Clone)]
pub struct ProcessMetrics {
    resident_memory: IntGauge,
    cpu_seconds: Counter,
    open_fds: IntGauge,
}

impl ProcessMetrics {
    /// Registers the metrics under their usual names.
    ///
    /// # Errors
    ///
    /// When the registry already has them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            resident_memory: IntGauge::new("process_resident_memory_bytes", "Resident memory.")?,
            cpu_seconds: Counter::new("process_cpu_seconds_total", "CPU time, user and system.")?,
            open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
        };
        let start = Gauge::new("process_start_time_seconds", "When the process started, seconds since the epoch.")?;
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
        registry.register(Box::new(start))?;
        registry.register(Box::new(metrics.resident_memory.clone()))?;
        registry.register(Box::new(metrics.cpu_seconds.clone()))?;
        registry.register(Box::new(metrics.open_fds.clone()))?;
        Ok(metrics)
    }

    /// Reads the present values.
    pub fn update(&self) {
        if let Some(bytes) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
            self.resident_memory.set(bytes);
        }
        if let Some(seconds) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
    }
}

/// `VmRSS:     1234 kB`.
fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
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
        assert_eq!(resident_bytes("Name:\ta\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(cpu_seconds("1 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"), Some(2.0));
        assert_eq!((resident_bytes(""), cpu_seconds("")), (None, None));
        let metrics = ProcessMetrics::register(&Registry::new()).unwrap();
        metrics.update();
        assert!(metrics.resident_memory.get() > 0 && metrics.open_fds.get() > 0);
    }
}
