//! All instruments of the feed.

mod messages;

use std::collections::BTreeMap;
use std::sync::Arc;

use akis_connectors::bist::HalfDays;
use akis_connectors::bist::itch::{OrderKey, order_of};
use akis_connectors::{Part, Request};
use akis_model::{Channel, ChannelState, Kind, TimeSource};

use super::calendar::{Hours, due_after};
use super::catch_up::CatchUp;
use super::clock::{Clock, Moment};
use super::instrument::{Instrument, gap_status};
use super::names;
use super::table::Table;
use super::wanted::Wanted;
use crate::mapper::{Output, RESYNC_TOLD_MS, Reason, Resync};
use crate::update::BELIEVED_AHEAD_MS;

/// So many messages are looked ahead: more do not fit into a packet.
const FORESEEN: usize = 64;

/// So long after its end a candle is closed by this machine's clock, when no message tells the time.
const GRACE_MS: i64 = 1_000;

/// A recording of a day that was played faster than it passes runs ahead of the clock, by a day at most.
const RECORDED_AHEAD_MS: i64 = 24 * 3_600_000;

/// Whether what a message says is news, or has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Trades and candles are told.
    News,
    /// Only the state is brought up to date.
    State,
}

/// One message and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) sequence: u64,
    pub(super) bytes: &'a [u8],
    pub(super) received_at: i64,
    pub(super) telling: Telling,
}

/// All instruments of the feed.
#[derive(Debug, Default)]
pub(super) struct Market {
    /// Every symbol of the feed is let in.
    any: bool,
    /// Of every symbol those of this part; `None`: all.
    part: Option<Part>,
    /// Those that are let in, as channels show them.
    admitted: Vec<String>,
    wanted: Wanted,
    half_days: Arc<HalfDays>,
    /// What comes was recorded, perhaps of a day that was played faster than it passed.
    is_recorded: bool,
    /// Nothing has been missed since the day began.
    is_whole: bool,
    /// Messages are missing that no snapshot has made up for: of an instrument that comes now orders may be among them.
    lacks_orders: bool,
    /// The day's last message has come.
    is_over: bool,
    /// Some candles wait for the next second.
    gave_up_candles: bool,
    clock: Clock,
    pub(super) catch_up: CatchUp,
    instruments: Vec<Instrument>,
    by_symbol: BTreeMap<String, u16>,
    /// Since when symbols that are let in may be there unseen; `None`: they are not, or that was told.
    unmet_since: Option<i64>,
    /// Those of which that was told, each with the channels on which it was.
    unmet: BTreeMap<String, Vec<Channel>>,
    /// The books of the day. `None`: of an instrument that nobody asked for, or that has another book by now.
    books: Table<u32, Option<u16>, 7>,
    /// Orders in all books.
    orders: usize,
    /// A throttle stands behind: what it would not let through is held back.
    is_paced: bool,
    /// Those that have news, in the order of their first.
    changed: Vec<usize>,
    is_changed: Vec<bool>,
    /// Those that hold something back, in the order of their first.
    held: Vec<usize>,
    is_held: Vec<bool>,
    /// No open candle ends before this moment of the venue's clock.
    next_end: i64,
    /// A book does not fit any more, so a snapshot is needed.
    needs_snapshot: bool,
    /// A book may be one that is not trusted.
    has_distrusted: bool,
}

impl Market {
    pub(super) fn admit(&mut self, symbols: Option<&[String]>, kinds: &[Kind]) {
        self.wanted = Wanted::new(kinds);
        let Some(symbols) = symbols else {
            self.any = true;
            return;
        };
        self.any |= symbols.iter().any(|symbol| symbol == "*");
        let shown = symbols.iter().filter(|symbol| *symbol != "*").filter_map(|symbol| names::shown(symbol));
        for symbol in shown {
            if !self.admitted.contains(&symbol) {
                self.admitted.push(symbol);
            }
        }
    }

    /// See [`crate::mapper::Mapper::take_part`].
    pub(super) fn take_part(&mut self, part: Part) {
        self.part = Some(part);
    }

    /// Whether a symbol, as channels show it, was asked for.
    fn is_admitted(&self, symbol: &str) -> bool {
        if self.any {
            self.part.is_none_or(|part| part.has(symbol))
        } else {
            self.admitted.iter().any(|admitted| admitted == symbol)
        }
    }

