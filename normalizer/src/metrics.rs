//! What the normalizer counts. `docs/METRICS.md` lists it for those who read it.

use std::sync::atomic::Ordering;

use akis_connectors::{Content, RawFrame, Stats};
use akis_eventlog::{Event, PublisherCounts};
use akis_model::Kind;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::feed::Turn;
use crate::pipeline::Step;

/// The upper ends of the delays that are told apart, in seconds: from a feed next door to one that is minutes behind.
const DELAY_SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0];

/// What frames are told apart by, in the order of [`place`].
const FRAME_KINDS: [&str; 4] = ["text", "binary", "reply", "closed"];

/// The metrics of all venues of a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    frames: IntCounterVec,
    events: IntCounterVec,
    gaps: IntCounterVec,
    delays: HistogramVec,
    skipped: IntCounterVec,
    resyncs: IntCounterVec,
    lost_trades: IntCounterVec,
    up: IntGaugeVec,
    connections: IntGaugeVec,
    connection_age: IntGaugeVec,
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
        let delays = HistogramOpts::new(
            "akis_normalizer_delay_seconds",
            "From the venue's time of an event until it is handed to the publisher.",
        );
        let delays = HistogramVec::new(delays.buckets(DELAY_SECONDS.to_vec()), &["venue", "kind"])?;
        registry.register(Box::new(delays.clone()))?;
        Ok(Self {
            frames: counter("akis_normalizer_frames_total", "Frames and replies that came in.", &["venue", "kind"])?,
            events: counter("akis_normalizer_events_total", "Events offered to the log.", &["venue", "kind"])?,
            gaps: counter("akis_normalizer_gaps_total", "Holes that were told before an event.", &["venue", "kind"])?,
            delays,
            skipped: counter("akis_normalizer_skipped_total", "What was skipped, and why.", &["venue", "reason"])?,
            resyncs: counter("akis_normalizer_book_resyncs_total", "Books built anew.", &["venue", "cause"])?,
            lost_trades: counter("akis_normalizer_lost_trades_total", "Trades missing in these holes.", &["venue"])?,
            up: gauge("akis_venue_up", "1 while the venue's data flows.", &["venue"])?,
            connections: gauge("akis_venue_connections", "Connections to the venue that are open.", &["venue"])?,
            connection_age: gauge(
                "akis_venue_connection_age_seconds",
                "How long data has come over the oldest connection that is open; 0 without one.",
                &["venue"],
            )?,
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

    /// Those of one venue.
    pub(crate) fn of(&self, venue: &'static str) -> VenueMetrics {
        let by_kind =
            |counters: &IntCounterVec| Kind::ALL.map(|kind| counters.with_label_values(&[venue, kind.as_str()]));
        VenueMetrics {
            venue,
            frames: FRAME_KINDS.map(|kind| self.frames.with_label_values(&[venue, kind])),
            events: by_kind(&self.events),
            gaps: by_kind(&self.gaps),
            delays: Kind::ALL.map(|kind| self.delays.with_label_values(&[venue, kind.as_str()])),
            lost_trades: self.lost_trades.with_label_values(&[venue]),
            up: self.up.with_label_values(&[venue]),
            connections: self.connections.with_label_values(&[venue]),
            connection_age: self.connection_age.with_label_values(&[venue]),
            clock_offset: self.clock_offset.with_label_values(&[venue]),
            all: self.clone(),
        }
    }
}

/// The metrics of one venue. What is counted with each frame is looked up once.
#[derive(Debug)]
pub(crate) struct VenueMetrics {
    venue: &'static str,
    /// By [`place`].
    frames: [IntCounter; FRAME_KINDS.len()],
    /// By kind, in the order of [`Kind::ALL`], which is that of its variants.
    events: [IntCounter; Kind::ALL.len()],
    gaps: [IntCounter; Kind::ALL.len()],
    delays: [Histogram; Kind::ALL.len()],
    lost_trades: IntCounter,
    up: IntGauge,
    connections: IntGauge,
    connection_age: IntGauge,
    clock_offset: IntGauge,
    all: Metrics,
}

impl VenueMetrics {
    /// Counts a frame that came in.
    pub(crate) fn on_frame(&self, frame: &RawFrame) {
        self.frames[place(&frame.content)].inc();
    }

    /// Counts an event that goes out.
    pub(crate) fn on_event(&self, event: &Event) {
        let kind = event.channel.kind() as usize;
        self.events[kind].inc();
        if event.missing_before > 0 {
            self.gaps[kind].inc();
        }
    }

    /// Counts the rest of a step, whose events are handed to the publisher at `now_ms`, milliseconds since the epoch.
    pub(crate) fn on_step(&self, step: &Step, now_ms: i64) {
        // By the venue's clock, as far as it is known.
        let venue_now = now_ms.saturating_add(self.clock_offset.get());
        for &(kind, venue_time) in &step.venue_times {
            let delay_ms = venue_now.saturating_sub(venue_time).max(0);
            self.delays[kind as usize].observe(delay_ms as f64 / 1e3);
        }
        for reason in &step.skipped {
            self.all.skipped.with_label_values(&[self.venue, reason.as_str()]).inc();
        }
        for cause in &step.resyncs {
            self.all.resyncs.with_label_values(&[self.venue, cause.as_str()]).inc();
        }
        self.lost_trades.inc_by(step.lost_trades);
        match step.turn {
            Some(Turn::Up) => self.set_up(true),
            Some(Turn::Down { .. }) => self.set_up(false),
            None => {}
        }
    }

    /// Says whether the venue's data flows.
    pub(crate) fn set_up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    /// Says how old the oldest connection is; `None` without one.
    pub(crate) fn set_connection_age(&self, age_ms: Option<i64>) {
        self.connection_age.set(age_ms.unwrap_or_default().max(0) / 1000);
    }

    /// Takes over what session and publisher have counted.
    pub(crate) fn refresh(&self, stats: &Stats, counts: &PublisherCounts) {
        self.clock_offset.set(stats.clock_offset_ms.get());
        self.connections.set(i64::try_from(stats.open.get()).unwrap_or(i64::MAX));
        for (what, n) in [
            ("opened", &stats.opened),
            ("lost", &stats.lost),
            ("silent_streams", &stats.silent_streams),
            ("stopped_streams", &stats.stopped_streams),
            ("requests", &stats.requests),
            ("requests_refused", &stats.refused),
            ("malformed", &stats.malformed),
        ] {
            raise(&self.all.session.with_label_values(&[self.venue, what]), n.get());
        }
        for (what, n) in [("published", &counts.published), ("dropped", &counts.dropped), ("healed", &counts.healed)] {
            raise(&self.all.publisher.with_label_values(&[self.venue, what]), n.load(Ordering::Relaxed));
        }
        for (kind, n) in counts.errors.by_kind() {
            raise(&self.all.log_errors.with_label_values(&[self.venue, kind]), n);
        }
    }
}

/// The place of a frame in [`FRAME_KINDS`].
fn place(content: &Content) -> usize {
    match content {
        Content::Text { .. } => 0,
        Content::Binary { .. } => 1,
        Content::Reply { .. } => 2,
        Content::Closed { .. } => 3,
    }
}

/// Brings a counter to what has been counted elsewhere.
fn raise(counter: &IntCounter, counted: u64) {
    counter.inc_by(counted.saturating_sub(counter.get()));
}
