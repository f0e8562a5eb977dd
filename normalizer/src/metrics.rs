//! What the normalizer counts. `docs/METRICS.md` lists it for those who read it.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use akis_connectors::{Content, RawFrame, Stats};
use akis_eventlog::{Event, Observer, Partition, PublisherCounts, Write};
use akis_model::Kind;
use akis_service::telemetry::registered;
use akis_service::trace::Tracer;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::mapper::{Reason, Resync};
use crate::pipeline::Step;
use crate::run::now_ms;
use crate::spans::Spans;

/// The upper ends of the delays that are told apart, in seconds: from a feed next door to one that is minutes behind.
const DELAY_SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0];

/// From reading a frame to the log's acknowledgement: shown with exemplars.
const WRITE_DELAY: &str = "akis_publisher_write_delay_seconds";

/// A histogram for each kind of channel.
type ByKind = [Histogram; Kind::ALL.len()];

/// What frames are told apart by, in the order of [`place`].
const FRAME_KINDS: [&str; 4] = ["text", "binary", "reply", "closed"];

/// The metrics of all venues of a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    frames: IntCounterVec,
    events: IntCounterVec,
    gaps: IntCounterVec,
    receives: HistogramVec,
    delays: HistogramVec,
    writes: HistogramVec,
    active: IntGaugeVec,
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
    pub(crate) tracer: Tracer,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let delays = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(DELAY_SECONDS.to_vec());
            registered(registry, HistogramVec::new(options, &["venue", "kind"]))
        };
        Ok(Self {
            frames: counter("akis_normalizer_frames_total", "Frames and replies that came in.", &["venue", "kind"])?,
            events: counter("akis_normalizer_events_total", "Events offered to the log.", &["venue", "kind"])?,
            gaps: counter("akis_normalizer_gaps_total", "Holes that were told before an event.", &["venue", "kind"])?,
            receives: delays(
                "akis_normalizer_receive_delay_seconds",
                "From the venue's time of an event until its frame was read.",
            )?,
            delays: delays(
                "akis_normalizer_delay_seconds",
                "From the venue's time of an event until it is handed to the publisher.",
            )?,
            writes: delays(
                WRITE_DELAY,
                "From the moment at which an event's frame was read until the log acknowledged the event.",
            )?,
            active: gauge("akis_publisher_active", "1 while this process holds the lease.", &["venue", "lease"])?,
            skipped: counter("akis_normalizer_skipped_total", "What was skipped, and why.", &["venue", "reason"])?,
            resyncs: counter("akis_normalizer_book_resyncs_total", "Books built anew.", &["venue", "cause"])?,
            lost_trades: counter("akis_normalizer_lost_trades_total", "Trades missing in these holes.", &["venue"])?,
            up: gauge("akis_venue_up", "1 while the venue's data flows.", &["venue", "lease"])?,
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
            tracer: Tracer::off(),
        })
    }

    /// Has the events that are sampled traced.
    #[must_use]
    pub fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Those of one venue.
    pub(crate) fn of(&self, venue: &'static str, lease: &str) -> VenueMetrics {
        // What may happen shows with 0 before it does, so that its first time is seen as a rise.
        for reason in Reason::ALL {
            self.skipped.with_label_values(&[venue, reason.as_str()]);
        }
        for cause in Resync::ALL {
            self.resyncs.with_label_values(&[venue, cause.as_str()]);
        }
        for kind in ["timeout", "io"] {
            self.log_errors.with_label_values(&[venue, kind]);
        }
        let by_kind =
            |counters: &IntCounterVec| Kind::ALL.map(|kind| counters.with_label_values(&[venue, kind.as_str()]));
        VenueMetrics {
            venue,
            frames: FRAME_KINDS.map(|kind| self.frames.with_label_values(&[venue, kind])),
            events: by_kind(&self.events),
            gaps: by_kind(&self.gaps),
            receives: by_venue(&self.receives, venue),
            delays: by_venue(&self.delays, venue),
            active: self.active.with_label_values(&[venue, lease]),
            lost_trades: self.lost_trades.with_label_values(&[venue]),
            up: self.up.with_label_values(&[venue, lease]),
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
    receives: ByKind,
    delays: ByKind,
    active: IntGauge,
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
        for times in &step.times {
            let received = times.received_ms.saturating_add(self.clock_offset.get());
            self.receives[times.kind as usize].observe(seconds(received.saturating_sub(times.venue_ms)));
            self.delays[times.kind as usize].observe(seconds(venue_now.saturating_sub(times.venue_ms)));
        }
        for reason in &step.skipped {
            self.all.skipped.with_label_values(&[self.venue, reason.as_str()]).inc();
        }
        for cause in &step.resyncs {
            self.all.resyncs.with_label_values(&[self.venue, cause.as_str()]).inc();
        }
        self.lost_trades.inc_by(step.lost_trades);
    }

    /// Says whether this process holds the lease.
    pub(crate) fn set_active(&self, is_active: bool) {
        self.active.set(i64::from(is_active));
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
            ("other_session", &stats.other_session),
        ] {
            raise(&self.all.session.with_label_values(&[self.venue, what]), n.get());
        }
        for (what, n) in [
            ("published", &counts.published),
            ("dropped", &counts.dropped),
            ("healed", &counts.healed),
            ("repeated", &counts.repeated),
        ] {
            raise(&self.all.publisher.with_label_values(&[self.venue, what]), n.load(Ordering::Relaxed));
        }
        for (kind, n) in counts.errors.by_kind() {
            raise(&self.all.log_errors.with_label_values(&[self.venue, kind]), n);
        }
    }
}

/// What is measured of a venue's events once they are in the log.
#[derive(Debug)]
pub(crate) struct Written {
    venue: &'static str,
    delays: ByKind,
    spans: Spans,
}

impl Metrics {
    /// Who is told of what a venue's publisher has written.
    pub(crate) fn written(&self, venue: &'static str) -> Written {
        Written { venue, delays: by_venue(&self.writes, venue), spans: Spans::new(venue, self.tracer.clone()) }
    }
}

impl Observer for Written {
    fn written(&self, partition: Partition, writes: &[Write], began: SystemTime) {
        let now_ms = now_ms();
        for write in writes {
            let Some(received_ms) = write.origin.received_ms else { continue };
            let delay = seconds(now_ms.saturating_sub(received_ms));
            let kind = write.channel.kind();
            self.delays[kind as usize].observe(delay);
            if let Some(context) = write.origin.trace {
                self.spans.appended(context, partition, write, began);
                self.spans.tracer().exemplar(WRITE_DELAY, &[kind.as_str(), self.venue], delay, context);
            }
        }
    }
}

/// Of one venue, by kind in the order of [`Kind::ALL`].
fn by_venue(delays: &HistogramVec, venue: &str) -> ByKind {
    Kind::ALL.map(|kind| delays.with_label_values(&[venue, kind.as_str()]))
}

/// Milliseconds as seconds; what lies in the future counts as 0.
fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1e3
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
