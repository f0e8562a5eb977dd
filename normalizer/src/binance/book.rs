//! The book of one symbol in events: every state that is proven, or the newest one when it is due.
//!
//! When few of the levels are left that its snapshot knew, another book is built beside it from a fresh snapshot and takes its
//! place, so that it does not stand still meanwhile.

use akis_model::{Book, Channel, ChannelState, Kind};

use super::depth::{DepthBook, Diff, Sequence, Snapshot, Stamp, Watcher};
use super::instrument::Teller;
use crate::book::Sides;
use crate::mapper::{Output, RESYNC_TOLD_MS, Reason, Resync};
use crate::throttle::Pace;
use crate::update::{Payload, Update};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct BookEvents {
    depth: DepthBook,
    /// The book that is being built to take its place.
    next: Option<DepthBook>,
    states: States,
}

/// The states of a book on their way out.
#[derive(Debug)]
struct States {
    channel: Channel,
    pace: Pace,
    /// The one that the book is in, when it has not been told.
    waits: Option<Stamp>,
    /// The one that was told last.
    told: Option<Stamp>,
    /// Why the book is not proven, when that has been told.
    told_lost: Option<Resync>,
}

/// Takes the states of a book as they come.
struct Outlet<'a> {
    states: &'a mut States,
    teller: Teller<'a>,
    out: &'a mut Output,
}

impl BookEvents {
    pub(super) fn new(channel: Channel, sequence: Sequence) -> Self {
        let states = States { channel, pace: Pace::default(), waits: None, told: None, told_lost: None };
        Self { depth: DepthBook::new(sequence), next: None, states }
    }

    pub(super) fn on_diff(
        &mut self,
        diff: Diff,
        connection: u32,
        teller: Teller<'_>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        if let Some(next) = &mut self.next {
            // What is wrong with the diff is told below.
            let _ = next.on_diff(diff.clone(), connection, &mut Unheard);
        }
        let done = self.depth.on_diff(diff, connection, &mut Outlet { states: &mut self.states, teller, out });
        if self.depth.is_waiting() {
            self.next = None;
        } else if self.depth.sides().runs_low() && self.next.is_none() {
            self.next = Some(self.depth.successor());
        }
        out.note(done)
    }

    pub(super) fn on_snapshot(
        &mut self,
        snapshot: &Snapshot,
        teller: Teller<'_>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let mut outlet = Outlet { states: &mut self.states, teller, out };
        let done = match self.next.as_mut().filter(|_| !self.depth.is_waiting()) {
            None => self.depth.on_snapshot(snapshot, &mut outlet),
            Some(next) => {
                let done = next.on_snapshot(snapshot, &mut Unheard);
                if !next.is_waiting()
                    && let Some(next) = self.next.take()
                {
                    let (before, id) = (self.depth.shown(), next.shown());
                    self.depth = next;
                    // Up to there both have gone through the same diffs.
                    if id > before {
                        let received_at = snapshot.received_at;
                        outlet.on_state(self.depth.sides(), Stamp { id, event_time: None, received_at });
                    }
                }
                done
            }
        };
        out.note(done)
    }

    pub(super) fn on_closed(&mut self, connection: u32, now_ms: i64, teller: Teller<'_>, out: &mut Output) {
        let mut outlet = Outlet { states: &mut self.states, teller, out };
        let done = self.depth.on_closed(connection, now_ms, &mut outlet);
        self.next = None;
        if let Err(reason) = out.note(done) {
            out.skipped.push(reason);
        }
    }

    /// Tells what is due.
    pub(super) fn on_tick(&mut self, teller: Teller<'_>, out: &mut Output) {
        self.states.tell_due(self.depth.sides(), teller, out);
    }

    /// Something else was told of the channel's state: when that the book is not proven has to be told, it is told again.
    pub(super) fn forget_told_lost(&mut self) {
        self.states.told_lost = None;
    }

    /// Tells that the book is not proven when that takes long.
    pub(super) fn tell_lost(&mut self, now_ms: i64, out: &mut Output) {
        if let Some((since, why)) = self.depth.lost()
            && self.states.told_lost.is_none()
            && now_ms.saturating_sub(since) > RESYNC_TOLD_MS
        {
            self.states.told_lost = Some(why);
            let channel = self.states.channel.clone();
            out.updates.push(Update::status(channel, ChannelState::Resyncing, since, why.as_str(), now_ms));
        }
    }

    /// Whether the book changes and is not there.
    pub(super) fn is_to_come(&self) -> bool {
        self.depth.is_waiting() && self.depth.has_diffs()
    }

    /// Whether a snapshot is to be asked for now; `newest` is the newest connection.
    pub(super) fn asks(&mut self, now_ms: i64, newest: u32) -> bool {
        self.depth.asks(now_ms, newest) || self.next.as_mut().is_some_and(|next| next.asks(now_ms, newest))
    }

    /// Tells what waits, due or not.
    pub(super) fn tell_waiting(&mut self, teller: Teller<'_>, out: &mut Output) {
        self.states.tell(self.depth.sides(), teller, out);
    }

    /// Tells the book where it is proven, for nobody may have heard it.
    pub(super) fn tell_again(&mut self, teller: Teller<'_>, out: &mut Output) {
        if !self.depth.is_waiting() {
            self.states.waits = self.states.waits.or(self.states.told);
            self.tell_waiting(teller, out);
        }
    }
}

/// Nobody is told of the states of a book that is still being built.
struct Unheard;

impl Watcher for Unheard {
    fn on_state(&mut self, _sides: &Sides, _stamp: Stamp) {}

    fn may_lose(&mut self, _sides: &Sides) {}
}

impl Watcher for Outlet<'_> {
    fn on_state(&mut self, sides: &Sides, stamp: Stamp) {
        let Self { states, teller, out } = self;
        if let Some(why) = states.told_lost.take() {
            let (channel, now) = (states.channel.clone(), stamp.received_at);
            out.updates.push(Update::status(channel, ChannelState::Up, now, why.as_str(), now));
        }
        states.waits = Some(stamp);
        states.tell_due(sides, *teller, out);
    }

    /// Tells the state early, and leaves it to the throttle.
    fn may_lose(&mut self, sides: &Sides) {
        self.states.tell(sides, self.teller, self.out);
    }
}

impl States {
    fn tell_due(&mut self, sides: &Sides, teller: Teller<'_>, out: &mut Output) {
        if self.waits.is_some() && self.pace.is_due(teller.paced_ms) {
            self.pace.note(Kind::Book, teller.paced_ms);
            self.tell(sides, teller, out);
        }
    }

    fn tell(&mut self, sides: &Sides, teller: Teller<'_>, out: &mut Output) {
        let Some(stamp) = self.waits.take() else { return };
        self.told = Some(stamp);
        let (ts, provenance) = teller.placed(stamp.event_time, stamp.received_at);
        let book = Book {
            symbol: teller.common.to_owned(),
            bids: sides.best_bids(),
            asks: sides.best_asks(),
            venue_seq: stamp.id.to_string(),
            provenance,
        };
        out.updates.push(Update::new(&self.channel, ts, Payload::Book(book)));
    }
}
