//! One channel of one connection: where it is, and what of the log follows from there.

use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::{Joined, LogEvent, Notice, TERM_JUMP, links};
use akis_model::{Kind, Seq};

use super::queue::{Item, Queue};
use crate::run::Run;
use crate::wire::{DropReason, GapReason};

/// How a subscription stands to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A join is under way, or waits to be tried again; live notices are ignored, the join covers them.
    Joining {
        /// The join whose result counts.
        token: u64,
    },
    /// A part of the replay is being written; the next one is joined when it has been. Live notices are ignored.
    Replaying,
    /// Live notices are taken.
    Live,
}

/// What a full queue means now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pressure {
    /// Events that may wait.
    pub(super) max_events: usize,
    /// The socket takes nothing at present. As long as it does, a burst may wait beyond `max_events`: the client has done
    /// nothing wrong, and what waits is bounded in bytes.
    pub(super) is_blocked: bool,
}

/// What taking a notice led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing new, or it waits.
    Taken,
    /// It waits, and events gave way to it.
    Thinned(u64, DropReason),
    /// No room, and nothing here may give way.
    Overflow,
}

impl Outcome {
    /// What taking two notices led to.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Overflow, _) | (_, Self::Overflow) => Self::Overflow,
            (Self::Thinned(one, reason), Self::Thinned(two, _)) => Self::Thinned(one + two, reason),
            (thinned @ Self::Thinned(..), Self::Taken) | (Self::Taken, thinned) => thinned,
        }
    }
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) kind: Kind,
    pub(super) interval: Option<Duration>,
    pub(super) phase: Phase,
    /// The request has been answered; until then nothing of the channel is written.
    pub(super) is_answered: bool,
    /// Whether the session has it in its list of those with something to write.
    pub(super) is_listed: bool,
    /// What the next notice must follow.
    position: Seq,
    /// The last position that was handed out.
    written: Seq,
    /// Everything above it was handed out or waits.
    whole_from: Seq,
    epoch: u64,
    /// What lies before live, as far as it has been joined. Never gives way: more is asked for only when it has been written.
    replay: Queue,
    /// How many more events lie before live than the last join gave.
    unjoined: usize,
    queue: Queue,
}

impl Subscription {
    /// A subscription whose first join is under way.
    pub(super) fn joining(kind: Kind, interval: Option<Duration>, token: u64) -> Self {
        Self {
            kind,
            interval,
            phase: Phase::Joining { token },
            is_answered: false,
            is_listed: false,
            position: Seq::ZERO,
            written: Seq::ZERO,
            whole_from: Seq::ZERO,
            epoch: 0,
            replay: Queue::default(),
            unjoined: 0,
            queue: Queue::default(),
        }
    }

    /// Takes the first part of what lies before live.
    pub(super) fn begin(&mut self, joined: Joined) {
        self.position = joined.position;
        self.written = joined.position;
        self.whole_from = joined.position;
        self.take_joined(joined);
    }

    /// Leaves a part where it is, for as long as too much of the client's other replays waits.
    pub(super) fn put_off(&mut self) {
        self.phase = Phase::Replaying;
    }

    /// Takes a further part. Where the log no longer has what comes next, that is told first.
    pub(super) fn go_on(&mut self, joined: Joined) {
        // What was live before notices were missed comes before what the log has after it.
        self.queue.take().into_iter().for_each(|item| self.replay.push(item));
        // A position of 0 proves nothing, unless the channel begins with what comes: its term is told then.
        let begins =
            self.position == Seq::ZERO && joined.events.first().and_then(|event| event.previous) == Some(Seq::ZERO);
        if !joined.recovered && !begins && joined.position > self.position {
            let (from, to) = (self.position.next(), joined.position);
            self.push_replay(Item::Gap { from, to, reason: GapReason::Trimmed });
            self.position = to;
            self.whole_from = to;
        } else if joined.position < self.position {
            self.push_replay(Item::Restart { seq: joined.position });
            self.position = joined.position;
            self.whole_from = joined.position;
        }
        self.take_joined(joined);
    }

    fn take_joined(&mut self, joined: Joined) {
        self.epoch = joined.epoch;
        self.phase = if joined.live { Phase::Live } else { Phase::Replaying };
        self.unjoined = joined.replayed.saturating_sub(joined.events.len());
        for event in joined.events {
            for item in self.follow(&event).into_iter().flatten() {
                self.push_replay(item);
            }
        }
    }

    fn push_replay(&mut self, item: Item) {
        if self.interval.is_some() && matches!(item, Item::Event(_)) {
            // One event per interval: the newest stands for all of the replay.
            self.replay.skip_events();
        }
        self.replay.push(item);
    }

