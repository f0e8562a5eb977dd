//! What traders do: orders, changes of mind, and the matches that follow.

use super::book::{Meeting, Order, opposite};
use super::exchange::Exchange;
use super::tape::Tape;
use crate::bist::itch::{Equilibrium, Executed, ExecutedAtPrice, Message, Price, Side};

/// How many orders may rest on a side of a book; then one is deleted for each that comes.
const MOST_ORDERS: usize = 60;

/// How many steps of the market lie between two that tell where an auction would meet.
const STEPS_BETWEEN_MEETINGS: u64 = 5;

impl Exchange {
    fn any_side(&mut self) -> Side {
        if self.rng.bool() { Side::Buy } else { Side::Sell }
    }

    /// An order for an auction, which may lie beyond the other side, or the end of one.
    pub(super) fn collect(&mut self, at: usize, tape: &mut Tape) {
        let side = self.any_side();
        if self.rng.u8(..10) == 0 || self.is_full(at, side) {
            self.cancel(at, side, tape);
        } else {
            let price = (self.rng.u8(..20) > 0).then(|| self.near(at, side, -6..12));
            let quantity = self.rng.u64(1..500);
            self.rest(at, side, price, quantity, tape);
        }
        if self.steps.is_multiple_of(STEPS_BETWEEN_MEETINGS) {
            self.tell_meeting(at, tape);
        }
    }

    /// A price so many ticks behind the last one, on the side of the market that it is for.
    fn near(&mut self, at: usize, side: Side, ticks: std::ops::Range<i32>) -> i32 {
        let ticks = self.rng.i32(ticks);
        let listing = &self.listings[at];
        let distance = ticks * listing.tick(listing.last);
        listing.aligned(if side == Side::Buy { listing.last - distance } else { listing.last + distance })
    }

    fn is_full(&self, at: usize, side: Side) -> bool {
        self.listings[at].book.side(side).len() >= MOST_ORDERS
    }

    fn rest(&mut self, at: usize, side: Side, price: Option<i32>, quantity: u64, tape: &mut Tape) {
        let order = self.listings[at].order(side, price, quantity, self.now);
        self.put(at, side, order, tape);
    }

    fn put(&mut self, at: usize, side: Side, order: Order, tape: &mut Tape) {
        let ns = self.ns();
        let listing = &mut self.listings[at];
        let place = listing.book.rest(side, order);
        if listing.shown {
            let message = listing.add(ns, side, &order, place);
            self.tell(tape, &message);
        }
    }

    /// Takes an order out of a book; any but the first one, so that the price stays.
    fn cancel(&mut self, at: usize, side: Side, tape: &mut Tape) -> Option<Order> {
        let count = self.listings[at].book.side(side).len();
        let chosen = if count > 1 { self.rng.usize(1..count) } else { 0 };
        let ns = self.ns();
        let listing = &mut self.listings[at];
        let id = listing.book.side(side).get(chosen)?.id;
        let order = listing.book.remove(side, id)?;
        if listing.shown {
            let message = listing.delete(ns, side, id);
            self.tell(tape, &message);
        }
        Some(order)
    }

    fn tell_meeting(&mut self, at: usize, tape: &mut Tape) {
        let listing = &self.listings[at];
        let meeting = listing.book.meeting(listing.last);
        let best =
            |side| listing.book.best(side).map_or((Price::NONE, 0), |(price, quantity)| (Price(price), quantity));
        let ((best_bid, best_bid_quantity), (best_ask, best_ask_quantity)) = (best(Side::Buy), best(Side::Sell));
        let nothing = Meeting { price: Price::NONE.0, bid_quantity: 0, ask_quantity: 0 };
        let Meeting { price, bid_quantity, ask_quantity } = meeting.unwrap_or(nothing);
        let message = Message::Equilibrium(Equilibrium {
            ns: self.ns(),
            book: listing.book_id,
            bid_quantity,
            ask_quantity,
            price: Price(price),
            best_bid,
            best_ask,
            best_bid_quantity,
            best_ask_quantity,
        });
        self.tell(tape, &message);
    }

    /// What happens in continuous trading.
    pub(super) fn deal(&mut self, at: usize, tape: &mut Tape) {
        let side = self.any_side();
        let quantity = self.rng.u64(1..500);
        match self.rng.u8(..100) {
            _ if self.is_full(at, side) => {
                self.cancel(at, side, tape);
            }
            0..=49 => {
                let price = self.near(at, side, 1..12);
                self.enter(at, side, Some(price), quantity, tape);
            }
            50..=69 => {
                let price = self.near(at, side, -5..1);
                self.enter(at, side, Some(price), quantity, tape);
            }
            70..=77 => self.enter(at, side, None, quantity, tape),
            78..=89 => {
                self.cancel(at, side, tape);
            }
            90..=95 => self.amend(at, side, tape),
            96..=97 => {
                // What was hidden behind the best offer is matched.
                let Some((price, _)) = self.listings[at].book.best(side) else { return };
                self.trade(at, quantity, price, false, tape);
            }
            _ => self.undisclosed(at, side, tape),
        }
    }

    /// An order is matched as far as it can be, and the rest of it waits, unless it takes any price.
    fn enter(&mut self, at: usize, side: Side, price: Option<i32>, quantity: u64, tape: &mut Tape) {
        let (fills, left) = self.listings[at].book.take(side, price, quantity);
        for fill in fills {
            self.match_id += 1;
            self.listings[at].last = fill.price;
            let order = self.listings[at].key(opposite(side), fill.id);
            let (ns, quantity, match_id, combo_group) = (self.ns(), fill.quantity, self.match_id, 0);
            let message = if match_id.is_multiple_of(32) {
                let price = Price(fill.price);
                let (at_cross, printable) = (false, true);
                Message::ExecutedAtPrice(ExecutedAtPrice {
                    ns,
                    order,
                    quantity,
                    match_id,
                    combo_group,
                    price,
                    at_cross,
                    printable,
                })
            } else {
                Message::Executed(Executed { ns, order, quantity, match_id, combo_group })
            };
            self.tell(tape, &message);
        }
        if price.is_some() && left > 0 {
            self.rest(at, side, price, left, tape);
        }
    }

    /// A change is told as the end of an order and a new one with the same id.
    fn amend(&mut self, at: usize, side: Side, tape: &mut Tape) {
        let Some(order) = self.cancel(at, side, tape) else { return };
        let quantity = self.rng.u64(1..500);
        let order = self.listings[at].renewed(Order { quantity, ..order }, self.now);
        self.put(at, side, order, tape);
    }

    /// An order of which nobody is told how much it is for; it does not last.
    fn undisclosed(&mut self, at: usize, side: Side, tape: &mut Tape) {
        let price = self.near(at, side, 5..12);
        let order = self.listings[at].order(side, Some(price), 0, self.now);
        let add = self.listings[at].add(self.ns(), side, &order, 1);
        let delete = self.listings[at].delete(self.ns(), side, order.id);
        self.tell(tape, &add);
        self.tell(tape, &delete);
    }

    /// Orders at the closing price, and no others.
    pub(super) fn deal_at_close(&mut self, at: usize, tape: &mut Tape) {
        let side = self.any_side();
        let quantity = self.rng.u64(1..200);
        let price = self.listings[at].last;
        self.enter(at, side, Some(price), quantity, tape);
    }
}
