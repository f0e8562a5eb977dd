//! The local book of one symbol, joined from a snapshot and diffs by the venue's numbered steps.
//!
//! Source: "How to manage a local order book correctly",
//! <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>:
//!
//! 1. Buffer the events of the stream. Note the first event's `U`.
//! 2. Get a snapshot.
//! 3. If its `lastUpdateId` is below that `U`, get another one.
//! 4. Drop buffered events with `u` at or below `lastUpdateId`.
//! 5. The first one kept has `U` <= `lastUpdateId` + 1 <= `u`.
//! 6. The book is the snapshot; apply the events: one that ends at or below the book's id is ignored, one that begins
//!    above its id + 1 is a gap: start over.
//! 7. Afterwards the `U` of each event is the `u` before it + 1.
//!
//! A snapshot has the best levels only. Those behind them are not known until they change, so a book whose price has gone
//! that far is not proven any more.
//!
//! USD-M futures number all symbols together, so their events are linked instead: the `pu` of each is the `u` before
//! it. The first one kept has `U` <= `lastUpdateId` <= `u`, or `lastUpdateId` as its `pu`. Source:
//! <https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/How-to-manage-a-local-order-book-correctly>.

use std::collections::VecDeque;

use akis_model::Level;

use crate::book::Sides;
use crate::mapper::{Hitch, Reason, Resync};

/// Diffs kept while a snapshot is awaited, at most.
const MAX_BUFFERED: usize = 10_000;

/// How long they are kept. With many symbols a request waits for minutes until the venue's limits let it go, but a snapshot
/// is never older than the request may take, 10 s, and covers what came before.
const BUFFERED_MS: i64 = 15_000;

/// How long to wait for a first diff before a snapshot is asked for without one: the book of a quiet symbol.
const QUIET_MS: i64 = 3_000;

/// After so long a snapshot is asked for again; the connector drops the request while the first one waits.
const ASK_AGAIN_MS: i64 = 30_000;

/// How long to wait before another snapshot when one was too old.
const TOO_OLD_MS: i64 = 250;

/// After so many snapshots in a row that are too old it is the buffered diffs that are wrong.
const MAX_TOO_OLD: u32 = 5;

/// How the diffs of a market follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequence {
    /// Without holes in the numbers: spot.
    Dense,
    /// By `pu`: USD-M futures.
    Linked,
}

/// A change of the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diff {
    /// `U`.
    pub(super) first_id: u64,
    /// `u`.
    pub(super) last_id: u64,
    /// `pu`, of linked diffs.
    pub(super) previous_id: Option<u64>,
    /// `E`.
    pub(super) event_time: i64,
    pub(super) received_at: i64,
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

/// A whole book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// `lastUpdateId`.
    pub(super) last_id: u64,
    pub(super) received_at: i64,
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
    /// How many levels of a side it could have at most: where it has as many there may be more.
    pub(super) most: usize,
}

/// Which state of the book can be published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    /// `u` of the last diff, or `lastUpdateId`.
    pub(super) id: u64,
    /// `E` of the last diff; `None` when it is the snapshot.
    pub(super) event_time: Option<i64>,
    pub(super) received_at: i64,
}

/// Somebody who is told of the states of a book.
pub(super) trait Watcher {
    /// The book is in this state, which is proven.
    fn on_state(&mut self, sides: &Sides, stamp: Stamp);

    /// The state that was told last may be gone with what comes next.
    fn may_lose(&mut self, sides: &Sides);
}

#[derive(Debug)]
enum Phase {
    Buffering(VecDeque<Diff>),
    Live(Live),
}

/// What the next diff has to follow.
#[derive(Debug, Clone, Copy)]
struct Live {
    /// The id of the book.
    id: u64,
    /// `u` of the last diff that is in it, applied or covered by the snapshot.
    last_diff: Option<u64>,
    /// Whether a diff has been applied to the snapshot.
    joined: bool,
}

impl Sequence {
    /// Whether nothing is missing between the book and `diff`.
    fn follows(self, live: Live, diff: &Diff) -> bool {
        match self {
            Self::Dense => diff.first_id <= live.id.saturating_add(1),
            Self::Linked => {
                let joins = diff.first_id <= live.id || diff.previous_id == Some(live.id);
                (live.last_diff.is_some() && diff.previous_id == live.last_diff) || (!live.joined && joins)
            }
        }
    }

    /// Whether nothing is missing between a diff that ended at `last_id` and `diff`.
    fn continues(self, last_id: u64, diff: &Diff) -> bool {
        match self {
            Self::Dense => diff.first_id <= last_id.saturating_add(1),
            Self::Linked => diff.previous_id == Some(last_id),
        }
    }