    /// What is told for an event: nothing when it is not new, what lies before it when that is not just the
    /// position before, and the event itself.
    fn follow(&mut self, event: &Arc<LogEvent>) -> [Option<Item>; 2] {
        if event.seq <= self.position {
            return [None, None];
        }
        let before = self.bridge(event.seq.before(), event.previous);
        self.position = event.seq;
        [before, Some(Item::Event(Arc::clone(event)))]
    }

    /// What is told when the next event follows `to`, which lies at or above the position.
    fn bridge(&mut self, to: Seq, previous: Option<Seq>) -> Option<Item> {
        if to <= self.position {
            return None;
        }
        let from = self.position;
        self.position = to;
        if let Some(previous) = previous
            && links(from, to.next(), Some(previous))
        {
            return Some(Item::Term { seq: to, previous });
        }
        self.whole_from = to;
        // Positions are dense inside a term, so a small hole is known to be a loss. A jump as wide as between terms
        // without proof says nothing about how much was lost.
        let is_known = previous.is_some_and(|previous| previous > from) || to.get() - from.get() < TERM_JUMP;
        let reason = if is_known { GapReason::Lost } else { GapReason::Unproven };
        Some(Item::Gap { from: from.next(), to, reason })
    }

    /// Takes a live notice.
    pub(super) fn on_notice(&mut self, notice: &Notice, pressure: Pressure) -> Outcome {
        if self.phase != Phase::Live {
            return Outcome::Taken;
        }
        match notice {
            Notice::Event(event) => return self.on_event(event, pressure),
            Notice::Marker { seq, previous, .. } => {
                let item = self.bridge(*seq, *previous);
                self.push_told(item);
            }
            Notice::Unproven { since, .. } => self.jump(since.before(), GapReason::Unproven),
            Notice::Rewound { seq, epoch, .. } => self.rewind(*seq, *epoch),
            Notice::Staleness { silent_for, .. } => {
                self.queue.push(Item::Staleness { seq: self.position, silent_for: *silent_for });
            }
            Notice::Malformed { seq, .. } => {
                if *seq > self.position {
                    let before = self.bridge(seq.before(), None);
                    self.push_told(before);
                    self.queue.push(Item::Malformed { seq: *seq });
                    self.position = *seq;
                    self.whole_from = *seq;
                }
            }
        }
        // What is told is never dropped, so its number is bounded here: only a log that is beyond use tells so much.
        if self.queue.len() > 2 * pressure.max_events + 16 { Outcome::Overflow } else { Outcome::Taken }
    }

    fn on_event(&mut self, event: &Arc<LogEvent>, pressure: Pressure) -> Outcome {
        let [before, Some(event)] = self.follow(event) else { return Outcome::Taken };
        self.push_told(before);
        self.push_event(event, pressure)
    }

    /// Takes consecutive live events. When they follow and nothing has to give way, they wait as they are.
    pub(super) fn on_run(&mut self, run: &Arc<Run>, pressure: Pressure) -> Outcome {
        if self.phase != Phase::Live {
            return Outcome::Taken;
        }
        if self.interval.is_none() && !pressure.is_blocked && run.first() == self.position.next() {
            self.position = run.last();
            self.queue.push(Item::Run(Arc::clone(run)));
            return Outcome::Taken;
        }
        run.events().iter().fold(Outcome::Taken, |outcome, event| outcome.and(self.on_event(event, pressure)))
    }

    /// Takes consecutive live events that are written before anything else of the channel. Gives whether they follow and nothing waits.
    pub(super) fn let_pass(&mut self, run: &Run) -> bool {
        let passes = self.phase == Phase::Live
            && run.first() == self.position.next()
            && self.is_answered
            && self.interval.is_none()
            && !self.has_items();
        if passes {
            self.position = run.last();
            self.written = run.last();
        }
        passes
    }

    /// Takes back events that were let pass and have not been written. The newest come first.
    pub(super) fn take_back(&mut self, run: Arc<Run>) {
        self.written = run.first().before();
        self.queue.push_front(Item::Run(run));
    }

    /// Takes the newest of live events; those before it were skipped by agreement.
    pub(super) fn on_newest(&mut self, run: &Arc<Run>) -> Outcome {
        if self.phase == Phase::Live && run.last() > self.position {
            self.position = run.last();
            self.queue.skip_events();
            self.queue.push(Item::Run(Arc::clone(run)));
        }
        Outcome::Taken
    }

    fn push_told(&mut self, item: Option<Item>) {
        match item {
            Some(Item::Gap { from, to, reason }) => self.queue.push_gap(from, to, reason),
            Some(item) => self.queue.push(item),
            None => {}
        }
    }

    fn jump(&mut self, to: Seq, reason: GapReason) {
        if to > self.position {
            self.queue.push_gap(self.position.next(), to, reason);
            self.position = to;
            self.whole_from = to;
        }
    }

    fn rewind(&mut self, seq: Seq, epoch: u64) {
        if epoch <= self.epoch || self.position < seq {
            return;
        }
        self.epoch = epoch;
        self.queue.cut(seq);
        self.position = seq.before();
        self.whole_from = self.position;
        self.queue.push(Item::Restart { seq: self.position });
    }

