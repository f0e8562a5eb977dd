//! What processes take: CPU time and memory, read from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// The length of a tick in `/proc/<pid>/stat`. Source: `man 7 time`, `USER_HZ`, 100 in what Linux shows to programs.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process since a moment.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    pid: u32,
    before: Duration,
    started: Instant,
}

impl CpuMeter {
    /// Begins to measure.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub(crate) fn start(pid: u32) -> Result<Self> {
        Ok(Self { pid, before: cpu_time(pid)?, started: Instant::now() })
    }

    /// Counts from the start of the process.
    pub(crate) fn since_start(pid: u32) -> Self {
        Self { pid, before: Duration::ZERO, started: Instant::now() }
    }

    /// CPU time since the start.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub(crate) fn used(&self) -> Result<Duration> {
        Ok(cpu_time(self.pid)?.saturating_sub(self.before))
    }

    /// Cores that were busy on average since the start.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub(crate) fn cores(&self) -> Result<f64> {
        Ok(self.used()?.as_secs_f64() / self.started.elapsed().as_secs_f64())
    }
}

fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    ticks(&stat).map(|ticks| TICK * ticks).with_context(|| format!("/proc/{pid}/stat is not understood"))
}

/// Fields 14 and 15, counted from the name in parentheses, which may itself hold spaces.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// CPU time of the calling thread since it started, in nanoseconds.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Memory of a process, its share of what it shares with others included, in bytes.
///
/// # Errors
///
/// When the process has ended.
pub(crate) fn pss_bytes(pid: u32) -> Result<u64> {
    let rollup = read(pid, "smaps_rollup")?;
    kilobytes(&rollup, "Pss:")
        .map(|kb| kb * 1024)
        .with_context(|| format!("/proc/{pid}/smaps_rollup is not understood"))
}

/// How many files this process may open, and with it everything that it starts.
///
/// # Errors
///
/// When there is no `/proc`.
pub(crate) fn max_open_files() -> Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits").context("read /proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of open files")?;
    Ok(line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX))
}

/// The number of the first core that this process may run on.
///
/// # Errors
///
/// When there is no `/proc`.
pub(crate) fn first_core() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).context("no list of cores")?;
    Ok(list.trim().split([',', '-']).next().unwrap_or("0").to_owned())
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn read(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("read /proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        assert_eq!(ticks("1 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"), Some(200));
        assert_eq!(kilobytes("Rss: 9 kB\nPss:\t 12 kB\nPss_Anon: 3 kB\n", "Pss:"), Some(12));
        assert_eq!((ticks(""), kilobytes("", "Pss:")), (None, None));
    }

    #[test]
    fn this_process_can_be_measured() {
        let pid = std::process::id();
        assert!(first_core().unwrap().parse::<u32>().is_ok());
        assert!(pss_bytes(pid).unwrap() > 0 && max_open_files().unwrap() > 0);
        assert!(CpuMeter::start(pid).unwrap().cores().unwrap() >= 0.0);
        assert!(thread_cpu() > Duration::ZERO);
    }
}
