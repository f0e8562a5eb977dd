//! The candles of one pair: the venue's own minutes, from `428` or REST, and what is rolled up from them.
//!
//! `428` tells of the running candle only, and never that it is closed: it is when the next one begins, or when its time
//! is over by the venue's clock and all that was sent until then has been read. When frames may have been missed, REST tells what
//! the minutes were; until then only those are closed whose end one connection has seen. Where no `428` comes at all, minutes are
//! built from the trades instead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use akis_model::DecimalError;

use super::instrument::Origin;
use crate::candles::{Bar, Calendar, Interval, Minutes, RollUp, Shown, Trade, Utc};
use crate::mapper::Reason;

/// The candles of a minute, as the venue calls them.
pub(super) const MINUTE: &str = "1";

/// How many minutes are asked for: as many as are kept, and always the whole day so far.
pub(super) const BACKFILL: u32 = 1_500;

/// So long after its end a minute is closed when nothing more is said of it: trades are told within a second.
pub(super) const GRACE_MS: i64 = 5_000;

/// After so long minutes are asked for again.
const ASK_AGAIN_MS: i64 = 60_000;

/// After so long without an answer what was missed stays so until one comes, and the next minute begins anew.
const GIVE_UP_MS: i64 = 90_000;

/// So many minutes that end while an answer is awaited are remembered: more than the time between a call and its answer.
const MOST_OWN: usize = 16;

/// Most minutes taken from one reply.
const MOST_ROWS: usize = 10_000;

/// What is known of the candles.
#[derive(Debug)]
pub(super) struct Candles {
    running: Option<Running>,
    /// The end of the last minute that was told closed.
    settled_until: i64,
    /// Minutes from `settled_until` on may have been missed.
    hole: bool,
    /// The minutes of the past are wanted, and are asked for while something flows.
    wanted: bool,
    /// Since when, and when next, they are asked for; `None`: at once.
    asking_since: Option<i64>,
    ask_at: i64,
    /// The last minutes that ended while they were wanted: the answer may have been made before.
    own: VecDeque<(i64, Bar)>,
    /// Frames of the pair come.
    flows: bool,
    /// The connections that would have told of every change since.
    carriers: BTreeSet<u32>,
    roll_up: RollUp<Utc>,
    /// Whether the venue tells of candles.
    speaks: bool,
    from_trades: Minutes<Utc>,
    /// Every trade after this moment of the venue's is known; `None` before the first one.
    trades_since: Option<i64>,
    /// The two largest known differences of the venue's clock to ours, the largest first: what comes late makes them
    /// smaller.
    ahead_ms: [Option<i64>; 2],
    /// That of the last trade, when it was far below both.
    fallen_ms: Option<i64>,
}

/// The minute that is running.
#[derive(Debug, Clone, Copy)]
struct Running {
    open_time: i64,
    bar: Bar,
    /// The connection that told of it last; `None` when none did.
    connection: Option<u32>,
    /// All connections since then have ended: it may have gone on unseen.
    is_left: bool,
}

impl Running {
    fn new(open_time: i64, bar: Bar, connection: Option<u32>) -> Self {
        Self { open_time, bar, connection, is_left: false }
    }
}

impl Default for Candles {
    fn default() -> Self {
        Self {
            running: None,
            settled_until: 0,
            hole: true,
            wanted: true,
            asking_since: None,
            ask_at: 0,
            own: VecDeque::new(),
            flows: false,
            carriers: BTreeSet::new(),
            roll_up: RollUp::new(Utc),
            speaks: false,
            from_trades: Minutes::new(Utc),
            trades_since: None,
            ahead_ms: [None; 2],
            fallen_ms: None,
        }
    }
}

impl Candles {
    /// Takes the running minute of a `428`; what it changes is added to `out`.
    pub(super) fn on_running(
        &mut self,
        open_time: i64,
        bar: Bar,
        at: Origin,
        out: &mut Vec<Shown>,
    ) -> Result<(), Reason> {
        if open_time.rem_euclid(60_000) != 0 {
            return Err(Reason::OutOfRange);
        }
        self.speaks = true;
        if open_time < self.settled_until {
            return Err(Reason::Stale);
        }
        if self.running.is_some_and(|before| open_time < before.open_time) {
            return Err(Reason::Stale);
        }
        let connection = Some(at.connection);
        match self.running.replace(Running::new(open_time, bar, connection)) {
            Some(before) if open_time == before.open_time && bar == before.bar => return Err(Reason::Duplicate),
            Some(before) if open_time > before.open_time => {
                // A frame has the whole of its minute, so the last one before the next minute's is how it ended. Another
                // connection may not have come to see that one.
                let is_known = !self.hole || before.connection == connection;
                self.give_up(at.received_at);
                if is_known {
                    self.settle(before.open_time, &before.bar, out).map_err(range)?;
                }
            }
            Some(_) | None => {}
        }
        self.tell(open_time, &bar, false, out).map_err(range)
    }