    fn push_event(&mut self, event: Item, pressure: Pressure) -> Outcome {
        if self.interval.is_some() {
            self.queue.skip_events();
            self.queue.push(event);
            return Outcome::Taken;
        }
        if pressure.is_blocked {
            self.queue.expand();
        }
        let is_full = pressure.is_blocked && self.queue.events() >= pressure.max_events;
        let outcome = match self.kind {
            Kind::Ticker | Kind::Book | Kind::Candles | Kind::Session
                if is_full || (pressure.is_blocked && self.queue.is_conflating()) =>
            {
                Outcome::Thinned(self.queue.conflate(), DropReason::Conflated)
            }
            Kind::Trades if is_full => {
                let mut dropped = 0;
                while self.queue.events() >= pressure.max_events.max(1) && self.queue.drop_oldest() {
                    dropped += 1;
                }
                Outcome::Thinned(dropped, DropReason::Dropped)
            }
            Kind::App if is_full => return Outcome::Overflow,
            _ => Outcome::Taken,
        };
        self.queue.push(event);
        if outcome != Outcome::Taken {
            self.whole_from = self.position.before();
        }
        outcome
    }

    /// Gives way until at most `max_bytes` wait, as far as the kind allows.
    pub(super) fn thin(&mut self, max_bytes: usize) -> Outcome {
        if self.queue.bytes() <= max_bytes {
            return Outcome::Taken;
        }
        let outcome = match self.kind {
            Kind::Ticker | Kind::Book | Kind::Candles | Kind::Session => {
                Outcome::Thinned(self.queue.conflate_to_newest(), DropReason::Conflated)
            }
            Kind::Trades => {
                let mut dropped = 0;
                while self.queue.bytes() > max_bytes && self.queue.drop_oldest() {
                    dropped += 1;
                }
                Outcome::Thinned(dropped, DropReason::Dropped)
            }
            Kind::App => return Outcome::Overflow,
        };
        self.whole_from = self.position.before();
        outcome
    }

    /// Whether something may be written now.
    pub(super) fn is_writable(&self) -> bool {
        self.is_answered && self.has_items() && !self.skips_part()
    }

    /// Whether the part of the replay that is at hand waits for the next one: with an interval the newest event stands for all of it,
    /// and the next part has a newer one.
    fn skips_part(&self) -> bool {
        self.phase != Phase::Live && self.interval.is_some() && !self.replay.is_empty()
    }

    /// Whether something waits to be written.
    pub(super) fn has_items(&self) -> bool {
        !self.replay.is_empty() || !self.queue.is_empty()
    }

    /// The next item to be written.
    pub(super) fn next_item(&mut self) -> Option<Item> {
        if !self.is_writable() {
            return None;
        }
        let item = self.replay.pop().or_else(|| self.queue.pop())?;
        self.written = item.position();
        Some(item)
    }

    /// Whether the part of the replay that was at hand has been written, or is not to be, and the next one is wanted.
    pub(super) fn wants_more(&self) -> bool {
        self.phase == Phase::Replaying && self.is_answered && (self.replay.is_empty() || self.skips_part())
    }

    pub(super) fn position(&self) -> Seq {
        self.position
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    pub(super) fn replay_bytes(&self) -> usize {
        self.replay.bytes()
    }

    /// How many events are still to come before live.
    pub(super) fn replay_events(&self) -> usize {
        let waiting = self.replay.events();
        // With an interval the newest stands for all of them.
        if self.interval.is_some() { waiting } else { waiting + self.unjoined }
    }

    /// The position that the next event to be written follows.
    pub(super) fn told_position(&self) -> Seq {
        match self.replay.front().or_else(|| self.queue.front()) {
            // With an interval, positions were skipped on the way to it.
            Some(Item::Event(event)) if self.interval.is_some() => event.seq.before().max(self.written),
            Some(Item::Run(run)) if self.interval.is_some() => run.first().before().max(self.written),
            _ => self.written,
        }
    }

    /// Whether a client that asks for everything above `after` has it, or will be given it.
    pub(super) fn covers(&self, after: Seq) -> bool {
        self.interval.is_none() && self.whole_from <= after && after <= self.position
    }

    /// Whether live notices are taken.
    pub(super) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Changes the interval of a subscription that goes on.
    pub(super) fn set_interval(&mut self, interval: Option<Duration>) {
        if self.interval.is_some() {
            // Positions were skipped so far; from here on none are, or by the new interval. So only the newest event and what follows it
            // is still told.
            if self.queue.keep_newest() {
                self.replay = Queue::default();
            } else {
                self.replay.keep_newest();
            }
            self.written = self.told_position();
            self.whole_from = self.whole_from.max(self.written);
        }
        self.interval = interval;
    }
}
