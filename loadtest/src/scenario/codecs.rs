//! What the normalizer's plain code takes: frames in, updates and events out, on one thread and without a socket.
//!
//! Mappers are the ones that run live, with a throttle behind them. Frames have the venues' shapes and are made before
//! anything is measured; time in them passes as on a busy day.

mod binance;
mod bist;

use std::time::Duration;

use akis_connectors::RawFrame;
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

/// A mapper as it runs live, which lets in every symbol.
fn live_mapper(venue: &str, market: &str) -> Result<Box<dyn Mapper>> {
    let mut mapper = akis_normalizer::mapper((venue, market)).context("there is no such mapper")?;
    mapper.admit(None, &[]);
    mapper.pace();
    Ok(mapper)
}

/// Feeds frames to a mapper, with ticks between them; `told` takes what it says. Gives the CPU time of all of it.
fn feed(mapper: &mut dyn Mapper, frames: &[RawFrame], mut told: impl FnMut(&mut Output)) -> Result<Duration> {
    let before = thread_cpu()?;
    let mut out = Output::default();
    let mut tick_at = frames.first().map_or(0, |frame| frame.received_at);
    for frame in frames {
        while tick_at <= frame.received_at {
            mapper.on_tick(tick_at, &mut out);
            tick_at += TICK_MS;
        }
        mapper.on_frame(frame, &mut out);
        told(&mut out);
    }
    Ok(thread_cpu()?.saturating_sub(before))
}
