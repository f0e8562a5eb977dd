//! The exchange: instruments, orders that are made up, and what is told of them. Plain and synchronous; the same
//! seed and plans give the same messages, however its clock is advanced.

use std::ops::Range;

use fastrand::Rng;

use super::day::{CONTINUOUS, HALTED, MATCHING, Phase, Plan, Plans};
use super::listing::Listing;
use super::tape::Tape;
use crate::bist::itch::{EndOfSnapshot, ExecutedAtPrice, Message, Price, Seconds, Side, SystemEvent, Trade};

const SECOND: u64 = 1_000_000_000;

/// What instruments cost when they are made, in thousandths of a lira.
const PRICES: Range<i32> = 8_000..400_000;

/// One day of the exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) rng: Rng,
    pub(super) listings: Vec<Listing>,
    phase: Phase,
    /// What is planned, the next first: nanoseconds since the epoch.
    plans: std::vec::IntoIter<(u64, Plan)>,
    planned: Option<(u64, Plan)>,
    /// When somebody does something next, and how long it takes until it happens again.
    step_at: u64,
    step_every: u64,
    pub(super) steps: u64,
    pub(super) match_id: u64,
    /// The second that was told last.
    second: u64,
    /// How far the seconds that are told are off.
    clock_skew_ms: i64,
    pub(super) now: u64,
    /// Whether the last message of the day has been told.
    over: bool,
}

