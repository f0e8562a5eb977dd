//! What waits for one client on one channel, and what gives way when that is too much.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::LogEvent;
use akis_model::Seq;

use crate::run::Run;
use crate::wire::{DropReason, GapReason};

/// One thing to be told about a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// An event.
    Event(Arc<LogEvent>),
    /// Events that go out as they came.
    Run(Arc<Run>),
    /// Positions go on from `seq`; nothing was lost.
    Term { seq: Seq, previous: Seq },
    /// `from` to `to` cannot be had.
    Gap { from: Seq, to: Seq, reason: GapReason },
    /// The entry at `seq` is no event.
    Malformed { seq: Seq },
    /// This client was too slow.
    Dropped { from: Seq, to: Seq, count: u64, reason: DropReason },
    /// The subscription begins anew behind `seq`.
    Restart { seq: Seq },
    /// The channel has fallen silent behind `seq`, or speaks again.
    Staleness { seq: Seq, silent_for: Option<Duration> },
}

impl Item {
    /// The position that the next item follows.
    pub(super) fn position(&self) -> Seq {
        match self {
            Self::Event(event) => event.seq,
            Self::Run(run) => run.last(),
            Self::Term { seq, .. } | Self::Malformed { seq } | Self::Restart { seq } | Self::Staleness { seq, .. } => {
                *seq
            }
            Self::Gap { to, .. } | Self::Dropped { to, .. } => *to,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Event(event) => event.envelope.len(),
            Self::Run(run) => run.bytes(),
            // A queue slot; what is rendered from it is short-lived.
            Self::Term { .. }
            | Self::Gap { .. }
            | Self::Malformed { .. }
            | Self::Dropped { .. }
            | Self::Restart { .. }
            | Self::Staleness { .. } => size_of::<Self>(),
        }
    }

    fn events(&self) -> usize {
        match self {
            Self::Event(_) => 1,
            Self::Run(run) => run.events().len(),
            Self::Term { .. }
            | Self::Gap { .. }
            | Self::Malformed { .. }
            | Self::Dropped { .. }
            | Self::Restart { .. }
            | Self::Staleness { .. } => 0,
        }
    }
}