    /// Whether something is missing between a snapshot and the first diff that was buffered.
    fn is_too_old(self, snapshot_id: u64, first: &Diff) -> bool {
        match self {
            Self::Dense => snapshot_id < first.first_id,
            Self::Linked => snapshot_id < first.first_id && first.previous_id != Some(snapshot_id),
        }
    }
}

/// The book of one symbol.
#[derive(Debug)]
pub(super) struct DepthBook {
    sequence: Sequence,
    phase: Phase,
    sides: Sides,
    /// The id of the last state shown.
    shown: u64,
    /// The newest connection that a diff came from; 0 before the first one.
    connection: u32,
    /// The one whose end came last, when it may have been the one of this book; 0 before the first one.
    closed: u32,
    /// When to ask for a snapshot next, and whether one has been asked for.
    ask_at: Option<i64>,
    asked: bool,
    too_old: u32,
    /// Since when, and why, a book that is wanted is not live.
    lost: Option<(i64, Resync)>,
}

impl DepthBook {
    /// Nothing is known of it yet.
    pub(super) fn new(sequence: Sequence) -> Self {
        Self {
            sequence,
            phase: Phase::Buffering(VecDeque::new()),
            sides: Sides::default(),
            shown: 0,
            connection: 0,
            closed: 0,
            ask_at: None,
            asked: false,
            too_old: 0,
            lost: None,
        }
    }

    /// One that is to take the place of this one, and never shows what is older.
    pub(super) fn successor(&self) -> Self {
        Self { shown: self.shown, ..Self::new(self.sequence) }
    }

    /// Since when, and why, a book that is wanted is not live.
    pub(super) fn lost(&self) -> Option<(i64, Resync)> {
        self.lost
    }

    /// Whether a snapshot is to be asked for now. While no connection has come after its own, which `newest` tells, nothing would
    /// bring the book up to date.
    pub(super) fn asks(&mut self, now_ms: i64, newest: u32) -> bool {
        let Phase::Buffering(_) = self.phase else { return false };
        if newest <= self.closed {
            return false;
        }
        self.lost.get_or_insert((now_ms, Resync::Start));
        let due = now_ms >= *self.ask_at.get_or_insert(now_ms.saturating_add(QUIET_MS));
        if due {
            self.ask_at = Some(now_ms.saturating_add(ASK_AGAIN_MS));
            self.asked = true;
        }
        due
    }

