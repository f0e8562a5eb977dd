//! The one series of messages: followed by its numbers, and joined with a snapshot where some are missing.
//!
//! ```text
//!             a number is missing                 a snapshot that reaches into what was kept
//! following ─────────────────────▶ waiting ────────────────────────────────────────────────▶ following
//! ```
//!
//! While a snapshot is awaited, messages are held back, because the price of a trade is that of an order which only the
//! snapshot may know. When it takes too long they are gone through without: trades of unknown orders are then lost, and
//! are told as such. They are kept all the same, for a snapshot that still comes.
//!
//! Source of the join: Borsa Istanbul, "BISTECH GLIMPSE" 2.7: drop what lies below the number in `G`, apply the rest.

use akis_connectors::bist::mold::{Kind, Packet, SessionId};

use super::market::{Entry, Market, Telling};
use super::pile::Pile;
use super::snapshot::Snapshot;
use crate::mapper::{Output, Reason, Resync};

/// How much is kept while a snapshot is awaited: a million messages.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// How long messages are held back for a snapshot.
const HOLD_MS: i64 = 10_000;

/// After so long without a snapshot it is asked for again.
const ASK_AGAIN_MS: i64 = 30_000;

/// Where the series is.
#[derive(Debug, Default)]
pub(super) struct Stream {
    session: Option<SessionId>,
    /// The number that is expected; 0 before the first packet.
    next: u64,
    waiting: Option<Waiting>,
    /// A snapshot that is ahead of the live messages.
    ahead: Option<Snapshot>,
    /// The session is over, and the next one is due then.
    rests_until: Option<i64>,
}

/// Messages since the hole.
#[derive(Debug)]
struct Waiting {
    /// The number of the first one that is kept.
    start: u64,
    kept: Pile,
    /// Those from this number on are held back; `None`: none is any more.
    held_from: Option<u64>,
    /// When that began, and when a snapshot was asked for last.
    since: i64,
    asked_at: i64,
}

