//! What the connections of a shard share.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use akis_eventlog::From;
use akis_model::{Channel, ErrorCode, TraceContext};
use akis_service::telemetry::log_span;
use akis_service::trace::{Sampler, Span, SpanKind, unix_ns};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug};

use super::gather::Gather;
use super::inbox::{ConnKey, Inbox, Message};
use super::pace::Pace;
use super::topics::{Subscriber, Topics};
use crate::age::Ages;
use crate::clock::Now;
use crate::context::Context;
use crate::request::Refusal;
use crate::wire;
use crate::ws::deflate::Inflater;

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// Counts since they were last added to the metrics: connections must not meet on the metrics' atomics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) delivered: u64,
    pub(super) queued_change: i64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
}

/// See the module's documentation.
pub(super) struct Desk {
    pub(super) number: usize,
    pub(super) context: Arc<Context>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) runtime: Handle,
    /// Joins that wait for history, and lists of channels.
    pub(super) tasks: TaskTracker,
    pub(super) topics: Topics,
    pub(super) read_buffer: Box<[u8]>,
    pub(super) gather: Gather,
    pub(super) pace: Pace,
    pub(super) max_message: usize,
    pub(super) inflater: Inflater,
    pub(super) tally: Counts,
    /// How old what is written is.
    pub(super) ages: Ages,
    /// Which joins are traced.
    sampler: Sampler,
    /// Bytes that wait for the clients of this shard.
    pub(super) waiting: i64,
    heartbeat: Option<(Instant, Bytes)>,
}

impl Desk {
    pub(super) fn new(
        number: usize,
        context: Arc<Context>,
        inbox: Arc<Inbox>,
        runtime: Handle,
        tasks: TaskTracker,
    ) -> Self {
        let config = &context.surroundings.config;
        Self {
            number,
            inbox,
            runtime,
            tasks,
            topics: Topics::default(),
            read_buffer: vec![0; READ_BYTES].into(),
            gather: Gather::default(),
            pace: Pace::new(config.coalesce, config.coalesce_max, Instant::now()),
            max_message: config.limits.message_bytes,
            inflater: Inflater::default(),
            tally: Counts::default(),
            ages: Ages::new(&context.surroundings.metrics),
            sampler: context.surroundings.metrics.tracer.sampler(),
            waiting: 0,
            heartbeat: None,
            context,
        }
    }

    /// The heartbeat of this turn: all that leave in it share its text.
    pub(super) fn heartbeat(&mut self, now: Now) -> Bytes {
        match &self.heartbeat {
            Some((at, heartbeat)) if *at == now.instant => heartbeat.clone(),
            _ => {
                let heartbeat = wire::heartbeat(self.context.replica.tail_age(), now.unix_ms);
                self.heartbeat = Some((now.instant, heartbeat.clone()));
                heartbeat
            }
        }
    }

    /// Delivers a channel's notices to a subscriber. Gives the topic.
    pub(super) fn subscribe(&mut self, channel: &Channel, subscriber: Subscriber) -> Option<u32> {
        let index = match self.topics.index_of(channel) {
            Some(index) => index,
            None => {
                let id = self.context.hub.enter(channel, self.number)?;
                self.topics.open(id, channel, self.context.hub.partition(channel));
                id.index
            }
        };
        self.topics.add(index, subscriber);
        self.context.surroundings.metrics.subscriptions.inc();
        Some(index)
    }

    /// Delivers them no longer.
    pub(super) fn unsubscribe(&mut self, topic: u32, subscriber: Subscriber) {
        self.context.surroundings.metrics.subscriptions.dec();
        if let Some(channel) = self.topics.remove(topic, subscriber) {
            let replica = &self.context.replica;
            self.context.hub.exit(&channel, self.number, || replica.leave(&channel));
        }
    }

    /// Asks the log what lies before live; the answer comes through the inbox, so that it has its place among the batches.
    /// What memory has is there at once; otherwise a task waits for history.
    pub(super) fn join(&mut self, conn: ConnKey, channel: Channel, from: From, token: u64) -> Option<AbortHandle> {
        let (context, inbox) = (Arc::clone(&self.context), Arc::clone(&self.inbox));
        let traced = self.sampler.sample().map(|trace| (trace, SystemTime::now()));
        let span = traced.map_or_else(tracing::Span::none, |(trace, _)| log_span(trace));
        let joining = async move {
            let tell = |joined| inbox.send(Message::Joined { conn, channel: channel.clone(), token, joined });
            let joined = context.replica.join(&channel, from, |joined| tell(Ok(joined))).await;
            if let Some((trace, began)) = traced {
                debug!(%channel, is_joined = joined.is_ok(), "a subscription is traced");
                let metrics = &context.surroundings.metrics;
                metrics.tracer.record(joined_span(trace, began, &channel, joined.is_err()));
            }
            if let Err(error) = joined {
                tell(Err(error));
            }
        };
        let mut joining = Box::pin(joining.instrument(span));
        let _runtime = self.runtime.enter();
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        if joining.as_mut().poll(&mut nobody).is_ready() {
            return None;
        }
        Some(self.tasks.spawn_on(joining, &self.runtime).abort_handle())
    }

    /// Finds out which channels there are; the answer comes through the inbox.
    pub(super) fn list(&self, conn: ConnKey, token: u64) -> AbortHandle {
        let (context, inbox) = (Arc::clone(&self.context), Arc::clone(&self.inbox));
        let listing = async move {
            let listed = context.listing.channels().await.map_err(|error| {
                debug!(%error, "failed to list the channels for a pattern");
                Refusal::new(ErrorCode::ReplayUnavailable, "it cannot be read now which channels there are")
            });
            inbox.send(Message::Listed { conn, token, listed });
        };
        self.tasks.spawn_on(listing, &self.runtime).abort_handle()
    }

    /// Adds the counts to the metrics.
    pub(super) fn report(&mut self) {
        let metrics = &self.context.surroundings.metrics;
        let Counts { delivered, queued_change, writes, written_bytes } = std::mem::take(&mut self.tally);
        if writes > 0 || written_bytes > 0 {
            self.ages.report();
            metrics.deliveries.inc_by(delivered);
            metrics.writes.inc_by(writes);
            metrics.written_bytes.inc_by(written_bytes);
        }
        if queued_change != 0 {
            self.waiting += queued_change;
            metrics.queued_bytes.add(queued_change);
        }
    }
}

/// A client's subscription, from its request until the log has answered what lies before live.
fn joined_span(context: TraceContext, began: SystemTime, channel: &Channel, is_failed: bool) -> Span {
    let (start_ns, end_ns) = (unix_ns(began), unix_ns(SystemTime::now()));
    let attributes = vec![("akis.channel", channel.to_string())];
    Span { name: "subscribe", kind: SpanKind::Server, context, parent: None, start_ns, end_ns, attributes, is_failed }
}