    /// Whether a snapshot is needed, so that none of its states is proven.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Buffering(_))
    }

    /// Whether a diff has ever come.
    pub(super) fn has_diffs(&self) -> bool {
        self.connection != 0
    }

    /// The id of the last state that was told.
    pub(super) fn shown(&self) -> u64 {
        self.shown
    }

    /// The levels, of the last state that was shown unless the book was lost since.
    pub(super) fn sides(&self) -> &Sides {
        &self.sides
    }

    /// Takes a diff; `watcher` is told of the state after it.
    pub(super) fn on_diff(&mut self, diff: Diff, connection: u32, watcher: &mut impl Watcher) -> Result<(), Hitch> {
        if diff.first_id > diff.last_id {
            return Err(Hitch::Skipped(Reason::OutOfRange));
        }
        self.connection = self.connection.max(connection);
        match &self.phase {
            Phase::Buffering(_) => self.buffer(diff),
            // Step 6.
            Phase::Live(live) if diff.last_id <= live.id => Err(Hitch::Skipped(Reason::Duplicate)),
            Phase::Live(live) if !self.sequence.follows(*live, &diff) => {
                self.start_over(Resync::Gap, diff.received_at, watcher);
                self.buffer(diff)?;
                Err(Hitch::Resync(Resync::Gap))
            }
            Phase::Live(_) => self.apply(&diff, watcher),
        }
    }

    /// Takes a snapshot; `watcher` is told of it and of the state after each diff that was buffered.
    pub(super) fn on_snapshot(&mut self, snapshot: &Snapshot, watcher: &mut impl Watcher) -> Result<(), Hitch> {
        let Phase::Buffering(diffs) = &mut self.phase else {
            return Err(Hitch::Skipped(Reason::UnusedSnapshot));
        };
        // Step 3. Without a diff to compare with, the book at least never goes back.
        let sequence = self.sequence;
        if diffs.front().map_or(snapshot.last_id < self.shown, |first| sequence.is_too_old(snapshot.last_id, first)) {
            self.too_old += 1;
            if self.too_old >= MAX_TOO_OLD {
                diffs.clear();
                self.too_old = 0;
            }
            self.ask_at = Some(snapshot.received_at.saturating_add(TOO_OLD_MS));
            return Err(Hitch::Skipped(Reason::UnusedSnapshot));
        }
        let sides = Sides::best(&snapshot.bids, &snapshot.asks, snapshot.most);
        let unusable = match (sides.is_crossed(), sides.is_known()) {
            (true, _) => Some(Reason::Crossed),
            (false, false) => Some(Reason::UnusedSnapshot),
            (false, true) => None,
        };
        if let Some(reason) = unusable {
            self.ask_at = Some(snapshot.received_at.saturating_add(TOO_OLD_MS));
            return Err(Hitch::Skipped(reason));
        }
        // Steps 4 to 6. The buffer has no holes, so step 5 holds when step 3 does.
        let diffs = std::mem::take(diffs);
        self.sides = sides;
        let last_diff = diffs.iter().map(|diff| diff.last_id).take_while(|&id| id <= snapshot.last_id).last();
        self.phase = Phase::Live(Live { id: snapshot.last_id, last_diff, joined: false });
        (self.ask_at, self.asked, self.too_old, self.lost) = (None, false, 0, None);
        self.shown = snapshot.last_id;
        let (id, received_at) = (snapshot.last_id, snapshot.received_at);
        watcher.on_state(&self.sides, Stamp { id, event_time: None, received_at });
        for diff in diffs.iter().filter(|diff| diff.last_id > snapshot.last_id) {
            self.apply(diff, watcher)?;
        }
        Ok(())
    }

    /// A connection ended: when it may have been the one of this book, diffs may be missing from now on, and on a quiet symbol
    /// nothing would tell.
    pub(super) fn on_closed(&mut self, connection: u32, now_ms: i64, watcher: &mut impl Watcher) -> Result<(), Hitch> {
        if self.connection != connection && self.connection != 0 {
            return Ok(());
        }
        self.closed = connection;
        match self.phase {
            Phase::Buffering(ref mut diffs) => {
                diffs.clear();
                Ok(())
            }
            Phase::Live(_) => {
                self.start_over(Resync::Connection, now_ms, watcher);
                // Asking makes sense once diffs come again.
                self.ask_at = None;
                Err(Hitch::Resync(Resync::Connection))
            }
        }
    }

    fn apply(&mut self, diff: &Diff, watcher: &mut impl Watcher) -> Result<(), Hitch> {
        let may_cross = self.sides.may_cross(&diff.bids, &diff.asks);
        let may_run_out = self.sides.may_run_out(&diff.bids, &diff.asks);
        if may_cross || may_run_out {
            watcher.may_lose(&self.sides);
        }
        self.sides.set(&diff.bids, &diff.asks);
        let is_lost = match (may_cross && self.sides.is_crossed(), may_run_out && !self.sides.is_known()) {
            (true, _) => Some(Resync::Crossed),
            (false, true) => Some(Resync::Range),
            (false, false) => None,
        };
        if let Some(why) = is_lost {
            self.forget(why, diff.received_at);
            return Err(Hitch::Resync(why));
        }
        let id = diff.last_id;
        self.phase = Phase::Live(Live { id, last_diff: Some(id), joined: true });
        self.shown = id;
        let (event_time, received_at) = (Some(diff.event_time), diff.received_at);
        watcher.on_state(&self.sides, Stamp { id, event_time, received_at });
        Ok(())
    }

    /// Step 1. The buffer never has a hole: what lies before one is dropped.
    fn buffer(&mut self, mut diff: Diff) -> Result<(), Hitch> {
        let Phase::Buffering(diffs) = &mut self.phase else { return Ok(()) };
        let mut hitch = Ok(());
        let since = diff.received_at.saturating_sub(BUFFERED_MS);
        while diffs.pop_front_if(|oldest| oldest.received_at < since).is_some() {}
        match diffs.back().map(|last| last.last_id) {
            Some(last) if diff.last_id <= last => return Err(Hitch::Skipped(Reason::Duplicate)),
            Some(last) if !self.sequence.continues(last, &diff) => {
                diffs.clear();
                hitch = Err(Hitch::Resync(Resync::Gap));
            }
            Some(_) if diffs.len() >= MAX_BUFFERED => {
                diffs.clear();
                self.asked = false;
                hitch = Err(Hitch::Resync(Resync::Overflow));
            }
            _ => {}
        }
        if !self.asked {
            self.ask_at = Some(diff.received_at);
        }
        // There may be some for each of a thousand symbols: no room for levels that they do not have.
        diff.bids.shrink_to_fit();
        diff.asks.shrink_to_fit();
        diffs.push_back(diff);
        hitch
    }

    fn start_over(&mut self, why: Resync, now_ms: i64, watcher: &mut impl Watcher) {
        watcher.may_lose(&self.sides);
        self.forget(why, now_ms);
    }

    fn forget(&mut self, why: Resync, now_ms: i64) {
        self.phase = Phase::Buffering(VecDeque::new());
        self.sides = Sides::default();
        (self.ask_at, self.asked, self.too_old) = (Some(now_ms), false, 0);
        self.lost = Some((now_ms, why));
    }
}