    /// The channels of those that were let in by name.
    pub(super) fn channels(&self) -> Vec<Channel> {
        self.admitted.iter().flat_map(|symbol| self.channels_of(symbol)).collect()
    }

    fn channels_of(&self, symbol: &str) -> Vec<Channel> {
        let instrument = Instrument::new(symbol.to_owned(), Hours::Other, self.clock.at(0, 0));
        instrument.map_or_else(Vec::new, |instrument| instrument.channels(&self.wanted))
    }

    /// See [`crate::mapper::Mapper::pace`].
    pub(super) fn pace(&mut self) {
        self.is_paced = true;
    }

    pub(super) fn set_recorded(&mut self) {
        self.is_recorded = true;
        self.catch_up = CatchUp::Recorded;
    }

    /// See [`crate::mapper::Mapper::believed_ahead_ms`].
    pub(super) fn believed_ahead_ms(&self) -> i64 {
        if self.is_recorded { RECORDED_AHEAD_MS } else { BELIEVED_AHEAD_MS }
    }

    /// When the next session is due after one that ended then.
    pub(super) fn due_after(&self, ended_at: i64) -> i64 {
        due_after(ended_at, &self.half_days)
    }

    /// Whether the instrument of a channel rests.
    pub(super) fn rests(&self, channel: &Channel) -> bool {
        let segment = channel.segments().nth(1).unwrap_or_default();
        let at = self.by_symbol.get(segment).copied().map(usize::from);
        // Few symbols are spelled otherwise in channels.
        let spelled = || self.instruments.iter().position(|instrument| names::segment(&instrument.symbol) == segment);
        at.or_else(spelled).is_none_or(|at| self.instruments[at].rests())
    }

    pub(super) fn set_half_days(&mut self, half_days: HalfDays) {
        self.half_days = Arc::new(half_days);
    }

