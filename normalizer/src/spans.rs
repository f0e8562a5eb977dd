//! The first spans of an event that is sampled: its way from the venue, its way through the normalizer, its append to the
//! log.

use std::time::SystemTime;

use akis_eventlog::{Event, Partition, Write};
use akis_model::{Origin, TraceContext};
use akis_service::trace::{Sampler, Span, SpanKind, Tracer, child_of, ns_of_ms, unix_ns};

/// Records them for one venue.
#[derive(Debug, Clone)]
pub(crate) struct Spans {
    venue: &'static str,
    tracer: Tracer,
    sampler: Sampler,
}

impl Spans {
    pub(crate) fn new(venue: &'static str, tracer: Tracer) -> Self {
        let sampler = tracer.sampler();
        Self { venue, tracer, sampler }
    }

    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Begins a trace with this event when it is sampled: it goes to the publisher at `now_ms`, milliseconds since the
    /// epoch, and takes along what its append hangs from.
    pub(crate) fn begin(&mut self, event: Event, now_ms: i64) -> Event {
        let Some(root) = self.sampler.sample() else { return event };
        let received_ms = event.body.origin().received_ms.unwrap_or(now_ms);
        let normalized = child_of(root);
        let happened_ns = ns_of_ms(event.body.ts_ms().min(received_ms));
        let (received_ns, now_ns) = (ns_of_ms(received_ms), ns_of_ms(now_ms.max(received_ms)));
        self.record("venue frame", SpanKind::Internal, root, None, (happened_ns, received_ns), &event.channel);
        let parent = Some(root.span_id);
        self.record("normalize", SpanKind::Internal, normalized, parent, (received_ns, now_ns), &event.channel);
        let origin = Origin { received_ms: Some(received_ms), trace: Some(normalized) };
        Event { body: event.body.with_origin(origin), ..event }
    }

    /// Records an event's append, which began at `began`. Like the reading of it by replicas, it hangs from what went with
    /// the event.
    pub(crate) fn appended(&self, context: TraceContext, partition: Partition, write: &Write, began: SystemTime) {
        let times = (unix_ns(began), unix_ns(SystemTime::now()));
        let parent = Some(context.span_id);
        let mut span = self.span("append", SpanKind::Producer, child_of(context), parent, times, &write.channel);
        span.attributes.push(("messaging.system", "redis".to_owned()));
        span.attributes.push(("akis.partition", partition.to_string()));
        span.attributes.push(("akis.seq", write.seq.to_string()));
        self.tracer.record(span);
    }

    fn record(
        &self,
        name: &'static str,
        kind: SpanKind,
        context: TraceContext,
        parent: Option<[u8; 8]>,
        times: (u64, u64),
        channel: &akis_model::Channel,
    ) {
        self.tracer.record(self.span(name, kind, context, parent, times, channel));
    }

    fn span(
        &self,
        name: &'static str,
        kind: SpanKind,
        context: TraceContext,
        parent: Option<[u8; 8]>,
        (start_ns, end_ns): (u64, u64),
        channel: &akis_model::Channel,
    ) -> Span {
        let attributes = vec![("akis.venue", self.venue.to_owned()), ("akis.channel", channel.to_string())];
        Span { name, kind, context, parent, start_ns, end_ns, attributes, is_failed: false }
    }
}
