//! What a gateway counts. Labels come from small closed sets, never from clients.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use akis_eventlog::{Partition, ReplicaCounts};
use akis_model::{CloseCode, Kind};
use akis_service::telemetry::registered;
use akis_service::trace::Tracer;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::wire::{DropReason, close_label};

/// The upper ends of the ages that are told apart, in seconds. What is promised for deliveries, 250 ms, is one of them.
const AGE_SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0];

/// From the append to the log until the write to a socket: shown with exemplars.
pub(crate) const DELIVERY_AGE: &str = "akis_gateway_delivery_age_seconds";

/// Why requests are refused: the words of [`Metrics::refused`].
const REFUSALS: [&str; 13] = [
    "address",
    "draining",
    "full",
    "handshake",
    "handshakes",
    "header_timeout",
    "malformed",
    "origin",
    "plain_sockets",
    "publish",
    "rest",
    "subject",
    "token",
];

/// The codes that this side closes with.
const CLOSES: [CloseCode; 11] = [
    CloseCode::Normal,
    CloseCode::GoingAway,
    CloseCode::Protocol,
    CloseCode::NotUtf8,
    CloseCode::TooLarge,
    CloseCode::BadRequests,
    CloseCode::Token,
    CloseCode::Silent,
    CloseCode::Slow,
    CloseCode::RateLimit,
    CloseCode::Unavailable,
];

