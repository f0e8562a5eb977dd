//! The book of one pair: a `431`, then every `432` whose `CS` is one more.
//!
//! ```text
//! 431             replace the book, last = CS
//! 432, CS==last+1 apply: CP 0 and 1 set an amount, CP 3 removes; last = CS
//! 432, other CS   a gap: leave and join again
//! 432 before 431  of no use
//! ```
//!
//! `CS` is counted within a subscription: another connection counts elsewhere, so the book belongs to a connection. Over one
//! connection a `431` begins a subscription anew, also with a lower `CS`; that of a newer connection takes over.
//! The venue tells of the best 100 levels of a side. One that enters pushes another one out, which comes as `CP` 3.

use crate::book::Sides;
use crate::mapper::{Hitch, Reason, Resync};

use super::wire::WINDOW;
use akis_model::Level;

/// How long a first `431` may take before it is asked for; asking again takes twice as long each time, up to the other.
const ASK_AFTER_MS: i64 = 10_000;
const ASK_AT_MOST_EVERY_MS: i64 = 300_000;

/// Two questions for the same book are never closer than this, however often it breaks.
const ASK_PAUSE_MS: i64 = 1_000;

/// After so many frames in a row from behind the book it is the book's number that is wrong.
const MAX_REPEATED: u32 = 16;

/// A `431` or a `432`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BookFrame {
    pub(super) change_set: i64,
    pub(super) connection: u32,
    pub(super) received_at: i64,
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is no book.
    Waiting,
    /// The book after this change set of this connection.
    Live { change_set: i64, connection: u32 },
}

/// The book of one pair.
#[derive(Debug)]
pub(super) struct PairBook {
    phase: Phase,
    sides: Sides,
    repeated: u32,
    /// When to ask for the book, by leaving and joining again; `None` while there is one or before the first tick.
    ask_at: Option<i64>,
    asked_at: Option<i64>,
    ask_wait_ms: i64,
    /// Since when, and why, a book that was live has not been.
    lost: Option<(i64, Resync)>,
}

impl Default for PairBook {
    fn default() -> Self {
        Self {
            phase: Phase::Waiting,
            sides: Sides::default(),
            repeated: 0,
            ask_at: None,
            asked_at: None,
            ask_wait_ms: ASK_AFTER_MS,
            lost: None,
        }
    }
}

impl PairBook {
    /// Since when, and why, a book that was live has not been.
    pub(super) fn lost(&self) -> Option<(i64, Resync)> {
        self.lost
    }

    /// Whether there is a book.
    pub(super) fn is_live(&self) -> bool {
        self.phase != Phase::Waiting
    }

    /// The levels that are known. Of use after [`PairBook::on_whole`] or [`PairBook::on_change`] went well.
    pub(super) fn sides(&self) -> &Sides {
        &self.sides
    }

    /// Takes a `431`: what came over its connection before is over with it, whatever its number is.
    pub(super) fn on_whole(&mut self, frame: &BookFrame) -> Result<(), Hitch> {
        let mut sides = Sides::new(&frame.bids, &frame.asks);
        sides.keep_best(WINDOW);
        if let Phase::Live { change_set, connection } = self.phase {
            // The numbers of two connections cannot be compared, but the older one is being left.
            let is_old = frame.connection < connection;
            let is_same = frame.connection == connection && frame.change_set == change_set && sides == self.sides;
            if is_old || is_same {
                return Err(Hitch::Skipped(Reason::UnusedSnapshot));
            }
        }
        if sides.is_crossed() {
            return Err(self.on_crossed(frame));
        }
        self.sides = sides;
        self.phase = Phase::Live { change_set: frame.change_set, connection: frame.connection };
        (self.repeated, self.ask_at, self.ask_wait_ms, self.lost) = (0, None, ASK_AFTER_MS, None);
        Ok(())
    }

    /// A `431` is crossed.
    fn on_crossed(&mut self, frame: &BookFrame) -> Hitch {
        match self.phase {
            Phase::Live { connection, .. } if connection == frame.connection => {
                self.start_over(Resync::Crossed, frame.received_at)
            }
            // The book of the connection before goes on.
            Phase::Live { .. } => Hitch::Skipped(Reason::Crossed),
            Phase::Waiting => {
                self.ask_soon(frame.received_at);
                Hitch::Skipped(Reason::Crossed)
            }
        }
    }

    /// Takes a `432`.
    pub(super) fn on_change(&mut self, frame: &BookFrame) -> Result<(), Hitch> {
        let Phase::Live { change_set, connection } = self.phase else {
            // What is left of a subscription that has been given up.
            return Err(Hitch::Skipped(Reason::Stale));
        };
        if frame.connection != connection {
            return Err(Hitch::Skipped(Reason::Stale));
        }
        if frame.change_set <= change_set {
            self.repeated += 1;
            if self.repeated > MAX_REPEATED {
                return Err(self.start_over(Resync::Gap, frame.received_at));
            }
            return Err(Hitch::Skipped(Reason::Duplicate));
        }
        if Some(frame.change_set) != change_set.checked_add(1) {
            return Err(self.start_over(Resync::Gap, frame.received_at));
        }
        self.repeated = 0;
        self.sides.set(&frame.bids, &frame.asks);
        self.sides.keep_best(WINDOW);
        if self.sides.is_crossed() {
            return Err(self.start_over(Resync::Crossed, frame.received_at));
        }
        self.phase = Phase::Live { change_set: frame.change_set, connection };
        Ok(())
    }

    /// A `431` or `432` of this connection could not be read, so that the book after it is not known.
    pub(super) fn on_unreadable(&mut self, connection: u32, now_ms: i64) -> Result<(), Hitch> {
        match self.phase {
            Phase::Live { connection: live, .. } if live == connection => Err(self.start_over(Resync::Gap, now_ms)),
            Phase::Live { .. } | Phase::Waiting => Ok(()),
        }
    }

    /// The connection ended; the next one begins with a `431`.
    pub(super) fn on_closed(&mut self, connection: u32, now_ms: i64) -> Result<(), Hitch> {
        match self.phase {
            Phase::Live { connection: live, .. } if live == connection => {
                let hitch = self.start_over(Resync::Connection, now_ms);
                // Joining anew comes with the next connection, so there is nothing to ask for yet.
                self.ask_at = Some(now_ms.saturating_add(ASK_AFTER_MS));
                Err(hitch)
            }
            Phase::Live { .. } | Phase::Waiting => Ok(()),
        }
    }

    /// Whether the book is to be asked for now.
    pub(super) fn asks(&mut self, now_ms: i64) -> bool {
        if self.is_live() {
            return false;
        }
        if now_ms < *self.ask_at.get_or_insert(now_ms.saturating_add(ASK_AFTER_MS)) {
            return false;
        }
        self.asked_at = Some(now_ms);
        self.ask_at = Some(now_ms.saturating_add(self.ask_wait_ms));
        self.ask_wait_ms = self.ask_wait_ms.saturating_mul(2).min(ASK_AT_MOST_EVERY_MS);
        true
    }

    fn start_over(&mut self, why: Resync, now_ms: i64) -> Hitch {
        self.phase = Phase::Waiting;
        self.sides = Sides::default();
        self.repeated = 0;
        self.lost = Some((now_ms, why));
        self.ask_soon(now_ms);
        Hitch::Resync(why)
    }

    fn ask_soon(&mut self, now_ms: i64) {
        let earliest = self.asked_at.map_or(now_ms, |asked| asked.saturating_add(ASK_PAUSE_MS));
        self.ask_at = Some(now_ms.max(earliest));
    }
}