    /// Reads the places in memory that these messages will need: together, where otherwise each would be waited for alone.
    pub(super) fn foresee<'a>(&self, messages: impl Iterator<Item = &'a [u8]>) {
        let line_of = |order: OrderKey| {
            let at = self.books.get(order.book).flatten()?;
            self.instruments[usize::from(at)].orders.line_of(order.side, order.id)
        };
        // First where they are, and then all of them in a few instructions: a core waits for many at once only when they are close.
        let mut lines = [None; FORESEEN];
        for (place, line) in lines.iter_mut().zip(messages.filter_map(order_of).map(line_of)) {
            *place = line;
        }
        let touched = lines.iter().flatten().map(|line| line.touch()).fold(0, u8::wrapping_add);
        std::hint::black_box(touched);
    }

    /// The instrument of a book; `None` when nobody asked for it.
    #[inline]
    fn at(&self, book: u32) -> Result<Option<usize>, Reason> {
        self.books.get(book).map(|at| at.map(usize::from)).ok_or(Reason::UnknownSymbol)
    }

    /// The same, and takes note of the message there.
    #[inline]
    fn note(&mut self, book: u32, ns: u32, entry: Entry<'_>) -> Result<Option<usize>, Reason> {
        let at = self.at(book)?;
        if let Some(at) = at {
            self.instruments[at].note(entry.sequence, self.clock.at(ns, entry.received_at));
        }
        Ok(at)
    }

    #[inline]
    fn mark(&mut self, at: usize) {
        if !std::mem::replace(&mut self.is_changed[at], true) {
            self.changed.push(at);
        }
    }

    /// Tells what has changed since this was called last, unless it is held back.
    pub(super) fn tell_news(&mut self, now_ms: i64, out: &mut Output) {
        let paced_ms = self.is_paced.then_some(now_ms);
        for at in self.changed.drain(..) {
            self.is_changed[at] = false;
            let holds = self.instruments[at].tell_news(paced_ms, &self.wanted, out);
            if holds && !std::mem::replace(&mut self.is_held[at], true) {
                self.held.push(at);
            }
        }
    }

    /// The same, and tells what is held back and is due.
    pub(super) fn tell_held(&mut self, now_ms: i64, out: &mut Output) {
        for at in std::mem::take(&mut self.held) {
            self.is_held[at] = false;
            self.mark(at);
        }
        self.tell_news(now_ms, out);
    }

    /// See [`crate::mapper::Mapper::backfill`].
    pub(super) fn tell_again(&mut self, now_ms: i64, out: &mut Output) {
        let from = out.updates.len();
        for at in 0..self.instruments.len() {
            self.instruments[at].tell_again(now_ms, &self.wanted, out);
            self.mark(at);
        }
        self.has_distrusted = true;
        tell_all(self.unmet.values(), ChannelState::Resyncing, now_ms, out);
        self.tell_held(now_ms, out);
        out.mark_again(from);
    }

    fn distrust(&mut self, at: usize, why: Resync, received_at: i64, out: &mut Output) {
        let instrument = &mut self.instruments[at];
        if !instrument.is_proven() {
            return;
        }
        self.orders -= instrument.orders.len();
        instrument.distrust(why, received_at);
        out.resyncs.push(why);
        (self.needs_snapshot, self.has_distrusted) = (true, true);
    }

    /// Whether a book stopped fitting since this was asked last.
    pub(super) fn takes_snapshot(&mut self) -> bool {
        std::mem::take(&mut self.needs_snapshot)
    }

    /// Messages are missing: no book can be trusted, and trades may be lost.
    pub(super) fn lose_messages(&mut self, received_at: i64, out: &mut Output) {
        self.clock.forget_second();
        self.gave_up_candles = true;
        for at in 0..self.instruments.len() {
            self.distrust(at, Resync::Gap, received_at, out);
            self.instruments[at].lose_messages();
            self.instruments[at].give_up_candles(received_at, &self.wanted, out);
        }
        (self.needs_snapshot, self.is_whole, self.lacks_orders) = (false, false, true);
        self.unmet_since.get_or_insert(received_at);
    }

    /// Tells that nothing is known of symbols that may be there unseen.
    fn tell_unmet(&mut self, now_ms: i64, out: &mut Output) {
        let is_known = |symbol: &&String| self.by_symbol.contains_key(*symbol);
        let never_met = self.admitted.iter().filter(|symbol| !is_known(symbol));
        let never_met = never_met.map(|symbol| (symbol.clone(), self.channels_of(symbol)));
        // What books and candles of those of a day before lack they tell themselves.
        let not_today = self.instruments.iter().filter(|instrument| instrument.number.is_none()).map(|instrument| {
            let mut channels = instrument.channels(&self.wanted);
            channels.retain(|channel| !matches!(channel.kind(), Kind::Book | Kind::Candles));
            (instrument.symbol.clone(), channels)
        });
        let mut unmet: BTreeMap<_, _> = never_met.chain(not_today).collect();
        unmet.retain(|symbol, _| !self.unmet.contains_key(symbol));
        tell_all(unmet.values(), ChannelState::Resyncing, now_ms, out);
        self.unmet.append(&mut unmet);
    }

    /// An instrument has come of which that may have been told. What its candles lack it tells itself.
    fn meet(&mut self, at: usize, now_ms: i64, out: &mut Output) {
        let Some(mut channels) = self.unmet.remove(&self.instruments[at].symbol) else { return };
        channels.retain(|channel| channel.kind() != Kind::Candles);
        if !self.instruments[at].is_proven() {
            // That it is not was told with the others.
            channels.retain(|channel| channel.kind() != Kind::Book);
            self.instruments[at].distrust_is_told();
        }
        tell_all([&channels], ChannelState::Up, now_ms, out);
    }

    /// All instruments that there are have come.
    fn meet_all(&mut self, now_ms: i64, out: &mut Output) {
        self.unmet_since = None;
        tell_all(std::mem::take(&mut self.unmet).values(), ChannelState::Up, now_ms, out);
    }

    /// Builds every book anew from the messages of a snapshot, which holds all below `next`.
    pub(super) fn load<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a [u8]>,
        next: u64,
        received_at: i64,
        out: &mut Output,
    ) {
        (self.orders, self.lacks_orders) = (0, false);
        for at in 0..self.instruments.len() {
            let instrument = &mut self.instruments[at];
            instrument.orders.clear();
            instrument.prove(received_at, &self.wanted, out);
            instrument.note(next.saturating_sub(1), self.clock.at(0, received_at));
            instrument.book_changed();
            self.mark(at);
        }
        // Its times are those of the orders, and end before the live ones.
        let live = std::mem::take(&mut self.clock);
        let sequence = next.saturating_sub(1);
        for bytes in messages {
            self.apply(Entry { sequence, bytes, received_at, telling: Telling::State }, out);
        }
        self.clock = live;
        self.meet_all(received_at, out);
    }

    /// Tells the states that were not told while only the state was brought up to date.
    pub(super) fn tell_states(&mut self, out: &mut Output) {
        for instrument in &mut self.instruments {
            instrument.tell_state(&self.wanted, out);
        }
    }

    /// Another session's clock is another one.
    pub(super) fn forget_clock(&mut self) {
        self.clock = Clock::default();
    }

    /// See [`crate::mapper::Mapper::on_clock_set`].
    pub(super) fn on_clock_set(&mut self, by_ms: i64) {
        self.clock.on_set(by_ms);
        self.catch_up.on_clock_set(by_ms);
    }

    /// Asks for a snapshot: of all books, whichever is named.
    pub(super) fn ask(&self, out: &mut Output) {
        let unproven = self.instruments.iter().find(|instrument| !instrument.is_proven());
        let symbol = unproven.map(|instrument| &instrument.symbol).or(self.admitted.first());
        out.requests.push(Request::Book { symbol: symbol.cloned().unwrap_or_default() });
    }

    pub(super) fn on_tick(&mut self, now_ms: i64, out: &mut Output) {
        self.catch_up.on_tick(now_ms);
        if self.unmet_since.take_if(|since| now_ms.saturating_sub(*since) > RESYNC_TOLD_MS).is_some() {
            self.tell_unmet(now_ms, out);
        }
        if !std::mem::take(&mut self.has_distrusted) {
            return;
        }
        for at in 0..self.instruments.len() {
            if self.instruments[at].tell_distrust(now_ms, &self.wanted, out) {
                self.mark(at);
            }
            self.has_distrusted |= !self.instruments[at].is_proven();
        }
    }

    /// Nothing was said for a while, and nothing of before is missing: candles whose time is over have all their trades.
    pub(super) fn on_silence(&mut self, received_at: i64, out: &mut Output) {
        self.catch_up.end();
        let ts = self.clock.estimate(received_at).saturating_sub(GRACE_MS);
        self.close_candles(Moment { ts, source: TimeSource::Received, received_at }, out);
    }

    /// Closes what has ended.
    fn close_candles(&mut self, moment: Moment, out: &mut Output) {
        if moment.ts < self.next_end {
            return;
        }
        self.next_end = i64::MAX;
        for instrument in &mut self.instruments {
            instrument.close_candles(moment, false, &self.wanted, out);
            self.next_end = self.next_end.min(instrument.next_end().unwrap_or(i64::MAX));
        }
    }

    /// The day's last message has come.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// The last message has said that the day is over: its candles are.
    fn end_day(&mut self, moment: Moment, out: &mut Output) {
        self.end();
        for instrument in &mut self.instruments {
            instrument.close_candles(moment, true, &self.wanted, out);
        }
    }

    /// Another session begins. Where the one before has no end, its last messages are missing.
    pub(super) fn begin_session(&mut self, received_at: i64, out: &mut Output) {
        if !self.is_over {
            self.lose_messages(received_at, out);
        }
        // Whoever was away when it began is told it from its first message.
        self.catch_up.begin();
        self.begin_day(received_at, out);
    }

    /// Another day begins: of the one before only channels and their candles are left, which its first second closes.
    fn begin_day(&mut self, received_at: i64, out: &mut Output) {
        self.meet_all(received_at, out);
        self.books = Table::default();
        (self.orders, self.lacks_orders) = (0, false);
        (self.needs_snapshot, self.is_whole, self.is_over) = (false, true, false);
        for at in 0..self.instruments.len() {
            self.instruments[at].begin_day(received_at);
            self.instruments[at].prove(received_at, &self.wanted, out);
            self.mark(at);
        }
    }
}

fn tell_all<'a>(
    channels: impl IntoIterator<Item = &'a Vec<Channel>>,
    state: ChannelState,
    now_ms: i64,
    out: &mut Output,
) {
    let channels = channels.into_iter().flatten();
    out.updates.extend(channels.map(|channel| gap_status(channel, state, now_ms)));
}
