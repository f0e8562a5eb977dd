//! Events that follow each other in one channel, with the bytes that every subscriber is sent.

use std::sync::Arc;

use akis_eventlog::LogEvent;
use akis_model::Seq;
use bytes::Bytes;

use crate::ws::put_text;

/// Events and bytes of one run, at most. Longer batches become several runs, so that one write stays as small as its budget.
const MAX_EVENTS: usize = 64;
const MAX_BYTES: usize = 32 << 10;

/// Consecutive events of a channel: each position is one above the one before. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    events: Arc<[Arc<LogEvent>]>,
    frames: Bytes,
    first: Seq,
    last: Seq,
    /// Bytes of the envelopes alone.
    bytes: usize,
}

impl Run {
    /// The position of the first event.
    pub(crate) fn first(&self) -> Seq {
        self.first
    }

    /// The position of the last event.
    pub(crate) fn last(&self) -> Seq {
        self.last
    }

    /// In order.
    pub(crate) fn events(&self) -> &[Arc<LogEvent>] {
        &self.events
    }

    /// A text frame for each event.
    pub(crate) fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// Bytes of the envelopes alone.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A run that is being put together.
#[derive(Debug)]
pub(crate) struct RunBuilder {
    events: Vec<Arc<LogEvent>>,
    first: Seq,
    last: Seq,
    bytes: usize,
}

impl RunBuilder {
    /// A run that begins with this event.
    pub(crate) fn new(event: &Arc<LogEvent>) -> Self {
        let bytes = event.envelope.len();
        Self { events: vec![Arc::clone(event)], first: event.seq, last: event.seq, bytes }
    }

    /// Adds the event when it follows the last one and there is room. Gives whether it was added.
    pub(crate) fn push(&mut self, event: &Arc<LogEvent>) -> bool {
        let len = event.envelope.len();
        if event.seq != self.last.next() || self.events.len() >= MAX_EVENTS || self.bytes + len > MAX_BYTES {
            return false;
        }
        self.events.push(Arc::clone(event));
        self.last = event.seq;
        self.bytes += len;
        true
    }

    /// Frames what has been added.
    pub(crate) fn finish(self) -> Run {
        let mut frames = Vec::with_capacity(self.bytes + 4 * self.events.len());
        for event in &self.events {
            put_text(&mut frames, &event.envelope);
        }
        Run { events: self.events.into(), frames: frames.into(), first: self.first, last: self.last, bytes: self.bytes }
    }
}
