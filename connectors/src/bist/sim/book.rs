//! The orders of one instrument and how they match: by price, then time.

use std::cmp::Ordering;

use crate::bist::itch::Side;

/// An order that rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// Unique in its side of the book.
    pub(super) id: u64,
    /// `None`: a market order, which takes any price.
    pub(super) price: Option<i32>,
    /// What is left of it.
    pub(super) quantity: u64,
    /// When it came, in nanoseconds since the epoch.
    pub(super) time: u64,
    /// Decides between orders of the same moment.
    pub(super) sequence: u32,
}

/// A part of an order that was matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    /// The order that rested.
    pub(super) id: u64,
    /// Its price.
    pub(super) price: i32,
    /// How much.
    pub(super) quantity: u64,
}

/// Where an auction would meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meeting {
    /// The one price of all its trades.
    pub(super) price: i32,
    /// Bid at it.
    pub(super) bid_quantity: u64,
    /// Offered at it.
    pub(super) ask_quantity: u64,
}

impl Meeting {
    fn volume(&self) -> u64 {
        self.bid_quantity.min(self.ask_quantity)
    }

    fn surplus(&self) -> u64 {
        self.bid_quantity.abs_diff(self.ask_quantity)
    }
}

/// A trade of an auction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cross {
    /// The bid.
    pub(super) bid: u64,
    /// The offer.
    pub(super) ask: u64,
    /// How much.
    pub(super) quantity: u64,
}

/// Both sides, the first order of each first.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    bids: Vec<Order>,
    asks: Vec<Order>,
}

/// The order of a side: market orders, then the better price, then the earlier one.
fn rank(side: Side, a: &Order, b: &Order) -> Ordering {
    let price = match (a.price, b.price) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) if side == Side::Buy => b.cmp(&a),
        (Some(a), Some(b)) => a.cmp(&b),
    };
    price.then(a.time.cmp(&b.time)).then(a.sequence.cmp(&b.sequence))
}

/// Whether an order of this side and price takes that price.
fn takes(side: Side, limit: Option<i32>, price: i32) -> bool {
    limit.is_none_or(|limit| if side == Side::Buy { limit >= price } else { limit <= price })
}

impl Book {
    pub(super) fn side(&self, side: Side) -> &[Order] {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }

    fn side_mut(&mut self, side: Side) -> &mut Vec<Order> {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// The best price of a side and what is there at it.
    pub(super) fn best(&self, side: Side) -> Option<(i32, u64)> {
        let price = self.side(side).iter().find_map(|order| order.price)?;
        let at = self.side(side).iter().filter(|order| order.price == Some(price));
        Some((price, at.map(|order| order.quantity).sum()))
    }

    /// Puts an order where it belongs, and gives its place among its side's, from 1.
    pub(super) fn rest(&mut self, side: Side, order: Order) -> usize {
        let orders = self.side_mut(side);
        let at = orders.partition_point(|other| rank(side, other, &order) == Ordering::Less);
        orders.insert(at, order);
        at + 1
    }

    pub(super) fn remove(&mut self, side: Side, id: u64) -> Option<Order> {
        let orders = self.side_mut(side);
        let at = orders.iter().position(|order| order.id == id)?;
        Some(orders.remove(at))
    }

    /// Removes all market orders, and gives them.
    pub(super) fn remove_market_orders(&mut self, side: Side) -> Vec<Order> {
        let (market, limit) = self.side(side).iter().copied().partition(|order| order.price.is_none());
        *self.side_mut(side) = limit;
        market
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Matches an order of `side` that comes in against what rests, and gives the fills and what is left of it.
    pub(super) fn take(&mut self, side: Side, limit: Option<i32>, quantity: u64) -> (Vec<Fill>, u64) {
        let (mut fills, mut left) = (Vec::new(), quantity);
        let resting = self.side_mut(opposite(side));
        while left > 0
            && let Some(first) = resting.first_mut()
            && let Some(price) = first.price
            && takes(side, limit, price)
        {
            let quantity = left.min(first.quantity);
            left -= quantity;
            first.quantity -= quantity;
            fills.push(Fill { id: first.id, price, quantity });
            if first.quantity == 0 {
                resting.remove(0);
            }
        }
        (fills, left)
    }

    /// The price at which most is traded; of equal ones that with the smaller surplus, then the nearest to
    /// `reference`. `None` when nothing meets.
    pub(super) fn meeting(&self, reference: i32) -> Option<Meeting> {
        self.bids
            .iter()
            .chain(&self.asks)
            .filter_map(|order| order.price)
            .map(|price| Meeting {
                price,
                bid_quantity: self.willing(Side::Buy, price),
                ask_quantity: self.willing(Side::Sell, price),
            })
            .filter(|meeting| meeting.volume() > 0)
            .min_by_key(|meeting| {
                (
                    std::cmp::Reverse(meeting.volume()),
                    meeting.surplus(),
                    meeting.price.abs_diff(reference),
                    meeting.price,
                )
            })
    }

    /// How much of a side takes the price.
    fn willing(&self, side: Side, price: i32) -> u64 {
        self.side(side).iter().filter(|order| takes(side, order.price, price)).map(|order| order.quantity).sum()
    }

    /// Trades everything that meets at the price, the first orders of both sides first.
    pub(super) fn cross(&mut self, meeting: Meeting) -> Vec<Cross> {
        let (mut left, mut crosses) = (meeting.volume(), Vec::new());
        while left > 0
            && let (Some(bid), Some(ask)) = (self.bids.first_mut(), self.asks.first_mut())
        {
            let quantity = left.min(bid.quantity).min(ask.quantity);
            crosses.push(Cross { bid: bid.id, ask: ask.id, quantity });
            left -= quantity;
            bid.quantity -= quantity;
            ask.quantity -= quantity;
            let (bid_is_done, ask_is_done) = (bid.quantity == 0, ask.quantity == 0);
            if bid_is_done {
                self.bids.remove(0);
            }
            if ask_is_done {
                self.asks.remove(0);
            }
        }
        crosses
    }
}

/// The other side.
pub(super) fn opposite(side: Side) -> Side {
    match side {
        Side::Buy => Side::Sell,
        Side::Sell => Side::Buy,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(id: u64, price: Option<i32>, quantity: u64) -> Order {
        Order { id, price, quantity, time: id, sequence: 1 }
    }

    #[test]
    fn orders_match_by_price_then_time() {
        let mut book = Book::default();
        for (id, price) in [(1, 101), (2, 100), (3, 100), (4, 102)] {
            book.rest(Side::Sell, order(id, Some(price), 10));
        }
        let (fills, left) = book.take(Side::Buy, Some(101), 35);
        assert_eq!(
            fills.iter().map(|fill| (fill.id, fill.price, fill.quantity)).collect::<Vec<_>>(),
            [(2, 100, 10), (3, 100, 10), (1, 101, 10)]
        );
        assert_eq!(left, 5);
        assert_eq!(book.take(Side::Buy, None, 15).1, 5, "a market order takes what there is");
        assert_eq!(book.best(Side::Sell), None);
    }

    #[test]
    fn an_auction_meets_where_most_is_traded() {
        let mut book = Book::default();
        book.rest(Side::Buy, order(1, Some(105), 100));
        book.rest(Side::Buy, order(2, None, 50));
        book.rest(Side::Buy, order(3, Some(101), 100));
        book.rest(Side::Sell, order(1, Some(100), 80));
        book.rest(Side::Sell, order(2, Some(103), 100));
        let meeting = book.meeting(102).unwrap();
        assert_eq!(meeting, Meeting { price: 103, bid_quantity: 150, ask_quantity: 180 });
        let crosses = book.cross(meeting);
        assert_eq!(crosses[0], Cross { bid: 2, ask: 1, quantity: 50 }, "the market order first");
        assert_eq!(crosses.iter().map(|cross| cross.quantity).sum::<u64>(), 150);
        assert_eq!((book.best(Side::Buy), book.best(Side::Sell)), (Some((101, 100)), Some((103, 30))));
        assert_eq!(book.meeting(102), None);
    }

    proptest! {
        #[test]
        fn a_book_that_has_matched_is_not_crossed(
            orders in proptest::collection::vec((any::<bool>(), proptest::option::weighted(0.9, 90i32..110), 1u64..50), 0..60),
        ) {
            let mut book = Book::default();
            for (id, (buys, price, quantity)) in (1u64..).zip(&orders) {
                book.rest(if *buys { Side::Buy } else { Side::Sell }, order(id, *price, *quantity));
            }
            if let Some(meeting) = book.meeting(100) {
                let traded: u64 = book.cross(meeting).iter().map(|cross| cross.quantity).sum();
                prop_assert_eq!(traded, meeting.volume());
            }
            prop_assert_eq!(book.meeting(100), None);
            if let (Some((bid, _)), Some((ask, _))) = (book.best(Side::Buy), book.best(Side::Sell)) {
                prop_assert!(bid < ask);
            }
        }
    }
}