    /// Takes a trade. Without candles of the venue's, what it changes is added to `out`.
    pub(super) fn on_trade(&mut self, trade: &Trade, missing: u64, out: &mut Vec<Shown>) -> Result<(), Reason> {
        if missing > 0 {
            self.trades_since = None;
        }
        let since = *self.trades_since.get_or_insert(trade.time);
        if self.speaks {
            return Ok(());
        }
        let mut shown = Vec::new();
        self.from_trades.take(trade, &mut shown).map_err(range)?;
        self.take_built(since, &shown, out)
    }

    /// Every trade after this moment of the venue's will come by itself.
    pub(super) fn on_trades_known_until(&mut self, time: i64) {
        self.trades_since.get_or_insert(time);
    }

    /// Takes note of a time of the venue's that was read just now.
    pub(super) fn on_venue_time(&mut self, time: i64, received_at: i64) {
        let ahead = time.saturating_sub(received_at);
        let [largest, second] = self.ahead_ms;
        let has_fallen = second.is_some_and(|second| ahead < second.saturating_sub(GRACE_MS));
        let before = std::mem::replace(&mut self.fallen_ms, has_fallen.then_some(ahead));
        let mut known = match (has_fallen, before) {
            // Our clock was set forward, or what comes is late: either way no minute is over yet by what was known.
            (true, Some(before)) => [Some(ahead), Some(before), None],
            (true, None) => return,
            (false, _) => [Some(ahead), largest, second],
        };
        known.sort_unstable();
        self.ahead_ms = [known[2], known[1]];
    }