impl Exchange {
    /// A day that begins at `start` (nanoseconds since the epoch) with something happening `step_every` nanoseconds.
    pub(super) fn new(symbols: &[String], seed: u64, start: u64, step_every: u64, plans: &Plans) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut listings: Vec<Listing> = symbols
            .iter()
            .enumerate()
            .map(|(number, symbol)| Listing::new(number, symbol.clone(), rng.i32(PRICES)))
            .collect();
        // One of several comes in the middle of the day.
        if let [_, .., last] = listings.as_mut_slice() {
            last.listed = false;
        }
        let plans: Vec<(u64, Plan)> = plans
            .iter()
            .map(|(after, plan)| (start + u64::try_from(after.as_nanos()).unwrap_or(u64::MAX), *plan))
            .collect();
        let mut plans = plans.into_iter();
        let planned = plans.next();
        Self {
            rng,
            listings,
            phase: Phase::End,
            plans,
            planned,
            step_at: start,
            step_every: step_every.max(1),
            steps: 0,
            match_id: 0,
            second: 0,
            clock_skew_ms: 0,
            now: start,
            over: false,
        }
    }

    /// Whether the day is over.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Lets everything happen until `now`, and tells it to the tape.
    pub(super) fn advance(&mut self, now: u64, tape: &mut Tape) {
        while !self.over {
            let planned_at = self.planned.map_or(u64::MAX, |(at, _)| at);
            let next = planned_at.min(self.step_at);
            if next > now {
                return;
            }
            self.now = next;
            if planned_at == next {
                if let Some((_, plan)) = self.planned.take() {
                    self.carry_out(plan, tape);
                }
                self.planned = self.plans.next();
            } else {
                self.step_at += self.step_every;
                self.steps += 1;
                self.step(tape);
            }
        }
    }

    pub(super) fn tell(&mut self, tape: &mut Tape, message: &Message<'_>) {
        let mut bytes = Vec::with_capacity(64);
        self.tell_second(tape);
        message.encode(&mut bytes);
        tape.push(&bytes);
    }

    /// `T` goes before the first message of every second.
    fn tell_second(&mut self, tape: &mut Tape) {
        let second = self.clock() / SECOND;
        if second != self.second {
            self.second = second;
            let mut bytes = Vec::new();
            Message::Seconds(Seconds { second: u32::try_from(second).unwrap_or(u32::MAX) }).encode(&mut bytes);
            tape.push(&bytes);
        }
    }

    pub(super) fn ns(&self) -> u32 {
        u32::try_from(self.clock() % SECOND).unwrap_or_default()
    }

    /// What the exchange's clock shows, nanoseconds since the epoch.
    fn clock(&self) -> u64 {
        self.now.saturating_add_signed(self.clock_skew_ms.saturating_mul(1_000_000))
    }

    /// From now on the clock is off by this much.
    pub(super) fn skew_clock(&mut self, ms: i64) {
        self.clock_skew_ms = ms;
    }

    pub(super) fn clock_skew_ms(&self) -> i64 {
        self.clock_skew_ms
    }

    /// Lists more instruments, now.
    pub(super) fn list(&mut self, symbols: &[String], tape: &mut Tape) {
        for symbol in symbols {
            let (at, price) = (self.listings.len(), self.rng.i32(PRICES));
            self.listings.push(Listing::new(at, symbol.clone(), price));
            self.tell_directory(at, tape);
            self.tell_state(at, self.phase.state(), tape);
        }
    }

    fn carry_out(&mut self, plan: Plan, tape: &mut Tape) {
        match plan {
            Plan::Phase(phase) => self.begin(phase, tape),
            Plan::Halt => self.halt(tape),
            Plan::Resume => self.resume(tape),
            Plan::List => {
                if let Some(at) = self.listings.iter().position(|listing| !listing.listed) {
                    self.listings[at].listed = true;
                    self.listings[at].state = self.phase.state();
                    self.tell_directory(at, tape);
                    self.tell_state(at, self.phase.state(), tape);
                }
                // What is told again is not new.
                self.tell_directory(0, tape);
            }
        }
    }

    /// The instruments that are there.
    fn listed(&self) -> impl Iterator<Item = usize> + use<> {
        let listed: Vec<usize> = (0..self.listings.len()).filter(|&at| self.listings[at].listed).collect();
        listed.into_iter()
    }

    fn begin(&mut self, phase: Phase, tape: &mut Tape) {
        let ns = self.ns();
        if phase == Phase::Opening {
            self.tell(tape, &Message::SystemEvent(SystemEvent { ns, code: b'O' }));
            for at in self.listed() {
                self.tell_directory(at, tape);
            }
        }
        self.phase = phase;
        for at in self.listed() {
            if phase == Phase::AtClose {
                self.hide(at, tape);
                self.listings[at].book.clear();
                self.listings[at].shown = true;
            }
            self.tell_state(at, phase.state(), tape);
            match phase {
                // Its orders are not told of while it is matched, nor until trading goes on.
                Phase::OpeningMatch => {
                    self.hide(at, tape);
                    self.meet_unseen(at, tape);
                }
                Phase::Continuous => self.show(at, tape),
                Phase::ClosingMatch => self.meet_seen(at, tape),
                Phase::Opening
                | Phase::Margin
                | Phase::Closing
                | Phase::ClosingMargin
                | Phase::AtClose
                | Phase::End => {}
            }
        }
        if phase == Phase::End {
            self.tell(tape, &Message::SystemEvent(SystemEvent { ns, code: b'C' }));
            self.over = true;
        }
    }

    fn halt(&mut self, tape: &mut Tape) {
        if self.listings.is_empty() {
            return;
        }
        self.hide(0, tape);
        self.tell_state(0, HALTED, tape);
        self.listings[0].halted = true;
    }

    fn resume(&mut self, tape: &mut Tape) {
        if self.listings.is_empty() {
            return;
        }
        self.listings[0].halted = false;
        self.tell_state(0, MATCHING, tape);
        self.meet_unseen(0, tape);
        self.tell_state(0, CONTINUOUS, tape);
        self.show(0, tape);
    }

    fn tell_directory(&mut self, at: usize, tape: &mut Tape) {
        let listing = self.listings[at].clone();
        for message in listing.directory(self.ns()) {
            self.tell(tape, &message);
        }
    }

    fn tell_state(&mut self, at: usize, state: &'static str, tape: &mut Tape) {
        self.listings[at].state = state;
        let message = self.listings[at].state(self.ns());
        self.tell(tape, &message);
    }

    /// From now on the orders of a book are not told of.
    fn hide(&mut self, at: usize, tape: &mut Tape) {
        let message = self.listings[at].flush(self.ns());
        self.tell(tape, &message);
        self.listings[at].shown = false;
    }

    /// Tells the orders of a book again, market orders excepted: what of them was not matched is gone.
    fn show(&mut self, at: usize, tape: &mut Tape) {
        if self.listings[at].shown {
            return;
        }
        for side in [Side::Buy, Side::Sell] {
            self.listings[at].book.remove_market_orders(side);
            let orders = self.listings[at].book.side(side).to_vec();
            for (order, place) in orders.iter().zip(1..) {
                let message = self.listings[at].add(self.ns(), side, order, place);
                self.tell(tape, &message);
            }
        }
        self.listings[at].shown = true;
    }

    /// A match at one price that shows in trades alone.
    fn meet_unseen(&mut self, at: usize, tape: &mut Tape) {
        let listing = &mut self.listings[at];
        let Some(meeting) = listing.book.meeting(listing.last) else { return };
        let crosses = listing.book.cross(meeting);
        listing.last = meeting.price;
        for cross in crosses {
            self.trade(at, cross.quantity, meeting.price, true, tape);
        }
    }

    /// A match at one price that shows in every order that takes part: the bid's message counts as the trade.
    fn meet_seen(&mut self, at: usize, tape: &mut Tape) {
        let listing = &mut self.listings[at];
        if let Some(meeting) = listing.book.meeting(listing.last) {
            let crosses = listing.book.cross(meeting);
            listing.last = meeting.price;
            for cross in crosses {
                self.match_id += 1;
                for (side, id) in [(Side::Buy, cross.bid), (Side::Sell, cross.ask)] {
                    let message = Message::ExecutedAtPrice(ExecutedAtPrice {
                        ns: self.ns(),
                        order: self.listings[at].key(side, id),
                        quantity: cross.quantity,
                        match_id: self.match_id,
                        combo_group: 0,
                        price: Price(meeting.price),
                        at_cross: true,
                        printable: side == Side::Buy,
                    });
                    self.tell(tape, &message);
                }
            }
        }
        for side in [Side::Buy, Side::Sell] {
            for order in self.listings[at].book.remove_market_orders(side) {
                let message = self.listings[at].delete(self.ns(), side, order.id);
                self.tell(tape, &message);
            }
        }
    }

    /// A trade that no order in the book takes part in, as far as anybody sees.
    pub(super) fn trade(&mut self, at: usize, quantity: u64, price: i32, at_cross: bool, tape: &mut Tape) {
        self.match_id += 1;
        let message = Message::Trade(Trade {
            ns: self.ns(),
            match_id: self.match_id,
            combo_group: 0,
            side: None,
            quantity,
            book: self.listings[at].book_id,
            price: Price(price),
            printable: true,
            at_cross,
        });
        self.tell(tape, &message);
    }

    /// Somebody does something.
    fn step(&mut self, tape: &mut Tape) {
        let listed: Vec<usize> = self.listed().collect();
        let Some(&at) = listed.get(self.rng.usize(..listed.len().max(1))) else { return };
        if self.steps.is_multiple_of(997) {
            self.tell_second(tape);
        }
        let collects = self.listings[at].halted || matches!(self.phase, Phase::Opening | Phase::Closing);
        match self.phase {
            _ if collects => self.collect(at, tape),
            Phase::Continuous => self.deal(at, tape),
            Phase::AtClose => self.deal_at_close(at, tape),
            Phase::Opening
            | Phase::OpeningMatch
            | Phase::Margin
            | Phase::Closing
            | Phase::ClosingMatch
            | Phase::ClosingMargin
            | Phase::End => {}
        }
    }

    /// The state of all books as GLIMPSE tells it: `next` is the number of the first message that is not in it.
    pub(super) fn snapshot(&self, next: u64) -> Vec<Vec<u8>> {
        let ns = self.ns();
        let second = u32::try_from(self.clock() / SECOND).unwrap_or(u32::MAX);
        let listed = self.listings.iter().filter(|listing| listing.listed);
        std::iter::once(Message::Seconds(Seconds { second }))
            .chain(listed.flat_map(|listing| listing.snapshot(ns)))
            .chain(std::iter::once(Message::EndOfSnapshot(EndOfSnapshot { next_sequence: next })))
            .map(|message| {
                let mut bytes = Vec::new();
                message.encode(&mut bytes);
                bytes
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