/// The metrics of one gateway, and where its spans go.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Open WebSockets and event streams.
    pub(crate) connections: IntGauge,
    /// WebSockets and event streams that this replica takes at most.
    pub(crate) connections_max: IntGauge,
    /// WebSockets and event streams that were opened.
    pub(crate) opened: IntCounter,
    /// 1 while the log can be read.
    pub(crate) log_up: IntGauge,
    /// From reading to writing, once for each write.
    pub(crate) write_delay: Histogram,
    /// See [`DELIVERY_AGE`].
    pub(crate) delivery_age: Histogram,
    /// Where spans go.
    pub(crate) tracer: Tracer,
    /// Channels that clients are subscribed to, each connection counted.
    pub(crate) subscriptions: IntGauge,
    /// Events that came from the log.
    pub(crate) events: IntCounter,
    /// Envelopes handed to connections.
    pub(crate) deliveries: IntCounter,
    /// Writes to WebSockets, each with everything that waited for the client.
    pub(crate) writes: IntCounter,
    /// Times that a shard was so far behind that its subscribers had to join again.
    pub(crate) overruns: IntCounter,
    /// Bytes written to WebSockets.
    pub(crate) written_bytes: IntCounter,
    /// Messages that clients sent.
    pub(crate) messages: IntCounter,
    /// Subscriptions that resumed from a position or a time.
    pub(crate) replays: IntCounter,
    /// Events that such subscriptions were given before live.
    pub(crate) replayed: IntCounter,
    /// Reads of what lies before live.
    pub(crate) joins: IntCounter,
    /// Such reads that failed.
    pub(crate) join_failures: IntCounter,
    /// Events published over HTTP.
    pub(crate) published: IntCounter,
    /// Bytes that wait for clients, whether or not they have been framed.
    pub(crate) queued_bytes: IntGauge,
    /// As many of them as wait for event streams.
    stream_bytes: AtomicI64,
    /// Revocations in force.
    pub(crate) revocations: IntGauge,
    /// Events of the revocations' channel that cannot be understood.
    pub(crate) bad_revocations: IntCounter,
    key_fetches: IntCounterVec,
    read_delays: HistogramVec,
    gaps: IntCounterVec,
    drops: IntCounterVec,
    closes: IntCounterVec,
    refusals: IntCounterVec,
    tail_age: Gauge,
    coalesce: GaugeVec,
    memory: IntGaugeVec,
    states: IntGaugeVec,
    interval_groups: IntGaugeVec,
    log_reads: IntCounterVec,
    log_errors: IntCounterVec,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When the registry has one of the names already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = |name: &str, help: &str| Opts::new(format!("akis_gateway_{name}"), help);
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::with_opts(options(name, help)));
        let counter = |name: &str, help: &str| registered(registry, IntCounter::with_opts(options(name, help)));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(options(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(options(name, help), labels))
        };
        let ages = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(AGE_SECONDS.to_vec());
        let histogram = |name: &str, help: &str| registered(registry, Histogram::with_opts(ages(name, help)));
        let read_delays =
            "From the append of an event to the log until this replica has read it, the oldest of each read";
        let read_delays = HistogramVec::new(ages("akis_gateway_read_delay_seconds", read_delays), &["partition"]);
        let tail_age = options("tail_age_seconds", "How far this replica is behind the log");
        let coalesce = options("coalesce_seconds", "How long the writes of a busy connection are gathered at present");
        let metrics = Self {
            connections_max: gauge("connections_max", "WebSockets and event streams that this replica takes at most")?,
            opened: counter("opened_total", "WebSockets and event streams that were opened")?,
            log_up: gauge("log_up", "1 while the log can be read")?,
            write_delay: histogram(
                "akis_gateway_write_delay_seconds",
                "From reading an event until it is written to a socket, the oldest of each write",
            )?,
            delivery_age: histogram(
                DELIVERY_AGE,
                "From the append of an event to the log until it is written to a socket, the oldest of each write",
            )?,
            read_delays: registered(registry, read_delays)?,
            gaps: counters("gaps_total", "Gaps told to subscribers", &["reason"])?,
            tracer: Tracer::off(),
            connections: gauge("connections", "Open WebSockets and event streams")?,
            subscriptions: gauge("subscriptions", "Channels subscribed to, each connection counted")?,
            queued_bytes: gauge("queued_bytes", "Bytes that wait for clients")?,
            stream_bytes: AtomicI64::new(0),
            events: counter("events_total", "Events that came from the log")?,
            deliveries: counter("deliveries_total", "Envelopes handed to connections")?,
            writes: counter("writes_total", "Writes to WebSockets")?,
            overruns: counter("overruns_total", "Times that a shard had to let its subscribers join again")?,
            written_bytes: counter("written_bytes_total", "Bytes written to WebSockets")?,
            messages: counter("messages_total", "Messages that clients sent")?,
            replays: counter("replays_total", "Subscriptions that resumed from a position or a time")?,
            replayed: counter("replayed_events_total", "Events that such subscriptions were given before live")?,
            joins: counter("joins_total", "Reads of what lies before live")?,
            join_failures: counter("join_failures_total", "Such reads that failed")?,
            published: counter("published_total", "Events published over HTTP")?,
            revocations: gauge("revocations", "Revocations of tokens in force")?,
            bad_revocations: counter("bad_revocations_total", "Revocations that cannot be understood")?,
            key_fetches: counters("key_fetches_total", "Fetches of key sets, by result", &["key", "result"])?,
            drops: counters("drops_total", "Events that slow clients missed", &["kind", "reason"])?,
            closes: counters("closes_total", "WebSockets and event streams closed by this side, by code", &["code"])?,
            refusals: counters("refusals_total", "Requests refused over HTTP", &["reason"])?,
            log_reads: counters("log_reads_total", "What the reading of the log led to", &["what"])?,
            log_errors: counters("log_errors_total", "Calls to the log that failed, by kind", &["kind"])?,
            tail_age: registered(registry, Gauge::with_opts(tail_age))?,
            coalesce: registered(registry, GaugeVec::new(coalesce, &["shard"]))?,
            memory: gauges(
                "connection_bytes",
                "Memory of connections, and bytes of it that sockets have not taken",
                &["shard", "what"],
            )?,
            states: gauges("connection_states", "Open WebSockets, by how they stand", &["shard", "state"])?,
            interval_groups: gauges("interval_groups", "Groups of subscriptions that share an interval", &["shard"])?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// What may happen shows with 0 before it does, so that its first time is seen as a rise.
    fn begin(&self) {
        for kind in Kind::ALL {
            for reason in [DropReason::Dropped, DropReason::Conflated] {
                self.drops.with_label_values(&[kind.as_str(), reason.as_str()]);
            }
        }
        CLOSES.into_iter().for_each(|code| _ = self.closes.with_label_values(&[close_label(code)]));
        REFUSALS.into_iter().for_each(|reason| _ = self.refusals.with_label_values(&[reason]));
        ["lost", "trimmed", "unproven", "malformed"]
            .into_iter()
            .for_each(|reason| _ = self.gaps.with_label_values(&[reason]));
        ["timeout", "io"].into_iter().for_each(|kind| _ = self.log_errors.with_label_values(&[kind]));
        self.refresh(&ReplicaCounts::default());
    }

    /// Has the subscriptions and events that are sampled traced.
    #[must_use]
    pub(crate) fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// How late what is read of a partition is.
    pub(crate) fn read_delay(&self, partition: Partition) -> Histogram {
        self.read_delays.with_label_values(&[partition.to_string().as_str()])
    }

    /// Counts a gap that was told; `reason` is a fixed word.
    pub(crate) fn gap(&self, reason: &'static str) {
        self.gaps.with_label_values(&[reason]).inc();
    }

    /// Counts events that one client missed.
    pub(crate) fn dropped(&self, kind: Kind, reason: DropReason, count: u64) {
        self.drops.with_label_values(&[kind.as_str(), reason.as_str()]).inc_by(count);
    }

    /// Counts a close.
    pub(crate) fn closed(&self, code: CloseCode) {
        self.closes.with_label_values(&[close_label(code)]).inc();
    }

    /// Counts a refusal; `reason` is a fixed word.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    /// Lets the fetches of a key set show with 0; `id` is the configured one.
    pub(crate) fn begin_key_set(&self, id: &str) {
        ["ok", "failed"].into_iter().for_each(|result| _ = self.key_fetches.with_label_values(&[id, result]));
    }

    /// Counts a fetch of a key set; `id` is the configured one.
    pub(crate) fn key_fetch(&self, id: &str, succeeded: bool) {
        self.key_fetches.with_label_values(&[id, if succeeded { "ok" } else { "failed" }]).inc();
    }

    /// Takes over what the reading of the log has counted.
    pub(crate) fn refresh(&self, counts: &ReplicaCounts) {
        for (what, n) in [
            ("entries", &counts.entries),
            ("malformed", &counts.malformed),
            ("repairs", &counts.repairs),
            ("comparisons", &counts.comparisons),
            ("reconnects", &counts.reconnects),
            ("history_reads", &counts.history_reads),
        ] {
            raise(&self.log_reads.with_label_values(&[what]), n.load(Ordering::Relaxed));
        }
        for (kind, n) in counts.errors.by_kind() {
            raise(&self.log_errors.with_label_values(&[kind]), n);
        }
    }

    /// Sets how long a shard gathers.
    pub(crate) fn set_coalesce(&self, shard: usize, coalesce: Duration) {
        self.coalesce.with_label_values(&[shard.to_string().as_str()]).set(coalesce.as_secs_f64());
    }

    /// Sets what a shard's connections hold, and how much of it sockets have not taken.
    pub(crate) fn set_memory(&self, shard: usize, held: usize, unsent: usize) {
        let shard = shard.to_string();
        self.memory.with_label_values(&[shard.as_str(), "held"]).set(held as i64);
        self.memory.with_label_values(&[shard.as_str(), "unsent"]).set(unsent as i64);
    }

    /// Sets how a shard's connections stand, and how many intervals it keeps.
    pub(crate) fn set_states(&self, shard: usize, states: &[(&str, i64)], interval_groups: usize) {
        let shard = shard.to_string();
        for (state, count) in states {
            self.states.with_label_values(&[shard.as_str(), state]).set(*count);
        }
        self.interval_groups.with_label_values(&[shard.as_str()]).set(interval_groups as i64);
    }

    /// How many bytes wait for event streams.
    pub(crate) fn stream_bytes(&self) -> usize {
        usize::try_from(self.stream_bytes.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Takes over by how many bytes more wait for an event stream.
    pub(crate) fn add_stream_bytes(&self, change: i64) {
        self.queued_bytes.add(change);
        self.stream_bytes.fetch_add(change, Ordering::Relaxed);
    }

    /// Whether more than `most` bytes wait for all clients together.
    pub(crate) fn is_overfull(&self, most: usize) -> bool {
        usize::try_from(self.queued_bytes.get()).is_ok_and(|waiting| waiting > most)
    }

    /// Sets how far this replica is behind the log.
    pub(crate) fn set_tail_age(&self, age: Duration) {
        self.tail_age.set(age.as_secs_f64());
    }
}

/// Brings a counter to what has been counted elsewhere.
fn raise(counter: &IntCounter, counted: u64) {
    counter.inc_by(counted.saturating_sub(counter.get()));
}