    /// Takes the minutes of a reply, in order. Those that are over, and the longer candles that are, are added to
    /// `past`; what runs is added to `out`. The last minute of the reply may be running still.
    pub(super) fn on_history(
        &mut self,
        minutes: &[(i64, Bar)],
        past: &mut Vec<Shown>,
        out: &mut Vec<Shown>,
    ) -> Result<(), Reason> {
        if minutes.len() > MOST_ROWS || minutes.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Reason::BadShape);
        }
        // While nothing flows the hole goes on; what it is then closed with is asked for when something does.
        if !self.wanted || !self.flows {
            return Err(Reason::UnusedSnapshot);
        }
        (self.hole, self.wanted) = (false, false);
        // From the beginning, so that each longer candle is known from its own.
        self.roll_up = RollUp::new(Utc);
        let first = minutes.first().map(|minute| minute.0);
        let own = std::mem::take(&mut self.own).into_iter().filter(|own| Some(own.0) >= first);
        let known: BTreeMap<i64, Bar> = minutes.iter().copied().chain(own).collect();
        let last = known.last_key_value().map(|(&open_time, _)| open_time);
        let newest = last.max(self.running.map(|running| running.open_time));
        let told_until = self.settled_until;
        let is_over = |open_time: i64| Some(open_time) < newest || open_time < told_until;
        for (open_time, bar) in known.iter().filter(|minute| is_over(*minute.0)) {
            self.settle(*open_time, bar, past).map_err(range)?;
        }
        past.retain(|shown| shown.closed);
        self.settled_until = self.settled_until.max(told_until);
        // What the socket says of a minute is newer than what REST says, unless it was said before the hole.
        let socket = self.running.filter(|running| !running.is_left);
        let runs = |minute: &Running| Some(minute.open_time) == newest && minute.open_time >= self.settled_until;
        let rest = known.last_key_value().map(|(&open_time, &bar)| Running::new(open_time, bar, None));
        self.running = [socket, rest].into_iter().flatten().find(runs);
        let told = match self.running {
            Some(Running { open_time, bar, .. }) => self.tell(open_time, &bar, false, out).map_err(range),
            None => Ok(()),
        };
        if self.carriers.is_empty() {
            // Nobody would have told of what came since. Once somebody does, it is asked for again.
            (self.hole, self.wanted, self.ask_at) = (true, true, i64::MAX);
        }
        told
    }

    /// The minutes of the past are wanted, whatever is known; what is known stays so.
    pub(super) fn backfill(&mut self) {
        (self.wanted, self.asking_since) = (true, None);
    }

    /// Frames of the pair come. A `carrier` has been asked for candles before it sent any such frame.
    pub(super) fn on_flow(&mut self, carrier: Option<u32>) {
        self.flows = true;
        if carrier.is_some() && self.carriers.is_empty() {
            // An answer to what was asked before may lack what came before it was joined.
            self.asking_since = None;
        }
        self.carriers.extend(carrier);
    }

    /// A connection ended: without another one that carries the pair, frames may be missed.
    pub(super) fn on_closed(&mut self, connection: u32) {
        self.carriers.remove(&connection);
        if !self.carriers.is_empty() {
            return;
        }
        (self.hole, self.wanted, self.asking_since) = (true, true, None);
        (self.flows, self.speaks) = (false, false);
        self.running.iter_mut().for_each(|running| running.is_left = true);
        (self.trades_since, self.ahead_ms, self.fallen_ms) = (None, [None; 2], None);
        self.from_trades = Minutes::new(Utc);
    }

    /// Takes note of the time; gives back whether minutes are to be asked for. What is over is added to `out`: all that the venue
    /// sent until `read_until` has been read, and its clock is `clock_offset_ms` ahead of ours as far as that was measured.
    pub(super) fn on_tick(
        &mut self,
        now_ms: i64,
        read_until: Option<i64>,
        clock_offset_ms: Option<i64>,
        out: &mut Vec<Shown>,
    ) -> bool {
        if let (false, Some(read_until), Some(ahead_ms)) = (self.hole, read_until, self.ahead_ms(clock_offset_ms)) {
            self.close_until(read_until.saturating_add(ahead_ms), out);
        }
        if !self.wanted || !self.flows || (self.asking_since.is_some() && now_ms < self.ask_at) {
            return false;
        }
        self.asking_since.get_or_insert(now_ms);
        self.ask_at = now_ms.saturating_add(ASK_AGAIN_MS);
        true
    }

    /// Closes what is over at this moment of the venue's.
    fn close_until(&mut self, venue_ms: i64, out: &mut Vec<Shown>) {
        if let Some(Running { open_time, bar, .. }) = self.running
            && Utc.span(Interval::M1, open_time).is_some_and(|span| span.end <= venue_ms)
        {
            self.running = None;
            // A volume beyond all digits ends only the longer candles that cannot hold it.
            let _ = self.settle(open_time, &bar, out);
        }
        self.roll_up.on_time(venue_ms, out);
        if let Some(since) = self.trades_since.filter(|_| !self.speaks) {
            let mut shown = Vec::new();
            self.from_trades.on_time(venue_ms, &mut shown);
            // As above.
            let _ = self.take_built(since, &shown, out);
        }
    }

    /// How far the venue's clock is ahead of ours, for what must not be too early: one trade may have a time that is wrong,
    /// and when our clock is behind by an unknown time there is no hurry.
    fn ahead_ms(&self, clock_offset_ms: Option<i64>) -> Option<i64> {
        let [largest, second] = self.ahead_ms;
        let ahead_ms = second.or(largest).or(clock_offset_ms)?;
        Some(ahead_ms.min(clock_offset_ms.unwrap_or_default().max(0)))
    }

    /// Ends the wait for an answer that does not come.
    fn give_up(&mut self, now_ms: i64) {
        if self.hole && self.asking_since.is_some_and(|since| now_ms.saturating_sub(since) > GIVE_UP_MS) {
            self.hole = false;
            self.roll_up = RollUp::new(Utc);
        }
    }

    /// Takes minutes that were built from trades, those that are known from their beginning.
    fn take_built(&mut self, since: i64, shown: &[Shown], out: &mut Vec<Shown>) -> Result<(), Reason> {
        for minute in shown {
            let open_time = minute.span.open_time;
            if open_time <= since || open_time < self.settled_until {
                continue;
            }
            if minute.closed && !self.hole {
                self.running = None;
                self.settle(open_time, &minute.bar, out).map_err(range)?;
            } else if !minute.closed {
                // Another trade of the minute before would have come before this one.
                if let (false, Some(before)) = (self.hole, self.running.filter(|before| before.open_time < open_time)) {
                    self.settle(before.open_time, &before.bar, out).map_err(range)?;
                }
                self.running = Some(Running::new(open_time, minute.bar, None));
                self.tell(open_time, &minute.bar, false, out).map_err(range)?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, open_time: i64, bar: &Bar, out: &mut Vec<Shown>) -> Result<(), DecimalError> {
        self.settled_until = open_time.saturating_add(60_000);
        if self.wanted {
            if self.own.len() == MOST_OWN {
                self.own.pop_front();
            }
            self.own.push_back((open_time, *bar));
        }
        self.tell(open_time, bar, true, out)
    }

    fn tell(&mut self, open_time: i64, bar: &Bar, closed: bool, out: &mut Vec<Shown>) -> Result<(), DecimalError> {
        let Some(span) = Utc.span(Interval::M1, open_time) else { return Ok(()) };
        out.push(Shown { interval: Interval::M1, span, bar: *bar, closed });
        // While minutes may be missing, nothing can be rolled up from them.
        if self.hole { Ok(()) } else { self.roll_up.take(open_time, bar, closed, out) }
    }
}

fn range(_: DecimalError) -> Reason {
    Reason::OutOfRange
}
