//! What the normalizer counts.

use std::sync::atomic::Ordering;

use akis_connectors::Stats;
use akis_eventlog::{Event, PublisherCounts};
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::feed::Turn;
use crate::pipeline::Step;

/// The metrics of all venues of a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    frames: IntCounterVec,
    events: IntCounterVec,
    skipped: IntCounterVec,
    resyncs: IntCounterVec,
    lost_trades: IntCounterVec,
    up: IntGaugeVec,
    connections: IntGaugeVec,
    clock_offset: IntGaugeVec,
    session: IntCounterVec,
    publisher: IntCounterVec,
    log_errors: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone())).map(|()| metric)
        };
        Ok(Self {
            frames: counter("akis_normalizer_frames_total", "Frames and replies that came in.", &["venue"])?,
            events: counter("akis_normalizer_events_total", "Events offered to the log.", &["venue", "kind"])?,
            skipped: counter("akis_normalizer_skipped_total", "What was skipped, and why.", &["venue", "reason"])?,
            resyncs: counter("akis_normalizer_book_resyncs_total", "Books built anew.", &["venue", "cause"])?,
            lost_trades: counter("akis_normalizer_lost_trades_total", "Holes in the venue's trade ids.", &["venue"])?,
            up: gauge("akis_venue_up", "1 while the venue's data flows.", &["venue"])?,
            connections: gauge("akis_venue_connections", "Connections to the venue that are open.", &["venue"])?,
            clock_offset: gauge(
                "akis_venue_clock_offset_milliseconds",
                "How far the venue's clock is ahead of this machine's; 0 where it is not measured.",
                &["venue"],
            )?,
            session: counter("akis_venue_session_total", "What happened in the session.", &["venue", "what"])?,
            publisher: counter("akis_publisher_events_total", "What became of the events.", &["venue", "what"])?,
            log_errors: counter(
                "akis_publisher_log_errors_total",
                "Calls to the log that failed.",
                &["venue", "kind"],
            )?,
        })
    }

    /// Counts a frame that came in.
    pub(crate) fn on_frame(&self, venue: &str) {
        self.frames.with_label_values(&[venue]).inc();
    }

    /// Counts an event that goes out.
    pub(crate) fn on_event(&self, venue: &str, event: &Event) {
        self.events.with_label_values(&[venue, event.channel.kind().as_str()]).inc();
    }

    /// Counts the rest of a step.
    pub(crate) fn on_step(&self, venue: &str, step: &Step) {
        for reason in &step.skipped {
            self.skipped.with_label_values(&[venue, reason.as_str()]).inc();
        }
        for cause in &step.resyncs {
            self.resyncs.with_label_values(&[venue, cause.as_str()]).inc();
        }
        if step.lost_trades > 0 {
            self.lost_trades.with_label_values(&[venue]).inc_by(step.lost_trades);
        }
        match step.turn {
            Some(Turn::Up) => self.set_up(venue, true),
            Some(Turn::Down { .. }) => self.set_up(venue, false),
            None => {}
        }
    }

    /// Says whether the venue's data flows.
    pub(crate) fn set_up(&self, venue: &str, up: bool) {
        self.up.with_label_values(&[venue]).set(i64::from(up));
    }

    /// Takes over what session and publisher have counted.
    pub(crate) fn refresh(&self, venue: &str, stats: &Stats, counts: &PublisherCounts) {
        self.clock_offset.with_label_values(&[venue]).set(stats.clock_offset_ms.get());
        let open = i64::try_from(stats.open.get()).unwrap_or(i64::MAX);
        self.connections.with_label_values(&[venue]).set(open);
        for (what, n) in [
            ("opened", &stats.opened),
            ("lost", &stats.lost),
            ("silent_streams", &stats.silent_streams),
            ("stopped_streams", &stats.stopped_streams),
            ("requests", &stats.requests),
            ("requests_refused", &stats.refused),
            ("malformed", &stats.malformed),
        ] {
            raise(&self.session.with_label_values(&[venue, what]), n.get());
        }
        for (what, n) in [("published", &counts.published), ("dropped", &counts.dropped), ("healed", &counts.healed)] {
            raise(&self.publisher.with_label_values(&[venue, what]), n.load(Ordering::Relaxed));
        }
        for (kind, n) in counts.errors.by_kind() {
            raise(&self.log_errors.with_label_values(&[venue, kind]), n);
        }
    }
}

/// Brings a counter to what has been counted elsewhere.
fn raise(counter: &IntCounter, counted: u64) {
    counter.inc_by(counted.saturating_sub(counter.get()));
}
