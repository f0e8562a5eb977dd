//! Figures as a table that can be read in a terminal and pasted into a document.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The figures of one scenario.
#[derive(Debug)]
pub(crate) struct Report {
    title: String,
    rows: Vec<(String, String)>,
}

impl Report {
    /// A table without rows.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    /// Adds a figure.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.rows.push((name.into(), value.into()));
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: fn(&(String, String)) -> &String| {
            self.rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
        };
        let (left, right) = (width(|row| &row.0), width(|row| &row.1).max("value".len()));
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| {:left$} | {:>right$} |\n|{:-<l$}|{:->r$}:|", "", "value", "", "", l = left + 2, r = right + 1)?;
        self.rows.iter().try_for_each(|(name, value)| writeln!(f, "| {name:left$} | {value:>right$} |"))
    }
}

/// The machine, how busy it is with other things, and the versions that figures belong to, in one line.
pub(crate) fn machine(akis: &Path) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).map(|model| model.trim_matches(['\t', ':', ' ']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kb: u64 = memory.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let redis = said(Command::new("redis-server").arg("--version"));
    let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_owned();
    let akis = said(Command::new(akis).arg("--version"));
    format!(
        "{cores} cores of {}, {} GB, Linux {}, Redis {redis}, {}; load average at the start {load}",
        cpu.unwrap_or("an unknown CPU"),
        memory_kb >> 20,
        kernel.trim(),
        akis.trim()
    )
}

fn said(command: &mut Command) -> String {
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// CPU time per thing, in microseconds.
pub(crate) fn micros_each(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// A number with a comma for every three digits.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What Akis takes, in units of what the floor takes.
pub(crate) fn ratio(akis: f64, floor: f64) -> String {
    if floor > 0.0 { format!("{:.2} × floor", akis / floor) } else { "the floor took no time".to_owned() }
}

/// Delays in microseconds: p50 / p99 / p99.9 / max.
pub(crate) fn delays(micros: &Histogram<u64>) -> String {
    let [half, most, nearly_all] = [0.5, 0.99, 0.999].map(|share| quantile_ms(micros, share));
    format!("{half:.1} / {most:.1} / {nearly_all:.1} / {:.1} ms", micros.max() as f64 / 1e3)
}

/// The delay that `share` of all do not exceed.
pub(crate) fn quantile_ms(micros: &Histogram<u64>, share: f64) -> f64 {
    micros.value_at_quantile(share) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks() {
        let mut micros = Histogram::new(3).unwrap();
        assert_eq!(delays(&micros), "0.0 / 0.0 / 0.0 / 0.0 ms");
        (1..=1000_u64).for_each(|ms| micros.record(ms * 1000).unwrap());
        assert_eq!(quantile_ms(&micros, 0.5).round(), 500.0);
        assert_eq!(quantile_ms(&micros, 0.999).round(), 999.0);
    }

    #[test]
    fn tables_line_up() {
        let mut report = Report::new("idle");
        report.add("memory", "9 KB");
        report.add("CPU", grouped(1_234_567.0));
        assert_eq!(
            report.to_string(),
            "### idle\n\n|        |     value |\n|--------|----------:|\n| memory |      9 KB |\n| CPU    | 1,234,567 |\n"
        );
    }
}
