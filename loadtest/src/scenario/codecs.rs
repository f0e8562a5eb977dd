//! What the normalizer's plain code takes: frames in, updates and events out, on one thread and without a socket.
//!
//! Mappers are the ones that run live, with a throttle behind them. Frames have the venues' shapes; time in them passes as on a
//! busy day. They are made some at a time, right before they are gone through, and what comes of them is let go: as live, a frame
//! was just written to memory when it is read, and nothing is kept that was told.

mod binance;
mod bist;

use std::hint::black_box;
use std::time::Duration;

use akis_connectors::RawFrame;
use akis_model::Kind;
use akis_normalizer::{Mapper, Output};
use anyhow::{Context, Result};

use super::Settings;
use crate::report::Report;
use crate::usage::thread_cpu;

/// When the first frame is received, milliseconds since the epoch: 10:00 in Istanbul on 24 November 2026.
const BEGINS_MS: i64 = 1_795_503_600_000;

/// How often mappers are told the time.
const TICK_MS: i64 = 50;

pub(super) fn run(_settings: &Settings) -> Result<Report> {
    let mut report = Report::new("codecs: the normalizer's plain code, on one thread");
    binance::measure(&mut report)?;
    bist::measure(&mut report)?;
    Ok(report)
}

/// Adds what each of `count` things took, beside what it may take.
fn add(report: &mut Report, what: &str, cpu: Duration, count: u64, bar_us: f64) {
    let each_us = cpu.as_secs_f64() * 1e6 / count.max(1) as f64;
    report.add(what, format!("{each_us:.3} µs, {:.2} × bar ({bar_us} µs)", each_us / bar_us));
}

/// The middle one of several figures.
fn middle<T: Ord + Copy + Default>(mut figures: Vec<T>) -> T {
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// A mapper as it runs live, which lets in every symbol, for channels of these kinds; none: of all.
fn live_mapper(venue: &str, market: &str, kinds: &[Kind]) -> Result<Box<dyn Mapper>> {
    let mut mapper = akis_normalizer::mapper((venue, market)).context("there is no such mapper")?;
    mapper.admit(None, kinds);
    mapper.pace();
    Ok(mapper)
}

/// A mapper at work, and the time that it takes.
struct Feed {
    mapper: Box<dyn Mapper>,
    out: Output,
    tick_at: i64,
    cpu: Duration,
}

impl Feed {
    fn new(venue: &str, market: &str, kinds: &[Kind]) -> Result<Self> {
        let mapper = live_mapper(venue, market, kinds)?;
        Ok(Self { mapper, out: Output::default(), tick_at: BEGINS_MS, cpu: Duration::ZERO })
    }

    /// Gives frames to the mapper, with ticks between them. What it says is in `out` until it is taken from there.
    fn take(&mut self, frames: &[RawFrame]) {
        let before = thread_cpu();
        for frame in frames {
            while self.tick_at <= frame.received_at {
                self.mapper.on_tick(self.tick_at, &mut self.out);
                self.tick_at += TICK_MS;
            }
            self.mapper.on_frame(frame, &mut self.out);
        }
        self.cpu += thread_cpu().saturating_sub(before);
    }

    /// Lets go what was said.
    fn forget(&mut self) {
        self.out.updates.clear();
        self.out.skipped.clear();
        self.out.resyncs.clear();
    }

    /// Renders what was said, and lets it go: how many events, and the time that it took.
    fn render(&mut self) -> Result<(usize, Duration)> {
        let before = thread_cpu();
        let mut count = 0;
        for update in self.out.updates.drain(..) {
            black_box(update.into_event()?);
            count += 1;
        }
        Ok((count, thread_cpu().saturating_sub(before)))
    }
}
