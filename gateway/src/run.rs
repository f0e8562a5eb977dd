//! Events that follow each other in one channel, with the bytes that every subscriber is sent.

use std::sync::{Arc, OnceLock};

use akis_eventlog::LogEvent;
use akis_model::Seq;
use bytes::Bytes;

use crate::ws::deflate::Deflater;
use crate::ws::{put_compressed_text, put_text};

/// Events and bytes of one run, at most. Longer batches become several runs, so that one write stays as small as its budget.
const MAX_EVENTS: usize = 64;
const MAX_BYTES: usize = 32 << 10;

/// Messages below this are not compressed: it would take longer than it saves.
const MIN_DEFLATED: usize = 400;

/// Consecutive events of a channel: each position is one above the one before. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    events: Arc<[Arc<LogEvent>]>,
    frames: Bytes,
    first: Seq,
    last: Seq,
    /// Bytes of the envelopes alone.
    bytes: usize,
    /// Made when the first client wants it, and shared by all of them.
    deflated: Arc<Deflated>,
}

/// Frames for clients that take compressed messages.
#[derive(Debug, Default, PartialEq, Eq)]
struct Deflated {
    /// One for each event.
    single: OnceLock<Bytes>,
    /// One for all of them, as an array.
    packed: OnceLock<Bytes>,
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

    /// The same for clients that take compressed messages; `is_packed`: as one frame with an array.
    pub(crate) fn deflated_frames(&self, is_packed: bool, deflater: &mut Deflater) -> &Bytes {
        let made = if is_packed { &self.deflated.packed } else { &self.deflated.single };
        made.get_or_init(|| {
            let mut frames = Vec::new();
            let mut put = |message: &[u8]| {
                let payload = if message.len() < MIN_DEFLATED { None } else { deflater.deflate(message) };
                match payload {
                    Some(payload) => put_compressed_text(&mut frames, payload),
                    None => put_text(&mut frames, message),
                }
            };
            match self.events.as_ref() {
                several @ [_, _, ..] if is_packed => put(&array(several)),
                events => events.iter().for_each(|event| put(&event.envelope)),
            }
            frames.into()
        })
    }

    /// Bytes of the envelopes alone.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn array(events: &[Arc<LogEvent>]) -> Vec<u8> {
    let mut text = vec![b'['];
    for (n, event) in events.iter().enumerate() {
        if n > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&event.envelope);
    }
    text.push(b']');
    text
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
        Run {
            events: self.events.into(),
            frames: frames.into(),
            first: self.first,
            last: self.last,
            bytes: self.bytes,
            deflated: Arc::default(),
        }
    }
}