/// Items in the order in which they are told.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    events: usize,
    /// How many of the items are runs.
    runs: usize,
    bytes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// How many of the items are events.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn front(&self) -> Option<&Item> {
        self.items.front()
    }

    pub(super) fn push(&mut self, item: Item) {
        self.count(&item);
        self.items.push_back(item);
    }

    pub(super) fn push_front(&mut self, item: Item) {
        self.count(&item);
        self.items.push_front(item);
    }

    fn count(&mut self, item: &Item) {
        self.bytes += item.bytes();
        self.events += item.events();
        self.runs += usize::from(matches!(item, Item::Run(_)));
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.uncount(&item);
        Some(item)
    }

    fn pop_back(&mut self) -> Option<Item> {
        let item = self.items.pop_back()?;
        self.uncount(&item);
        Some(item)
    }

    fn uncount(&mut self, item: &Item) {
        self.bytes -= item.bytes();
        self.events -= item.events();
        self.runs -= usize::from(matches!(item, Item::Run(_)));
    }

    /// Takes runs apart, so that single events can give way.
    pub(super) fn expand(&mut self) {
        if self.runs == 0 {
            return;
        }
        for item in std::mem::take(self).items {
            match item {
                Item::Run(run) => run.events().iter().for_each(|event| self.push(Item::Event(Arc::clone(event)))),
                other => self.push(other),
            }
        }
    }

    /// Adds a gap, or widens the one that was told last.
    pub(super) fn push_gap(&mut self, from: Seq, to: Seq, reason: GapReason) {
        match self.items.back_mut() {
            Some(Item::Gap { to: last, reason: other, .. }) if last.next() == from && *other == reason => *last = to,
            _ => self.push(Item::Gap { from, to, reason }),
        }
    }

    /// Whether events were replaced here and the newest still waits: further ones take its place.
    pub(super) fn is_conflating(&self) -> bool {
        let mut newest = self.items.iter().rev();
        matches!(newest.next(), Some(Item::Event(_)))
            && matches!(newest.next(), Some(Item::Dropped { reason: DropReason::Conflated, .. }))
    }

    /// Replaces the events by notes that they are missing; what was told beside them stays. Gives how many there were.
    pub(super) fn conflate(&mut self) -> u64 {
        self.expand();
        self.conflate_first(self.items.len())
    }

    /// As [`Queue::conflate`], but the newest event stays, whatever is told behind it.
    pub(super) fn conflate_to_newest(&mut self) -> u64 {
        self.expand();
        self.newest().map_or(0, |newest| self.conflate_first(newest))
    }

    /// Conflates the first `length` items.
    fn conflate_first(&mut self, length: usize) -> u64 {
        let items = std::mem::take(self).items;
        let mut count = 0;
        for (at, item) in items.into_iter().enumerate() {
            match item {
                item if at >= length => self.push(item),
                Item::Event(event) => {
                    count += 1;
                    self.push_drop(event.seq, event.seq, 1, DropReason::Conflated);
                }
                Item::Dropped { from, to, count, reason } => self.push_drop(from, to, count, reason),
                other => self.push(other),
            }
        }
        count
    }

    /// Where the newest event is, once there are no runs.
    fn newest(&self) -> Option<usize> {
        self.items.iter().rposition(|item| matches!(item, Item::Event(_)))
    }

    /// Removes the events without a note; for subscriptions that skip positions by agreement.
    pub(super) fn skip_events(&mut self) {
        if self.events == 0 {
            return;
        }
        self.expand();
        let items = std::mem::take(self).items;
        for item in items.into_iter().filter(|item| !matches!(item, Item::Event(_))) {
            self.push(item);
        }
    }

    /// Replaces the oldest event by a note that it is missing. Gives whether there was one.
    pub(super) fn drop_oldest(&mut self) -> bool {
        self.expand();
        let Some(at) = self.items.iter().position(|item| matches!(item, Item::Event(_))) else { return false };
        let seq = self.items[at].position();
        if let Some(before) = at.checked_sub(1)
            && let Item::Dropped { to, count, reason: DropReason::Dropped, .. } = &mut self.items[before]
            && to.next() == seq
        {
            *to = seq;
            *count += 1;
            if let Some(item) = self.items.remove(at) {
                self.uncount(&item);
            }
            return true;
        }
        let note = Item::Dropped { from: seq, to: seq, count: 1, reason: DropReason::Dropped };
        self.bytes += note.bytes();
        let event = std::mem::replace(&mut self.items[at], note);
        self.uncount(&event);
        true
    }

    fn push_drop(&mut self, from: Seq, to: Seq, count: u64, reason: DropReason) {
        match self.items.back_mut() {
            Some(Item::Dropped { to: last, count: before, reason: other, .. })
                if last.next() == from && *other == reason =>
            {
                *last = to;
                *before += count;
            }
            _ => self.push(Item::Dropped { from, to, count, reason }),
        }
    }

    /// Takes everything out, event by event.
    pub(super) fn take(&mut self) -> VecDeque<Item> {
        self.expand();
        std::mem::take(self).items
    }

    /// Forgets what lies before the newest event. Gives whether there is one.
    pub(super) fn keep_newest(&mut self) -> bool {
        self.expand();
        let Some(newest) = self.newest() else { return false };
        for _ in 0..newest {
            self.pop();
        }
        true
    }

    /// Forgets what lies at or above `seq`.
    pub(super) fn cut(&mut self, seq: Seq) {
        self.expand();
        while self.items.back().is_some_and(|item| item.position() >= seq) {
            self.pop_back();
        }
    }
}