impl Stream {
    /// Takes a packet of live messages.
    pub(super) fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        received_at: i64,
        market: &mut Market,
        out: &mut Output,
    ) -> Result<(), Reason> {
        self.follow(packet, received_at, market, out);
        if packet.sequence > self.next {
            self.on_hole(packet.sequence, received_at, market, out);
        }
        match packet.kind {
            Kind::Messages(_) if packet.next_sequence() <= self.next => return Err(Reason::Duplicate),
            Kind::Heartbeat if packet.sequence == self.next => market.on_silence(received_at, out),
            // It is told again and again, so the first one says when.
            Kind::End => {
                out.rests_until = Some(*self.rests_until.get_or_insert(market.due_after(received_at)));
                if packet.sequence == self.next {
                    market.catch_up.end();
                    market.end();
                }
            }
            Kind::Messages(_) | Kind::Heartbeat => {}
        }
        if packet.count() > 1 {
            market.foresee(packet.messages());
        }
        // In this order: no number is taken behind the last message, for which there may be none.
        for (bytes, sequence) in packet.messages().zip(packet.sequence..) {
            if sequence >= self.next {
                self.on_message(Entry { sequence, bytes, received_at, telling: Telling::News }, market, out);
            }
        }
        if self.ahead.as_ref().is_some_and(|snapshot| snapshot.next <= self.next)
            && let Some(snapshot) = self.ahead.take()
        {
            return self.join(&snapshot, market, out);
        }
        Ok(())
    }

    /// Whether a packet of this session begins another one than the one that is followed.
    pub(super) fn is_another(&self, session: SessionId) -> bool {
        self.session.is_some_and(|followed| followed != session)
    }

    /// Another session is another day.
    fn follow(&mut self, packet: &Packet<'_>, received_at: i64, market: &mut Market, out: &mut Output) {
        if self.session == Some(packet.session) {
            return;
        }
        let is_first = self.session.replace(packet.session).is_none();
        // A snapshot may have been joined before the first packet.
        if is_first && self.next > 0 {
            return;
        }
        self.release(received_at, market, out);
        (self.next, self.waiting, self.ahead, self.rests_until) = (1, None, None, None);
        market.begin_session(received_at, out);
        market.forget_clock();
    }

    /// Whether nothing need come now.
    pub(super) fn rests(&self, now_ms: i64) -> bool {
        self.rests_until.is_some_and(|due_at| now_ms < due_at)
    }

    fn on_message(&mut self, entry: Entry<'_>, market: &mut Market, out: &mut Output) {
        self.next = entry.sequence + 1;
        if let Some(waiting) = &mut self.waiting {
            if !waiting.kept.push(entry.bytes) {
                self.release(entry.received_at, market, out);
                out.resyncs.push(Resync::Overflow);
                self.waiting = Some(Waiting::new(self.next, false, entry.received_at));
            } else if waiting.held_from.is_some() {
                return;
            }
        }
        market.apply(entry, out);
        if market.takes_snapshot() && self.waiting.is_none() {
            market.ask(out);
            self.waiting = Some(Waiting::new(self.next, false, entry.received_at));
        }
    }

    /// Messages up to `next` are lost.
    fn on_hole(&mut self, next: u64, received_at: i64, market: &mut Market, out: &mut Output) {
        self.release(received_at, market, out);
        market.lose_messages(received_at, out);
        self.next = next;
        self.waiting = Some(Waiting::new(next, true, received_at));
    }

    /// Goes through what is held back, without a snapshot.
    fn release(&mut self, received_at: i64, market: &mut Market, out: &mut Output) {
        let Some(waiting) = &mut self.waiting else { return };
        let Some(held_from) = waiting.held_from.take() else { return };
        for (bytes, sequence) in waiting.kept.iter().zip(waiting.start..) {
            if sequence >= held_from {
                market.apply(Entry { sequence, bytes, received_at, telling: Telling::News }, out);
            }
        }
        // They needed one before.
        market.takes_snapshot();
    }

    /// Takes a whole snapshot.
    pub(super) fn on_snapshot(
        &mut self,
        snapshot: Snapshot,
        market: &mut Market,
        out: &mut Output,
    ) -> Result<(), Reason> {
        match &self.waiting {
            // Nothing live has come yet: it is where everything begins.
            None if self.next == 0 => self.join(&snapshot, market, out),
            None => Err(Reason::UnusedSnapshot),
            Some(_) if snapshot.next > self.next => {
                self.ahead = Some(snapshot);
                Ok(())
            }
            Some(_) => self.join(&snapshot, market, out),
        }
    }

    fn join(&mut self, snapshot: &Snapshot, market: &mut Market, out: &mut Output) -> Result<(), Reason> {
        if self.waiting.as_ref().is_some_and(|waiting| snapshot.next < waiting.start) {
            return Err(Reason::UnusedSnapshot);
        }
        let received_at = snapshot.received_at;
        // One that is kept would take the books back once the live messages come to it.
        self.ahead = None;
        let waiting = self.waiting.take();
        let kept = || waiting.iter().flat_map(|waiting| waiting.kept.iter().zip(waiting.start..));
        let held_from = waiting.as_ref().and_then(|waiting| waiting.held_from).unwrap_or(u64::MAX);
        let telling = |sequence| if sequence < held_from { Telling::State } else { Telling::News };
        // What the snapshot holds already is gone through for its trades.
        for (bytes, sequence) in kept().filter(|(_, sequence)| (held_from..snapshot.next).contains(sequence)) {
            market.apply(Entry { sequence, bytes, received_at, telling: Telling::News }, out);
        }
        market.load(snapshot.messages.iter(), snapshot.next, received_at, out);
        for (bytes, sequence) in kept().filter(|(_, sequence)| *sequence >= snapshot.next) {
            market.apply(Entry { sequence, bytes, received_at, telling: telling(sequence) }, out);
        }
        market.tell_states(out);
        self.next = self.next.max(snapshot.next);
        if market.takes_snapshot() {
            self.waiting = Some(Waiting::new(self.next, false, received_at));
        }
        Ok(())
    }

    /// Takes note of the time.
    pub(super) fn on_tick(&mut self, now_ms: i64, market: &mut Market, out: &mut Output) {
        let Some(waiting) = &mut self.waiting else { return };
        if now_ms.saturating_sub(waiting.asked_at) >= ASK_AGAIN_MS {
            waiting.asked_at = now_ms;
            market.ask(out);
        }
        if waiting.held_from.is_some() && now_ms.saturating_sub(waiting.since) >= HOLD_MS {
            self.release(now_ms, market, out);
        }
    }

    /// Nothing more comes: what is held back is gone through.
    pub(super) fn on_end(&mut self, now_ms: i64, market: &mut Market, out: &mut Output) {
        self.release(now_ms, market, out);
    }
}

impl Waiting {
    fn new(start: u64, holds: bool, now_ms: i64) -> Self {
        let (kept, held_from) = (Pile::new(MAX_KEPT_BYTES), holds.then_some(start));
        Self { start, kept, held_from, since: now_ms, asked_at: now_ms }
    }
}
