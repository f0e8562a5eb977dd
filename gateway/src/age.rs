//! How old what a client is sent is, and the last spans of an event that is sampled.
//!
//! Once for each write, not for each delivery: what counts is the oldest of what had waited for it.

use std::time::{Instant, SystemTime};

use akis_eventlog::Traced;
use akis_model::Channel;
use akis_service::trace::{Span, SpanKind, child_of, ns_of_ms, unix_ns};
use prometheus::local::LocalHistogram;

use crate::clock::Now;
use crate::metrics::{DELIVERY_AGE, Metrics};

/// When something came from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When the oldest of it was appended, milliseconds since the epoch by the log's clock.
    pub(crate) logged_ms: i64,
    /// When this replica had read it.
    pub(crate) read_at: Instant,
}

/// A sampled event on its way to one of its subscribers.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// Its span of being read.
    pub(crate) read: Traced,
    /// When it had been read, nanoseconds since the epoch.
    pub(crate) read_ns: u64,
    /// Its channel.
    pub(crate) channel: Channel,
}

/// What one shard has measured and not yet added to the metrics.
#[derive(Debug)]
pub(crate) struct Ages {
    write: LocalHistogram,
    delivery: LocalHistogram,
}

impl Ages {
    /// None yet.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { write: metrics.write_delay.local(), delivery: metrics.delivery_age.local() }
    }

    /// Takes note of a write that is done, at `written_at` in a turn that began at `now`. Gives the age since the append,
    /// in seconds.
    pub(crate) fn written(&self, arrival: Arrival, now: Now, written_at: Instant) -> f64 {
        let turn_ms = written_at.saturating_duration_since(now.instant).as_secs_f64() * 1e3;
        let age = ((now.unix_ms.saturating_sub(arrival.logged_ms)) as f64 + turn_ms).max(0.0) / 1e3;
        self.write.observe(written_at.saturating_duration_since(arrival.read_at).as_secs_f64());
        self.delivery.observe(age);
        age
    }

    /// Adds it to the metrics.
    pub(crate) fn report(&self) {
        self.write.flush();
        self.delivery.flush();
    }
}

/// Records that a replica has read a sampled event. Gives what its writes to sockets hang from.
pub(crate) fn read(metrics: &Metrics, event: Traced, channel: &Channel, partition: String) -> Mark {
    let (context, read_ns) = (child_of(event.context), unix_ns(SystemTime::now()));
    let attributes = vec![
        ("messaging.system", "redis".to_owned()),
        ("akis.partition", partition),
        ("akis.channel", channel.to_string()),
    ];
    metrics.tracer.record(Span {
        name: "replica read",
        kind: SpanKind::Consumer,
        context,
        parent: Some(event.context.span_id),
        start_ns: ns_of_ms(i64::try_from(event.logged_ms).unwrap_or(i64::MAX)).min(read_ns),
        end_ns: read_ns,
        attributes,
        is_failed: false,
    });
    Mark { read: Traced { context, ..event }, read_ns, channel: channel.clone() }
}

/// Records that a sampled event has been written to the first of its subscribers on a shard.
pub(crate) fn written(metrics: &Metrics, mark: &Mark, shard: usize, age_s: Option<f64>) {
    let context = child_of(mark.read.context);
    let attributes = vec![("akis.channel", mark.channel.to_string()), ("akis.shard", shard.to_string())];
    metrics.tracer.record(Span {
        name: "socket write",
        kind: SpanKind::Producer,
        context,
        parent: Some(mark.read.context.span_id),
        start_ns: mark.read_ns,
        end_ns: unix_ns(SystemTime::now()),
        attributes,
        is_failed: false,
    });
    if let Some(age_s) = age_s {
        metrics.tracer.exemplar(DELIVERY_AGE, &[], age_s, context);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;

    #[test]
    fn ages_reach_the_metrics_when_they_are_reported() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let ages = Ages::new(&metrics);
        let (read_at, ms) = (Instant::now(), Duration::from_millis(1));
        let now = Now { instant: read_at + 10 * ms, unix_ms: 100_000 };
        let arrival = Arrival { logged_ms: 99_500, read_at };
        let age = ages.written(arrival, now, read_at + 30 * ms);
        assert!((age - 0.52).abs() < 1e-6, "{age}");
        // A clock of the log that is ahead makes nothing younger than new.
        assert_eq!(ages.written(Arrival { logged_ms: 200_000, read_at }, now, now.instant), 0.0);
        assert_eq!(metrics.delivery_age.get_sample_count(), 0);
        ages.report();
        assert_eq!(metrics.delivery_age.get_sample_count(), 2);
        assert!((metrics.write_delay.get_sample_sum() - 0.04).abs() < 1e-6);
    }
}
